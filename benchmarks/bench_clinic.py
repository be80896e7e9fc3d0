"""What the doctor finds: each symptom with three seeds, and fifteen healthy runs, in which it should find nothing.

    python benchmarks/bench_clinic.py [--steps 300] [--batch 64] [--seeds 3] [--only 0] [--out clinic]

A sick run differs from a healthy one in one line. OUT.json: for each symptom the check that should name it, with how
many seeds it did, and with how many it was the first of the findings; all findings of each seed; the training loss by
quarter of t. For each healthy run its findings. OUT.npz: of seeds 0 and 1 of each symptom ten samples, and a film of
one of them. Two processes need half an hour; with --steps 120 --batch 32 --only 1, which asks of a sick run only the
check that should name it, some minutes.
"""

import copy
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from common import arguments, keep
from torch import Tensor, nn
from tqdm import tqdm

from ddpm_course.base.group import Group
from ddpm_course.config import PRESETS, SamplingConfig, override
from ddpm_course.data.sets import ImageSet, load_digits, to_uint8
from ddpm_course.judge.checks import CHECKS, examine
from ddpm_course.judge.patient import Patient
from ddpm_course.judge.scores import evaluate_samples
from ddpm_course.lesson.symptoms import SYMPTOMS
from ddpm_course.losses import OBJECTIVES
from ddpm_course.model import build_model
from ddpm_course.run import training
from ddpm_course.run.checkpoints import read_window
from ddpm_course.run.training import EMAS, Average, fit, new_state
from ddpm_course.samplers import SAMPLERS, Step
from ddpm_course.sampling import keyed_noise, plan, walk
from ddpm_course.steps import ddim_step, ddpm_step

PLAIN = SamplingConfig(guidance=1)
EVERY = CHECKS | SYMPTOMS
Budget = tuple[int, int]  # steps, batch


# -- data -------------------------------------------------------------------------------------------------------------


def digits(size: int = 16) -> tuple[ImageSet, ImageSet]:
    return load_digits("train", size), load_digits("test", size)


def in_colours(seed: int, colourful: bool = True) -> tuple[ImageSet, ImageSet]:
    "Digits in three channels, each in a colour of its own, or grey."
    dice = np.random.default_rng(seed)

    def paint(images: ImageSet) -> ImageSet:
        ink = dice.uniform(0.3, 1, (len(images), 3, 1, 1)) if colourful else np.ones((len(images), 3, 1, 1))
        return ImageSet((images.pixels * ink).astype(np.uint8), images.labels, images.classes)

    return tuple(map(paint, digits()))


def shuffled(seed: int) -> tuple[ImageSet, ImageSet]:
    images, held_out = digits()
    return ImageSet(images.pixels, np.random.default_rng(seed).permutation(images.labels), images.classes), held_out


# -- one line each, which makes a run sick ----------------------------------------------------------------------------


class HalfAverage(Average):
    "An average that is kept in bfloat16."

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        super().update(network, step)
        for weight in self.network.parameters():
            weight.copy_(weight.bfloat16())


def noisy_end(step: Step) -> Tensor:
    "DDIM that adds noise in its last step, too."
    x = ddim_step(step.now.x0, step.now.eps, step.x, step.abar, step.abar_next, 0.0)
    return x + 0.1 * step.noise() * (step.abar_next == 1)


def by_place(step: Step) -> Tensor:
    "Ancestral sampling that tells the network a step's place in the walk in place of its index."
    k = len(step.indices) - 2 - step.indices.index(step.t)
    return ddpm_step(step.ask(step.x, k).x0, step.x, step.noise(), step.abar, step.abar_next, "small")


EMAS["in bf16"] = HalfAverage
SAMPLERS |= {"noisy end": noisy_end, "by place": by_place}


