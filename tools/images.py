"""Make the pictures that README.md and lessons 08 and 23 show, nbs/images/denoising.gif and unet.png.

python tools/images.py
"""

import shutil
import tempfile
from pathlib import Path

from PIL import ImageOps

from ddpm_course import SamplingConfig, grid_image, load_model, sequence
from ddpm_course.cli.main import main as ddpm

IMAGES = Path(__file__).resolve().parent.parent / "nbs/images"


def film(path: Path) -> None:
    "One digit of each class in a row, out of noise, as a GIF; noise in 16 greys takes less room."
    states = sequence(load_model(precision="fp32"), how=SamplingConfig(steps=20, seed=4)).xs
    *noisy, last = (grid_image(state, columns=len(state), scale=4) for state in states)
    frames = [*(ImageOps.posterize(picture, 4) for picture in noisy), last]
    times = [800, *[160] * (len(frames) - 2), 2500]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=times, loop=0)


def main() -> None:
    film(IMAGES / "denoising.gif")
    with tempfile.TemporaryDirectory() as folder:
        ddpm(["topology", "--out", folder])
        shutil.copy(f"{folder}/diagram.png", IMAGES / "unet.png")


if __name__ == "__main__":
    main()
