"Pictures changed by the model: SDEdit's walk from a noised picture, RePaint's with known pixels."
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .base.group import Group
from .config import SamplingConfig
from .data.decoding import open_image
from .data.sets import resize, to_float
from .draws import Purpose, normal
from .model import Model
from .samplers import Step
from .sampling import Plan, class_keys, columns_of, plan, walk


def read_picture(
    path: str | Path,
    shape: Sequence[int],       # of a model's images, (C, H, W), C = 1 or 3
) -> Tensor:                    # (C, H, W) in [-1, 1]
    "An image file, brought to a shape. Raises ValueError where it is no image."
    image = open_image(path).convert('L' if shape[0] == 1 else 'RGB')
    pixels = np.array(resize(image, shape[1])).reshape(shape[1], shape[2], shape[0])
    return to_float(pixels).permute(2, 0, 1)


def read_mask(
    path: str | Path,
    shape: Sequence[int],       # of a model's images, (C, H, W)
) -> Tensor:                    # (H, W) bool, True where it is white or transparent
    "A mask from an image file. Raises ValueError where it is no image or marks nothing."
    mask = read_picture(path, (1, *shape[1:]))[0] >= 0
    if not mask.any():
        raise ValueError(f'{path} marks nothing to be drawn anew: paint it white there')
    return mask


@dataclass(frozen=True, eq=False)
class Edit:
    "What is to be done with a picture. Raises ValueError for what cannot be done."
    picture: Tensor                 # (C, H, W) in [-1, 1]
    strength: float                 # share of the chain to walk, above 0; at 1 from pure noise
    mask: Tensor | None = None      # (H, W) bool, True: drawn anew; None: all of it
    rounds: int = 1                 # how often each step is taken, where there is a mask

    def __post_init__(self):
        if not 0 < self.strength <= 1:
            raise ValueError(f'strength lies above 0 and is at most 1, not {self.strength}')
        if self.rounds < 1:
            raise ValueError(f'rounds are 1 or more, not {self.rounds}')
        if self.rounds > 1 and self.mask is None:
            raise ValueError('more than one round is for pictures with a mask')


def plan_edit(model: Model, wanted: Edit, how: SamplingConfig) -> Plan:
    "The plan of an edit's walk. Raises ValueError where picture, model and spacing do not fit."
    if tuple(wanted.picture.shape) != tuple(model.shape):
        raise ValueError(f'the picture is {tuple(wanted.picture.shape)}, and the model draws '
                         f'{tuple(model.shape)}')
    return plan(how, model, wanted.strength)


def noised(x: Tensor, abar: float, eps: Tensor) -> Tensor:
    "So much of the variance of `x` is left, the rest is noise (DDPM, eq. 2 and 4)."
    return abar**0.5 * x + (1 - abar)**0.5 * eps


def edit(
    model: Model,
    wanted: Edit,
    keys: Sequence[int],            # one for each sample
    y: Tensor,                      # (len(keys),) classes; of no effect on a model without
    how: SamplingConfig = SamplingConfig(),
) -> Iterator[tuple[int, Tensor, Tensor]]:      # as `walk`
    "The walk of an edit. Raises ValueError where the wishes do not fit the model, or each other."
    route = plan_edit(model, wanted, how)
    picture, latest = wanted.picture.to(model.device), None

    def noise(purpose: Purpose, t: int, again: int = 0) -> Tensor:      # of its own in each round
        step = t + 1 + again * 2**32
        return normal(model.shape, how.seed, purpose, step, keys).to(model.device)

    def take(step: Step) -> Tensor:
        nonlocal latest                     # what the model said in the last round
        x, step = step.x, replace(step, before=latest)
        for again in range(wanted.rounds if step.abar_next < 1 else 1):
            if again > 0:                                               # back up
                x = noised(x, step.abar / step.abar_next, noise(Purpose.AGAIN, step.t, again))
                step = replace(step, x=x, now=step.ask(x, step.t), before=None)
            x = route.take(replace(step, noise=partial(noise, Purpose.SAMPLE, step.t, again)))
            if wanted.mask is not None:                                 # the known pixels
                known = noised(picture, step.abar_next, noise(Purpose.KNOWN, step.t, again))
                x = torch.where(wanted.mask.to(model.device), x, known)
        latest = step.now
        return x

    start = noise(Purpose.SAMPLE, -1)
    start = start if route.whole else noised(picture, route.abars[0], start)
    yield from walk(model, replace(route, take=take), partial(noise, Purpose.SAMPLE), y, start)


def sample_edits(
    model: Model,
    wanted: Edit,
    classes: Sequence[int] | None = None,   # one column each; None: see `columns_of`
    n: int = 1,                             # rows: edits for each class
    how: SamplingConfig = SamplingConfig(),
    group: Group = Group(),                 # whose members share the edits
) -> Tensor:                                # (n * columns, C, H, W), row by row
    "A grid of edits in [-1, 1]. Edit k of a class and seed is the same picture in every grid."
    keys, y = class_keys(columns_of(model, classes), n)

    def ends(i: range) -> Tensor:
        part = slice(i.start, i.stop)
        *_, (_, x, _) = edit(model, wanted, keys[part], y[part], how)
        return x.cpu()
    return group.map(ends, len(keys), batch=100)
