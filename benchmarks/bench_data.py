"""Images a second from PNG files to batches, by epoch, beside torchvision's ImageFolder and PyTorch's DataLoader.

python benchmarks/bench_data.py [--images 60000] [--out data]     # JSON and a plot
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Iterator
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from bench_default import keep
from PIL import Image

BATCH = 64


def paint(task: tuple[str, int]) -> None:
    "Write one class: smooth random images with a little grain, about as hard to decode as a photo of that size."
    folder, n = task
    draws = np.random.default_rng(list(folder.encode()[-8:]))
    Path(folder).mkdir(parents=True)
    for k in range(n):
        coarse = Image.fromarray(draws.integers(0, 256, (5, 5, 3), np.uint8))
        smooth = np.asarray(coarse.resize((32, 32), Image.Resampling.BICUBIC))
        grain = draws.integers(-8, 9, (32, 32, 3))
        Image.fromarray((smooth + grain).clip(0, 255).astype(np.uint8)).save(f"{folder}/{k:05}.png")


def epochs_ours(folder: Path, cache: Path, count: int) -> Iterator[float]:
    "Seconds of each of the first epochs, from files to batches on the device; loading belongs to the first."
    os.environ["DDPM_CACHE"] = str(cache)
    from ddpm_course.data.sets import batch_indices, to_float
    from ddpm_course.data.sources import load_data

    began = time.perf_counter()
    images, _ = load_data(folder, 32)
    steps = len(images) // BATCH
    for epoch in range(count):
        for k in range(epoch * steps, (epoch + 1) * steps):
            to_float(images.pixels[batch_indices(len(images), BATCH, k, 0)])
        yield time.perf_counter() - began
        began = time.perf_counter()


def epochs_loader(folder: Path, workers: int, count: int) -> Iterator[float]:
    "The same by ImageFolder and DataLoader, whose workers stay from epoch to epoch."
    from torch.utils.data import DataLoader
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import Compose, Normalize, ToTensor

    began = time.perf_counter()
    images = ImageFolder(str(folder / "train"), Compose([ToTensor(), Normalize([0.5] * 3, [0.5] * 3)]))
    how = {"num_workers": workers, "persistent_workers": workers > 0}
    loader = DataLoader(images, BATCH, shuffle=True, drop_last=True, **how)
    for _ in range(count):
        for _ in loader:
            pass
        yield time.perf_counter() - began
        began = time.perf_counter()


def plot(found: dict[str, list[int]], path: Path) -> None:
    import matplotlib.pyplot as plt

    fig, ax = plt.subplots(figsize=(6, 2.2))
    for epoch, (name, marker, colour) in enumerate((("first epoch", "o", "0.5"), ("second", "s", "tab:blue"))):
        speeds = [speed[epoch] for speed in found.values()]
        ax.plot(speeds, range(len(found)), marker, color=colour, label=name)
        for row, speed in enumerate(speeds):
            ax.annotate(
                f"{speed:,}", (speed, row), (0, (6, -14)[epoch]), textcoords="offset points", ha="center", fontsize=8
            )
    ax.legend(fontsize=8, loc="center right")
    ax.set_yticks(range(len(found)), labels=list(found))
    ax.set(xscale="log", xlim=(2e3, 2e6), ylim=(-0.6, 2.7), xlabel="PNGs a second")
    ax.invert_yaxis()
    ax.spines[["top", "right"]].set_visible(False)
    fig.tight_layout()
    fig.savefig(path, dpi=100)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=60_000)
    parser.add_argument("--out", default="data")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as desk:
        folder, parts = Path(desk) / "images", (("train", 5), ("test", 1))
        tasks = [(f"{folder}/{part}/{c}", args.images * share // 60) for part, share in parts for c in range(10)]
        with get_context("spawn").Pool() as pool:
            pool.map(paint, tasks, chunksize=1)
        ways = {"ddpm_course": epochs_ours(folder, Path(desk) / "cache", 3)}
        ways |= {f"ImageFolder, {n} workers": epochs_loader(folder, n, 3) for n in (0, 2)}
        found = {name: [round(args.images * 5 // 6 / taken) for taken in epochs] for name, epochs in ways.items()}
    print(json.dumps(found, indent=1))
    kept = {"images": args.images * 5 // 6, "images a second, by epoch": found}
    keep(kept, Path(f"{args.out}.json"), "torch", "torchvision")
    plot(found, Path(f"{args.out}.png"))


if __name__ == "__main__":
    main()
