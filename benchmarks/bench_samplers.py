"""Samplers and reverse variances by number of steps, with errors of differences: what pages 12, 15, 16 and 18 show.

    python benchmarks/bench_samplers.py [--n 1000] [--most 1000] [--folder build/samplers] [--out samplers]

Each row draws the same n digits, as many of each class, from the same seed, with the network that ships, and is judged
by the Fréchet distance to the training digits and by the share that is read as the class asked for. `again` holds the
distances of a hundred redraws, with replacement, class by class, and the same for all rows: sample k of a class is
drawn again in every row or in none. So the spread of `again` is the standard error of a distance, and the spread of
the difference of two rows that of their difference. Rows of more than MOST steps are left out. Features are kept in
FOLDER; a run that was stopped goes on from there. All in bfloat16, as in training.

For the learned variance the shipped network gets a second half, taught for a hundred steps as in chapter 14 for twenty;
its mean stays what it is.

Kept in benchmarks/results: samplers_4000 (--n 4000 --most 100), samplers_1000 (--n 1000), and samplers (--n 500
--most 100, without the rows of 25 steps).
"""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from common import arguments, keep

from ddpm_course.config import PRESETS, SamplingConfig, override
from ddpm_course.data.sets import ImageSet, load_digits, to_uint8
from ddpm_course.draws import Purpose, uniform
from ddpm_course.hybrid import Hybrid
from ddpm_course.judge import evaluation
from ddpm_course.model import Model, build_model
from ddpm_course.run.runs import load_model
from ddpm_course.run.training import make_batch
from ddpm_course.sampling import draw

SOME = (5, 10, 20, 50, 100)
PLAIN = {  # name -> how, and by how many steps
    "ddim": ({"sampler": "ddim"}, SOME),
    "ddim, eta 1/2": ({"sampler": "ddim", "eta": 0.5}, (10, 20, 100)),
    "dpm": ({"sampler": "dpm"}, (5, 8, 10, 15, 20, 50)),
    "ddpm, small variance": ({"sampler": "ddpm", "variance": "small"}, (*SOME, 25, 1000)),
    "ddpm, large variance": ({"sampler": "ddpm", "variance": "large"}, (*SOME, 25, 1000)),
    "ddpm, learned variance": ({"sampler": "ddpm", "variance": "learned"}, (*SOME, 25, 1000)),
}
GUIDED = [("dpm", 20, w) for w in (1.25, 1.5, 1.75, 2, 3)] + [("ddim", 50, 2)]
PART, REDRAWS = 50, 100  # samples of each class at a time


def rows(most: int) -> list[tuple[str, SamplingConfig]]:
    "Name and settings of each row, those of few steps first."
    found = [(name, SamplingConfig(steps=k, guidance=1, **how)) for name, (how, steps) in PLAIN.items() for k in steps]
    found += [(f"{name}, guidance {w}", SamplingConfig(name, steps=k, guidance=w)) for name, k, w in GUIDED]
    return sorted([row for row in found if row[1].steps <= most], key=lambda row: row[1].steps)


def taught(digits: ImageSet) -> Model:
    "The shipped network with a learned variance."
    shipped = load_model(precision="fp32")
    config = override(PRESETS["mnist16"], classes=digits.classes, variance="learned", loss="hybrid", precision="fp32")
    model, old = build_model(config), shipped.network.state_dict()
    model.network.load_state_dict(
        {
            name: torch.cat([old[name], torch.zeros_like(weight[len(old[name]) :])])
            for name, weight in model.network.state_dict().items()
        }
    )
    model.network.eval().requires_grad_(False)
    last = model.network.out[2].requires_grad_()
    optimizer = torch.optim.Adam(last.parameters(), lr=1e-2)
    for k in range(100):
        t = (1001 ** uniform(0, Purpose.LESSON, 100 + k, range(32)) - 1).long()
        p = torch.log((t + 2) / (t + 1)) / math.log(1001)
        batch = replace(make_batch(digits, override(config, batch=32), k), t=t, weight=(1 / (1000 * p)).float())
        loss = (batch.weight * Hybrid().losses(model, batch)["loss"]).mean()
        optimizer.zero_grad()
        loss.backward()
        for parameter in last.parameters():
            parameter.grad[0] = 0  # the mean stays as it is
        optimizer.step()
    return replace(model, precision="bf16")


def features(model: Model, how: SamplingConfig, part: int, path: Path) -> tuple[torch.Tensor, torch.Tensor]:
    "Features and logits of samples `part * PART` and on of each class, drawn unless they were."
    if not path.exists():
        y = torch.arange(10).repeat_interleave(PART)
        keys = [c * 2**32 + part * PART + k for c in range(10) for k in range(PART)]
        images = to_uint8(draw(model, keys, y, how, batch=250))
        torch.save(evaluation.extract(evaluation.load_judge(), images), path)
        print(path.stem, flush=True)
    return torch.load(path)


def judged(digits: ImageSet, parts: int) -> Callable[[torch.Tensor, torch.Tensor], dict]:
    "A function from features and logits of so many parts to what a line says of them: the same redraws for all."
    real, _ = evaluation.extract(evaluation.load_judge(), digits.pixels)
    asked = torch.arange(10).repeat_interleave(PART).repeat(parts)
    dice, places = np.random.default_rng(0), [np.flatnonzero(asked == c) for c in range(10)]
    picks = [np.concatenate([dice.choice(c, len(c)) for c in places]) for _ in range(REDRAWS)]

    def line(points: torch.Tensor, logits: torch.Tensor) -> dict:
        return {
            "n": len(points),
            "asked": round((logits.argmax(1) == asked).double().mean().item(), 4),
            "distance": round(evaluation.frechet_distance(points, real), 3),
            "again": [round(evaluation.frechet_distance(points[pick], real), 3) for pick in picks],
        }

    return line


def main() -> None:
    args = arguments(__doc__, n=1000, most=1000, folder="build/samplers", out="samplers")
    folder, parts, digits = Path(args.folder), range(args.n // (10 * PART)), load_digits("train", 16)
    folder.mkdir(parents=True, exist_ok=True)
    models = {"learned": taught(digits), "": load_model(precision="bf16")}

    def look(name: str, how: SamplingConfig, part: int) -> tuple[torch.Tensor, torch.Tensor]:
        model = models["learned" if how.variance == "learned" else ""]
        return features(model, how, part, folder / f"{name.replace('/', '-')}, {how.steps} steps, {part}.pt")

    for part in parts:
        for name, how in rows(args.most):
            look(name, how, part)
    lines = []
    judge = judged(digits, len(parts))
    for name, how in rows(args.most):
        points, logits = (torch.cat(each) for each in zip(*(look(name, how, part) for part in parts), strict=True))
        lines.append({"name": name, "steps": how.steps} | judge(points, logits))
    keep(lines, Path(f"{args.out}.json"), "torch")


if __name__ == "__main__":
    main()
