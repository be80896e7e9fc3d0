"""eps, x0 and v side by side: equal steps, the same seeds (so the same batches, t, noise and first weights).

    python benchmarks/bench_objectives.py [--seeds 3] [--steps 300] [--out objectives]

The network, rate and optimizer are those of the default run (the rate was chosen for v), the batch is half of it. A run
takes about a minute of one core. One line of JSON a run, and all of them in OUT.json; what is there already is kept:

    excess       by quarter of t, after some steps: the squared distance of the network's answer from the exact
                 denoiser's, on training digits. It is the training loss less the least that it can be
    loss         the objective's own loss on those draws, in the end
    x0 error     squared error of the clipped x_0 on held-out digits, by quarter (averaged weights)
    asked, plain share of 500 digits (guidance 1, 25 ancestral steps) read as their class; their Fréchet distance
"""

import json
from pathlib import Path

import torch
from common import arguments, judged, keep, plain_digits, settings
from torch import Tensor

from ddpm_course.config import RunConfig
from ddpm_course.data.sets import ImageSet, load_digits, to_float
from ddpm_course.exact import dataset_denoiser
from ddpm_course.forward import q_sample
from ddpm_course.heldout import heldout_loss
from ddpm_course.judge.evaluation import load_judge
from ddpm_course.losses import OBJECTIVES
from ddpm_course.model import Model, build_schedule
from ddpm_course.run.training import fit, make_batch, new_state
from ddpm_course.simple import Batch, Simple, quarter_sums

LOOK = (10, 50, 100)  # steps after which the excess is taken, beside the last


def exact_answers(b: Batch, images: ImageSet, config: RunConfig) -> Tensor:
    "What the exact denoiser of the class's training images would answer to each draw."
    schedule, data = build_schedule(config), to_float(images.pixels)
    xt, found = q_sample(b.x0, b.t, b.eps, schedule), torch.empty_like(b.x0)
    for c in b.y.unique():
        mine, kin = b.y == c, data[torch.from_numpy(images.labels) == c]
        x0 = dataset_denoiser(xt[mine], b.t[mine], kin, schedule)
        signal, sigma = schedule.scales(b.t[mine], like=x0)
        objective = OBJECTIVES[config.diffusion.objective]
        found[mine] = objective.target(x0, (xt[mine] - signal * x0) / sigma, signal, sigma)
    return found


@torch.no_grad()
def excess(model: Model, b: Batch, exact: Tensor) -> list[list[float]]:
    "By quarter of t: the distance from the exact answers, and the loss."
    model.network.eval()
    out = model.answer(q_sample(b.x0, b.t, b.eps, model.schedule), b.t, b.y)
    apart = (out - exact).square().flatten(1).mean(1)
    both = apart, Simple().losses(model, b)["loss"]
    model.network.train()
    sums = [quarter_sums(values, b.t, model.schedule.T) for values in both]
    return [[round(v, 5) for v in (s[0] / s[1]).tolist()] for s in sums]


def one(words: str, digits: dict[str, ImageSet], judge: torch.nn.Module) -> dict:
    "Train and look."
    config, images = settings(words, digits["train"])
    draws, _ = settings(f"{words} --batch 2000 --label-drop 0 --seed 1000", images)
    b = make_batch(images, draws, 0)
    exact, state, seen = exact_answers(b, images, config), new_state(config), {}
    for record in fit(state, images, config):
        if record["step"] in (*LOOK, config.training.steps):
            seen[record["step"]], loss = excess(state.model, b, exact)
    held = heldout_loss(state.ema, digits["test"], Simple(), 2)
    plain, y = plain_digits(state.ema, digits)
    return {
        "run": words,
        "excess": seen,
        "loss": loss,
        "x0 error": [round(v, 5) for v in held["x0_mse"]["quarters"]],
        **judged(judge, digits, y, plain=plain),
    }


def main() -> None:
    args = arguments(__doc__, seeds=3, steps=300, out="")
    digits = {split: load_digits(split, 16) for split in ("train", "test")}
    out, judge = Path(f"{args.out}.json"), load_judge()
    lines = json.loads(out.read_text())["runs"] if args.out and out.exists() else []
    for seed in range(args.seeds):
        for objective in ("eps", "x0", "v"):
            words = f"--objective {objective} --lr 0.008 --seed {seed} --steps {args.steps} --batch 32"
            if all(line["run"] != words for line in lines):
                lines.append(one(words, digits, judge))
                print(json.dumps(lines[-1]), flush=True)
                if args.out:
                    keep(lines, out, "torch")


if __name__ == "__main__":
    main()
