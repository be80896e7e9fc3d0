"""The file of page 10 (nbs/solutions/first_digits.py) with other learning rates than its own.

    python benchmarks/bench_first_digits.py [--rates 1e-3,2e-3,8e-3,1.6e-2] [--out first_digits_rates]

A run takes one to two minutes of two cores. One line of JSON a rate, and all of them in OUT.json; what is there already
is kept: `loss`, the loss in v of the averaged network on all held-out digits, by quarter of t, and `last`, the mean
training loss of the last 50 steps.
"""

import json
import types
from pathlib import Path
from typing import Any

import torch
from common import arguments, keep
from torch.nn import functional as F

from ddpm_course.data.sets import load_digits

FILE = Path(__file__).resolve().parents[1] / "nbs/solutions/first_digits.py"


def file_with(rate: str) -> Any:
    "The file as a module, with this highest rate."
    source = FILE.read_text(encoding="utf-8")
    assert source.count("4e-3") == 1
    module = types.ModuleType("first_digits")
    exec(source.replace("4e-3", rate), module.__dict__)
    return module


@torch.no_grad()
def quarters(m: Any, net: torch.nn.Module) -> list[float]:
    "As page 10 measures them: the same times and noise for every network."
    test, random, found = load_digits("test", 16), torch.Generator().manual_seed(0), []
    x0, y = torch.tensor(test.pixels) / 127.5 - 1, torch.tensor(test.labels)
    for q in range(4):
        t = torch.randint(q * m.T // 4, (q + 1) * m.T // 4, y.shape, generator=random)
        eps = torch.randn(x0.shape, generator=random)
        found.append(round(F.mse_loss(net(m.q_sample(x0, t, eps), t, y), m.velocity(x0, t, eps)).item(), 4))
    return found


def main() -> None:
    args = arguments(__doc__, rates="1e-3,2e-3,8e-3,1.6e-2", out="")
    out = Path(f"{args.out}.json")
    lines = json.loads(out.read_text())["runs"] if args.out and out.exists() else []
    for rate in args.rates.split(","):
        if any(line["rate"] == rate for line in lines):
            continue
        m, seen = file_with(rate), []
        net = m.train(log=lambda step, value, average, seen=seen: seen.append(value))
        last = sum(seen[-50:]) / 50
        lines.append({"rate": rate, "loss": quarters(m, net), "last": round(last, 4)})
        print(json.dumps(lines[-1]), flush=True)
        if args.out:
            keep(lines, out, "torch")


if __name__ == "__main__":
    main()
