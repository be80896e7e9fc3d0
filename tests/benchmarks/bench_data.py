"""Loading 60,000 small colour images: first start, second start, and the cost of a batch against a training step.

    python tests/benchmarks/bench_data.py [--images 60000]
    python tests/benchmarks/bench_data.py --executors [--rounds 5]    # one thread, two threads, two processes, in turn
    python tests/benchmarks/bench_data.py --loader [--images 60000] [--out data]    # beside ImageFolder and DataLoader

Bounds: second start < 1 s, batches < 2 % of a training step of mnist16.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from bench_default import keep
from PIL import Image

BATCH = 64
LOAD = """
import os, resource, sys, time
from ddpm_course.data.sources import load_data
import ddpm_course.run.training             # what a training run imports anyway
busy = lambda: sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
wall, cpu = time.perf_counter(), busy()
train, test = load_data(sys.argv[1], 32)
print(time.perf_counter() - wall, busy() - cpu, len(train), len(test), train.digest, os.getloadavg()[0])
"""


def picture(draws: np.random.Generator, side: int) -> Image.Image:
    "A smooth random image with a little grain, about as hard to decode as a photo of that size."
    coarse = Image.fromarray(draws.integers(0, 256, (5, 5, 3), np.uint8))
    smooth = np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC))
    return Image.fromarray((smooth + draws.integers(-8, 9, (side, side, 3))).clip(0, 255).astype(np.uint8))


def paint(task: tuple[str, int]) -> None:
    "Write one class."
    folder, n = task
    draws = np.random.default_rng(list(folder.encode()[-8:]))
    Path(folder).mkdir(parents=True)
    for k in range(n):
        picture(draws, 32).save(f"{folder}/{k:05}.png")


def work(pixels: str, files: list[str], first: int) -> None:
    "What a process of its own does with a part."
    from ddpm_course.data.decoding import decode_rows

    decode_rows(files, np.load(pixels, mmap_mode="r+"), first, None)


def by_threads(files: list[str], pixels: Path, threads: int) -> None:
    "As `decode` does, with so many threads."
    from ddpm_course.data.decoding import decode

    decode(files, np.load(pixels, mmap_mode="r+"), threads=threads)


def by_processes(files: list[str], pixels: Path, processes: int) -> None:
    "The same by fresh processes, in parts four times as many as they are."
    size = -(-len(files) // (4 * processes))
    starts = range(0, len(files), size)
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        parts = [files[first : first + size] for first in starts]
        list(pool.map(work, [str(pixels)] * len(parts), parts, starts))


def executors(rounds: int) -> None:
    "Seconds of each way, in turn, so that a disturbed machine disturbs all; median and best."
    ways = {
        "one thread": lambda *task: by_threads(*task, 1),
        "two threads": lambda *task: by_threads(*task, 2),
        "two processes": lambda *task: by_processes(*task, 2),
    }
    with tempfile.TemporaryDirectory() as desk:
        draws, pixels = np.random.default_rng(0), Path(desk) / "pixels.npy"
        for side, n, kind in ((32, 6000, "png"), (64, 3000, "png"), (256, 1000, "png"), (1500, 60, "jpg")):
            folder = Path(desk) / str(side)
            folder.mkdir()
            for k in range(n):
                picture(draws, side).save(folder / f"{k:05}.{kind}")
            files = sorted(map(str, folder.iterdir()))
            np.save(pixels, np.zeros((n, 3, 32, 32), np.uint8))
            times: dict[str, list[float]] = {name: [] for name in ways}
            for _ in range(rounds):
                for name, run in ways.items():
                    began = time.perf_counter()
                    run(files, pixels)
                    times[name].append(time.perf_counter() - began)
            said = ", ".join(f"{name} {np.median(t):.2f} s (best {min(t):.2f})" for name, t in times.items())
            size = os.path.getsize(files[0])
            print(
                f"{n} {kind} of {side}x{side}, {size} bytes: {said}; load average {os.getloadavg()[0]:.1f}", flush=True
            )


def idle() -> float:
    "Seconds that the machine's cores have idled since it was switched on; 0 where that cannot be told."
    stat = Path("/proc/stat")
    return int(stat.read_text().split()[4]) / os.sysconf("SC_CLK_TCK") if stat.exists() else 0.0


def start(folder: Path, cache: Path) -> list[str]:
    "Load in a fresh process; what LOAD prints."
    done = subprocess.run(
        [sys.executable, "-c", LOAD, folder],
        env=os.environ | {"DDPM_CACHE": str(cache)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return done.stdout.split()


def step_seconds() -> float:
    "One training step of mnist16, the median of twelve."
    from ddpm_course.config import PRESETS, override
    from ddpm_course.data.sets import load_digits
    from ddpm_course.run.training import fit, new_state

    config = override(PRESETS["mnist16"], image_channels=1, classes=tuple("0123456789"), steps=14, precision="bf16")
    times, last = [], time.perf_counter()
    for _ in fit(new_state(config, "cpu"), load_digits("train", 16), config):
        times.append(time.perf_counter() - last)
        last = time.perf_counter()
    return float(np.median(times[2:]))


def batch_seconds(folder: Path, size: int, batch: int, cache: Path) -> float:
    "Choosing, reading and converting one batch from the memory map, the median of 200."
    os.environ["DDPM_CACHE"] = str(cache)
    from ddpm_course.data.sets import batch_indices, to_float
    from ddpm_course.data.sources import load_images

    images, times = load_images(folder, "train", size), []
    for k in range(200):
        began = time.perf_counter()
        to_float(images.pixels[batch_indices(len(images), batch, k, 0)])
        times.append(time.perf_counter() - began)
    return float(np.median(times))


def epochs_ours(folder: Path, cache: Path, count: int) -> Iterator[float]:
    "Seconds of each of the first epochs, from files to batches on the device; loading belongs to the first."
    os.environ["DDPM_CACHE"] = str(cache)
    from ddpm_course.data.sets import batch_indices, to_float
    from ddpm_course.data.sources import load_images

    began = time.perf_counter()
    images = load_images(folder, "train", 32)
    steps = len(images) // BATCH
    for epoch in range(count):
        for k in range(epoch * steps, (epoch + 1) * steps):
            to_float(images.pixels[batch_indices(len(images), BATCH, k, 0)])
        yield time.perf_counter() - began
        began = time.perf_counter()


def epochs_loader(folder: Path, workers: int, count: int) -> Iterator[float]:
    "The same by torchvision's ImageFolder and PyTorch's DataLoader, whose workers stay from epoch to epoch."
    from torch.utils.data import DataLoader
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import Compose, Normalize, ToTensor

    began = time.perf_counter()
    images = ImageFolder(str(folder / "train"), Compose([ToTensor(), Normalize([0.5] * 3, [0.5] * 3)]))
    loader = DataLoader(
        images, BATCH, shuffle=True, drop_last=True, num_workers=workers, persistent_workers=workers > 0
    )
    for _ in range(count):
        for _ in loader:
            pass
        yield time.perf_counter() - began
        began = time.perf_counter()


def beside_loader(images: int, out: str) -> None:
    "Images a second in the first, second and third epoch, each way; JSON and a plot."
    with tempfile.TemporaryDirectory() as desk:
        folder = Path(desk) / "images"
        paint_all(folder, images)
        ways = {"ddpm_course": epochs_ours(folder, Path(desk) / "cache", 3)}
        ways |= {f"ImageFolder, {n} workers": epochs_loader(folder, n, 3) for n in (0, 2)}
        found = {name: [round(images * 5 // 6 / taken) for taken in epochs] for name, epochs in ways.items()}
    print(json.dumps(found, indent=1))
    keep({"images": images * 5 // 6, "images a second, by epoch": found}, Path(f"{out}.json"), "torch", "torchvision")
    plot(found, Path(f"{out}.png"))


def plot(found: dict[str, list[int]], path: Path) -> None:
    import matplotlib.pyplot as plt

    fig, ax = plt.subplots(figsize=(6, 2.2))
    for row, speeds in enumerate(found.values()):
        for epoch, speed in enumerate(speeds[:2]):
            y = row + 0.38 * (epoch - 0.5)
            bar = ax.barh([y], [speed], 0.36, color=("0.7", "tab:blue")[epoch])
            ax.bar_label(bar, padding=3, fontsize=8)
    ax.set_yticks(range(len(found)), labels=list(found))
    ax.set(xscale="log", xlabel="PNGs a second; grey: first epoch, blue: second")
    ax.invert_yaxis()
    ax.spines[["top", "right"]].set_visible(False)
    fig.tight_layout()
    fig.savefig(path, dpi=100)


def paint_all(folder: Path, n: int) -> None:
    "Ten classes, five sixths of the images for training."
    tasks = [
        (f"{folder}/{part}/{c}", n * share // 60) for part, share in (("train", 5), ("test", 1)) for c in range(10)
    ]
    with get_context("spawn").Pool(len(os.sched_getaffinity(0))) as pool:
        pool.map(paint, tasks, chunksize=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=60_000)
    parser.add_argument("--executors", action="store_true")
    parser.add_argument("--loader", action="store_true")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", default="data")
    args = parser.parse_args()
    if args.executors:
        return executors(args.rounds)
    if args.loader:
        return beside_loader(args.images, args.out)
    n = args.images
    with tempfile.TemporaryDirectory() as desk:
        desk, cores = Path(desk), len(os.sched_getaffinity(0))
        paint_all(desk / "images", n)
        before = idle()
        seconds, cpu, train, test, digest, load = start(desk / "images", desk / "cache")
        seconds, cpu, idled = float(seconds), float(cpu), idle() - before
        print(f"{cores} cores, load average {float(load):.1f}; {train} + {test} colour PNGs of 32x32, digest {digest}")
        print(f"first start   {seconds:6.2f} s, {n / seconds:,.0f} images/s, CPU time / wall time {cpu / seconds:.2f}")
        print(f"cores idle meanwhile, start of Python included: {idled:.1f} s; images per CPU second {n / cpu:,.0f}")
        second, *_, repeated, load = start(desk / "images", desk / "cache")
        assert repeated == digest
        print(f"second start  {float(second):6.2f} s for both splits (bound 1 s), load average {float(load):.1f}")
        step = step_seconds()
        print(f"training step of mnist16, bf16, batch 64: {1000 * step:.0f} ms")
        for size, batch, name in (
            (16, 64, "mnist16's batch of 64 at 16x16"),
            (32, 128, "cifar10's batch of 128 at 32x32"),
        ):
            cost = batch_seconds(desk / "images", size, batch, desk / "cache")
            print(f"{name}, in colour: {1000 * cost:.2f} ms, {100 * cost / step:.2f} % of that step (bound 2 %)")


if __name__ == "__main__":
    main()
