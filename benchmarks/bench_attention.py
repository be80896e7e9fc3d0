"""Attention forward and backward on the CPU: plain products (three dimensions) against the fused kernel (four).

    python benchmarks/bench_attention.py [--rounds 5]

Milliseconds, medians of rounds in which the two take turns.
"""

from functools import partial

import torch
from common import arguments, medians, seconds
from torch.nn import functional as F

SIZES = ((64, 16, 64), (64, 64, 64), (16, 256, 256), (4, 1024, 64))  # batch, places, channels


def milliseconds(x: torch.Tensor) -> float:
    return 1e3 * seconds(lambda: F.scaled_dot_product_attention(x, x, x).sum().backward(), 10)


def main() -> None:
    rounds = arguments(__doc__, rounds=5).rounds
    for size in SIZES:
        for kind in (torch.float32, torch.bfloat16):
            x = torch.randn(size, dtype=kind)
            ways = {"plain": x.clone().requires_grad_(), "fused": x[:, None].clone().requires_grad_()}
            taken = medians({name: partial(milliseconds, x) for name, x in ways.items()}, rounds)
            print(size, str(kind)[6:], taken, f"{taken['fused'] / taken['plain']:.2f} times")


if __name__ == "__main__":
    main()
