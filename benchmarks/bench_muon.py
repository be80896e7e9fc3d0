"""Muon against AdamW, each at several rates, with several seeds: short runs of the default network.

    python benchmarks/bench_muon.py [--seeds 3] [--steps 60] [--out muon]

The batch is 8, and a quarter of the steps is warm-up. Runs of one seed see the same batches, t and noise and begin
with the same weights. Five seconds of one core a run. One line of JSON a run, and all of them in OUT.json:

    training     mean loss of each ten steps
    held-out     loss in v on the held-out digits in the end, averaged weights
"""

import json
from pathlib import Path

from common import Simple, arguments, heldout_loss, keep, settings

from ddpm_course.data.sets import load_digits
from ddpm_course.run.training import fit, new_state

RATES = {"adamw": (5e-4, 1e-3, 2e-3, 4e-3), "muon": (4e-3, 8e-3, 1.6e-2, 3.2e-2)}


def main() -> None:
    args = arguments(__doc__, seeds=3, steps=60, out="")
    digits, lines = {split: load_digits(split, 16) for split in ("train", "test")}, []
    for seed, name, rate in [(s, n, r) for s in range(args.seeds) for n, rates in RATES.items() for r in rates]:
        words = f"--optimizer {name} --lr {rate} --seed {seed} --steps {args.steps} --warmup {args.steps // 4}"
        config, images = settings(f"{words} --batch 8 --precision fp32", digits["train"])
        state, training = new_state(config), []
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
