"""Attention forward and backward on the CPU: plain products (three dimensions) against the fused kernel (four).

    python tests/benchmarks/bench_attention.py [--rounds 5]

Milliseconds, medians of rounds in which the two take turns.
"""

import argparse
import statistics
import time

import torch
from torch.nn import functional as F

SIZES = ((64, 16, 64), (64, 64, 64), (16, 256, 256), (4, 1024, 64))  # batch, places, channels


def milliseconds(x: torch.Tensor, times: int = 10) -> float:
    began = time.perf_counter()
    for _ in range(times):
        F.scaled_dot_product_attention(x, x, x).sum().backward()
    return 1e3 * (time.perf_counter() - began) / times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    for size in SIZES:
        for kind in (torch.float32, torch.bfloat16):
            three = torch.randn(size, dtype=kind, requires_grad=True)
            four = three.detach()[:, None].requires_grad_()
            rounds = [(milliseconds(three), milliseconds(four)) for _ in range(args.rounds)]
            plain, fused = (statistics.median(side) for side in zip(*rounds))
            print(f"{size} {str(kind)[6:]:8}  plain {plain:6.2f}  fused {fused:6.2f}  {fused / plain:.2f} times")


if __name__ == "__main__":
    main()
