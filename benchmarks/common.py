"What the benchmarks share: arguments, a run's settings, training, judges, turns, results with machine and versions."

import argparse
import importlib.metadata
import json
import multiprocessing
import os
import platform
import re
import shlex
import socket
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ddpm_course.base.group import Group
from ddpm_course.base.machine import pick_precision
from ddpm_course.cli.flags import read_settings
from ddpm_course.cli.main import make_parser
from ddpm_course.config import RunConfig, SamplingConfig, override
from ddpm_course.data.sets import ImageSet, load_digits
from ddpm_course.data.sources import load_data
from ddpm_course.heldout import heldout_loss
from ddpm_course.judge import evaluation
from ddpm_course.model import Model
from ddpm_course.run.launch import join
from ddpm_course.run.training import fit, new_state
from ddpm_course.simple import Simple

CPU = torch.device("cpu")


def arguments(text: str, **defaults: Any) -> argparse.Namespace:
    "`--name VALUE` for each default, of its type, and `words` for all else; `text` is its help."
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in defaults.items():
        parser.add_argument(f"--{name}", type=type(default), default=default)
    parser.add_argument("words", nargs="*")
    return parser.parse_args()


def settings(words: str, images: ImageSet | None = None, device: torch.device = CPU) -> tuple[RunConfig, ImageSet]:
    "The configuration of `ddpm train WORDS`, on its own images or on these."
    args = make_parser("train").parse_args(["train", *shlex.split(words)])
    config = read_settings(args)
    if images is None:
        images, _ = load_data(config.data.data, config.data.size, config.data.image_channels or None)
    precision = pick_precision(config.training.precision, device)
    return override(config, classes=images.classes, image_channels=images.channels, precision=precision), images


def seconds(work: Callable[[], Any], times: int = 1) -> float:
    began = time.perf_counter()
    for _ in range(times):
        work()
    return (time.perf_counter() - began) / times


def in_turn(works: dict[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    "What each gives, round after round, so that a disturbed machine disturbs all."
    taken = [{name: work() for name, work in works.items()} for _ in range(rounds)]
    return {name: [one[name] for one in taken] for name in works}


def medians(works: dict[str, Callable[[], float]], rounds: int, digits: int = 3) -> dict[str, float]:
    return {name: round(statistics.median(all), digits) for name, all in in_turn(works, rounds).items()}


def keep(found: list | dict, path: Path, *packages: str) -> None:
    "Write what was found as JSON, with the machine and the packages' versions; of a list each run in a line."
    machine = {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()}
    versions = {name: importlib.metadata.version(name) for name in packages}
    head = json.dumps({"machine": machine, "versions": versions})[:-1]
    rows = isinstance(found, list)
    body = "[\n " + ",\n ".join(map(json.dumps, found)) + "\n]" if rows else json.dumps(found, indent=1)
    path.write_text(f'{head}, "runs": {body}}}\n')


def floors(digits: ImageSet, draws: int = 40) -> list[float]:
    "Distances of 500 real digits from all others, each time 500 other ones."
    features = evaluation.extract(evaluation.load_judge(), digits.pixels)[0]
    return [evaluation.real_floor(features, digits.labels, 500, seed, draws=1) for seed in range(draws)]


def draw_floor(ax: Any, floor: list[float]) -> None:
    mean, spread = statistics.mean(floor), statistics.stdev(floor)
    ax.axhspan(mean - spread, mean + spread, color="0.85", label=f"500 real digits: {mean:.2f} ± {spread:.2f}")


def draw(fig: Any, path: Path) -> None:
    for ax in fig.axes:
        ax.spines[["top", "right"]].set_visible(False)
    fig.savefig(path, dpi=100)


def pace(group: Group, config: RunConfig, images: ImageSet, steps: int, threads: int) -> tuple[float, float]:
    "What a process of a run takes: seconds a step, the first three left out, and MB at the peak (by Linux)."
    torch.set_num_threads(threads)
    config = override(config, steps=steps + 3)
    records = fit(new_state(config, group.device or CPU, group), images, config, group)

    def some(n: int) -> None:
        for _ in range(n):
            next(records)
        group.all_reduce(torch.zeros(1, device=group.device)).item()  # until all are done

    some(3)
    taken, status = seconds(partial(some, steps)) / steps, Path("/proc/self/status").read_text()
    return taken, int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1024  # ru_maxrss begins with the parent's


def member(rank: int, world: int, port: int, kind: str, work: Callable, args: tuple) -> Any:
    "One of several processes, which find each other as those of torchrun do."
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in place.items()})
    with join(kind) as group:
        return work(group, *args)


def together(work: Callable, world: int, *args: Any, kind: str = "cpu") -> Any:
    "What `work(group, *args)` returns to the first of so many new processes."
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    one = partial(member, world=world, port=port, kind=kind, work=work, args=args)
    with ProcessPoolExecutor(world, multiprocessing.get_context("spawn")) as pool:
        return list(pool.map(one, range(world)))[0]


# -- training for so many seconds, and what the judges say ------------------------------------------------------------


def digits_and_judges() -> tuple[dict[str, ImageSet], dict[str, torch.nn.Module]]:
    "Both splits; the judge that ships, and a second one of other seeds."
    sys.path.append(str(Path(__file__).resolve().parents[1] / "tools"))
    from make_judge import train_judge

    digits = {split: load_digits(split, 16) for split in ("train", "test")}
    return digits, {"judge": evaluation.load_judge(), "second judge": train_judge(digits["train"], seed=11)}


def train(words: str, most: float, digits: dict[str, ImageSet]) -> tuple[Model, dict]:
    "As many steps as fit into the seconds (20 are timed first) or as the words say; the average, what is known of it."
    config, images = settings(words, digits["train"])
    if "--steps" not in words:
        steps = fit(new_state(config), images, override(config, steps=28))
        for _ in range(8):
            next(steps)
        config = override(config, steps=max(1, int(most / seconds(partial(next, steps), 20))))
    state = new_state(config)
    took = seconds(lambda: [None for _ in fit(state, images, config)])
    return state.ema, {
        "run": words,
        "steps": config.training.steps,
        "seconds": round(took),
        "precision": config.training.precision,
        "parameters": sum(p.numel() for p in state.ema.network.parameters()),
        "held-out": round(heldout_loss(state.ema, digits["test"], Simple(), 2)["loss"]["mean"], 4),
    }


def plain_digits(model: Model, digits: dict[str, ImageSet], n: int = 500) -> tuple[torch.Tensor, torch.Tensor]:
    "Digits of 25 ancestral steps without guidance, classes as often as in training; and their classes."
    y = evaluation.allot_classes(digits["train"].labels, n)
    return evaluation.draw_samples(model, y, SamplingConfig(sampler="ddpm", steps=25, guidance=1), batch=250), y


def judged(judge: torch.nn.Module, digits: dict[str, ImageSet], y: torch.Tensor, **sets: torch.Tensor) -> dict:
    "The share of the first set that is read as its classes; Fréchet distances of held-out digits and sets to training."
    seen = {name: evaluation.extract(judge, images) for name, images in sets.items()}
    asked = (next(iter(seen.values()))[1].argmax(1) == y).double().mean().item()
    real, unseen = (evaluation.extract(judge, digits[split].pixels)[0] for split in ("train", "test"))
    features = {"held-out": unseen} | {name: found for name, (found, _) in seen.items()}
    return {"asked": asked} | {name: round(evaluation.frechet_distance(x, real), 2) for name, x in features.items()}
