"""What the doctor finds: each fault with three seeds, and healthy runs, in which it should find nothing.

    python benchmarks/bench_clinic.py [--size 8] [--steps 200] [--batch 64] [--seeds 3] [--jobs 2] [--cache FOLDER]
                                      [--only "FAULT|FAULT"] [--out clinic]

A sick run differs from a healthy one in one line. OUT.json: for each fault the check that should name it, and for each
seed the number that each check measured and what it found; for each healthy run the same. The digits are small (8 x 8),
so that all of it takes half an hour on two cores; --size 16 --steps 300 takes longer, and also writes
OUT.npz: of seeds 0 and 1 of each fault ten samples, a film of one of them, and the training loss by quarter of t.
--cache keeps the trainings, so that after a change of a check only the questions are asked again. --only does some
faults (or "healthy"), and leaves the other rows of OUT.json as they are.
"""

import copy
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import cache
from hashlib import sha256
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
from ddpm_course.config import PRESETS, RunConfig, SamplingConfig, override, to_json
from ddpm_course.data.sets import ImageSet, load_digits, to_float, to_uint8
from ddpm_course.draws import Purpose, normal
from ddpm_course.judge.checks import CHECKS, examine
from ddpm_course.judge.patient import Patient
from ddpm_course.judge.scores import evaluate_samples
from ddpm_course.lesson.symptoms import SYMPTOMS
from ddpm_course.model import NETWORKS, build_model, unet
from ddpm_course.run import training
from ddpm_course.run.checkpoints import read_window
from ddpm_course.run.runs import load_plugin
from ddpm_course.run.training import EMAS, OPTIMIZERS, Average, TrainState, fit, new_state
from ddpm_course.samplers import SAMPLERS, Step
from ddpm_course.sampling import keyed_noise, plan, walk
from ddpm_course.simple import Batch
from ddpm_course.steps import ddim_step, ddpm_step

PLAIN = SamplingConfig(guidance=1)
EVERY = CHECKS | SYMPTOMS
for name in ("edm", "flow_matching"):
    load_plugin(Path(__file__).parents[1] / "examples" / f"{name}.py")


# -- data -------------------------------------------------------------------------------------------------------------


@cache
def digits(size: int) -> tuple[ImageSet, ImageSet]:
    return load_digits("train", size), load_digits("test", size)


def in_colours(data: tuple[ImageSet, ImageSet], seed: int, colourful: bool = True) -> tuple[ImageSet, ImageSet]:
    "Digits in three channels, each in a colour of its own, or grey."
    dice = np.random.default_rng(seed)

    def paint(images: ImageSet) -> ImageSet:
        ink = dice.uniform(0.3, 1, (len(images), 3, 1, 1)) if colourful else np.ones((len(images), 3, 1, 1))
        return ImageSet((images.pixels * ink).astype(np.uint8), images.labels, images.classes)

    return tuple(map(paint, data))


def shuffled(data: tuple[ImageSet, ImageSet], seed: int) -> tuple[ImageSet, ImageSet]:
    images, held_out = data
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


def dull_end(step: Step) -> Tensor:
    "DDIM whose picture comes out with less contrast."
    x = ddim_step(step.now.x0, step.now.eps, step.x, step.abar, step.abar_next, 0.0)
    return 0.7 * x if step.abar_next == 1 else x


class Timeless(nn.Module):
    "A network that is told no t."

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        return self.network(x, 0 * t, y)


EMAS["in bf16"] = HalfAverage
SAMPLERS |= {"noisy end": noisy_end, "by place": by_place, "dull end": dull_end}
NETWORKS["timeless"] = lambda config: Timeless(unet(config))
OPTIMIZERS["half"] = lambda parameters, *rest: OPTIMIZERS["muon"](list(parameters)[::2], *rest)


# -- what spoils a batch, or a state on its way ------------------------------------------------------------------------


def one_t(batch: Batch, images: ImageSet) -> Batch:
    return replace(batch, t=batch.t[:1].expand_as(batch.t))


def one_noise(batch: Batch, images: ImageSet) -> Batch:
    return replace(batch, eps=batch.eps[:1].expand_as(batch.eps))


