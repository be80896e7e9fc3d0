import itertools
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from ..base.group import Group
from ..base.machine import float32_products
from ..config import SamplingConfig
from ..data.sets import ASSETS, epoch_order, to_float, to_uint8
from .frechet import frechet_distance
from ..model import Model
from ..sampling import draw


class Judge(nn.Module):
    "A classifier, as made for digits: features (N, 64) and logits (N, classes) of images."
    name = 'digits judge'
    num_features = 64
    batch = 100                         # images at a time: changes nothing but speed and memory

    def __init__(self, channels: int = 1, classes: int = 10):
        super().__init__()
        self.channels = channels

        def conv(i: int, o: int) -> nn.Sequential:
            return nn.Sequential(nn.Conv2d(i, o, 3, padding=1), nn.BatchNorm2d(o), nn.ReLU())
        self.body = nn.Sequential(
            conv(channels, 16), conv(16, 32), nn.MaxPool2d(2), conv(32, 64), nn.MaxPool2d(2), nn.Flatten(),
            nn.Dropout(0.3), nn.Linear(64 * 4 * 4, self.num_features),
            nn.BatchNorm1d(self.num_features))
        self.head = nn.Linear(self.num_features, classes)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        "Features and logits of images (N, C, H, W) of any size, bytes or floats in [-1, 1]."
        x = images if images.is_floating_point() else to_float(images)
        x = x.mean(1, keepdim=True) if self.channels == 1 else x
        if x.shape[-2:] != (16, 16):
            x = F.interpolate(x, (16, 16), mode='bilinear', antialias=True)
        features = self.body(x)
        return features, self.head(features)


def read_judge(judge: Any, name: str) -> Any:
    "A judge with the weights of a file that ships (bfloat16 on disk)."
    judge.load_state_dict({name: w.float() if w.is_floating_point() else w
                           for name, w in load_file(ASSETS / name).items()})
    return judge.eval().requires_grad_(False)


def load_judge() -> Judge:
    "The judge that ships with the package, made by tools/make_judge.py."
    return read_judge(Judge(), 'judge.safetensors')


@torch.no_grad()
def extract(
    extractor: nn.Module,           # answers uint8 images with features and logits
    images: np.ndarray | Tensor,    # (N, C, H, W) uint8
    batch: int = 500,               # changes nothing but memory
    group: Group = Group(),         # whose members share the images; the first has the answer
) -> tuple[Tensor, Tensor]:         # (N, num_features) and (N, classes), float64 on the CPU
    "Features and logits of images, where the extractor lives, computed in float32."
    device, width = next(iter(extractor.state_dict().values())).device, extractor.num_features

    def rows(i: range) -> Tensor:
        return torch.cat(extractor(torch.as_tensor(images[i.start:i.stop]).to(device)), 1).cpu()
    with float32_products('fp32'):
        table = group.map(rows, len(images), batch, to_all=False).double()
    return table[..., :width].contiguous(), table[..., width:].contiguous()


def allot_classes(labels: np.ndarray | None, n: int) -> Tensor:
    "(n,) classes, sorted, each as often as among `labels` to within one; without classes all -1."
    if labels is None:
        return torch.full((n,), -1)
    share = n * np.bincount(labels) / len(labels)
    count = share.astype(np.int64)
    largest = np.argsort(count - share, kind='stable')[:n - count.sum()]    # remainders
    count[largest] += 1
    return torch.arange(len(count)).repeat_interleave(torch.from_numpy(count))


def real_subset(labels: np.ndarray | None, total: int, n: int, seed: int = 0,
                draw: int = 0) -> np.ndarray:
    """(total,) bool: a random choice of n images, each class as often as `allot_classes` says;
    `draw` counts the choices of a seed."""
    order, mask = epoch_order(total, seed, draw), np.zeros(total, bool)
    labels = np.zeros(total, int) if labels is None else labels
    for c, count in enumerate(allot_classes(labels, n).bincount().tolist()):
        mask[order[labels[order] == c][:count]] = True
    return mask


def real_floor(features: Tensor, labels: np.ndarray | None, n: int, seed: int = 0,
               draws: int = 3) -> float:
    """The Fréchet distance of real images from real images: n of them, at most half, against all
    the others; the mean of some draws. Features (N, D) and classes are those of all."""
    masks = [torch.from_numpy(real_subset(labels, len(features), n, seed, k)) for k in range(draws)]
    return sum(frechet_distance(features[mask], features[~mask]) for mask in masks) / draws


def draw_samples(
    model: Model,
    y: Tensor,                      # (n,) classes; -1 for a model without
    how: SamplingConfig = SamplingConfig(sampler='ddpm', guidance=1),
    batch: int = 100,               # changes nothing but speed and memory
    group: Group = Group(),         # whose members share the samples
) -> Tensor:                        # (n, C, H, W) uint8
    "Samples to be judged: the k-th of a class is the k-th of it in any grid of the same seed."
    places: defaultdict[int, Iterator[int]] = defaultdict(itertools.count)
    keys = [max(c, 0) * 2**32 + next(places[c]) for c in y.tolist()]
    return to_uint8(draw(model, keys, y, how, batch, group))


def nearest_distances(images: np.ndarray | Tensor, train: np.ndarray,
                      group: Group = Group()) -> Tensor:
    """(N,) distances of uint8 images to the nearest training image, each the root of the summed
    squares over pixels in [-1, 1]; the members of a group share the images, and the first has the
    answer. Of the training images only 64 MB are floats at a time."""
    device, part = group.device or torch.device('cpu'), max(1, 2**24 // train[0].size)

    def nearest(i: range) -> Tensor:
        points = to_float(images[i.start:i.stop]).flatten(1).to(device).split(500)
        least = torch.full((len(i),), torch.inf, device=device)
        for k in range(0, len(train), part):
            there = to_float(train[k:k + part]).flatten(1).to(device)
            found = torch.cat([torch.cdist(some, there).amin(1) for some in points])
            least = torch.minimum(least, found)
        return least.cpu()
    return group.map(nearest, len(images), to_all=False)
