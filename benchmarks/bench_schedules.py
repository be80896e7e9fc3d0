"""One trained network draws with few steps, spent at the noise levels of the cosine or of the linear schedule.

    python benchmarks/bench_schedules.py [--steps 5,10,25] [--seeds 3] [--n 500] [--out schedules]

The network is the one that ships. It has learned all noise levels, so a walk may visit those of any schedule: for each
step of the linear schedule, the index whose alpha-bar is nearest. All else is the same (ancestral steps, no guidance,
the noise of each digit). One line of JSON a walk, and all of them in OUT.json; what is there already is kept: `right`,
the share of the n digits that the course's classifier takes for their class, and `distance`, their Fréchet distance to
the training digits; a difference of a fifth of it would matter. It takes some ten minutes of one core.
"""

import json
from pathlib import Path

import torch
from common import arguments, keep

from ddpm_course.config import SamplingConfig
from ddpm_course.data.sets import load_digits
from ddpm_course.judge.evaluation import allot_classes, draw_samples, extract, load_judge
from ddpm_course.judge.frechet import frechet_distance
from ddpm_course.run.runs import load_model
from ddpm_course.schedules import Schedule, linear
from ddpm_course.steps import SPACINGS, sampling_indices


def as_linear(T: int, steps: int, *, schedule: Schedule) -> list[int]:
    "The indices at which this schedule has the alpha-bars of evenly spaced steps of the linear one."
    wanted = linear(T).alpha_bars[sampling_indices(T, steps)].logit()
    return (schedule.alpha_bars.logit() - wanted[:, None]).abs().argmin(1).tolist()


def main() -> None:
    args = arguments(__doc__, steps="5,10,25", seeds=3, n=500, out="")
    SPACINGS["linear"] = as_linear
    out, judge, model, data = Path(f"{args.out}.json"), load_judge(), load_model(), load_digits("train", 16)
    real, y = extract(judge, data.pixels)[0], allot_classes(data.labels, args.n)
    lines = json.loads(out.read_text())["runs"] if args.out and out.exists() else []
    for seed in range(args.seeds):
        for steps in map(int, args.steps.split(",")):
            for schedule, spacing in (("cosine", "trailing"), ("linear", "linear")):
                run = {"schedule": schedule, "steps": steps, "seed": seed}
                if any(run.items() <= line.items() for line in lines):
                    continue
                how = SamplingConfig(sampler="ddpm", steps=steps, guidance=1, spacing=spacing, seed=seed)
                features, logits = extract(judge, draw_samples(model, y, how, batch=250))
                right = (logits.argmax(1) == y).double().mean().item()
                lines.append({**run, "right": right, "distance": round(frechet_distance(features, real), 3)})
                print(json.dumps(lines[-1]), flush=True)
                if args.out:
                    keep(lines, out, "torch")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
