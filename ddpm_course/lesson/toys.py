import numpy as np
import torch
from torch import Tensor

from ..data.sets import load_digits
from ..draws import Purpose, generator


def digit_points(n: int, seed: int = 0, digit: int = 3) -> Tensor:
    "(n, 2) float32 in [-1, 1]: points in the shape of a bundled digit; x to the right, y upwards."
    images = load_digits('train', 28)
    ink = images.pixels[np.flatnonzero(images.labels == digit)[0], 0].astype(np.float64)
    random = generator(seed, Purpose.LESSON, step=digit)
    row, column = np.divmod(random.choice(ink.size, n, p=ink.ravel() / ink.sum()), 28)
    inside = random.random((n, 2))
    points = np.stack([(column + inside[:, 0]) / 14 - 1, 1 - (row + inside[:, 1]) / 14], axis=1)
    return torch.from_numpy(points).float()
