"What the parts of a U-Net put out for one image, and a picture of it as a U (page 08)."

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..unet import UNet

if TYPE_CHECKING:                       # matplotlib itself is imported where a figure is drawn
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def watch(network: UNet, xt: Tensor, t: Tensor,
          y: Tensor | None = None) -> tuple[dict[str, Tensor], Tensor]:
    "What each part puts out for the first image, (C, H, W), by the part's name; and the answer."
    seen: dict[str, Tensor] = {}
    hooks = []
    for name, part in network.named_modules():
        if name == 'conv_in' or name.rpartition('.')[0] in ('down', 'middle', 'up'):
            hooks.append(part.register_forward_hook(
                lambda part, args, out, name=name: seen.update({name: out[0]})))
    with torch.no_grad():
        answer = network(xt, t, y)
    for hook in hooks:
        hook.remove()
    return seen, answer


def different(maps: Tensor, n: int = 3) -> Tensor:
    """Of maps (C, H, W), n: the one that varies most over the pixels, then each time the one of
    which a linear fit on those before it leaves most."""
    rest, chosen = maps.flatten(1) - maps.mean((1, 2))[:, None], []
    for _ in range(n):
        chosen.append(int(rest.square().sum(1).argmax()))
        unit = rest[chosen[-1]] / rest[chosen[-1]].norm()
        rest = rest - (rest @ unit)[:, None] * unit
    return maps[chosen]


WIDE, GAP = 9.0, 0.17                   # of the figure, between rows: in inches


class UPicture:
    "A U of feature maps on one pair of axes, in inches; `top` is where the next row begins."

    def __init__(self, ax: 'Axes', seen: dict[str, Tensor]):
        self.ax, self.seen, self.top = ax, seen, 0.0
        sizes = list(dict.fromkeys(maps.shape[-1] for maps in seen.values()))
        self.side = {size: 0.86 * 0.73**k for k, size in enumerate(sizes)}      # of a map
        self.inset = {size: 1.2 + 0.35 * k for k, size in enumerate(sizes)}

    def row(self, maps: Tensor, x: float, words: str, way: int) -> tuple[float, float]:
        "Maps (n, H, W) from x on (way = 1) or up to x (-1), words outside; inner end and middle."
        s = self.side[maps.shape[-1]]
        for k, image in enumerate(maps if way > 0 else maps.flip(0)):
            left = x + way * k * (s + 0.05) - s * (way < 0)
            self.ax.imshow(image.numpy(), extent=(left, left + s, self.top - s, self.top), zorder=2,
                           vmin=float(image.min()), vmax=float(image.max()))
        middle = self.top - s / 2
        self.ax.text(x - way * 0.1, middle, words, va='center', ha='right' if way > 0 else 'left')
        return x + way * (len(maps) * (s + 0.05) + 0.03), middle

    def part(self, name: str, way: int, x: float | None = None) -> tuple[float, float]:
        "A part's row, with its shape, and with an arrowhead above it."
        channels, size, _ = self.seen[name].shape
        if x is None:
            x = self.inset[size] if way > 0 else WIDE - self.inset[size]
            self.head(x + way * (1.5 * self.side[size] + 0.05), way)
        words = f'{name}{self.change(name)}\n{channels}×{size}×{size}'
        return self.row(different(self.seen[name]), x, words, way)

    def change(self, name: str) -> str:
        "Whether a part halves or doubles the resolution, in words."
        names = list(self.seen)
        before = self.seen[names[max(0, names.index(name) - 1)]].shape[-1]
        size = self.seen[name].shape[-1]
        return ', halves' if size < before else ', doubles' if size > before else ''

    def head(self, x: float, way: int) -> None:
        "An arrowhead in the gap above the row."
        self.ax.plot(x, self.top + GAP / 2, 'v' if way > 0 else '^', color='0.35')

    def arrow(self, start: float, end: float, y: float, colour: str = '0.35',
              words: str = '') -> None:
        "From one x to another."
        self.ax.annotate('', (end, y), (start, y), arrowprops={
            'arrowstyle': '-|>', 'color': colour, 'shrinkA': 0, 'shrinkB': 0})
        self.ax.text((start + end) / 2, y + 0.03, words, color=colour, ha='center', va='bottom')

    def next(self, size: int) -> None:
        "To the next row."
        self.top -= self.side[size] + GAP


def draw_u(xt: Tensor, seen: dict[str, Tensor], answer: Tensor, x0: Tensor) -> 'Figure':
    "Input, three maps of each part, answer and image of a U-Net with two middle stages, as a U."
    import matplotlib.pyplot as plt
    with plt.rc_context({'font.size': 9}):
        fig, ax = plt.subplots(figsize=(WIDE, 8.1))
        u, size = UPicture(ax, seen), xt.shape[-1]
        u.row(xt[0], u.inset[size], f'input $x_t$\n1×{size}×{size}', 1)
        words = f'answer $\\hat v$\n1×{size}×{size}'
        start, y = u.row(answer[0], WIDE - u.inset[size], words, -1)
        end, _ = u.row(x0[0], start - 1.6, r'$\hat x_0$', 1)
        u.arrow(start, end, y)
        u.next(size)
        skips = ['conv_in', *(name for name in seen if name.startswith('down'))]
        ends: dict[int, float] = {}
        for name in reversed([name for name in seen if name.startswith('up')]):
            size = seen[name].shape[-1]
            inner, y = u.part(name, -1)
            if not u.change(name):                      # a stage, which takes a skip
                outer, _ = u.part(skips[0], 1)
                u.arrow(outer, inner, y, '#c44e00', str(len(seen[skips.pop(0)])))
            u.next(size)
            ends[size] = u.top
        middle = 0.25 + 3 * (u.side[size] + 0.05)
        start, _ = u.part('middle.0', 1, WIDE / 2 - middle)
        end, y = u.part('middle.1', -1, WIDE / 2 + middle)
        u.arrow(start, end, y)
        for way in (1, -1):
            u.head(WIDE / 2 - way * middle * 0.9, way)
        u.next(size)
        ends[size] = u.top
        high = GAP
        for k, low in enumerate(ends.values()):
            ax.axhspan(low + GAP / 2, high, color=('#eef3f7', '#f8f8f8')[k % 2], zorder=0)
            high = low + GAP / 2
        ax.set(xlim=(0, WIDE), ylim=(u.top + GAP / 2, GAP), aspect='equal')
        ax.axis('off')
        fig.subplots_adjust(0, 0, 1, 1)
    plt.close(fig)                      # shown once, as the value of the cell
    return fig