def trained(data: tuple[ImageSet, ImageSet], seed: int, steps: int, batch: int, **changes: Any) -> Patient:
    "A run on some data, as a patient."
    images, held_out = data
    told = {"size": images.pixels.shape[-1], "image_channels": images.channels, "classes": images.classes}
    config = override(PRESETS["mnist16"], **{"steps": steps, "batch": batch, "seed": seed, **told} | changes)
    state, log = new_state(config), []
    for record in fit(state, images, config):
        if record["step"] % max(1, config.training.steps // 26) == 0:
            log.append({"step": record["step"], **read_window(state, Group())})
    state.network.eval()
    return Patient(images, held_out, config, state.ema, replace(state.model, network=state.network), log)


def from_zero_to_one(seed: int, budget: Budget) -> Patient:
    "A run that reads its images as 0 to 1."
    with mock.patch.object(training, "to_float", lambda pixels: torch.as_tensor(pixels).float() / 255):
        return trained(digits(), seed, *budget)


@dataclass(frozen=True)
class Case:
    symptom: str
    line: str  # that is changed
    expected: str  # the check that should name it
    make: Callable[[int, Budget, Patient], Patient]  # of a seed, a budget, and a healthy patient of that seed


def told(healthy: Patient, **changes: Any) -> Patient:
    "The same weights, said to be something else."
    config = override(healthy.config, **changes)
    both = {name: build_model(config, getattr(healthy, name).network) for name in ("model", "raw")}
    return replace(healthy, config=config, **both)


def drawn(healthy: Patient, **how: Any) -> Patient:
    return replace(healthy, how=replace(PLAIN, **how))


def dropping(seed: int, budget: Budget) -> Patient:
    patient = trained(digits(), seed, *budget, dropout=0.3)
    patient.model.network.train()
    return patient


def broken(healthy: Patient) -> Patient:
    network = copy.deepcopy(healthy.model.network)
    next(network.parameters()).data[0] = torch.nan
    return replace(healthy, model=replace(healthy.model, network=network))


def twice(healthy: Patient) -> Patient:
    "A folder of samples that two processes drew with the same noise."
    return Patient(ImageSet(np.concatenate([to_uint8(healthy.samples).numpy()] * 2), None))


def judged(healthy: Patient) -> Patient:
    found = evaluate_samples(healthy.model, (healthy.images, healthy.held_out), 100, PLAIN)
    return replace(healthy, scores=asdict(found))


def leaking(healthy: Patient) -> Patient:
    every = [np.concatenate([getattr(part, name) for part in digits()]) for name in ("pixels", "labels")]
    return replace(healthy, images=ImageSet(*every, healthy.images.classes))


CASES = [
    Case("an average that lags", "ema=0.9999, ema_warmup=False", "late average",
         lambda s, b, h: trained(digits(), s, *b, ema=0.9999, ema_warmup=False)),
    Case("raw weights judged", "ema=0.0", "no average", lambda s, b, h: trained(digits(), s, *b, ema=0.0)),
    Case("weights kept in bf16", "weight.copy_(weight.bfloat16())", "kept in bf16",
         lambda s, b, h: trained(digits(), s, *b, average="in bf16", ema=0.999)),
    Case("data in [0, 1]", "x0 = pixels / 255", "reading",
         lambda s, b, h: from_zero_to_one(s, b)),
    Case("labels shuffled", "labels = permutation(labels)", "class ignored",
         lambda s, b, h: trained(shuffled(s), s, *b)),
    Case("flips on digits", "augment='flip'", "mirrored", lambda s, b, h: trained(digits(), s, *b, augment="flip")),
    Case("a loss that never fell", "lr=1e-6", "flat loss", lambda s, b, h: trained(digits(), s, *b, lr=1e-6)),
    Case("copies", "images = images[:100]", "copies",
         lambda s, b, h: trained((digits()[0][s::45], digits()[1]), s, 800, b[1])),
    Case("grey comes out coloured", "image_channels=3", "colour from grey",
         lambda s, b, h: trained(in_colours(0, False), s, *b)),
    Case("a tint", "steps=300, objective='eps'", "tint",
         lambda s, b, h: trained(in_colours(0), s, 300, b[1], objective="eps", schedule="linear")),
    Case("another objective", "objective='eps'", "reading", lambda s, b, h: told(h, objective=OBJECTIVES["eps"])),
    Case("T trained and T drawn differ", "T=200", "reading", lambda s, b, h: told(h, T=200)),
    Case("another schedule", "schedule='linear'", "reading", lambda s, b, h: told(h, schedule="linear")),
    Case("sampling in train mode", "network.train()", "dropout at work", lambda s, b, h: dropping(s, b)),
    Case("black", "weight[0] = nan", "not finite", lambda s, b, h: broken(h)),
    Case("grain in few steps", "sampler='ddpm', steps=10, variance='large'", "more noise than told",
         lambda s, b, h: drawn(h, sampler="ddpm", steps=10, variance="large")),
    Case("the stride's place for its index", "network(x, k, y)", "more noise than told",
         lambda s, b, h: drawn(h, sampler="by place", steps=20)),
    Case("noise in the last step", "x = x + 0.1 * noise()", "noise in the last step",
         lambda s, b, h: drawn(h, sampler="noisy end")),
    Case("no clip", "guidance=4, clip=False", "out of range", lambda s, b, h: drawn(h, guidance=4, clip=False)),
    Case("the same noise in two processes", "seed(0)", "twins", lambda s, b, h: twice(h)),
    Case("a distance of few samples", "n=100", "few samples judged", lambda s, b, h: judged(h)),
    Case("test pictures trained on", "images = train + test", "seen before", lambda s, b, h: leaking(h)),
    Case("out of memory", "batch=1_000_000", "memory",
         lambda s, b, h: replace(h, config=override(h.config, batch=1_000_000))),
]  # fmt: skip

HEALTHY: dict[str, Callable[[Budget], Patient]] = {
    "v, cosine": lambda b: trained(digits(), 3, *b),
    "eps, linear": lambda b: trained(digits(), 3, max(500, b[0]), b[1], objective="eps", schedule="linear"),
    "x0": lambda b: trained(digits(), 3, *b, objective="x0"),
    "learned variance": lambda b: trained(digits(), 3, *b, loss="hybrid", variance="learned"),
    "no classes": lambda b: trained(digits(), 3, *b, conditional=False),
    "AdamW": lambda b: trained(digits(), 3, *b, optimizer="adamw", lr=2e-3),
    "T = 200": lambda b: trained(digits(), 3, *b, T=200),
    "dropout": lambda b: trained(digits(), 3, *b, dropout=0.1),
    "in colours": lambda b: trained(in_colours(3), 3, max(300, b[0]), b[1]),
    "in colours, eps, linear": lambda b: trained(  # in fewer steps it has a tint, and the doctor says so
        in_colours(3), 3, max(1000, b[0]), max(64, b[1]), objective="eps", schedule="linear"
    ),
    "28 x 28": lambda b: trained(digits(28), 3, max(200, b[0] // 2), b[1], multipliers=(1, 2, 4)),
    "32 x 32, attention": lambda b: trained(
        digits(32), 3, max(200, b[0] // 2), b[1], channels=16, multipliers=(1, 2, 2, 2), attention=(8,)
    ),
}


def film(patient: Patient) -> Tensor:
    "One sample on its way: six of its levels."
    model, route = patient.model, plan(patient.how, patient.model)
    y = torch.tensor([3]) if model.classes else None
    states = [x for _, x, _ in walk(model, route, keyed_noise(model, 0, [3]), y)]
    return torch.cat([states[round(k * (len(states) - 1) / 5)] for k in range(6)])


def pictures(patient: Patient) -> np.ndarray:
    "(16, C, H, W) uint8: ten samples, and the film of one."
    every = torch.cat([patient.samples[::10], film(patient)]) if patient.model else torch.zeros(16, 1, 16, 16)
    return to_uint8(every.nan_to_num(-1.0)).numpy()


def findings(patient: Patient, only: str = "") -> dict[str, str]:
    "What is ill, by all checks or by one."
    found = examine(patient, checks={only: EVERY[only]} if only else EVERY)
    return {name: str(finding) for name, finding in found.items() if finding.ill}


@cache
def well(seed: int, budget: Budget) -> Patient:
    "The healthy run that many sick ones are made from."
    return trained(digits(), seed, *budget)


def visit(name: str, seed: int, budget: Budget, only: bool) -> tuple[dict[str, str], list, np.ndarray]:
    "Findings, training loss by quarter of t, and pictures, of one run."
    torch.set_num_threads(1)
    case = next((case for case in CASES if case.symptom == name), None)
    if case:
        patient = case.make(seed, budget, well(seed, budget))
    else:
        patient = HEALTHY[name](budget) if name in HEALTHY else well(seed, budget)
    found = findings(patient, case.expected if case and only else "")
    quarters = [[line["step"], *line["loss_quarters"]] for line in patient.log]
    return found, quarters, pictures(patient) if seed < 2 and name not in HEALTHY and not only else np.zeros(0)


def table(rows: list[dict]) -> Iterator[str]:
    sick = [row for row in rows if "expected" in row]
    yield f"{'symptom':34} {'check':24} found  first"
    for row in sick:
        yield f"{row['symptom']:34} {row['expected']:24} {row['found']} of {row['seeds']}  {row['first']}"
    for row in rows[len(sick) :]:
        yield f"{row['healthy']:34} false alarms: {', '.join(row['findings']) or 'none'}"


def main() -> None:
    args = arguments(__doc__, steps=300, batch=64, seeds=3, only=0, out="clinic")
    seeds, rows = range(args.seeds), []
    jobs = [(name, seed) for name in ["healthy", *(case.symptom for case in CASES)] for seed in seeds]
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        jobs += [(name, 0) for name in HEALTHY]
        budget = args.steps, args.batch
        waiting = {job: pool.submit(visit, *job, budget, bool(args.only)) for job in jobs}
        found = {job: visited.result() for job, visited in tqdm(waiting.items())}
    for case in CASES:
        mine = [found[case.symptom, seed] for seed in seeds]
        rows.append({
            "symptom": case.symptom, "line": case.line, "expected": case.expected, "seeds": args.seeds,
            "found": sum(case.expected in names for names, _, _ in mine),
            "first": sum(next(iter(names), "") == case.expected for names, _, _ in mine),
            "findings": [names for names, _, _ in mine], "quarters": [quarters for _, quarters, _ in mine[:2]],
        })  # fmt: skip
    rows += [{"healthy": f"the default, seed {seed}", "findings": found["healthy", seed][0]} for seed in seeds]
    rows += [{"healthy": name, "findings": found[name, 0][0]} for name in HEALTHY]
    print("\n".join(table(rows)))
    path = Path(__file__).parent / "results" / args.out if args.out == Path(args.out).name else Path(args.out)
    keep(rows, path.with_suffix(".json"), "torch", "numpy")
    shown = {f"{name} {seed}": kept for (name, seed), (_, _, kept) in found.items() if len(kept)}
    np.savez_compressed(path.with_suffix(".npz"), **shown)


if __name__ == "__main__":
    main()
