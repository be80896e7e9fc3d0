"""Page 20a's students of one step with more pairs and steps than the page has time for: what they draw, three times.

    python benchmarks/bench_students.py [--seeds 3] [--walks 1500] [--steps 300] [--batch 64] [--n 1000]

For each seed the model that ships draws so many pairs of a noise and an image, in 20 steps with the default settings.
Two students learn from them in so many steps: one from the pairs, one from the same noises and images shuffled within
each class. Then each draws n digits in one step, as many of each class, from noises that no pair has, and so does the
model itself. Every line has the squared Fréchet distance of n digits to the training digits, and the share that is
classified as its class; the digits of the model in 20 steps are those of the first n pairs. Seeds that are done are
kept. A quarter of an hour of one core.
"""

import json
from dataclasses import replace
from pathlib import Path

import torch
from common import arguments, keep
from torch import Tensor

from ddpm_course.config import SamplingConfig, TrainingConfig
from ddpm_course.data.sets import load_digits, to_uint8
from ddpm_course.judge.evaluation import extract, frechet_distance, load_judge, real_floor
from ddpm_course.lesson.few_steps import Walks, distil, walks_of
from ddpm_course.run.runs import load_model
from ddpm_course.sampling import class_keys, draw


def shuffled(walks: Walks, seed: int) -> Walks:
    "The same noises and images, but each noise has the image of another one of its class."
    torch.manual_seed(seed)
    other = torch.arange(len(walks.y))
    for c in walks.y.unique():
        mine = other[walks.y == c]
        mine = mine[torch.randperm(len(mine))]
        other[mine] = mine.roll(1)
    return replace(walks, x=torch.stack([walks.x[:, 0], walks.x[other, 1]], 1))


def main() -> None:
    args = arguments(__doc__, seeds=3, walks=1500, steps=300, batch=64, n=1000, out="students")
    path, teacher, judge = Path(f"{args.out}.json"), load_model(precision="fp32"), load_judge()
    digits = load_digits("train", 16)
    keys, y = class_keys(range(10), args.n // 10)
    real = extract(judge, digits.pixels)[0]
    lines = json.loads(path.read_text())["runs"] if path.exists() else []

    def look(name: str, seed: int, images: Tensor) -> None:
        features, logits = extract(judge, to_uint8(images))
        right = (logits.argmax(1) == y).double().mean().item()
        distance = round(frechet_distance(features, real), 4)
        lines.append({"name": name, "seed": seed, "distance": distance, "asked": right})
        print(json.dumps(lines[-1]), flush=True)
        keep(lines, path, "torch")

    if not lines:
        floor = real_floor(real, digits.labels, args.n)
        lines.append({"name": f"{args.n} real digits", "distance": round(floor, 4)})
    for seed in range(args.seeds):
        if any((line["name"], line.get("seed")) == ("student, shuffled pairs", seed) for line in lines):
            continue
        lines[:] = [line for line in lines if line.get("seed") != seed]  # of a run that was stopped meanwhile
        training = TrainingConfig(steps=args.steps, batch=args.batch, lr=4e-3, warmup=20, seed=seed)
        walks = walks_of(teacher, args.walks, SamplingConfig(seed=100 + seed), stops=1)
        once = SamplingConfig("ddim", steps=1, guidance=1, clip=False, seed=seed)
        look("teacher, 20 steps", seed, walks.x[: args.n, 1])
        look("teacher, 1 step", seed, draw(teacher, keys, y, SamplingConfig(steps=1, seed=seed), 250))
        for name, pairs in (("student", walks), ("student, shuffled pairs", shuffled(walks, seed))):
            look(name, seed, draw(distil(teacher, pairs, 1, training), keys, y, once, 250))


if __name__ == "__main__":
    main()
