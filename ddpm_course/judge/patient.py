"What is examined: pictures, a run or a model; and how it is asked."

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..config import RunConfig, SamplingConfig
from ..data.sets import ImageSet, epoch_order, to_float
from ..draws import Purpose, normal
from ..forward import q_sample
from ..heldout import heldout_draws
from .evaluation import allot_classes
from .likeness import evenly, nearest, roughness
from ..losses import OBJECTIVES
from ..model import Model
from ..run.datasets import fingerprints
from ..sampling import keyed_noise, plan, walk, walk_to_the_end
from ..schedules import SCHEDULES, make_schedule
from ..simple import Simple


def some(images: ImageSet, n: int) -> ImageSet:
    "At most n of them, chosen at random, but always the same."
    return images[np.sort(epoch_order(len(images), 0, 0)[:n])]


UNKNOWN: Any = None                 # in place of a value that no check will ask for


@dataclass(frozen=True)
class Patient:
    "What is examined. What is not known is left out, and so are the checks that need it."
    images: ImageSet = UNKNOWN      # to train on
    held_out: ImageSet = UNKNOWN
    config: RunConfig = UNKNOWN
    model: Model = UNKNOWN          # that samples are drawn with
    raw: Model = UNKNOWN            # with the weights that are trained, not averaged
    log: Sequence[dict] = ()        # lines of metrics.jsonl
    scores: dict[str, Any] = field(default_factory=dict)    # 'samples' of test.json
    step: int = UNKNOWN             # of the checkpoint that the weights are of
    updates: int = UNKNOWN          # steps that the optimizer remembers
    how: SamplingConfig = SamplingConfig(guidance=1)
    n: int = 100                    # samples to draw

    @cached_property
    def real(self) -> Tensor:
        "At most a thousand held-out pictures (N, C, H, W), for the samples to be compared with."
        return to_float(some(self.held_out, 1000).pixels)

    @cached_property
    def prints(self) -> np.ndarray:
        "(N,) a number for each picture to train on, see `fingerprints`."
        return fingerprints(self.images)

    @cached_property
    def kin(self) -> dict[str, tuple[Tensor, np.ndarray, np.ndarray]]:
        """The nearest of 3,000 training pictures to a thousand of their own ('training') and to a
        thousand held-out ones ('held-out'): distances, and the labels of both, where there are any.
        Where training and held-out pictures are of one kind, all this is alike."""
        known, asked = some(self.images, 3000), some(self.held_out, 1000)
        places = evenly(len(known), 1000)
        found = {'training': (known[places], *nearest(known.pixels[places], known.pixels, places)),
                 'held-out': (asked, *nearest(asked.pixels, known.pixels))}
        named = known.labels is not None and asked.labels is not None

        def labels(images: ImageSet) -> np.ndarray:
            return images.labels_at().numpy() if named else np.zeros(len(images), int)
        return {name: (distance, labels(known)[near.numpy()], labels(one))
                for name, (one, distance, near) in found.items()}

    @cached_property
    def asked(self) -> Tensor:
        "(n,) the classes that samples are asked for: as often as among the images."
        if self.model.classes and not self.images:
            return torch.arange(self.n) % len(self.model.classes)
        return allot_classes(self.images.labels if self.model.classes else None, self.n)

    @cached_property
    def samples(self) -> Tensor:
        "(n, C, H, W) of these classes, as the model and `how` draw them."
        return walk_to_the_end(self.model, range(self.n), self.asked, self.how)

    @cached_property
    def anew(self) -> np.ndarray:
        "(N,) losses of training pictures as the network is now, each with a t and noise of its own."
        return heldout_draws(self.raw, some(self.images, 1000), Simple(), 1)['loss'][0].numpy()

    def questions(self, n: int = 64) -> tuple[Tensor, Tensor | None]:
        """At most n held-out pictures (N, C, H, W) in [-1, 1], else some that the model drew; and
        their classes where it is told them."""
        told = bool(self.model.classes)
        if not self.held_out:
            drawn = self.samples[:n].nan_to_num().clamp(-1, 1)
            return drawn, self.asked[:n] if told else None
        shown = some(self.held_out, n)
        return to_float(shown.pixels), shown.labels_at() if told else None


# -- a network --------------------------------------------------------------------------------


LEVELS = (0.98, 0.9, 0.7, 0.5, 0.3, 0.1, 0.05)      # alpha-bars at which a network is asked


