"""Images a second of one process with two threads against two processes with one thread each, side by side.

    python tests/benchmarks/bench_processes.py [--preset mnist16] [--steps 30] [--rounds 3] [--precision fp32]

The two take turns, so that a disturbed machine disturbs both. Bound: two processes reach at least what one reaches.
"""

import argparse
import statistics
import sys
import time

import torch

from ddpm_course.config import PRESETS, override
from ddpm_course.data.sets import load_digits
from ddpm_course.run.launch import launch
from ddpm_course.run.training import fit, new_state


def speed(group, config, threads: int) -> float:
    "Images a second, the first five steps left out."
    torch.set_num_threads(threads)
    state, began = new_state(config, group=group), 0.0
    for record in fit(state, load_digits("train", config.data.size), config, group=group):
        if record["step"] == 5:
            group.all_reduce(torch.zeros(1))
            began = time.perf_counter()
    group.all_reduce(torch.zeros(1))
    return (config.training.steps - 5) * config.training.batch / (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="mnist16")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--precision", default="fp32")
    args = parser.parse_args()
    config = override(PRESETS[args.preset], steps=args.steps, precision=args.precision, classes=tuple("0123456789"))
    import bench_processes  # new processes find the worker in the module, not in __main__

    one, two = [], []
    for _ in range(args.rounds):
        one.append(launch(bench_processes.speed, 1, config, 2)[0])
        two.append(launch(bench_processes.speed, 2, config, 1)[0])
        print(
            f"1 process x 2 threads {one[-1]:6.1f} images/s    2 processes x 1 thread {two[-1]:6.1f} images/s",
            flush=True,
        )
    ratio = statistics.median(two) / statistics.median(one)
    print(f"medians {statistics.median(one):.1f} and {statistics.median(two):.1f}: {ratio:.2f} times")
    sys.exit(ratio < 1)


if __name__ == "__main__":
    main()
