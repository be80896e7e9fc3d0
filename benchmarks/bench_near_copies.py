"""How many near-copies of held-out pictures the doctor finds among training pictures, and how long it looks.

    python benchmarks/bench_near_copies.py [--images 50000] [--held 10000]

Pictures of smooth patches with fine noise, 28x28 grey and 32x32 in colour. Of the held-out ones a hundredth each is put
among those to train on, moved by a pixel, mirrored, lighter, and saved as a JPEG. results/near_copies.json: for each
kind the share that is found, the share of all other pictures that is called a copy, and the seconds of the whole check
(`nearly seen before`) on this machine. Beside these, digits and faces as they are: nothing there is a copy.
"""

from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
from common import arguments, keep, seconds
from PIL import Image

from ddpm_course.data.faces import load_faces
from ddpm_course.data.sets import ImageSet, load_digits
from ddpm_course.judge.checks import CHECKS
from ddpm_course.judge.likeness import near_copies
from ddpm_course.judge.patient import Patient


def saved_again(pixels: np.ndarray) -> np.ndarray:
    "As a JPEG of quality 75."

    def one(picture: np.ndarray) -> np.ndarray:
        file = BytesIO()
        Image.fromarray(picture.transpose(1, 2, 0).squeeze()).save(file, "JPEG")
        return np.asarray(Image.open(file)).reshape(*picture.shape[1:], -1).transpose(2, 0, 1)

    return np.stack([one(picture) for picture in pixels])


KINDS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "moved by a pixel": lambda x: np.roll(x, 1, 3),
    "mirrored": lambda x: x[..., ::-1],
    "lighter by one": lambda x: np.minimum(x, 254) + 1,
    "saved again": saved_again,
}


def patches(n: int, channels: int, size: int, dice: np.random.Generator) -> np.ndarray:
    "Smooth patches with fine noise; colours differ less than brightness, as in photographs."
    bright = dice.integers(30, 226, (n, 1, size // 4, size // 4))
    large = (bright + dice.normal(0, 20, (n, channels, size // 4, size // 4))).repeat(4, 2).repeat(4, 3)
    return (large + dice.normal(0, 10, large.shape)).clip(0, 255).astype(np.uint8)


def look(images: np.ndarray, held_out: np.ndarray) -> dict:
    found = []
    patient = Patient(ImageSet(images, None), ImageSet(held_out, None))
    took = seconds(lambda: found.append(CHECKS["nearly seen before"].look(patient)))
    return {"seconds": round(took, 1), "found": str(found[0]), "ill": found[0].ill}


def planted(n: int, held: int, channels: int, size: int) -> dict:
    every = patches(n + held, channels, size, np.random.default_rng(0))
    images, held_out, few = every[:n].copy(), every[n:], held // 100
    for k, change in enumerate(KINDS.values()):
        part = slice(k * few, (k + 1) * few)
        images[part] = change(held_out[part])
    told = near_copies(held_out, images)
    shares = {name: float(told[k * few : (k + 1) * few].mean()) for k, name in enumerate(KINDS)}
    return look(images, held_out) | {"shares": shares, "others": float(told[len(KINDS) * few :].mean())}


def main() -> None:
    args = arguments(__doc__, images=50_000, held=10_000)
    found = {f"{c} x {s} x {s}": planted(args.images, args.held, c, s) for c, s in ((1, 28), (3, 32))}
    for size in (8, 16, 28, 32):
        found[f"digits, {size}"] = look(*(load_digits(part, size).pixels for part in ("train", "test")))
    found["faces"] = look(*(load_faces(part).images.pixels for part in ("train", "test")))
    for name, row in found.items():
        print(name, row)
    keep(found, Path(__file__).parent / "results/near_copies.json", "torch", "numpy")


if __name__ == "__main__":
    main()
