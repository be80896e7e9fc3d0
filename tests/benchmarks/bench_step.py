"""Training steps of our U-Net, of diffusers' and of denoising-diffusion-pytorch's, side by side.

    pip install diffusers denoising-diffusion-pytorch
    python tests/benchmarks/bench_step.py [--plan paper] [--batch 8] [--rounds 7] [--precision fp32] [--out step]

The three have equally many parameters (within 5 %), the same batch, precision, loss and optimizer: as many parameters
as the network of Ho et al. for CIFAR-10, or as a smaller one. They take turns within each round, so that a disturbed
machine disturbs all; what counts is the median over rounds of a peer's seconds over ours. Writes OUT.json, with machine
and versions, and OUT.png. Bounds: 1.0 times diffusers, 1.4 times the other.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import statistics
import time
from pathlib import Path

import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from ddpm_course.unet import UNet

PACKAGES = ("torch", "diffusers", "denoising-diffusion-pytorch")
OURS = "ddpm_course"


PLANS = {  # our channels and multipliers, and the third's channels, which make it as large
    "paper": (128, (1, 2, 2, 2), 144),
    "small": (64, (1, 2, 2), 72),
}


def networks(size: int, plan: str) -> dict[str, torch.nn.Module]:
    "Two blocks a level, attention at half the resolution; the third has its own, linear at every level but the last."
    from denoising_diffusion_pytorch import Unet
    from diffusers import UNet2DModel

    channels, multipliers, theirs = PLANS[plan]
    levels = range(len(multipliers))
    peer = UNet2DModel(
        sample_size=size,
        layers_per_block=2,
        block_out_channels=[channels * m for m in multipliers],
        down_block_types=["AttnDownBlock2D" if level == 1 else "DownBlock2D" for level in levels],
        up_block_types=["AttnUpBlock2D" if level == 1 else "UpBlock2D" for level in reversed(levels)],
        norm_num_groups=min(32, channels // 4),
        attention_head_dim=channels * multipliers[1],
        downsample_padding=0,
    )
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


def seconds(work, times: int) -> float:
    began = time.perf_counter()
    for _ in range(times):
        work()
    return (time.perf_counter() - began) / times


def conv_peak(size: int, batch: int) -> float:
    "Floating-point operations a second of the convolution that the networks use most, forward and alone."
    conv, x = torch.nn.Conv2d(128, 128, 3, padding=1), torch.randn(batch, 128, size // 2, size // 2)
    with torch.no_grad():
        best = min(seconds(lambda: conv(x), 3) for _ in range(5))
    return 2 * 9 * 128 * 128 * batch * (size // 2) ** 2 / best


def measure(plan: str, size: int, batch: int, rounds: int, precision: str) -> dict:
    nets = networks(size, plan)
    counts = {name: sum(p.numel() for p in net.parameters()) for name, net in nets.items()}
    assert all(abs(count / counts[OURS] - 1) < 0.05 for count in counts.values()), counts
    steps = {name: trainer(net, size, batch, precision) for name, net in nets.items()}
    for step in steps.values():
        seconds(step, 2)
    taken = [{name: seconds(step, 2) for name, step in steps.items()} for _ in range(rounds)]
    with FlopCounterMode(display=False) as flops:
        steps[OURS]()
    own = statistics.median(r[OURS] for r in taken)
    return {
        "parameters": counts,
        "images a second": {name: round(batch / statistics.median(r[name] for r in taken), 2) for name in nets},
        "times as fast": {
            name: round(statistics.median(r[name] / r[OURS] for r in taken), 3) for name in nets if name != OURS
        },
        "GFLOP/s of our step": round(flops.get_total_flops() / own / 1e9, 1),
        "GFLOP/s of one convolution, float32": round(conv_peak(size, batch) / 1e9, 1),
        "plan": plan,
        "batch": batch,
        "size": size,
        "precision": precision,
        "rounds": rounds,
        "machine": {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()},
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
    }


def plot(found: dict, path: Path) -> None:
    import matplotlib.pyplot as plt

    names = list(found["images a second"])
    fig, ax = plt.subplots(figsize=(6, 2.0))
    bars = ax.barh(names, list(found["images a second"].values()), color=["tab:blue", "0.7", "0.7"])
    ax.bar_label(bars, padding=3)
    ax.invert_yaxis()
    plan = {"paper": "the paper's network", "small": "a smaller network"}[found["plan"]]
    ax.set(xlabel=f"images a second in training\n{plan}, {found['size']}x{found['size']}, batch {found['batch']}")
    ax.spines[["top", "right"]].set_visible(False)
    fig.tight_layout()
    fig.savefig(path, dpi=100)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plan", default="paper", choices=PLANS)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16"))
    parser.add_argument("--out", default="step")
    args = parser.parse_args()
    found = measure(args.plan, args.size, args.batch, args.rounds, args.precision)
    Path(f"{args.out}.json").write_text(json.dumps(found, indent=2) + "\n")
    plot(found, Path(f"{args.out}.png"))
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
