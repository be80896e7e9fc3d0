"""Where the time of a training step goes on this machine, and how it scales over its processes: in about two minutes.

    python benchmarks/bench_training.py [--steps 20] [--device auto] -- --preset cifar10 ...

What follows `--` is what `ddpm train` would be given. For one process: milliseconds to make a batch and to take a step,
and the step's share of the peak, that of a large matrix product in the run's precision. Then images a second of 1, 2,
4, ... processes, as many as there are GPUs, or CPU cores (one thread each); each has the whole batch's size.
"""

import json
import os
import shlex
import statistics

import torch
from common import arguments, pace, seconds, settings, together
from torch.utils.flop_counter import FlopCounterMode

from ddpm_course.base.machine import LOW, cores, pick_device
from ddpm_course.config import override
from ddpm_course.run.training import make_batch, new_state, train_step


def main() -> None:
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    args = arguments(__doc__, steps=20, device="auto")
    device = pick_device(args.device)
    config, images = settings(shlex.join(args.words), device=device)
    gpu, low = device.type == "cuda", LOW[config.training.precision]

    def median(work) -> float:
        wait = torch.cuda.synchronize if gpu else lambda: None
        taken = [seconds(lambda: (work(), wait())) for _ in range(args.steps)]
        return statistics.median(taken[2:])

    state = new_state(config, device)
    batch = make_batch(images, config, 0, state.criterion).to(next(state.network.parameters()))
    square = torch.randn(2, 8192 if gpu else 2048, device=device, dtype=low or torch.float32)
    square = square[:1].T @ square[1:]
    with FlopCounterMode(display=False) as flops:
        train_step(state, [batch], config)
    step, best = median(lambda: train_step(state, [batch], config)), median(lambda: square @ square)
    threads = torch.get_num_threads() if gpu else 1
    most, batch_size = torch.cuda.device_count() if gpu else cores(), config.training.batch

    def speed(n: int) -> float:
        grown = override(config, batch=n * batch_size)
        return n * batch_size / together(pace, n, grown, images, args.steps, threads, kind=device.type)[0]

    found = {
        "device": torch.cuda.get_device_name() if gpu else device.type,
        "precision": config.training.precision,
        "milliseconds to make a batch": 1000 * median(lambda: make_batch(images, config, 1, state.criterion)),
        "milliseconds of a step": 1000 * step,
        "share of the measured peak": flops.get_total_flops() / step / (2 * len(square) ** 3 / best),
        "images a second, by processes": {n: speed(n) for n in (1, 2, 4, 8, 16) if n <= most},
    }
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