@torch.no_grad()
def level_errors(model: Model, x0: Tensor, y: Tensor | None,
                 levels: tuple[float, ...] = LEVELS) -> np.ndarray:
    "(levels, N) mean squared errors of the pictures that a model finds in noised x0 (N, C, H, W)."
    rows, x0 = [], x0.to(model.device)
    for level in levels:
        t = int((model.schedule.alpha_bars - level).abs().argmin())
        eps = normal(x0.shape[1:], 0, Purpose.HELDOUT_NOISE, round(1000 * level), range(len(x0)))
        xt = q_sample(x0, t, eps.to(x0), model.schedule)
        told = y if y is None else y.to(x0.device)
        rows.append((model.predict(xt, t, told).x0 - x0).square().flatten(1).mean(1).cpu())
    return torch.stack(rows).double().numpy()


def picture_errors(model: Model, x0: Tensor, y: Tensor | None,
                   levels: tuple[float, ...] = LEVELS) -> np.ndarray:
    "(N,) the same in the mean of the levels."
    return level_errors(model, x0, y, levels).mean(0)


def pixel_filter(x0: Tensor, levels: tuple[float, ...] = LEVELS) -> np.ndarray:
    """(levels,) mean squared errors of the best filter that knows only each pixel's mean and
    variance v in these pictures (N, C, H, W): v (1 - abar) / (abar v + 1 - abar)."""
    v = x0.double().var(0, correction=0)
    return np.array([(v * (1 - abar) / (abar * v + 1 - abar)).mean().item() for abar in levels])


def with_exact_answers(model: Model, mean: float, std: float) -> Model:
    """The same with exact answers for pictures (1, 8, 8) whose pixels are normally distributed and
    independent of each other: what its walks end at is known."""
    def network(xt: Tensor, t: Tensor, y: Tensor | None) -> Tensor:
        signal, sigma = model.schedule.scales(t, like=xt)
        known = signal * std**2 / (signal**2 * std**2 + sigma**2)
        x0 = mean + known * (xt - signal * mean)
        answer = model.objective.target(x0, (xt - signal * x0) / sigma, signal, sigma)
        return torch.cat([answer, 0 * answer], 1) if model.variance == 'learned' else answer
    return replace(model, network=network, shape=(1, 8, 8), classes=(), can_guide=False,
                   precision='fp32')


ELSEWHERE: dict[str, Callable[..., tuple[Tensor, Any]]] = {     # x_0 from what others predict
    'flow': lambda slope, xt, signal, sigma: ((xt - sigma * slope) / (signal + sigma), UNKNOWN),
    'edm': lambda F, xt, signal, sigma: (       # of data with standard deviation 0.5
        (signal * xt + 2 * sigma * (sigma**2 + signal**2 / 4).sqrt() * F)
        / (4 * sigma**2 + signal**2), UNKNOWN)}


def readings(model: Model, config: RunConfig) -> dict[str, Model]:
    "The same network, taken for one that was trained otherwise."
    T, schedule = model.schedule.T, config.diffusion.schedule
    solves = {name: known.solve for name, known in OBJECTIVES.items()} | ELSEWHERE
    found = {f'objective {name}': replace(model, objective=replace(model.objective, solve=solve))
             for name, solve in solves.items() if solve is not model.objective.solve}
    usual = (100, 200, 250, 400, 500, 1000, 2000, 4000)
    others = usual if config.network.network == 'unet' else ()      # it may have a table of T rows
    for name in SCHEDULES:
        for steps in {T, *(others if name == schedule else ())} - {T if name == schedule else 0}:
            with suppress(ValueError):                  # the linear one has no fewer than 21
                other = make_schedule(name, steps)
                found[f'{name} schedule, T = {steps}'] = replace(model, schedule=other)
    return found


def noise_shown(p: Patient, n: int = 32) -> list[tuple[int, float]]:
    "For each question to the network in a walk: t, and how rough x_t is, over how rough at this t."
    model, seen = p.model.eval(), []
    real = roughness(p.real).mean().item()

    def watched(x: Tensor, t: Tensor, y: Tensor | None) -> Tensor:
        now = int(t[0])
        abar = model.schedule.alpha_bars[now].item()
        seen.append((now, roughness(x).mean().item() / (abar * real + 20 * (1 - abar))))
        return model.network(x, t, y)
    y = torch.arange(n) % len(model.classes) if model.classes else None
    for _ in walk(replace(model, network=watched), plan(p.how, model),
                  keyed_noise(model, p.how.seed, range(n)), y):
        pass
    return seen


def bytes_per_picture(model: Model) -> int:
    "What one more picture in a batch adds to the memory that training needs."
    def kept(n: int) -> int:
        found = {}
        def note(x: Tensor) -> Tensor:
            found[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
            return x
        t = torch.zeros(n, dtype=torch.long, device=model.device)
        training = model.network.training
        model.eval()                                # nothing is drawn or counted by this question
        with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
            answer = model.answer(torch.zeros(n, *model.shape, device=model.device), t,
                                  t if model.classes else None)
        model.network.train(training)
        return sum(found.values()) + 0 * answer.numel()         # until here they are kept
    return kept(2) - kept(1)
