"""The file of page 10 (nbs/solutions/first_digits.py) with eps, x0 or v as the target of its network.

    python benchmarks/bench_targets.py [--seeds 3] [--steps 300] [--out targets]

Only `velocity` and `to_x0` change; networks of one seed start from the same weights and see the same digits, times and
noise. A run takes two to five minutes of one core. One line of JSON a run, and all of them in OUT.json; what is there
already is kept:

    x0, eps      squared error of the averaged network on the held-out digits, by eighth of the chain, of the image
                 (clipped) and of the noise that its answer implies; times and noise are the same for every network
    25, 4, 2     200 digits of `sample` in so many steps, with guidance 2: the share that is classified correctly, their
                 Fréchet distance from the training digits, and of seed 0 the first ten digits as hexadecimal bytes
"""

import json
import types
from pathlib import Path
from typing import Any

import torch
from bench_first_digits import FILE
from common import arguments, keep

from ddpm_course.data.sets import load_digits, to_uint8
from ddpm_course.judge import evaluation
from ddpm_course.losses import OBJECTIVES

PARTS = 8


def file_with(target: str, seed: int) -> Any:
    "The file as a module, with this target and seed."
    source, module, objective = FILE.read_text(encoding="utf-8"), types.ModuleType("first_digits"), OBJECTIVES[target]
    in_train = "    torch.manual_seed(0)\n    digits ="
    assert source.count(in_train) == 1
    exec(source.replace(in_train, in_train.replace("0", str(seed))), module.__dict__)
    module.velocity = lambda x0, t, eps: objective.target(x0, eps, *module.scales(t))
    module.to_x0 = lambda xt, t, answer: objective.solve(answer, xt, *module.scales(t))[0]
    return module


@torch.no_grad()
def errors(m: Any, net: torch.nn.Module, target: str) -> dict[str, list[float]]:
    "Each held-out digit once in each eighth of the chain."
    test, random, found = load_digits("test", 16), torch.Generator().manual_seed(0), {"x0": [], "eps": []}
    x0, y = torch.tensor(test.pixels) / 127.5 - 1, torch.tensor(test.labels)
    for k in range(PARTS):
        t = torch.randint(k * m.T // PARTS, (k + 1) * m.T // PARTS, y.shape, generator=random)
        eps = torch.randn(x0.shape, generator=random)
        xt = m.q_sample(x0, t, eps)
        x0_hat, eps_hat = OBJECTIVES[target].solve(net(xt, t, y), xt, *m.scales(t))
        found["x0"].append(round((x0_hat.clamp(-1, 1) - x0).square().mean().item(), 6))
        found["eps"].append(round((eps_hat - eps).square().mean().item(), 6))
    return found


def drawn(m: Any, net: torch.nn.Module, steps: int, show: bool) -> dict[str, Any]:
    "What the classifier says about 20 digits of each class."
    torch.manual_seed(1)
    y, judge = torch.arange(10).repeat(20), evaluation.load_judge()
    images = to_uint8(m.sample(net, y, steps=steps))
    features, scores = evaluation.extract(judge, images)
    real = evaluation.extract(judge, load_digits("train", 16).pixels)[0]
    correct = (scores.argmax(1) == y).double().mean().item()
    found = {"correct": correct, "distance": round(evaluation.frechet_distance(features, real), 2)}
    return found | ({"images": images[:10].numpy().tobytes().hex()} if show else {})


def main() -> None:
    args = arguments(__doc__, seeds=3, steps=300, out="")
    out = Path(f"{args.out}.json")
    lines = json.loads(out.read_text())["runs"] if args.out and out.exists() else []
    for seed in range(args.seeds):
        for target in OBJECTIVES:
            head = {"target": target, "seed": seed, "steps": args.steps}
            if any(head.items() <= line.items() for line in lines):
                continue
            m = file_with(target, seed)
            net = m.train(steps=args.steps, log=lambda step, value, average: None)
            drawings = {str(n): drawn(m, net, n, show=seed == 0) for n in (25, 4, 2)}
            lines.append(head | errors(m, net, target) | drawings)
            print(target, seed, *(lines[-1][unit] for unit in ("x0", "eps")), flush=True)
            if args.out:
                keep(lines, out, "torch")


if __name__ == "__main__":
    main()
