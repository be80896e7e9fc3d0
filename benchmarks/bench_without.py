"""The file of page 10 (nbs/solutions/first_digits.py) with one addition left out at a time, as page 11 shows it.

    python benchmarks/bench_without.py [--steps 200] [--out first_digits_without]

One seed: all runs begin with the same weights and see the same batches, t and noise. A run of 200 steps takes a minute
of one core. One line of JSON a run, and all of them in OUT.json: `losses`, the loss in v on all held-out digits by
quarter of t, of the averaged and of the last weights; `norms`, the norm of the gradient in each step, before it was
clipped; `curve`, every ten steps, the loss on a quarter of the held-out digits of the averaged and the last weights.
"""

import json
import types
from pathlib import Path
from typing import Any

import torch
from bench_first_digits import FILE, quarters
from common import arguments, keep
from torch.nn import functional as F

from ddpm_course.data.sets import load_digits

CLIP = "nn.utils.clip_grad_norm_(net.parameters(), 1.0)"
FALL = "fall = 0.5 * (1 + math.cos(math.pi * step / steps))"
PLANS = {
    "without the fall": (FALL, "fall = 1"),
    "all of it": ("", ""),
    "without clipping": (CLIP, CLIP.replace("1.0", "1e9")),
    "without warm-up": ("min(1, (step + 1) / 50)", "1"),
}


def changed(old: str, new: str) -> Any:
    "The file as a module, with one expression replaced; it appends the norms of its gradients to `norms`."
    source = FILE.read_text(encoding="utf-8")
    for before, after in ((old, new), ("nn.utils.clip_grad_norm_(net", "norm = nn.utils.clip_grad_norm_(net")):
        assert not before or source.count(before) == 1
        source = source.replace(before, after) if before else source
    source = source.replace("optimizer.step()", "norms.append(norm.item()); optimizer.step()")
    module = types.ModuleType("first_digits")
    module.norms = []
    exec(source, module.__dict__)
    return module


@torch.no_grad()
def loss_of(m: Any, net: torch.nn.Module) -> float:
    "The loss in v on a quarter of the held-out digits: every fourth of each class, t spread evenly."
    test, random = load_digits("test", 16), torch.Generator().manual_seed(0)
    x0, y = torch.tensor(test.pixels[::4]) / 127.5 - 1, torch.tensor(test.labels[::4])
    t = (torch.arange(len(y)) * m.T // len(y))[torch.randperm(len(y), generator=random)]
    eps = torch.randn(x0.shape, generator=random)
    return round(F.mse_loss(net(m.q_sample(x0, t, eps), t, y), m.velocity(x0, t, eps)).item(), 4)


def one(plan: str, steps: int) -> dict:
    "Train and look."
    m, curve, seen = changed(*PLANS[plan]), {}, []
    loss = m.loss
    m.loss = lambda net, x0, y: (seen.append(net) if not seen else None) or loss(net, x0, y)

    def log(step: int, value: float, average: torch.nn.Module) -> None:
        if step % 10 == 0:
            curve[step] = [loss_of(m, average), loss_of(m, seen[0])]

    average = m.train(steps, log)
    norms = [round(norm, 3) for norm in m.norms]
    return {"losses": [quarters(m, average), quarters(m, seen[0])], "norms": norms, "curve": curve}


def main() -> None:
    args, lines = arguments(__doc__, steps=200, out=""), []
    for plan in PLANS:
        lines.append({"plan": plan, "steps": args.steps, **one(plan, args.steps)})
        print(json.dumps(lines[-1]["losses"]), flush=True)
        if args.out:
            keep(lines, Path(f"{args.out}.json"), "torch")


if __name__ == "__main__":
    main()
