"""Loading 60,000 small colour images: first start, second start, and the cost of a batch against a training step.

    python tests/benchmarks/bench_data.py [--images 60000]

Bounds, for a machine with two free cores: both busy while decoding (CPU time / wall time > 1.6), second start < 1 s,
batches < 2 % of a training step of mnist16.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from PIL import Image

LOAD = """
import os, resource, sys, time
from ddpm_course.data import load_images
import ddpm_course.training             # what a training run imports anyway
busy = lambda: sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
wall, cpu = time.perf_counter(), busy()
train = load_images(sys.argv[1], "train", 32)
seconds, cpu = time.perf_counter() - wall, busy() - cpu
wall = time.perf_counter()
test = load_images(sys.argv[1], "test", 32)
print(seconds, cpu, time.perf_counter() - wall, len(train), len(test), train.digest, sum(os.getloadavg()[:1]))
"""


def paint(task: tuple[str, int]) -> None:
    "Write one class: smooth random images with a little grain, about as hard to decode as photos of that size."
    folder, n = task
    draws = np.random.default_rng(list(folder.encode()[-8:]))
    Path(folder).mkdir(parents=True)
    for k in range(n):
        smooth = Image.fromarray(draws.integers(0, 256, (5, 5, 3), np.uint8)).resize((32, 32), Image.Resampling.BICUBIC)
        grain = draws.integers(-8, 9, (32, 32, 3))
        Image.fromarray((np.asarray(smooth) + grain).clip(0, 255).astype(np.uint8)).save(f"{folder}/{k:05}.png")


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
    from ddpm_course.data import load_digits
    from ddpm_course.training import fit, new_state

    config = override(PRESETS["mnist16"], image_channels=1, classes=tuple("0123456789"), steps=14, precision="bf16")
    times, last = [], time.perf_counter()
    for _ in fit(new_state(config, "cpu"), load_digits("train", 16), config):
        times.append(time.perf_counter() - last)
        last = time.perf_counter()
    return float(np.median(times[2:]))


def batch_seconds(folder: Path, size: int, batch: int, cache: Path) -> float:
    "Choosing, reading and converting one batch from the memory map, the median of 200."
    os.environ["DDPM_CACHE"] = str(cache)
    from ddpm_course.data import batch_indices, load_images, to_float

    images, times = load_images(folder, "train", size), []
    for k in range(200):
        began = time.perf_counter()
        to_float(images.pixels[batch_indices(len(images), batch, k, 0)])
        times.append(time.perf_counter() - began)
    return float(np.median(times))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=60_000)
    n = parser.parse_args().images
    with tempfile.TemporaryDirectory() as desk:
        desk, cores = Path(desk), len(os.sched_getaffinity(0))
        tasks = [
            (f"{desk}/images/{part}/{c}", n * share // 60)
            for part, share in (("train", 5), ("test", 1))
            for c in range(10)
        ]
        with get_context("spawn").Pool(cores) as pool:
            pool.map(paint, tasks, chunksize=1)
        before = idle()
        seconds, cpu, again, train, test, digest, load = start(desk / "images", desk / "cache")
        seconds, cpu, idled = float(seconds), float(cpu), idle() - before
        print(f"{cores} cores, load average {float(load):.1f}; {train} + {test} colour PNGs of 32x32, digest {digest}")
        print(
            f"first start   {seconds:6.2f} s, {n / seconds:,.0f} images/s, "
            f"CPU time / wall time {cpu / seconds:.2f} (bound 1.6, alone on the machine)"
        )
        print(f"cores idle meanwhile, start of Python included: {idled:.1f} s; images per CPU second {n / cpu:,.0f}")
        print(f"the test split then {float(again):.2f} s")
        second, cpu, other, *_, repeated, load = start(desk / "images", desk / "cache")
        assert repeated == digest
        second = float(second) + float(other)
        print(f"second start  {second:6.2f} s for both splits (bound 1 s), load average {float(load):.1f}")
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
