"""Make the pictures that README.md and lessons show, nbs/images/*: the film, a U-Net, and the walks of page 00.

OMP_NUM_THREADS=1 python tools/images.py    # some minutes, as page 00 is run four times
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from notebooks import cells
from PIL import Image, ImageOps

from ddpm_course import SamplingConfig, grid_image, load_model, sequence
from ddpm_course.data.sets import ASSETS, load_digits

NOTEBOOKS = Path(__file__).resolve().parent.parent / "nbs"
IMAGES = NOTEBOOKS / "images"
CHANGES = {  # exercise 3 of page 00: who changed what into what
    "A": ("amount = torch.rand(64, 1, 1, 1)", "amount = torch.zeros(64, 1, 1, 1)"),
    "B": ("amount = torch.rand(64, 1, 1, 1)", "amount = torch.rand(64, 1, 1, 1) / 2"),
    "C": ("z = z + (net(z) - z) / (steps - i)", "z = net(z)"),
}


def film(path: Path) -> None:
    "One digit of each class in a row, out of noise, as a GIF; noise in 16 greys takes less room."
    states = sequence(load_model(precision="fp32"), how=SamplingConfig(steps=20, seed=4)).xs
    *noisy, last = (grid_image(state, columns=len(state), scale=4) for state in states)
    frames = [*(ImageOps.posterize(picture, 4) for picture in noisy), last]
    times = [800, *[160] * (len(frames) - 2), 2500]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=times, loop=0)


def cover(path: Path) -> None:
    "What a link to the site shows: three digits and three faces, from noise to picture."
    rows = []
    for model, classes in ((load_model(), (3, 5, 8)), (load_model(ASSETS / "faces16"), (0, 2, 3))):
        xs = sequence(model, classes, 1, SamplingConfig("ddim", 12, seed=4)).xs[1:]
        rows += list(xs.expand(-1, -1, 3, -1, -1).transpose(0, 1))
    strip = grid_image(torch.cat(rows), columns=12, scale=6)
    image = Image.new("RGB", (1200, 630), "white")
    image.paste(strip, ((1200 - strip.width) // 2, (630 - strip.height) // 2))
    image.quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)


def first_contact(old: str = "", new: str = "") -> dict:
    "What page 00 has made when its walks are drawn, with a piece of its code changed."
    sources = cells(NOTEBOOKS / "00_start.ipynb", "code")
    last = next(k for k, source in enumerate(sources) if "walks =" in source)
    page = "\n".join(sources[: last + 1])
    assert not old or page.count(old) == 1
    made: dict = {}
    exec(page.replace(old, new) if old else page, made)
    plt.close("all")
    return made


def changed(made: dict[str, dict], path: Path) -> None:
    "A row of walks in 20 steps from each of several runs of page 00, with its name and its last losses."
    fig, axes = plt.subplots(len(made), figsize=(7.2, 3.4))
    fig.subplots_adjust(0.15, 0.01, 0.995, 0.99, hspace=0.08)
    for ax, (name, page) in zip(axes, made.items()):
        walks = page["walk"](page["net"], page["noise"][:10], 20)
        ax.imshow(grid_image(walks, columns=10, scale=4), cmap="gray")
        ax.axis("off")
        words = f"{name}\nloss {np.mean(page['losses'][-100:]):.3f}"
        ax.text(-0.02, 0.5, words, transform=ax.transAxes, ha="right", va="center", fontsize=11)
    fig.savefig(path, dpi=150)
    Image.open(path).convert("L").save(path, optimize=True)


BLOCKS = {  # page 10's network: where a block's output stands, its side, its channels
    "down1": (1.75, 16, 32),
    "down2": (3.05, 8, 64),
    "down3": (4.0, 4, 128),
    "middle": (5.05, 4, 128),
    "up3": (6.05, 4, 64),
    "up2": (7.0, 8, 32),
    "up1": (8.15, 16, 32),
}
FLOORS = {16: 2.1, 8: 1.0, 4: 0.3}  # how high the outputs of a size stand
INK, GREY = "#333333", "#8a8a8a"


def sheets(ax: plt.Axes, name: str, color: str) -> tuple[float, float, float, float]:
    "A block's output as a stack of sheets, one for 16 channels; returns its left, right, bottom and top."
    x, side, channels = BLOCKS[name]
    size, count = 0.08 * side, channels // 16
    left, low = x - (size + 0.05 * (count - 1)) / 2, FLOORS[side]
    for k in reversed(range(count)):
        place = (left + 0.05 * k, low + 0.03 * k)
        ax.add_patch(plt.Rectangle(place, size, size, facecolor=color, edgecolor="white", linewidth=0.7))
    for k in range(1, side):
        ax.plot([left + k * size / side] * 2, [low, low + size], color="white", linewidth=0.35, linestyle="-")
        ax.plot([left, left + size], [low + k * size / side] * 2, color="white", linewidth=0.35, linestyle="-")
    right = left + size + 0.05 * (count - 1)
    words = f"{name}\n{side}×{side}×{channels}"
    ax.text((left + right) / 2, low - 0.06, words, ha="center", va="top", fontsize=8.5, color=INK, linespacing=1.25)
    return left, right, low, low + size + 0.03 * (count - 1)


def first_network(path: Path) -> None:
    "Page 10's U-Net: what goes in, the outputs of its blocks as stacks of sheets, the skips, and what comes out."
    three = torch.tensor(load_digits("train", 16).pixels[1357:1358]) / 127.5 - 1
    model, t = load_model(precision="fp32"), torch.tensor([220])
    abar = model.schedule.alpha_bars[t].float().view(1, 1, 1, 1)
    noisy = abar.sqrt() * three + (1 - abar).sqrt() * torch.randn(
        three.shape, generator=torch.Generator().manual_seed(3)
    )
    with torch.no_grad():
        answer = model.network(noisy, t, torch.tensor([3]))
    fig, ax = plt.subplots(figsize=(9.6, 4.1))
    fig.subplots_adjust(0, 0, 1, 1)
    ax.set(xlim=(-0.05, 9.95), ylim=(-0.25, 4.02), aspect="equal")
    ax.axis("off")
    side = {"d": "#5b9bc8", "m": "#9a9a9a", "u": "#e2935a"}
    edges = {name: sheets(ax, name, side[name[0]]) for name in BLOCKS}

    def arrow(start: tuple, end: tuple, **how: object) -> None:
        style = {"arrowstyle": "-|>", "color": INK, "linewidth": 1.1, "shrinkA": 0, "shrinkB": 0} | how
        ax.annotate("", end, start, arrowprops=style)

    for image, left, words in ((noisy, 0.05, "$x_t$"), (answer, 8.95, "the answer: $v$")):
        ax.imshow(image[0, 0], vmin=-1.6, vmax=1.6, cmap="gray", extent=(left, left + 0.9, 2.3, 3.2), zorder=2)
        ax.text(left + 0.45, 2.2, f"{words}\n16×16", ha="center", va="top", fontsize=8.5, color=INK)
    ax.set(xlim=(-0.05, 9.95), ylim=(-0.25, 4.02))
    middles = {name: (low + top) / 2 for name, (_, _, low, top) in edges.items()}
    arrow((0.97, 2.75), (edges["down1"][0] - 0.04, 2.75))
    arrow((edges["up1"][1] + 0.04, 2.75), (8.92, 2.75))
    for a, b in (("down3", "middle"), ("middle", "up3")):
        arrow((edges[a][1] + 0.05, middles[a]), (edges[b][0] - 0.05, middles[b]))
    for a, b, words in (("down1", "down2", "halve"), ("down2", "down3", "halve"), ("up3", "up2", "double"),
                        ("up2", "up1", "double")):  # fmt: skip
        down = words == "halve"
        start = (edges[a][1] + 0.04, edges[a][2] + 0.25) if down else (edges[a][1] + 0.04, middles[a] + 0.1)
        end = (edges[b][0] - 0.03, edges[b][3] - 0.2) if down else (edges[b][0] - 0.03, edges[b][2] + 0.2)
        arrow(start, end)
        ax.text((start[0] + end[0]) / 2 + (0.08 if down else -0.08), (start[1] + end[1]) / 2 + 0.09, words,
                ha="left" if down else "right", fontsize=8, color=GREY)  # fmt: skip
    for name, a, b in (("h1", "down1", "up1"), ("h2", "down2", "up2"), ("h3", "down3", "up3")):
        height = edges[a][3] - (0.12 if name != "h3" else -0.12)
        if name == "h3":
            ends = ((edges[a][1] - 0.1, height), (edges[b][0] + 0.1, height))
            arrow(*ends, linestyle="--", color="#b0561f", connectionstyle="arc3,rad=-0.16")
            height += 0.16
        else:
            arrow((edges[a][1] + 0.05, height), (edges[b][0] - 0.05, height), linestyle="--", color="#b0561f")
        ax.text(5, height + 0.05, f"skip {name}", ha="center", va="bottom", fontsize=8.5, color="#b0561f")
    for left, right, _, top in edges.values():
        ax.plot((left + right) / 2, top + 0.1, "v", color="#1f8a5b", markersize=5.5)
    box = {"boxstyle": "round,pad=0.4", "facecolor": "#e4f3ea", "edgecolor": "#1f8a5b"}
    words = "time $t$ and label $y$: one vector, which enters every block at ▼"
    ax.text(5, 3.78, words, ha="center", va="center", fontsize=9.5, color="#14633f", bbox=box)
    fig.savefig(path, dpi=150)
    plt.close(fig)
    Image.open(path).convert("RGB").quantize(128, dither=Image.Dither.NONE).save(path, optimize=True)


def main() -> None:
    ours = first_contact()
    grid_image(ours["walks"], columns=16, scale=3).save(IMAGES / "first_contact.png", optimize=True)
    changed(
        {"ours": ours} | {name: first_contact(*lines) for name, lines in CHANGES.items()}, IMAGES / "three_changes.png"
    )
    film(IMAGES / "denoising.gif")
    cover(IMAGES / "cover.png")
    first_network(IMAGES / "first_unet.png")


if __name__ == "__main__":
    main()
