"""Muon against Adam, each at several rates, with several seeds: short runs of the default network.

    python benchmarks/bench_muon.py [--seeds 3] [--steps 60] [--out muon]

Adam runs with two values of beta_2: .999, which is PyTorch's default, and .99, which page 10 uses. `scaled` is a
control: Muon whose matrices get the same length and are not made orthogonal. The batch is 8, and a quarter of the steps
is warm-up. Runs of one seed see the same batches, t and noise and begin with the same weights. Five seconds of one core
a run. One line of JSON a run, and all of them in OUT.json:

    training     mean loss of each ten steps
    held-out     loss in v on the held-out digits in the end, averaged weights
"""

import json
from pathlib import Path

from common import Simple, arguments, heldout_loss, keep, settings

from ddpm_course.data.sets import load_digits
from ddpm_course.run import muon
from ddpm_course.run.training import OPTIMIZERS, adamw, fit, new_state

RATES = {
    "adamw": (5e-4, 1e-3, 2e-3, 4e-3),
    "adamw_99": (5e-4, 1e-3, 2e-3, 4e-3),
    "muon": (4e-3, 8e-3, 1.6e-2, 3.2e-2),
    "scaled": (1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2),
}


def adamw_99(*args):
    "Adam that forgets squares after some hundred steps."
    optimizer = adamw(*args)
    optimizer.param_groups[0]["betas"] = 0.9, 0.99
    return optimizer


def scaled(matrices):
    "As long as those of `orthogonal`, but each direction as strong as it was."
    return [min(m.shape) ** 0.5 * m / (m.norm() + 1e-7) for m in matrices]


def main() -> None:
    args = arguments(__doc__, seeds=3, steps=60, out="")
    OPTIMIZERS["adamw_99"], OPTIMIZERS["scaled"] = adamw_99, muon.muon
    orthogonal = muon.orthogonal
    digits, lines = {split: load_digits(split, 16) for split in ("train", "test")}, []

    for seed, name, rate in [(s, n, r) for s in range(args.seeds) for n, rates in RATES.items() for r in rates]:
        words = f"--optimizer {name} --lr {rate} --seed {seed} --steps {args.steps} --warmup {args.steps // 4}"
        config, images = settings(f"{words} --batch 8 --precision fp32", digits["train"])
        state, training = new_state(config), []
        muon.orthogonal = scaled if name == "scaled" else orthogonal
        for record in fit(state, images, config):
            if record["step"] % 10 == 0:
                training.append(round((state.window[0, 0].sum() / state.window[0, 1].sum()).item(), 4))
                state.window.zero_()
        held = heldout_loss(state.ema, digits["test"], Simple(), 1)["loss"]["mean"]
        line = {"optimizer": name, "lr": rate, "seed": seed, "training": training, "held-out": round(held, 4)}
        print(json.dumps(line), flush=True)
        lines.append(line)
        if args.out:
            keep(lines, Path(f"{args.out}.json"), "torch")


if __name__ == "__main__":
    main()
