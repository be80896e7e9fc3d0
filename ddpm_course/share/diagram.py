"The pictures of `ddpm topology`: the network as a U, and one step of sampling."
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from ..attention import AttentionBlock
from ..base.files import write_together
from ..unet import Downsample, Stage, Upsample
from .graphs import AGraph, Call, step_graph, wiring

if TYPE_CHECKING:                       # matplotlib itself is imported where a figure is drawn
    from matplotlib.axes import Axes


def caption(name: str, call: Call) -> str:
    "What a part does, in a few words: 'up.3: residual 96→32'."
    words = {Stage: 'residual', Downsample: 'halve', Upsample: 'double',
             nn.Conv2d: 'convolution', nn.Sequential: 'norm, convolution'}
    word = words.get(type(call.module), type(call.module).__name__)
    channels = dict.fromkeys(str(x.shape[1]) for x in (call.inputs[0], call.output))
    attends = any(isinstance(m, AttentionBlock) for m in call.module.modules())
    return f'{name}: {word} {"→".join(channels)}{", attention" * attends}'


Place = tuple[str, float]               # side ('down', 'middle', 'up') and row of a part


def rows(images: Mapping[str, Call]) -> tuple[dict[str, Place], dict[int, tuple[float, float]]]:
    """Where each part stands, by what it is and not by what it reads; and from which row to which
    row each resolution goes. What comes before the parts called `middle` leads down."""
    names, size = list(images), lambda name: images[name].output.shape[-1]
    middle = [n for n in names if n.startswith('middle')] or [min(names, key=size)]
    down, up = names[:names.index(middle[0])], names[names.index(middle[-1]) + 1:]
    doubles = [n for n in up if images[n].inputs[0].shape[-1] != size(n)]
    places: dict[str, Place] = {}
    bands, top = {}, 0.0
    for s in dict.fromkeys(map(size, [*down, *middle])):
        left = [n for n in down if size(n) == s]
        right = [n for n in reversed(up) if size(n) == s and n not in doubles]
        below = [n for n in doubles if size(n) == s], [n for n in middle if size(n) == s]
        end = top + max(len(left), len(right))
        for side, column in (('down', left), ('up', right)):
            places |= {n: (side, end - len(column) + k) for k, n in enumerate(column)}
        places |= {n: (side, end) for side, part in zip(('up', 'middle'), below) for n in part}
        bands[s] = top, end + any(below)
        top = bands[s][1]
    return {n: places[n] for n in names}, bands


SKIP, LINE, VECTORS = '#c44e00', '#555555', ('#1f8a5b', '#8250a0', '#0072b2')
FILLS = {'attention': '#9ecae1', 'halve': '#fdd9a0', 'double': '#fdd9a0'}
ROW = 0.28                                                  # height of a row, in inches


def disc(ax: 'Axes', x: float, y: float, name: str, colour: str) -> None:
    "A small disc with the first letter of a name."
    ax.plot(x, y, 'o', markersize=9, color=colour, zorder=2)
    ax.text(x, y - 0.005, name[0], color='white', ha='center', va='center', fontsize=8, zorder=3)


def arrow(ax: 'Axes', start: tuple[float, float], end: tuple[float, float], box: float,
          skip: bool) -> None:
    "From box to box: from side to side for a skip or in a row, else from one row to another."
    (a, b), (x, y) = start, end
    across = box / 2 if skip or b == y else 0
    along = 0 if across else 0.1 if y > b else -0.1
    ax.annotate('', (x - across, y - along), (a + across, b + along), arrowprops={
        'arrowstyle': '-|>', 'shrinkA': 0, 'shrinkB': 0, 'mutation_scale': 7,
        'color': SKIP if skip else LINE, 'linewidth': 1.6 if skip else 0.9})


