"""A speedrun: how long does a file need, from nothing to a thousand good digits?

    python examples/speedrun/race.py mine.py [--out records.json]

A file has `train()`, which learns and returns what it has learned, and `sample(net, y)`, which draws a picture in
[-1, 1], 16 by 16, for each label (they come a hundred at a time): `mine.py` of page 10 has both. The rules:

1. It begins with nothing: the 4,500 training digits that ship, and no other images or weights. (Nobody watches.)
2. It has two CPU cores, and no GPU.
3. The clock runs from the file's first line until a thousand digits are drawn; PyTorch is imported before.
4. The judge of chapter 15 finds the digits at a Fréchet distance of at most 1.5 from the training digits, and reads at
   least 95 in 100 of them as the digit asked for.
5. That holds for each of three seeds, which draw different digits, and the slowest counts.
6. Copies do not count: on average the digits lie at least half as far from the nearest training digit as held-out ones.
"""

import argparse
import hashlib
import inspect
import json
import os
import runpy
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import Tensor

from ddpm_course import load_digits
from ddpm_course.data.sets import to_uint8
from ddpm_course.judge.evaluation import allot_classes, extract, load_judge, nearest_distances
from ddpm_course.judge.frechet import frechet_distance

BAR, ASKED = 1.5, 0.95  # the Fréchet distance, and the share read as asked, that must be reached


@dataclass(frozen=True)
class Lap:
    "What a file reached with one seed."

    seed: int
    seconds: float  # from its first line to the last digit ...
    training: float  # ... of which it trained
    distance: float  # Fréchet, of its digits to the training digits
    asked: float  # share of them that the judge reads as asked
    nearest: float  # mean distance to the nearest training digit; 1: as of held-out ones
    digest: str  # of its digits: a fingerprint


def attempt(path: str, seed: int, folder: str) -> None:
    "In this process, by rules 2, 3 and 5: train, draw, and leave times and digits, bytes (n, 1, 16, 16), in a folder."
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    torch.set_num_threads(2)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
    usual = torch.manual_seed
    torch.manual_seed = lambda k: usual(k + 1000 * seed)  # a seed in the file becomes one of three
    torch.manual_seed(0)
    y = torch.load(f"{folder}/y.pt")
    began = time.perf_counter()
    file = runpy.run_path(path)
    own = {"seed": seed} if "seed" in inspect.signature(file["train"]).parameters else {}
    net = file["train"](**own)
    trained = time.perf_counter()
    images = torch.cat([file["sample"](net, part).detach().cpu() for part in y.split(100)])
    times = [time.perf_counter() - began, trained - began]
    if images.shape != (len(y), 1, 16, 16) or not images.isfinite().all():
        raise ValueError(f"{path} draws {tuple(images.shape)}, or not finite numbers: expected {(len(y), 1, 16, 16)}")
    np.savez(f"{folder}/lap.npz", times=times, digits=to_uint8(images).numpy())


def alone(path: Path, seed: int, y: Tensor) -> tuple[float, float, np.ndarray]:
    "`attempt` in a process of its own, which shows its own errors. Raises ValueError where nothing came out."
    with TemporaryDirectory() as folder:
        torch.save(y, f"{folder}/y.pt")
        program = (
            "import runpy, sys; runpy.run_path(sys.argv[1])['attempt'](sys.argv[2], int(sys.argv[3]), sys.argv[4])"
        )
        done = subprocess.run([sys.executable, "-P", "-c", program, __file__, str(path), str(seed), folder])
        if not Path(folder, "lap.npz").exists():
            raise ValueError(f"{path} ended with code {done.returncode} before a lap was complete")
        with np.load(f"{folder}/lap.npz") as lap:
            return *lap["times"].tolist(), lap["digits"]


def laps(path: Path, seeds: Sequence[int] = (0, 1, 2), n: int = 1000) -> Iterator[Lap]:
    "Attempts of a file, each in a process of its own, judged. Raises ValueError where one fails."
    train, test, judge = load_digits("train", 16), load_digits("test", 16), load_judge()
    real, y = extract(judge, train.pixels)[0], allot_classes(train.labels, n)
    as_new = nearest_distances(test.pixels, train.pixels).mean().item()
    for seed in seeds:
        seconds, training, digits = alone(path, seed, y)
        features, logits = extract(judge, digits)
        yield Lap(
            seed,
            round(seconds, 1),
            round(training, 1),
            round(frechet_distance(features, real), 3),
            round((logits.argmax(1) == y).double().mean().item(), 3),
            round(nearest_distances(torch.from_numpy(digits), train.pixels).mean().item() / as_new, 2),
            hashlib.sha256(digits.tobytes()).hexdigest()[:16],
        )


def verdict(found: Sequence[Lap]) -> str:
    "Certified, with the seconds that count, or why not; of three laps, a thousand digits each."
    if len({lap.digest for lap in found}) < 3:
        return "not certified: three seeds with different digits are asked for"
    for lap in found:
        if lap.nearest < 0.5:
            return f"not certified: the digits of seed {lap.seed} are copies"
        if lap.distance > BAR:
            return f"not certified: seed {lap.seed} reached {lap.distance:.2f}, more than {BAR}"
        if lap.asked < ASKED:
            return f"not certified: of seed {lap.seed} {lap.asked:.3f} are as asked, not {ASKED}"
    return f"certified: {max(lap.seconds for lap in found):.1f} s"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, help="write the laps as JSON")
    args = parser.parse_args()
    rows = []
    for file in args.files:
        found = []
        for lap in laps(file):
            found.append(lap)
            print(file, lap, flush=True)
        print(f"{file}: {verdict(found)}")
        rows.append({"file": str(file), "laps": [asdict(lap) for lap in found], "verdict": verdict(found)})
        if args.out:
            args.out.write_text(json.dumps({"torch": torch.__version__, "files": rows}, indent=1) + "\n")


if __name__ == "__main__":
    try:
        main()
    except ValueError as error:
        sys.exit(f"race: {error}")
