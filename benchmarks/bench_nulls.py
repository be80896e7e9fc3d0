"""How often four error bars of a difference of Fréchet distances alarm where nothing differs: what page 16 shows.

    python benchmarks/bench_nulls.py [--tries 200] [--redraws 60] [--out nulls]

Two samplers draw the same 500 digits, 50 of each class, from the same noise. In each try a coin is tossed for each
digit, and on heads the two sets swap it: then only chance tells them apart, and each pair is still a pair. The digits
are drawn again, with replacement, so often as REDRAWS says: with 50 of each class or with a free choice of classes, and
the same ones in both sets or others in each. The standard deviation of the difference over the redraws is the error,
and a try alarms if zero lies outside the 95 % interval. One line a pair of samplers and error: alarms, tries, the
scatter of the differences over the tries, and the mean error. All tries share the same digits. Last, without pairs, the
500 held-out digits are split into two halves, with 25 of each class.
"""

from pathlib import Path

import numpy as np
import torch
from common import arguments, keep

from ddpm_course.base.intervals import student
from ddpm_course.config import SamplingConfig
from ddpm_course.data.sets import load_digits
from ddpm_course.judge.evaluation import draw_samples, extract, load_judge
from ddpm_course.judge.frechet import frechet_distance
from ddpm_course.run.runs import load_model

N, EACH = 500, 50
PAIRS = [("ddim", "dpm"), ("ddim", "ddpm")]
REAL = ("real digits", "real digits")


def main() -> None:
    args = arguments(__doc__, tries=200, redraws=60, out="nulls")
    judge, model, y = load_judge(), load_model(precision="fp32"), torch.arange(10).repeat_interleave(EACH)
    real = extract(judge, load_digits("train", 16).pixels)[0].double()
    mean, cov = real.mean(0), real.T.cov()
    values, vectors = torch.linalg.eigh(cov)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T

    def distance(x: torch.Tensor) -> torch.Tensor:
        "Squared Fréchet distances to the real digits, of sets of features (sets, N, D), all at once."
        apart = x - x.mean(1, keepdim=True)
        mine = apart.mT @ apart / (x.shape[1] - 1)
        roots = torch.linalg.eigvalsh(root @ mine @ root).clamp(min=0).sqrt().sum(1)
        return (x.mean(1) - mean).square().sum(1) + mine.diagonal(dim1=1, dim2=2).sum(1) + cov.trace() - 2 * roots

    drawn = {
        name: extract(judge, draw_samples(model, y, SamplingConfig(name, steps=8, guidance=1)))[0].double()
        for name in {name for pair in PAIRS for name in pair}
    }
    held_out = load_digits("test", 16)
    drawn[REAL[0]] = extract(judge, held_out.pixels[held_out.labels.argsort(kind="stable")])[0].double()
    for points in drawn.values():
        assert abs(distance(points[None]).item() - frechet_distance(points, real)) < 1e-4
    lines = []
    for pair in [*PAIRS, REAL]:
        dice, found = np.random.default_rng(16), {}
        each = EACH // 2 if pair == REAL else EACH
        n, first = 10 * each, each * np.arange(10)[:, None]
        for _ in range(args.tries):
            if pair == REAL:
                order = dice.permuted(np.arange(N).reshape(10, EACH), axis=1)
                one, two = (drawn[REAL[0]][half.flatten()] for half in np.split(order, 2, axis=1))
            else:
                coin = torch.from_numpy(dice.random((N, 1)) < 0.5)
                one, two = (torch.where(coin, drawn[a], drawn[b]) for a, b in (pair, pair[::-1]))
            apart = (distance(one[None]) - distance(two[None])).item()
            by_class = (dice.integers(0, each, (args.redraws, 10, each)) + first).reshape(args.redraws, n)
            free = [] if pair == REAL else [("free", dice.integers(0, n, (args.redraws, n)))]
            for classes, picks in [("fixed", by_class), *free]:
                again = np.stack([distance(x[torch.from_numpy(picks)]).numpy() for x in (one, two)])
                errors = {} if pair == REAL else {"same": (again[0] - again[1]).std(ddof=1)}
                errors |= {"other": np.hypot(*again.std(1, ddof=1))}
                for digits, error in errors.items():
                    found.setdefault((classes, digits), []).append((apart, error))
        for (classes, digits), tries in found.items():
            apart, error = np.array(tries).T
            alarms = int((abs(apart) > student(args.redraws - 1) * error).sum())
            lines.append(
                {"samplers": pair, "classes": classes, "digits": digits, "alarms": alarms, "tries": len(tries)}
                | {"scatter": round(float(apart.std(ddof=1)), 4), "error": round(float(error.mean()), 4)}
            )
            print(lines[-1], flush=True)
    keep(lines, Path(f"{args.out}.json"), "torch")


if __name__ == "__main__":
    main()
