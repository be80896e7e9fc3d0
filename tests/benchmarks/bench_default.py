"""What a run of so many seconds reaches, by its settings: judged by the judge that ships, and by one of other seeds.

    python tests/benchmarks/bench_default.py [--seconds 60] [--out default] '' '--optimizer adamw --lr 3e-3' ...

Each word is what `ddpm train` would be given; '' is the default. The steps are as many as fit (20 are timed first), or
those of --steps; two runs beside one another disturb both. One line of JSON a run, and all of them, with machine and
versions, in OUT.json:

    held-out     loss in v on the held-out digits
    asked        share of 500 digits (guidance 2, 25 DDIM steps) that is read as the class asked for
    spread       within a class, over that of the training digits (same digits)
    guided       their Fréchet distance to the training digits; beside it that of the held-out digits
    plain        Fréchet distance of 500 other digits (guidance 1, 25 ancestral steps)
"""

import argparse
import importlib.metadata
import json
import os
import platform
import shlex
import time
from pathlib import Path

import torch

from ddpm_course.base.machine import pick_precision
from ddpm_course.cli.main import make_parser, prepare, read_settings
from ddpm_course.config import RunConfig, SamplingConfig, override
from ddpm_course.criteria import Simple
from ddpm_course.data.sets import ImageSet, load_digits, to_float, to_uint8
from ddpm_course.heldout import heldout_loss
from ddpm_course.judge import evaluation
from ddpm_course.model import Model
from ddpm_course.run.training import fit, new_state
from ddpm_course.sampling import sample

PER_CLASS = 50


def settings(words: str, digits: ImageSet) -> tuple[RunConfig, bool]:
    "The configuration of `ddpm train WORDS` on the bundled digits, and whether it says how many steps."
    args = make_parser().parse_args(["train", *shlex.split(words)])
    prepare(args, [])
    config = read_settings(args)
    precision = pick_precision(config.training.precision, torch.device("cpu"))
    return override(config, classes=digits.classes, precision=precision), args.steps is not None


def step_seconds(config: RunConfig, digits: ImageSet) -> float:
    for record in fit(new_state(config), digits, override(config, steps=28)):
        if record["step"] == 8:
            began = time.perf_counter()
    return (time.perf_counter() - began) / 20


def train(config: RunConfig, digits: ImageSet) -> tuple[Model, float]:
    state, began = new_state(config), time.perf_counter()
    for _ in fit(state, digits, config):
        pass
    return state.ema, time.perf_counter() - began


def spread(images: torch.Tensor, y: torch.Tensor) -> float:
    "Root of the mean variance of a pixel within a class."
    return torch.stack([images[y == c].var(0).mean() for c in range(10)]).mean().sqrt().item()


def asked(judge: torch.nn.Module, images: torch.Tensor, y: torch.Tensor) -> float:
    "The share of images that is read as the class asked for."
    return (evaluation.extract(judge, images)[1].argmax(1) == y).double().mean().item()


def distances(judge: torch.nn.Module, digits: dict[str, ImageSet], **sets: torch.Tensor) -> dict[str, float]:
    "Fréchet distances to the training digits: of the held-out ones and of each set."
    real, unseen = (evaluation.extract(judge, digits[split].pixels)[0] for split in ("train", "test"))
    features = {"held-out": unseen} | {name: evaluation.extract(judge, images)[0] for name, images in sets.items()}
    return {name: round(evaluation.frechet_distance(x, real), 2) for name, x in features.items()}


def judged(model: Model, judges: dict, digits: dict[str, ImageSet], bf16: bool) -> dict:
    "What the judges say of guided and of plain digits."
    y, even = torch.arange(10).repeat(PER_CLASS), evaluation.allot_classes(digits["train"].labels, 10 * PER_CLASS)
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        guided = sample(model, range(10), PER_CLASS, SamplingConfig(sampler="ddim", steps=25, guidance=2), batch=250)
        how = SamplingConfig(sampler="ddpm", steps=25, guidance=1)
        drawn = evaluation.draw_samples(model, even, how, batch=250)
    guided, labels = to_uint8(guided.float()), torch.from_numpy(digits["train"].labels)
    found = {"spread": round(spread(to_float(guided), y) / spread(to_float(digits["train"].pixels), labels), 3)}
    return found | {
        name: {"asked": asked(judge, guided, y)} | distances(judge, digits, guided=guided, plain=drawn)
        for name, judge in judges.items()
    }


def keep(found: list | dict, path: Path, *packages: str) -> None:
    "Write what was found as JSON, with the machine and the packages' versions."
    machine = {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()}
    versions = {name: importlib.metadata.version(name) for name in packages}
    path.write_text(json.dumps({"machine": machine, "versions": versions, "runs": found}, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--out", default="")
    parser.add_argument("runs", nargs="+")
    args = parser.parse_args()
    digits = {split: load_digits(split, 16) for split in ("train", "test")}
    judges = {"judge": evaluation.load_judge(), "second judge": evaluation.train_judge(digits["train"], seed=11)}
    lines = []
    for words in args.runs:
        config, fixed = settings(words, digits["train"])
        if not fixed:
            config = override(config, steps=int(args.seconds / step_seconds(config, digits["train"])))
        model, took = train(config, digits["train"])
        line = {"run": words, "steps": config.training.steps, "seconds": round(took)}
        line["precision"] = config.training.precision
        line["parameters"] = sum(p.numel() for p in model.network.parameters())
        line["held-out"] = round(heldout_loss(model, digits["test"], Simple(), 2)["loss"]["mean"], 4)
        lines.append(line | judged(model, judges, digits, config.training.precision == "bf16"))
        print(json.dumps(lines[-1]), flush=True)
    if args.out:
        keep(lines, Path(f"{args.out}.json"), "torch")


if __name__ == "__main__":
    main()
