"""What a training step of the default run costs, against all that it could depend on, and how long the first one takes.

    python benchmarks/bench_cost.py [--rounds 3] [--out cost]

Milliseconds an image, medians over rounds, the settings of a row in turn: by batch, size, number of images, T, and
processes (of one thread each; one process is given one thread there, too). Peak memory of a process by batch. Seconds
from the shell of `import ddpm_course`, `ddpm --help` and a first step, each in a new process, the best of the rounds.
Writes OUT.json, with machine and versions, and OUT.png.
"""

import signal
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
from common import arguments, draw, in_turn, keep, medians, pace, settings, together

from ddpm_course.data.sets import ImageSet, load_digits

BATCHES = (8, 16, 32, 64, 128, 256)
ROWS = {
    "batch": [f"--batch {n}" for n in BATCHES],
    "size": ["--size 8", "--size 16", "--size 32", "--size 64"],
    "images": ["1000", "10000", "100000", "1000000"],
    "T": ["--T 100", "--T 1000", "--T 4000"],
    "processes": ["1", "2"],
    "memory": [f"--batch {n}" for n in BATCHES],
}


def images_of(size: int, n: int) -> ImageSet:
    "So many images, as the bundled digits are but for their pixels."
    digits = load_digits("train", 16)
    draws = np.random.default_rng(0)
    pixels = np.tile(draws.integers(0, 256, (1000, size, size), np.uint8), (-(-n // 1000), 1, 1))[:n]
    return ImageSet.of(pixels, draws.integers(0, 10, n), digits.classes)


def cost(row: str, value: str) -> float:
    "Milliseconds an image; of the row `memory`, MB."
    size = int(value.split()[1]) if row == "size" else 16
    config, images = settings(value * value.startswith("--"), images_of(size, int(value) if row == "images" else 1000))
    steps = max(3, 640 // config.training.batch * (16 * 16) // max(256, size * size))
    world, threads = (int(value), 1) if row == "processes" else (1, torch.get_num_threads())
    taken, held = together(pace, world, config, images, 3 if row == "memory" else steps, threads)
    return held if row == "memory" else 1000 * taken / config.training.batch


STARTS = {
    "import torch": ["-c", "import torch"],
    "import ddpm_course": ["-c", "import ddpm_course"],
    "from ddpm_course import sample": ["-c", "from ddpm_course import sample"],
    "ddpm --help": ["-m", "ddpm_course", "--help"],
    "ddpm train, first step": ["-m", "ddpm_course", "train", "--log-every", "1"],
    "ddpm sample, done": ["-m", "ddpm_course", "sample"],
}


def lasts(words: list[str]) -> float:
    "Until Python has ended; a training run, until a step is in its log."
    with tempfile.TemporaryDirectory() as desk:
        log, began = Path(desk) / "runs/mnist16/metrics.jsonl", time.perf_counter()
        process = subprocess.Popen([sys.executable, *words], cwd=desk, stdout=subprocess.DEVNULL)
        while process.poll() is None and not (log.exists() and log.stat().st_size):
            time.sleep(0.005)
        taken = time.perf_counter() - began
        process.kill()
        assert process.wait() == (-signal.SIGKILL if "train" in words else 0), words
        return taken


def plot(found: dict, path: Path) -> None:
    import matplotlib.pyplot as plt

    fig = plt.figure(figsize=(11, 5), layout="constrained")
    upper, lower = fig.subfigures(2)  # so that the long names below do not push the curves above apart
    axes = [*upper.subplots(1, 4), *lower.subplots(1, 3, width_ratios=[1, 1, 2])]
    for row, ax in zip(found, axes, strict=True):
        names, taken = [name.split()[-1] for name in found[row]], list(found[row].values())
        if row == "start":
            ax.bar_label(ax.barh(list(found[row]), taken, color="tab:blue"), padding=3)
            ax.invert_yaxis()
            ax.set(xlabel="seconds from the shell")
        else:
            ax.plot(names, taken, "o-")
            what = ("batch", "MB at the peak") if row == "memory" else (row, "ms an image")
            ax.set(ylim=(0, 1.1 * max(taken)), xlabel=what[0], ylabel=what[1])
    draw(fig, path)


def main() -> None:
    args = arguments(__doc__, rounds=3, out="cost")
    found: dict[str, dict[str, float]] = {}
    for row, values in ROWS.items():
        once = 1 if row == "memory" else args.rounds
        found[row] = medians({value: partial(cost, row, value) for value in values}, once)
        print(row, found[row], flush=True)
    taken = in_turn({name: partial(lasts, words) for name, words in STARTS.items()}, args.rounds)
    found["start"] = {name: round(min(all), 2) for name, all in taken.items()}
    print("start", found["start"], flush=True)
    keep(found, Path(f"{args.out}.json"), "torch")
    plot(found, Path(f"{args.out}.png"))


if __name__ == "__main__":
    main()
