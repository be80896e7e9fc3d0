import math
import warnings

import torch
from torch import Tensor

from ..data.sets import epoch_order
from .frechet import finite


def can_fit(n: int, features: int, reference: int) -> bool:
    """Whether n images, against so many training images, are enough for a Fréchet distance; warns
    where they are not, or are few. Raises ValueError where not even a kernel distance can be had,
    of the images or of real ones, and for more than a million."""
    if not 3 <= n <= 1_000_000 or reference < 6:
        raise ValueError(f'n = {n} against {reference} training images is too few, or too many: '
                         'expected 3 to 1,000,000, against 6 or more')
    few = ''
    if n <= features:
        few = (f'n = {n} is too few for {features} features: the distance needs more images than '
               'features')
    elif reference // 2 <= features:
        few = (f'{reference} training images are too few for {features} features: the floor '
               'needs more than twice as many')
    if few:
        warnings.warn(f'{few}; only the kernel distance is measured')
    elif n < 5 * features:
        warnings.warn(f'n = {n} is small for {features} features: compare with the floor, and with '
                      'the same n only')
    return not few


def kernel_distance(a: Tensor, b: Tensor, most: int = 5000) -> tuple[float, float]:
    """Kernel distance of two sets of features, (N, D) and (M, D), and its jackknife standard error.
    Squared and unbiased, with the cubic kernel of Bińkowski et al. 2018, as in the KID. More than
    `most` are compared in parts: the mean of random blocks of at most so many of either set.
    Raises ValueError for a set of fewer than three images, or with a value that is not finite."""
    a, b = (finite(x, 3) for x in (a, b))
    a, b = (x if len(x) <= most else x[torch.from_numpy(epoch_order(len(x), 0, 0))] for x in (a, b))
    blocks = math.ceil(min(len(a), len(b)) / most)
    parts = zip(*(x[:blocks * most].tensor_split(blocks) for x in (a, b)))
    values, errors = zip(*(all_pairs(x, y) for x, y in parts))
    return sum(values) / blocks, math.hypot(*errors) / blocks


def all_pairs(a: Tensor, b: Tensor) -> tuple[float, float]:
    "`kernel_distance` of all, in time that grows with the square of their number."
    def sums(x: Tensor, y: Tensor) -> Tensor:               # of each x with all y, some at a time
        return torch.cat([((part @ y.T / y.shape[1] + 1)**3).sum(1) for part in x.split(200)])
    value = variance = 0.0
    for x, y in ((a, b), (b, a)):
        n, cross = len(x), sums(x, y) / len(y)
        own = sums(x, x) - (x.square().mean(1) + 1)**3      # without each with itself
        value += (own.sum() / (n * (n - 1)) - cross.mean()).item()
        less = (own.sum() - 2 * own) / (n - 2) - 2 * (cross.sum() - cross)      # each x left out
        variance += less.var(correction=0).item() / (n - 1)
    return value, variance**0.5
