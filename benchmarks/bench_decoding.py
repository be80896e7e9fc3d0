"""How much a second thread helps to decode images, by the size of their files: what 01a says of it.

python benchmarks/bench_decoding.py --out benchmarks/results/decoding

One and two threads take turns on the same files: the speed of two over that of one. Rounds in which other processes
took more than a tenth of two cores are counted by themselves. It goes on until there are five quiet rounds, or sixty.
"""

import os
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest import mock

import numpy as np
from common import arguments, keep
from PIL import Image

from ddpm_course.data import decoding

SIDES = {32: 1500, 64: 1000, 128: 400, 256: 120, 512: 40}  # of the images, and how many a round takes


def paint(folder: Path, side: int, n: int) -> list[str]:
    "Colour images with some structure and some grain, as PNG."
    random = np.random.default_rng(side)
    for k in range(n):
        coarse = Image.fromarray(random.integers(0, 256, (4, 4, 3), np.uint8)).resize((side, side))
        grain = random.integers(-12, 13, (side, side, 3))
        Image.fromarray((np.asarray(coarse) + grain).clip(0, 255).astype(np.uint8)).save(folder / f"{side}_{k}.png")
    return [str(folder / f"{side}_{k}.png") for k in range(n)]


def busy() -> float:
    "Seconds that all processes, this one apart, have spent on the cores."
    ticks = list(map(int, Path("/proc/stat").read_text().split("\n")[0].split()[1:]))
    return (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK") - sum(os.times()[:2])


def took(files: list[str], threads: int) -> tuple[float, float]:
    "Seconds to decode them with so many threads, and the share of two cores that other processes took meanwhile."
    out = np.empty((len(files), 3, 16, 16), np.uint8)
    with mock.patch.object(decoding, "ThreadPoolExecutor", lambda _: ThreadPoolExecutor(threads)):
        start, others = time.perf_counter(), busy()
        decoding.decode(files, out)
        seconds = time.perf_counter() - start
    return seconds, (busy() - others) / seconds / 2


def main() -> None:
    args = arguments(__doc__ or "", rounds=5, most=60, out="decoding")
    found = []
    for side, n in SIDES.items():
        quiet: list[float] = []
        beside: list[float] = []
        with tempfile.TemporaryDirectory() as folder:
            files = paint(Path(folder), side, n)
            while len(quiet) < args.rounds and len(quiet) + len(beside) < args.most:
                (one, before), (two, after) = took(files, 1), took(files, 2)
                (quiet if max(before, after) < 0.1 else beside).append(one / two)
            row = {"side": side, "bytes": sum(map(os.path.getsize, files)) // n}
        for name, speed in {"quiet": quiet, "beside other work": beside}.items():
            if speed:
                low, middle, high = min(speed), statistics.median(speed), max(speed)
                row[name] = {"rounds": len(speed)} | dict(zip(("least", "median", "most"), (low, middle, high)))
        found.append(row)
        print(row, flush=True)
    keep(found, Path(f"{args.out}.json"), "pillow")


if __name__ == "__main__":
    main()