def little_noise(batch: Batch, images: ImageSet) -> Batch:
    "Only the first half of all t."
    return replace(batch, t=batch.t // 2)


def old_noise(batch: Batch, images: ImageSet) -> Batch:
    "The noise of the first step, in every step."
    return replace(batch, eps=normal(batch.x0.shape[1:], 0, Purpose.NOISE, 0, range(len(batch.x0))))


def eight_ranks(batch: Batch, images: ImageSet) -> Batch:
    "Eight processes with pictures of their own, and with one seed for t and noise."
    few = len(batch.t) // 8
    return replace(batch, t=batch.t[:few].repeat(8), eps=batch.eps[:few].repeat(8, 1, 1, 1))


def one_bad_picture(batch: Batch, images: ImageSet) -> Batch:
    "One picture of all is a hundred times too large."
    hit = (batch.x0 == to_float(images.pixels[:1])).flatten(1).all(1)
    return replace(batch, x0=torch.where(hit[:, None, None, None], 100 * batch.x0, batch.x0))


def in_zero_to_one(batch: Batch, images: ImageSet) -> Batch:
    return replace(batch, x0=(batch.x0 + 1) / 2)


def without_ema(state: TrainState, config: RunConfig) -> None:
    "Resumed with the weights alone: the average begins with a new network."
    state.average.network.load_state_dict(new_state(config).network.state_dict())


def without_optimizer(state: TrainState, config: RunConfig) -> None:
    state.optimizer = OPTIMIZERS[config.training.optimizer](
        state.network.parameters(), config.training, torch.device("cpu"))  # fmt: skip


@dataclass(frozen=True)
class Budget:
    "How long is trained, on what; trainings are kept in the folder `cache`."

    steps: int
    batch: int
    size: int
    cache: str

    def digits(self) -> tuple[ImageSet, ImageSet]:
        return digits(self.size)

    def trained(
        self,
        seed: int,
        data: tuple[ImageSet, ImageSet] | None = None,
        spoil: Callable[[Batch, ImageSet], Batch] | None = None,
        resume: Callable[[TrainState, RunConfig], None] | None = None,  # with a fifth of all steps to go
        **changes: Any,
    ) -> Patient:
        "A run on some data, as a patient."
        images, held_out = data or self.digits()
        size = images.pixels.shape[-1]
        told = {"steps": self.steps, "batch": self.batch, "seed": seed, "precision": "fp32", "size": size,
                "image_channels": images.channels, "classes": images.classes,
                "multipliers": (1, 2, 4) if size >= 16 else (1, 2)}  # fmt: skip
        config = override(PRESETS["mnist16"], **told | changes)
        state, log, steps = new_state(config), [], config.training.steps
        what = to_json(config) + repr([images.digest, getattr(spoil, "__name__", 0), getattr(resume, "__name__", 0)])
        file = Path(self.cache, f"{sha256(what.encode()).hexdigest()}.pt") if self.cache else None
        if file and file.exists():
            weights, average, count, log = torch.load(file)
            state.network.load_state_dict(weights)
            state.average.network.load_state_dict(average)
        else:
            make = training.make_batch
            other = (lambda images, *rest: spoil(make(images, *rest), images)) if spoil else make
            with mock.patch.object(training, "make_batch", other):
                for record in fit(state, images, config):
                    if record["step"] % max(1, steps // 100) == 0:
                        log.append(record | read_window(state, Group()) | {"grad_norm": float(record["grad_norm"])})
                    if resume and record["step"] == 4 * steps // 5:
                        resume(state, config)
            count = updates(state.optimizer)
            if file:
                torch.save((state.network.state_dict(), state.average.network.state_dict(), count, log), file)
        state.network.eval()
        raw = replace(state.model, network=state.network)
        return Patient(images, held_out, config, state.ema, raw, log, updates=count)


def updates(optimizer: torch.optim.Optimizer) -> int:
    "How many steps an optimizer remembers."
    group = optimizer.param_groups[0]
    return int(group["count"] if "count" in group else optimizer.state[group["params"][0]]["step"])


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


def dropping(patient: Patient) -> Patient:
    "In training mode for good: sampling here calls eval(), and a program that forgets it does not."
    network = patient.model.network.train()
    network.eval = lambda: network
    return patient


def broken(healthy: Patient) -> Patient:
    network = copy.deepcopy(healthy.model.network)
    next(network.parameters()).data[0] = torch.nan
    return replace(healthy, model=replace(healthy.model, network=network))


def overflowing(healthy: Patient) -> Patient:
    """Computed in fp16, with a hundred thousand times larger numbers before a GroupNorm, which takes the factor out
    again: in fp32 the network answers as before."""
    network = copy.deepcopy(healthy.model.network)
    block = network.middle[0].residual
    for weight in (*block.conv1.parameters(), *block.embed.parameters()):
        weight.data *= 1e5
    return replace(healthy, n=20, model=replace(healthy.model, network=network, precision="fp16"))


def twice(healthy: Patient) -> Patient:
    "A folder of samples that two processes drew with the same noise."
    return Patient(ImageSet(np.concatenate([to_uint8(replace(healthy, n=300).samples).numpy()] * 2), None))


def judged(healthy: Patient) -> Patient:
    found = evaluate_samples(healthy.model, (healthy.images, healthy.held_out), 100, PLAIN)
    return replace(healthy, scores=asdict(found))


def leaking(healthy: Patient) -> Patient:
    both = healthy.images, healthy.held_out
    every = [np.concatenate([getattr(part, name) for part in both]) for name in ("pixels", "labels")]
    return replace(healthy, images=ImageSet(*every, healthy.images.classes))


def hundred(seed: int, budget: Budget, times: float) -> Patient:
    "Trained on a hundred digits, for longer."
    images, held_out = budget.digits()
    return budget.trained(seed, (images[seed::45], held_out), steps=round(times * budget.steps))


def with_pictures(healthy: Patient, change: Callable[[np.ndarray], np.ndarray]) -> Patient:
    "With held-out pictures that were changed among those to train on, twenty of a hundred."
    more, both = healthy.held_out[::5], healthy.images
    pixels = np.concatenate([both.pixels, change(more.pixels)])
    return replace(healthy, images=ImageSet(pixels, np.concatenate([both.labels, more.labels]), both.classes))


def pictures_of(healthy: Patient, change: Callable[[np.ndarray], np.ndarray], held_out: bool = False) -> Patient:
    "With other pixels, of training or of held-out pictures."
    name = "held_out" if held_out else "images"
    old = getattr(healthy, name)
    return replace(healthy, **{name: ImageSet(change(old.pixels), old.labels, old.classes)})


def some_black(pixels: np.ndarray) -> np.ndarray:
    return np.where((np.arange(len(pixels)) % 10 == 0)[:, None, None, None], 0, pixels).astype(np.uint8)


def dark(data: tuple[ImageSet, ImageSet]) -> tuple[ImageSet, ImageSet]:
    return tuple(ImageSet(part.pixels // 16, part.labels, part.classes) for part in data)


def partly_shuffled(data: tuple[ImageSet, ImageSet], seed: int) -> tuple[ImageSet, ImageSet]:
    "Three of ten training labels are drawn anew."
    (images, held_out), dice = data, np.random.default_rng(seed)
    wrong = dice.random(len(images)) < 0.3
    labels = np.where(wrong, dice.integers(0, 10, len(images)), images.labels)
    return ImageSet(images.pixels, labels, images.classes), held_out


def few_of_one(healthy: Patient) -> Patient:
    keep = (healthy.images.labels != 3) | (np.arange(len(healthy.images)) % 50 == 0)
    return replace(healthy, images=healthy.images[keep])


def read_otherwise(healthy: Patient) -> Patient:
    "With an objective whose `solve` has the wrong sign."
    right = healthy.model.objective
    wrong = replace(right, solve=lambda v, xt, signal, sigma: right.solve(-v, xt, signal, sigma))
    both = {name: replace(getattr(healthy, name), objective=wrong) for name in ("model", "raw")}
    return replace(healthy, **both)


def can_guide(patient: Patient) -> Patient:
    return replace(patient, model=replace(patient.model, can_guide=True))


CASES = [
    Case("an average that lags", "ema=0.9999, ema_warmup=False", "slow average",
         lambda s, b, h: b.trained(s, ema=0.9999, ema_warmup=False)),
    Case("resumed without its average", "average = Average(new_network)", "late average",
         lambda s, b, h: b.trained(s, resume=without_ema)),
    Case("resumed without its optimizer", "optimizer = Muon(parameters)", "young optimizer",
         lambda s, b, h: b.trained(s, resume=without_optimizer)),
    Case("raw weights judged", "ema=0.0", "no average", lambda s, b, h: b.trained(s, ema=0.0)),
    Case("weights kept in bf16", "weight.copy_(weight.bfloat16())", "kept in bf16",
         lambda s, b, h: b.trained(s, average="in bf16", ema=0.999)),
    Case("data in [0, 1]", "x0 = pixels / 255", "reading", lambda s, b, h: b.trained(s, spoil=in_zero_to_one)),
    Case("labels shuffled", "labels = permutation(labels)", "labels",
         lambda s, b, h: b.trained(s, shuffled(b.digits(), s))),
    Case("the class never passed", "network(xt, t, null)", "class ignored",
         lambda s, b, h: told(b.trained(s, label_drop=1.0), label_drop=0.1)),
    Case("guidance without dropped labels", "label_drop=0", "guidance untrained",
         lambda s, b, h: can_guide(b.trained(s, label_drop=0.0))),
    Case("flips on digits", "augment='flip'", "flips", lambda s, b, h: b.trained(s, augment="flip")),
    Case("a loss that never fell", "lr=1e-6", "flat loss", lambda s, b, h: b.trained(s, lr=1e-6)),
    Case("a learning rate far too large", "lr=0.5", "nothing learned", lambda s, b, h: b.trained(s, lr=0.5)),
    Case("copies", "images = images[:100]", "few pictures", lambda s, b, h: hundred(s, b, 8 / 3)),
    Case("the loader repeats a hundred", "images[i % 100]", "copies",
         lambda s, b, h: replace(hundred(s, b, 10), images=h.images)),
    Case("grey comes out coloured", "image_channels=3", "grey as colour",
         lambda s, b, h: b.trained(s, in_colours(b.digits(), 0, False))),
    Case("a tint", "steps=300, objective='eps'", "tint",  # of larger digits: small ones have learned their colours then
         lambda s, b, h: (big := replace(b, size=16)).trained(
             s, in_colours(big.digits(), 0), steps=300, objective="eps", schedule="linear")),
    Case("sixteen bits, nearly black", "pixels // 16", "narrow range",
         lambda s, b, h: b.trained(s, dark(b.digits()))),
    Case("black pictures", "pixels[::10] = 0", "blank", lambda s, b, h: pictures_of(h, some_black)),
    Case("near-copies of test pictures", "images += roll(test, 1)", "nearly seen before",
         lambda s, b, h: with_pictures(h, lambda x: np.roll(x, 1, 3) // 2 + 60)),
    Case("test pictures inverted", "test = 255 - test", "another kind",
         lambda s, b, h: pictures_of(h, lambda x: 255 - x, True)),
    Case("hardly any threes", "images = images[y != 3] + 9", "rare class", lambda s, b, h: few_of_one(h)),
    Case("some labels wrong", "labels[wrong] = random", "labels differ",
         lambda s, b, h: b.trained(s, partly_shuffled(b.digits(), s))),
    Case("a warm-up without end", "warmup=100_000", "rate", lambda s, b, h: b.trained(s, warmup=100_000)),
    Case("far too much weight decay", "weight_decay=10", "settings", lambda s, b, h: b.trained(s, weight_decay=10.0)),
    Case("all labels dropped", "label_drop=1.0", "labels dropped", lambda s, b, h: b.trained(s, label_drop=1.0)),
    Case("settings of another run", "lr=4e-3", "log and settings",
         lambda s, b, h: replace(h, config=override(h.config, lr=4e-3))),
    Case("far too few steps", "steps=10", "little training", lambda s, b, h: b.trained(s, steps=10)),
    Case("an optimizer with half of the weights", "list(parameters)[::2]", "frozen weights",
         lambda s, b, h: b.trained(s, optimizer="half")),
    Case("an answer read with the wrong sign", "v = -v", "objective", lambda s, b, h: read_otherwise(h)),
    Case("the average of another run", "load(other / 'ema.safetensors')", "average apart",
         lambda s, b, h: replace(h, model=well((s + 1) % 3, b).model)),
    Case("much noise never trained", "t = t // 2", "weak level", lambda s, b, h: b.trained(s, spoil=little_noise)),
    Case("t never passed", "network(x, 0 * t, y)", "time ignored", lambda s, b, h: b.trained(s, network="timeless")),
    Case("a sampler with a dull end", "x = 0.7 * x", "sampler", lambda s, b, h: drawn(h, sampler="dull end")),
    Case("one t for a whole batch", "t = t[:1]", "draws repeat", lambda s, b, h: b.trained(s, spoil=one_t)),
    Case("one noise for a whole batch", "eps = eps[:1]", "draws repeat", lambda s, b, h: b.trained(s, spoil=one_noise)),
    Case("one seed on eight ranks", "seed(0)", "draws repeat", lambda s, b, h: b.trained(s, spoil=eight_ranks)),
    Case("the same noise in every step", "eps = eps_of_step_0", "easier than asked",
         lambda s, b, h: b.trained(s, spoil=old_noise)),
    Case("one damaged picture", "x0[k] = 100 * x0[k]", "spikes", lambda s, b, h: b.trained(s, spoil=one_bad_picture)),
    Case("another objective", "objective='eps'", "reading", lambda s, b, h: told(h, objective="eps")),
    Case("a flow taken for noise", "objective='eps'", "reading",
         lambda s, b, h: told(b.trained(s, objective="slope"), objective="eps")),
    Case("EDM taken for noise", "objective='eps'", "reading",
         lambda s, b, h: told(b.trained(s, objective="edm"), objective="eps")),
    Case("T trained and T drawn differ", "T=200", "reading", lambda s, b, h: told(h, T=200)),
    Case("another schedule", "schedule='linear'", "reading", lambda s, b, h: told(h, schedule="linear")),
    Case("sampling in train mode", "network.train()", "dropout at work",
         lambda s, b, h: dropping(b.trained(s, dropout=0.3))),
    Case("black", "weight[0] = nan", "not finite", lambda s, b, h: broken(h)),
    Case("overflow in float16", "precision='fp16'", "not finite", lambda s, b, h: overflowing(h)),
    Case("grain in few steps", "sampler='ddpm', steps=10, variance='large'", "more noise than told",
         lambda s, b, h: drawn(h, sampler="ddpm", steps=10, variance="large")),
    Case("loop counter passed as timestep", "network(x, k, y)", "more noise than told",
         lambda s, b, h: drawn(h, sampler="by place", steps=20)),
    Case("noise in the last step", "x = x + 0.1 * noise()", "noise in the last step",
         lambda s, b, h: drawn(h, sampler="noisy end")),
    Case("no clip", "guidance=4, clip=False", "out of range", lambda s, b, h: drawn(h, guidance=4, clip=False)),
    Case("the same noise in two processes", "seed(0)", "twins", lambda s, b, h: twice(h)),
    Case("a distance of few samples", "n=100", "few samples judged", lambda s, b, h: judged(h)),
    Case("test pictures trained on", "images = train + test", "seen before", lambda s, b, h: leaking(h)),
    Case("out of memory", "batch=1_000_000", "memory",
         lambda s, b, h: replace(h, config=override(h.config, batch=1_000_000), log=())),
]  # fmt: skip

HEALTHY: dict[str, Callable[[Budget], Patient]] = {
    "v, cosine": lambda b: b.trained(3),
    "eps, linear": lambda b: b.trained(3, steps=max(500, b.steps), objective="eps", schedule="linear"),
    "x0": lambda b: b.trained(3, objective="x0"),
    "flow, straight": lambda b: b.trained(3, objective="slope", schedule="straight"),
    "EDM": lambda b: b.trained(3, objective="edm", network="edm"),
    "learned variance": lambda b: b.trained(3, loss="hybrid", variance="learned"),
    "no classes": lambda b: b.trained(3, conditional=False),
    "AdamW": lambda b: b.trained(3, optimizer="adamw", lr=2e-3),
    "T = 200": lambda b: b.trained(3, T=200),
    "dropout": lambda b: b.trained(3, dropout=0.1),
    "in colours": lambda b: b.trained(3, in_colours(b.digits(), 3), steps=max(300, b.steps)),
    "in colours, eps, linear": lambda b: b.trained(  # in fewer steps it has a tint, and the doctor says so
        3, in_colours(b.digits(), 3), steps=max(1000, b.steps), objective="eps", schedule="linear"
    ),
    "12 x 12, attention": lambda b: replace(b, size=12).trained(3, attention=(6,)),
    "16 x 16": lambda b: replace(b, size=16).trained(3),
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


def findings(patient: Patient) -> dict[str, dict]:
    "The number of each check that could tell; what was found; and what follows from that, as name -> cause."
    found = examine(patient, checks=EVERY)
    return {
        "values": {n: float(f"{f.value:.4g}") if f.told and f.value == f.value else None for n, f in found.items()},
        "findings": {name: str(f) for name, f in found.items() if f.ill and not f.follows},
        "follows": {name: f.follows for name, f in found.items() if f.follows},
    }


@cache
def well(seed: int, budget: Budget) -> Patient:
    "The healthy run that many sick ones are made from."
    return budget.trained(seed)


def visit(name: str, seed: int, budget: Budget) -> tuple[dict[str, dict], np.ndarray, np.ndarray, list]:
    "Findings, pictures, and training loss by quarter of t and in the mean, of one run."
    torch.set_num_threads(1)
    case = next((case for case in CASES if case.symptom == name), None)
    if case:
        patient = case.make(seed, budget, well(seed, budget))
    else:
        patient = HEALTHY[name](budget) if name in HEALTHY else well(seed, budget)
    quarters = np.array([[line["step"], *line["loss_quarters"]] for line in patient.log], float)
    shown = budget.size == 16 and seed < 2 and name not in HEALTHY
    losses = [[line["step"], round(line["loss"], 4)] for line in patient.log]
    return findings(patient), pictures(patient) if shown else np.zeros(0), quarters, losses


def table(rows: list[dict]) -> Iterator[str]:
    sick = [row for row in rows if "expected" in row]
    yield f"{'fault':34} {'check':24} found  other findings"
    every = [(row, name) for row in rows for run in row["runs"] for name in run["findings"]]
    for row in sick:
        mine = [name for other, name in every if other is row]
        others = ", ".join(sorted({*mine} - {row["expected"]}))
        yield f"{row['symptom']:34} {row['expected']:24} {mine.count(row['expected'])} of {len(row['runs'])} {others}"
    for row in rows[len(sick) :]:
        yield f"{row['healthy']:34} false alarms: {', '.join(row['runs'][0]['findings']) or 'none'}"
    of_sick = [(row, name) for row, name in every if "expected" in row]
    beside = sum(row["expected"] != name for row, name in of_sick)
    yield f"{len(of_sick)} findings in {sum(len(row['runs']) for row in sick)} sick runs, {beside} beside the fault"


def main() -> None:
    args = arguments(__doc__, size=8, steps=200, batch=64, seeds=3, jobs=2, cache="", only="", out="clinic")
    seeds, only = range(args.seeds), set(filter(None, args.only.split("|")))
    path = Path(__file__).parent / "results" / args.out if args.out == Path(args.out).name else Path(args.out)
    old = json.loads(path.with_suffix(".json").read_text())["runs"] if only else []
    budget = Budget(args.steps, args.batch, args.size, args.cache)
    if args.cache:
        Path(args.cache).mkdir(parents=True, exist_ok=True)
    plans = {case.symptom: seeds for case in CASES}
    plans |= {"healthy": seeds} | {name: range(1) for name in HEALTHY}
    jobs = [(name, seed) for name in ["healthy", *plans] for seed in plans[name]
            if not only or name in only or "healthy" in only and name in HEALTHY]  # fmt: skip
    with ProcessPoolExecutor(args.jobs, get_context("spawn")) as pool:
        waiting = {job: pool.submit(visit, *job, budget) for job in dict.fromkeys(jobs)}
        found = {job: visited.result() for job, visited in tqdm(waiting.items())}
    rows = [{"symptom": case.symptom, "line": case.line, "expected": case.expected,
             "runs": [found[case.symptom, seed][0] for seed in seeds]}
            for case in CASES if (case.symptom, 0) in found]  # fmt: skip
    for row in rows:
        if row["expected"] == "draws repeat":
            row["losses"] = found[row["symptom"], 0][3]
    rows += [{"healthy": f"the default, seed {seed}" if name == "healthy" else name, "runs": [found[name, seed][0]]}
             | ({"losses": found[name, 0][3]} if (name, seed) == ("healthy", 0) else {})
             for name, seed in found if name == "healthy" or name in HEALTHY]  # fmt: skip
    new = {row.get("symptom", row.get("healthy")): row for row in old + rows}
    order = [*plans, *(f"the default, seed {seed}" for seed in seeds)]
    rows = [new[name] for name in order if name in new]
    print("\n".join(table(rows)))
    keep(rows, path.with_suffix(".json"), "torch", "numpy")
    if args.size == 16 and not only:
        shown = {f"{name} {seed}": kept for (name, seed), (_, kept, _, _) in found.items() if len(kept)}
        shown |= {f"{name} {seed}, loss": q for (name, seed), (_, kept, q, _) in found.items() if len(kept)}
        np.savez_compressed(path.with_suffix(".npz"), **shown)


if __name__ == "__main__":
    main()
