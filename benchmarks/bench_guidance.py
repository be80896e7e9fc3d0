"""Guidance with the sampler of chapter 12, DDIM in twenty steps: what it does to the digits, from the same noise.

    python benchmarks/bench_guidance.py [--n 1000] [--sampler ddim] [--steps 20] [--scales 1,1.5,2] [--out guidance]

Each row draws the same n digits, as many of each class, from the noise of `bench_samplers.py`, and is judged as there,
but in float32. The first row is n real digits against all others, ten times. Features are kept in FOLDER; a run that
was stopped goes on from there. `variance` is the variance within a class of the judge's features, over that of the
training digits.
"""

from pathlib import Path

import torch
from bench_samplers import PART, features, judged
from common import arguments, keep

from ddpm_course.config import SamplingConfig
from ddpm_course.data.sets import load_digits
from ddpm_course.judge import evaluation
from ddpm_course.run.runs import load_model


def within(points: torch.Tensor, labels: torch.Tensor) -> float:
    "The variance of features within a class, all features together, as the mean of the classes."
    return torch.stack([points[labels == c].double().var(0).sum() for c in range(10)]).mean().item()


def main() -> None:
    args = arguments(
        __doc__, n=1000, sampler="ddim", steps=20, scales="1,1.25,1.5,1.75,2,3", folder="build/guidance", out="guidance"
    )
    folder, parts, model = Path(args.folder), range(args.n // (10 * PART)), load_model(precision="fp32")
    folder.mkdir(parents=True, exist_ok=True)
    digits = load_digits("train", 16)
    real, _ = evaluation.extract(evaluation.load_judge(), digits.pixels)
    floor = round(evaluation.real_floor(real, digits.labels, args.n, draws=10), 3)
    judge, lines = judged(digits, len(parts)), [{"name": "real digits", "n": args.n, "distance": floor}]
    for w in map(float, args.scales.split(",")):
        how, name = SamplingConfig(args.sampler, steps=args.steps, guidance=w), f"{args.sampler}, guidance {w:g}"
        seen = [features(model, how, part, folder / f"{name}, {args.steps} steps, {part}.pt") for part in parts]
        points, logits = (torch.cat(each) for each in zip(*seen, strict=True))
        asked = torch.arange(10).repeat_interleave(PART).repeat(len(parts))
        share = within(points, asked) / within(real, torch.from_numpy(digits.labels))
        line = {"name": args.sampler, "steps": args.steps, "guidance": w, "variance": round(share, 3)}
        lines.append(line | judge(points, logits))
    keep(lines, Path(f"{args.out}.json"), "torch")


if __name__ == "__main__":
    main()