def draw_u(network: nn.Module, *inputs: Tensor | None, ax: 'Axes | None' = None,
           words: bool = True) -> Any:
    """A network as a U, drawn from one call; its figure. Orange arrows are skips, with their
    channels. A disc stands for a vector (time, classes) that the part reads. Without `words` the
    drawing is small, and has the names of the parts only."""
    import matplotlib.pyplot as plt
    seen, reads = wiring(network, *inputs)
    images = {name: call for name, call in seen.items() if call.output.ndim == 4}
    vectors = dict(zip((name for name in seen if name not in images), VECTORS))
    places, bands = rows(images)
    wide, box, margin, inset = (7.2, 2.4, 0.75, 0.08) if words else (3.5, 0.66, 0.5, 0.16)
    low = max(end for _, end in bands.values())
    with plt.style.context('ddpm_course.assets.course'):
        if ax is None:
            figure = plt.figure(figsize=(wide, ROW * (low + 1)))
            plt.close(figure)                               # shown once, as the value of a cell
            ax = figure.add_axes((0, 0, 1, 1))
        ax.set(xlim=(0, wide), ylim=(-ROW * low, ROW * words))
        ax.axis('off')
        for k, (size, (top, end)) in enumerate(bands.items()):
            ax.axhspan(-ROW * top, -ROW * end, color=('#eef3f7', '#f8f8f8')[k % 2], zorder=0)
            ax.text(0.06, -ROW * (top + 0.5), f'{size}×{size}', va='center', fontsize=9)
        for k, (name, colour) in enumerate(vectors.items() if words else ()):
            ax.text(margin + 1.1 * k + 0.22, ROW / 2, name, va='center', fontsize=9)
            disc(ax, margin + 1.1 * k + 0.08, ROW / 2, name, colour)
        at, middle = {}, [n for n, (side, _) in places.items() if side == 'middle']
        for name, (side, row) in places.items():
            x = margin + box / 2 + inset * list(bands).index(images[name].output.shape[-1])
            x = {'down': x, 'up': wide - x}.get(side, wide / 2)
            if side == 'middle':                            # side by side
                x += (box + 0.2) * (middle.index(name) + 0.5 - len(middle) / 2)
            at[name] = x, -ROW * (row + 0.5)
            text = caption(name, images[name])
            fill = next((colour for word, colour in FILLS.items() if word in text), '#e4e4e4')
            ax.add_patch(plt.Rectangle((x - box / 2, at[name][1] - 0.1), box, 0.2, facecolor=fill,
                                       edgecolor='#777777', linewidth=0.6, zorder=2))
            ax.text(*at[name], text if words else name, ha='center', va='center', fontsize=9,
                    zorder=3)
            way = 1 if x > wide / 2 else -1
            for k, vector in enumerate(n for n in vectors if n in reads[name]):
                x += way * (0.17 if k else box / 2 + 0.11)
                disc(ax, x, at[name][1], vector, vectors[vector])
        for giver, taker in ((a, b) for b in at for a in reads[b] if a in at):
            skip = (places[giver][0], places[taker][0]) == ('down', 'up')
            arrow(ax, at[giver], at[taker], box, skip)
            if skip and words:
                x, y = ((a + b) / 2 for a, b in zip(at[giver], at[taker]))
                ax.text(x, y, f'{images[giver].output.shape[1]}', ha='center', va='bottom',
                        fontsize=9, color=SKIP)
    return ax.figure


def drawn(graph: AGraph, kind: str) -> bytes:
    "A graph as a file of this kind, placed by Graphviz."
    return graph.draw(format=kind, prog='dot', args='-q -Gdpi=144' if kind == 'png' else '-q')


def draw_all(network: nn.Module, given: Sequence[Tensor | None],
             step: Callable[..., Mapping[str, Tensor]], inputs: Mapping[str, Tensor],
             out: Path) -> list[Path]:
    """Into a folder, as SVG and PNG: the network, when it is called with `given`, as a U
    (`diagram`), and the step around it (`diffusion`, see `step_graph`); what was written. Raises
    ValueError without pygraphviz."""
    graph, files = step_graph(network, step, inputs), {}
    figure = draw_u(network, *given)
    for kind in ('svg', 'png'):
        file = BytesIO()
        figure.savefig(file, format=kind, dpi=200)
        for name, content in (('diagram', file.getvalue()), ('diffusion', drawn(graph, kind))):
            files[out / f'{name}.{kind}'] = content
    write_together(files)
    return sorted(files)
