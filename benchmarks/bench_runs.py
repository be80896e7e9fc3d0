"""The runs of page 13: the file of page 10 (nbs/solutions/first_digits.py), watched, with one line or the plan changed.

    python benchmarks/bench_runs.py [--names healthy,1300,300,C,500,D,A,B] [--out runs]

A run takes two to three minutes of one core (`1300`: five). Each is a line of OUT.json, and one that is there is kept.

    fault    its number in the list on the page; steps: the steps planned
    batches  the loss of each batch
    log      every 50 steps the mean of the last 50 batches, and the loss of the averaged network by quarter of t: on
             500 fixed questions about digits it trains on (seen), and on 500 about held-out digits (unseen)
    gap      unseen minus seen at the end, with the 95 % interval over the 500 pairs of questions
    floor    the loss of the exact denoiser that knows the classes, on the seen questions
    digits   ten digits drawn at the end, as bytes; nearest: the digit it trained on that is nearest to each
    away     the median distance of 100 drawn digits to the nearest digit it trained on; held_out: of held-out digits
    right    how many of the 100 the judge classifies as their class
"""

import json
import textwrap
import types
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from common import arguments, keep
from torch import Tensor

from ddpm_course.base.intervals import interval
from ddpm_course.data.sets import load_digits, to_uint8
from ddpm_course.exact import dataset_denoiser
from ddpm_course.judge.evaluation import extract, load_judge
from ddpm_course.schedules import cosine

FILE = Path(__file__).resolve().parents[1] / "nbs/solutions/first_digits.py"
START = "    net = UNet()\n"  # the line after the digits are read
RUNS = {  # name: fault, steps, a line of the file, what stands in its place
    "healthy": (5, 650, START, START),
    "300": (5, 300, START, START),
    "1300": (5, 1300, START, START),
    "A": (4, 650, "4e-3 * min", "4e-1 * min"),
    "B": (3, 650, "decay = min(0.99, (1 + step) / (10 + step))", "decay = 0.9999"),
    "C": (2, 650, START, "    images, labels = images[::45], labels[::45]\n" + START),
    "D": (1, 650, START, "    images = images[torch.randperm(len(images))]\n" + START),
    "500": (2, 650, START, "    images, labels = images[::9], labels[::9]\n" + START),
}


def file_with(line: str, other: str) -> Any:
    "The file as a module, with another line."
    source, module = FILE.read_text(encoding="utf-8"), types.ModuleType("first_digits")
    assert source.count(line) == 1
    exec(source.replace(line, other), module.__dict__)
    return module


def digits(split: str) -> tuple[Tensor, Tensor]:
    found = load_digits(split, 16)
    return torch.tensor(found.pixels) / 127.5 - 1, torch.tensor(found.labels)


def trained_on(other: str) -> tuple[Tensor, Tensor]:
    "The digits that a run sees, where this stands in place of START."
    images, labels = digits("train")
    space = {"torch": torch, "images": images, "labels": labels}
    torch.manual_seed(0)  # as `train` begins
    exec(textwrap.dedent(other.removesuffix(START)), space)
    return space["images"], space["labels"]


def questions(images: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
    "As on the page; of fewer than 500 digits each comes several times."
    random = torch.Generator().manual_seed(0)
    noise = torch.randn(500, 1, 16, 16, generator=random)
    rows = torch.randperm(max(500, len(images)), generator=random)[:500] % len(images)
    return images[rows], labels[rows], torch.arange(0, 1000, 2), noise


@torch.no_grad()
def ask(m: Any, net: Any, asked: tuple[Tensor, ...]) -> Tensor:
    "The loss in v of each question."
    x0, y, t, eps = asked
    return (net(m.q_sample(x0, t, eps), t, y) - m.velocity(x0, t, eps)).square().flatten(1).mean(1)


def quarters(losses: Tensor) -> list[float]:
    return [round(q, 4) for q in losses.view(4, -1).mean(1).tolist()]


def exact(m: Any, images: Tensor, labels: Tensor) -> Any:
    "The exact denoiser of page 04, given the class, in place of a network."

    def answer(x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        own = [images[labels == k].double() for k in range(10)]
        x0 = [dataset_denoiser(x[k : k + 1].double(), int(t[k]), own[y[k]], cosine(m.T)) for k in range(len(x))]
        signal, sigma = (s.double() for s in m.scales(t))
        return (signal * x - torch.cat(x0)) / sigma

    return answer


def nearest(images: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
    "The distance of each image to the nearest real one (root mean square of a pixel), and which one that is."
    return (torch.cdist(images.flatten(1), real.flatten(1)) / 16).min(1)


def run(name: str) -> dict:
    fault, steps, line, other = RUNS[name]
    m, (images, labels), held_out = file_with(line, other), trained_on(other if line == START else ""), digits("test")
    seen, unseen, batches, log = questions(images, labels), questions(*held_out), [], []

    def watch(step: int, value: float, average: Any) -> None:
        batches.append(round(value, 4))
        if step % 50 == 0:
            there = {k: quarters(ask(m, average, asked)) for k, asked in (("seen", seen), ("unseen", unseen))}
            log.append({"step": step, "batch": round(mean(batches[-50:]), 4), **there})

    net = m.train(steps=steps, log=watch)
    gap = ask(m, net, unseen) - ask(m, net, seen)
    torch.manual_seed(1)
    y = torch.arange(10).repeat(10)
    drawn = m.sample(net, y)
    away, which = nearest(drawn, images)
    return {
        "name": name,
        "fault": fault,
        "steps": steps,
        "batches": batches,
        "log": log,
        "gap": interval(gap.mean().item(), gap.std().item() / 500**0.5, 500),
        "floor": quarters(ask(m, exact(m, images, labels), seen)),
        "digits": to_uint8(drawn[:10]).numpy().tobytes().hex(),
        "nearest": to_uint8(images[which[:10]]).numpy().tobytes().hex(),
        "away": round(away.median().item(), 3),
        "held_out": round(nearest(held_out[0], images)[0].median().item(), 3),
        "right": int((extract(load_judge(), to_uint8(drawn))[1].argmax(1) == y).sum()),
    }


def main() -> None:
    args = arguments(__doc__, names="healthy,1300,300,C,500,D,A,B", out="")
    torch.set_num_threads(1)
    out = Path(f"{args.out}.json")
    runs = json.loads(out.read_text())["runs"] if args.out and out.exists() else []
    for name in args.names.split(","):
        if all(known["name"] != name for known in runs):
            runs.append(run(name))
            print(name, runs[-1]["log"][-1], runs[-1]["gap"], flush=True)
            if args.out:
                keep(runs, out, "torch")


if __name__ == "__main__":
    main()
