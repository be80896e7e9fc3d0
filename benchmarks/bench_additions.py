"""What warm-up, decay, clipping and averaged weights are worth in a short run of the package, each taken away alone.

    python benchmarks/bench_additions.py [--seeds 3] [--steps 200] [--plans 2] [--out additions]

A small network (16 channels) and batches of 16, at the default rate and with the default optimizer, Muon: under half a
minute of one core a run (results/additions.json). Networks of one seed begin alike and see the same batches, t and
noise. One line of JSON a run, and all of them in OUT.json, each with the held-out loss in v of the averaged weights and
of the last ones. `--plans 2` takes the first two plans alone; with 16 seeds they are what page 16 shows of the warm-up.
Page 11 has the same question for page 10's file and Adam: bench_without.py.
"""

import json
from pathlib import Path

from common import arguments, keep, settings

from ddpm_course.data.sets import load_digits
from ddpm_course.heldout import heldout_loss
from ddpm_course.run.training import fit, new_state
from ddpm_course.simple import Simple

PLANS = {
    "all of it": "",
    "no warm-up": "--warmup 0",
    "no decay": "--decay constant",
    "no clipping": "--clip 1e9",
}


def one(words: str) -> dict:
    "Train and look."
    config, images = settings(words)
    state, test = new_state(config), load_digits("test", 16)
    for _ in fit(state, images, config):
        pass
    averaged, last = (heldout_loss(model, test, Simple(), 2)["loss"] for model in (state.ema, state.model))
    return {"averaged": round(averaged["mean"], 5), "last": round(last["mean"], 5)}


def main() -> None:
    args, lines = arguments(__doc__, seeds=3, steps=200, plans=len(PLANS), out=""), []
    for seed in range(args.seeds):
        for plan, words in list(PLANS.items())[: args.plans]:
            words = f"--channels 16 --batch 16 --steps {args.steps} --seed {seed} {words}".strip()
            lines.append({"plan": plan, "run": words, **one(words)})
            print(json.dumps(lines[-1]), flush=True)
            if args.out:
                keep(lines, Path(f"{args.out}.json"), "torch")


if __name__ == "__main__":
    main()
