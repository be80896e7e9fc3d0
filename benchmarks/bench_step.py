"""Training steps of our U-Net, of diffusers' and of denoising-diffusion-pytorch's, side by side.

    pip install diffusers denoising-diffusion-pytorch
    python benchmarks/bench_step.py [--plan paper] [--batch 8] [--rounds 7] [--precision fp32] [--out step]

The three have equally many parameters (within 5 %), the same batch, precision, loss and optimizer: as many parameters
as the network of Ho et al. for CIFAR-10, or as a smaller one. They take turns within each round, so that a disturbed
machine disturbs all; what counts is the median over rounds of a peer's seconds over ours. Writes OUT.json, with machine
and versions, and OUT.png. Bounds: 1.0 times diffusers, 1.4 times the other.
"""

import json
import statistics
from functools import partial
from pathlib import Path

import torch
from common import arguments, draw, in_turn, keep, seconds
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from ddpm_course.unet import UNet

PACKAGES = ("torch", "diffusers", "denoising-diffusion-pytorch")
OURS = "ddpm_course"
# our channels and multipliers, and the third's channels, which make it as large
PLANS = {"paper": (128, (1, 2, 2, 2), 144), "small": (64, (1, 2, 2), 72)}


def networks(size: int, plan: str) -> dict[str, torch.nn.Module]:
    "Two blocks a level, attention at half the resolution; the third has its own, linear at every level but the last."
    from denoising_diffusion_pytorch import Unet
    from diffusers import UNet2DModel

    channels, multipliers, theirs = PLANS[plan]
    where = ["Attn" if level == 1 else "" for level in range(len(multipliers))]
    told = {"block_out_channels": [channels * m for m in multipliers], "layers_per_block": 2, "downsample_padding": 0}
    told |= {"norm_num_groups": min(32, channels // 4), "attention_head_dim": channels * multipliers[1]}
    down, up = ([f"{kind}{way}Block2D" for kind in order] for way, order in (("Down", where), ("Up", where[::-1])))
    peer = UNet2DModel(size, down_block_types=down, up_block_types=up, **told)
    ours = UNet(3, size, channels, multipliers, blocks=2, attention=(size // 2,), dropout=0.0)
    return {OURS: ours, "diffusers": peer, "denoising-diffusion-pytorch": Unet(dim=theirs, dim_mults=multipliers)}


def trainer(network: torch.nn.Module, size: int, batch: int, precision: str):
    "A function that takes one step of training, always on the same batch."
    optimizer = torch.optim.AdamW(network.train().parameters(), 1e-4)
    draws = torch.Generator().manual_seed(0)
    x, eps = torch.randn(2, batch, 3, size, size, generator=draws)
    t = torch.randint(1000, (batch,), generator=draws)

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            answer = network(x, t)
        loss = F.mse_loss(getattr(answer, "sample", answer).float(), eps)
        loss.backward()
        optimizer.step()

    return step


def measure(args) -> dict:
    nets = networks(args.size, args.plan)
    counts = {name: sum(p.numel() for p in net.parameters()) for name, net in nets.items()}
    assert all(abs(count / counts[OURS] - 1) < 0.05 for count in counts.values()), counts
    steps = {name: trainer(net, args.size, args.batch, args.precision) for name, net in nets.items()}
    works = {name: partial(seconds, step, 2) for name, step in steps.items()}
    in_turn(works, 1)  # the first are slow
    taken = in_turn(works, args.rounds)
    own = {name: statistics.median(values) for name, values in taken.items()}
    ratios = {name: statistics.median(t / o for t, o in zip(taken[name], taken[OURS])) for name in nets}
    conv, x = torch.nn.Conv2d(128, 128, 3, padding=1), torch.randn(args.batch, 128, args.size // 2, args.size // 2)
    counted = {"our step": (steps[OURS], own[OURS])}
    with torch.no_grad():  # the convolution that the networks use most, forward and alone
        counted["one convolution, float32"] = lambda: conv(x), min(seconds(lambda: conv(x), 3) for _ in range(5))
    found = {
        "parameters": counts,
        "images a second": {name: round(args.batch / took, 2) for name, took in own.items()},
        "times as fast": {name: round(ratio, 3) for name, ratio in ratios.items() if name != OURS},
    }
    for name, (work, took) in counted.items():
        with FlopCounterMode(display=False) as flops:
            work()
        found[f"GFLOP/s of {name}"] = round(flops.get_total_flops() / took / 1e9, 1)
    return found | {name: getattr(args, name) for name in ("plan", "batch", "size", "precision", "rounds")}


def plot(found: dict, path: Path) -> None:
    import matplotlib.pyplot as plt

    names = list(found["images a second"])
    fig, ax = plt.subplots(figsize=(6, 2.0), layout="constrained")
    bars = ax.barh(names, list(found["images a second"].values()), color=["tab:blue", "0.7", "0.7"])
    ax.bar_label(bars, padding=3)
    ax.invert_yaxis()
    plan = "as large as the paper's" if found["plan"] == "paper" else "smaller"
    told = f"networks {plan}, {found['size']}x{found['size']}, batch {found['batch']}"
    ax.set(xlabel=f"images a second in training\n{told}")
    draw(fig, path)


def main() -> None:
    args = arguments(__doc__, plan="paper", size=32, batch=8, rounds=7, precision="fp32", out="step")
    found = measure(args)
    print(json.dumps(found, indent=1))
    keep(found, Path(f"{args.out}.json"), *PACKAGES)
    plot(found, Path(f"{args.out}.png"))


if __name__ == "__main__":
    main()
