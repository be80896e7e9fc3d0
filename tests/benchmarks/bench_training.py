"""Where the time of a training step goes on this machine, and how it scales over its processes: in about two minutes.

    python tests/benchmarks/bench_training.py [--steps 20] [--out training] [--device auto] -- --preset cifar10 ...

What follows `--` is what `ddpm train` would be given. For one process: milliseconds of each part of a step, with a wait
for the device after each, beside a step without such waits; and the share of the measured peak, that of a large matrix
product in the run's precision. Then images a second of 1, 2, 4, ... processes: as many as there are GPUs, or CPU cores
(one thread each), every process with the whole batch's size, so that the batch grows with them. Writes OUT.json, with
machine and versions, and OUT.png.
"""

import argparse
import json
import os
import statistics
import time
from pathlib import Path

import torch
from bench_default import keep
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ddpm_course.base.machine import LOW, cores, pick_device, pick_precision
from ddpm_course.cli.main import make_parser, prepare, read_settings
from ddpm_course.config import RunConfig, override
from ddpm_course.data.sets import ImageSet
from ddpm_course.data.sources import load_data
from ddpm_course.run.launch import launch
from ddpm_course.run.training import TrainState, fit, make_batch, new_state, train_step, update_ema


class Clock:
    "Adds up the seconds of named parts, each until the device is done."

    def __init__(self, device: torch.device):
        self.wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
        self.parts: dict[str, list[float]] = {}
        self.start()

    def start(self) -> None:
        self.wait()
        self.since = time.perf_counter()

    def lap(self, part: str) -> None:
        self.wait()
        now = time.perf_counter()
        self.parts.setdefault(part, []).append(1000 * (now - self.since))
        self.since = now

    def medians(self) -> dict[str, float]:
        return {part: round(statistics.median(taken[2:]), 2) for part, taken in self.parts.items()}


def apart(state: TrainState, config: RunConfig, images: ImageSet, steps: int) -> dict[str, float]:
    "The parts of `train_step`, one after the other."
    device, training = state.model.device, config.training
    clock, like, low = Clock(device), next(state.network.parameters()), LOW[training.precision]
    for step in range(steps):
        state.network.train()
        state.optimizer.zero_grad()
        clock.start()
        batch = make_batch(images, config, step, state.criterion)
        clock.lap("make the batch")
        batch = batch.to(like)
        clock.lap("move it")
        with torch.autocast(device.type, low, enabled=low is not None):
            loss = (batch.weight * state.criterion.losses(state.model, batch)["loss"]).mean()
        clock.lap("forward")
        state.scaler.scale(loss).backward()
        clock.lap("backward")
        state.scaler.unscale_(state.optimizer)
        nn.utils.clip_grad_norm_(state.network.parameters(), training.clip)
        state.scaler.step(state.optimizer)
        state.scaler.update()
        clock.lap("clip and optimizer")
        update_ema(state.ema.network, state.network, 0.99)
        clock.lap("average")
    for step in range(steps):
        batch = make_batch(images, config, step, state.criterion).to(like)
        clock.start()
        train_step(state, [batch], config)
        clock.lap("a step as it is, but for the batch")
    return clock.medians()


def peak(precision: str, device: torch.device) -> float:
    "Floating-point operations a second of a large matrix product."
    side = 2048 if device.type == "cpu" else 8192
    a = torch.randn(side, side, device=device, dtype=LOW[precision] or torch.float32)
    clock = Clock(device)
    for _ in range(8):
        clock.start()
        a @ a
        clock.lap("product")
    return 2 * side**3 / (min(clock.parts["product"]) / 1000)


def speed(group, config: RunConfig, images: ImageSet, steps: int, threads: int) -> float:
    "Images a second of all processes, the first five steps left out."
    torch.set_num_threads(threads)
    config = override(config, batch=config.training.batch * group.world, steps=steps + 5)
    state = new_state(config, group.device or "cpu", group)
    clock = Clock(state.model.device)
    for record in fit(state, images, config, group):
        if record["step"] == 5:
            group.all_reduce(torch.zeros(1))
            clock.start()
    group.all_reduce(torch.zeros(1))
    clock.lap("all")
    return steps * config.training.batch / (clock.parts["all"][0] / 1000)


def counts(device: torch.device) -> list[int]:
    most = torch.cuda.device_count() if device.type == "cuda" else cores()
    return [n for n in (1, 2, 4, 8, 16) if n <= most]


def measure(words: list[str], steps: int, name: str) -> dict:
    import bench_training  # new processes find the work in the module, not in __main__

    args = make_parser().parse_args(["train", *words])
    prepare(args, [])
    config, device = read_settings(args), pick_device(name)
    images, _ = load_data(config.data.data, config.data.size, config.data.image_channels or None)
    precision = pick_precision(config.training.precision, device)
    config = override(config, classes=images.classes, image_channels=images.channels, precision=precision)
    state = new_state(config, device)
    batch = make_batch(images, config, 0).to(next(state.network.parameters()))
    with FlopCounterMode(display=False) as flops:
        train_step(state, [batch], config)
    parts = apart(state, config, images, steps)
    whole = parts["a step as it is, but for the batch"] / 1000
    best = peak(precision, device)
    found = {
        "settings": " ".join(words),
        "device": torch.cuda.get_device_name() if device.type == "cuda" else device.type,
        "precision": precision,
        "threads": torch.get_num_threads(),
        "batch": config.training.batch,
        "milliseconds": parts,
        "GFLOP a step": round(flops.get_total_flops() / 1e9, 2),
        "share of the measured peak": round(flops.get_total_flops() / whole / best, 3),
        "measured peak, GFLOP/s": round(best / 1e9),
    }
    threads = 1 if device.type == "cpu" else torch.get_num_threads()
    found["images a second, by processes"] = {
        n: round(launch(bench_training.speed, n, config, images, steps, threads, kind=device.type)[0], 1)
        for n in counts(device)
    }
    return found


def plot(found: dict, path: Path) -> None:
    import matplotlib.pyplot as plt

    fig, (left, right) = plt.subplots(1, 2, figsize=(10, 2.6), width_ratios=(3, 2))
    parts = {name: ms for name, ms in found["milliseconds"].items() if not name.startswith("a step")}
    left.bar_label(left.barh(list(parts), list(parts.values()), color="tab:blue"), padding=3)
    left.invert_yaxis()
    left.set(xlabel="milliseconds of a step, with a wait after each part")
    speeds = {int(n): s for n, s in found["images a second, by processes"].items()}
    right.plot(list(speeds), list(speeds.values()), "o-", label="measured")
    right.plot(list(speeds), [speeds[1] * n for n in speeds], ":", color="0.5", label="ideal")
    right.set_xticks(list(speeds))
    right.set(xlabel="processes", ylabel="images a second", ylim=0)
    right.legend(frameon=False)
    for ax in (left, right):
        ax.spines[["top", "right"]].set_visible(False)
    fig.tight_layout()
    fig.savefig(path, dpi=100)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", default="training")
    parser.add_argument("words", nargs="*")
    args = parser.parse_args()
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    found = measure(args.words, args.steps, args.device)
    print(json.dumps(found, indent=1))
    keep(found, Path(f"{args.out}.json"), "torch")
    plot(found, Path(f"{args.out}.png"))


if __name__ == "__main__":
    main()
