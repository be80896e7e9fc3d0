"What is to be edited: a picture, where, and by how much."

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from .config import SamplingConfig
from .data.decoding import open_image
from .data.sets import resize, to_float
from .model import Model
from .sampling import Plan, plan


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
