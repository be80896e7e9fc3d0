"""Make the pictures that README.md and lessons show, nbs/images/*: the film, the U-Net, and the walks of page 00.

OMP_NUM_THREADS=1 python tools/images.py    # some minutes, as page 00 is run four times
"""

import shutil
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from notebooks import cells
from PIL import Image, ImageOps

from ddpm_course import SamplingConfig, grid_image, load_model, sequence
from ddpm_course.cli.main import main as ddpm

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


def main() -> None:
    ours = first_contact()
    grid_image(ours["walks"], columns=16, scale=3).save(IMAGES / "first_contact.png", optimize=True)
    changed(
        {"ours": ours} | {name: first_contact(*lines) for name, lines in CHANGES.items()}, IMAGES / "three_changes.png"
    )
    film(IMAGES / "denoising.gif")
    with tempfile.TemporaryDirectory() as folder:
        ddpm(["topology", "--out", folder])
        shutil.copy(f"{folder}/diagram.png", IMAGES / "unet.png")


if __name__ == "__main__":
    main()
