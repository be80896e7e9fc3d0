"""The four networks of page 23, one right and three with a wrong connection, trained by the file of page 10.

    python benchmarks/bench_wiring.py [--seeds 3] [--steps 300] [--out wiring]

A run of 300 steps takes about a minute of one core. With one seed all four begin with the same weights and see the
same batches, t and noise. One line of JSON a run, and all of them in OUT.json; seeds that are there already are kept:
`loss`, the loss in v on the held-out digits by quarter of t; `loaded`, the same with the right network's weights.
"""

import json
import types
from pathlib import Path

from bench_first_digits import FILE, quarters
from common import arguments, keep

from ddpm_course.lesson.checks.check_topology import FAULTS, Miswired


def main() -> None:
    args = arguments(__doc__, seeds=3, steps=300, out="")
    out = Path(f"{args.out}.json")
    lines = json.loads(out.read_text())["runs"] if args.out and out.exists() else []
    source, lines = FILE.read_text(encoding="utf-8"), lines[: len(lines) // len(FAULTS) * len(FAULTS)]
    for seed in range(len(lines) // len(FAULTS), args.seeds):
        weights = {}
        for name in sorted(FAULTS, key=lambda name: FAULTS[name] != ""):  # the right one first
            m = types.ModuleType("first_digits")
            exec(source.replace("torch.manual_seed(0)", f"torch.manual_seed({seed})"), m.__dict__)
            m.UNet = lambda name=name, seed=seed: Miswired(name, seed)
            net = m.train(args.steps, lambda *_: None).eval()
            weights = weights or net.state_dict()
            loaded = Miswired(name)
            loaded.load_state_dict(weights)
            found = {"loss": quarters(m, net), "loaded": quarters(m, loaded.eval())}
            lines.append({"network": name, "seed": seed, "steps": args.steps, **found})
            print(json.dumps(lines[-1]), flush=True)
            if args.out:
                keep(lines, out, "torch")


if __name__ == "__main__":
    main()
