"How alike pictures are, without a network: what is nearest, what is nearly a copy, and of which kind."

from itertools import product

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..data.sets import ImageSet, to_float


def pooled(pixels: np.ndarray, most: int = 32) -> Tensor:
    "(N, C, h, w) floats, scaled down to `most` by `most` pixels where they are larger."
    parts = np.array_split(pixels, 1 + pixels.nbytes // 10**8)
    return torch.cat([F.adaptive_avg_pool2d(to_float(part), min(most, part.shape[-1]))
                      for part in parts])


def roughness(x: Tensor) -> Tensor:
    "(N,) mean squared Laplacians of pictures (N, C, H, W); 20 for standard normal noise."
    inner, up, down = x[..., 1:-1, 1:-1], x[..., :-2, 1:-1], x[..., 2:, 1:-1]
    left, right = x[..., 1:-1, :-2], x[..., 1:-1, 2:]
    return (up + down + left + right - 4 * inner).square().flatten(1).mean(1)


def traits(images: ImageSet) -> dict[str, Tensor]:
    "Of each picture: brightness by channel, contrast, and how much detail; (N,) each."
    x = to_float(images.pixels)
    names = ['brightness'] if images.channels == 1 else ['red', 'green', 'blue']
    return dict(zip(names, x.mean((2, 3)).T)) | {
        'contrast': x.flatten(1).std(1), 'detail': (roughness(x) + 1e-3).log()}


def nearest(asked: np.ndarray, known: np.ndarray,
            places: np.ndarray | None = None) -> tuple[Tensor, Tensor]:
    """(N,) distances of pictures to the nearest known one, and which that is; `places`: where they
    stand among the known ones themselves, which no picture may be compared with, nor equal ones."""
    apart = torch.cdist(pooled(asked).flatten(1), pooled(known).flatten(1))
    if places is not None:
        apart[torch.arange(len(asked)), torch.from_numpy(places)] = torch.inf
        apart[apart < 1e-3] = torch.inf
    least = apart.min(1)
    return least.values, least.indices


# -- near-copies -------------------------------------------------------------------------------


WAVES = 5           # so many of the longest ones, each way, describe a picture
LUMA = torch.tensor([0.299, 0.587, 0.114])      # of red, green and blue, as JPEG has it
TOLERANCE = 0.02    # share of a picture's variance that a near-copy may leave unexplained


def in_grey(x: Tensor) -> Tensor:
    "(N, 1, H, W) how bright pictures look: a JPEG keeps this better than colours."
    return x if x.shape[1] == 1 else (x * LUMA[:, None, None]).sum(1, keepdim=True)


def spectra(x: Tensor) -> Tensor:
    """(N, waves) how strong each of a grey picture's longest waves is, all together of length 1: not
    changed by brightness or contrast, and hardly by moving the picture by a few pixels."""
    rows = torch.arange(-WAVES, WAVES + 1) % x.shape[-1]
    parts = [torch.fft.rfft2(part[:, 0])[:, rows, :min(WAVES, x.shape[-1] // 2) + 1].abs()
             for part in x.split(5000)]
    strong = torch.cat(parts)
    strong[:, WAVES, 0] = 0                                 # the brightness
    return F.normalize(strong.flatten(1))


def unexplained(a: Tensor, b: Tensor) -> Tensor:
    """(N,) the share of b's variance that a leaves unexplained, both (N, C, H, W): mirrored or not,
    moved by up to 1.5 pixels, of any brightness and contrast. A shift is a whole number of pixels
    and, by least squares, some of the slopes. 1 where b is flat."""
    n, least = a.shape[-1], torch.ones(len(a))
    for flipped in (a, a.flip(-1)):
        across = (flipped[..., 1:-1, 2:] - flipped[..., 1:-1, :-2]) / 2
        down = (flipped[..., 2:, 1:-1] - flipped[..., :-2, 1:-1]) / 2
        basis = torch.stack([flipped[..., 1:-1, 1:-1], across, down], 1).flatten(2)
        basis = basis - basis.mean(2, keepdim=True)
        square = basis @ basis.mT + 1e-5 * torch.eye(3)
        for i, j in product(range(3), repeat=2):
            other = b[..., i:n - 2 + i, j:n - 2 + j].flatten(1)
            other = other - other.mean(1, keepdim=True)
            shares = basis @ other[..., None]
            weights = torch.linalg.solve(square, shares)
            total = other.square().sum(1)
            left = 1 - (weights * shares).sum((1, 2)) / (total + 1e-9)
            near = weights[:, 1:, 0].abs().amax(1) < 0.75 * weights[:, 0, 0]
            shown = total > 1e-3 * other.shape[1]           # about four levels of grey
            least = torch.where(near & shown, torch.minimum(least, left), least)
    return least


def near_copies(asked: np.ndarray, known: np.ndarray, places: np.ndarray | None = None,
                candidates: int = 3) -> np.ndarray:
    """(N,) whether a picture is nearly a copy of a known one: the same but for what `unexplained`
    allows and `TOLERANCE`, as a copy is that was moved by a pixel, mirrored, made lighter or saved
    as a JPEG. Those whose spectra are most alike are compared; `places` as in `nearest`."""
    mine, theirs = in_grey(pooled(asked)), in_grey(pooled(known))
    described, found = spectra(theirs).T.contiguous(), np.zeros(len(mine), bool)
    for rows in torch.arange(len(mine)).split(500):
        for flipped in (mine[rows], mine[rows].flip(-1)):
            alike = spectra(flipped) @ described
            if places is not None:
                alike[torch.arange(len(rows)), torch.from_numpy(places)[rows]] = -1
            for place in alike.topk(min(candidates, len(theirs))).indices.T:
                found[rows] |= (unexplained(mine[rows], theirs[place]) < TOLERANCE).numpy()
    return found


def apart(a: Tensor, b: Tensor, least: float = 0.01) -> tuple[float, float]:
    """How far two means lie apart in standard deviations of one value, and the same less four
    standard errors; (N,) each, of which a deviation below `least` counts as that."""
    spread = max(((a.var() + b.var()) / 2).sqrt().item(), least)
    error = (a.var() / len(a) + b.var() / len(b)).sqrt().item()
    distance = (a.mean() - b.mean()).item()
    return distance / spread, (abs(distance) - 4 * error) / spread


def evenly(n: int, most: int) -> np.ndarray:
    "At most so many places among n, evenly apart."
    return np.arange(min(n, most)) * n // min(n, most)
