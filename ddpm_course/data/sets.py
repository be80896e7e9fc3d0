from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..draws import Purpose, generator


NEAR = 1e-3             # by so much may floats pass their limits: rounding, a 255th is four times that


def black_of(values: np.ndarray) -> float:
    """What is black in floats of which 1 is white: 0, or -1 where some are below 0. Raises
    ValueError where they are between other limits: who knows which."""
    low, high = values.min(), values.max()
    if not (low >= -1 - NEAR and high <= 1 + NEAR):         # nor with a NaN
        raise ValueError(f'floats from {low:g} to {high:g}: expected 0 for black to 1 for white, or '
                         '-1 to 1')
    return -1.0 if low < -NEAR else 0.0


def as_bytes(levels: np.ndarray, black: float, white: float) -> np.ndarray:
    "Levels to bytes: black to 0, white to 255, what is between to the nearest."
    share = (levels.astype(np.float32) - black) / (white - black)
    return (share * 255).round().clip(0, 255).astype(np.uint8)


def number_labels(labels: Any, names: Sequence[str]) -> tuple[np.ndarray, tuple[str, ...]]:
    "Labels from 0 on, and the names of the classes: see `ImageSet.of`."
    found = np.array(np.asarray(labels).tolist())           # objects become what they are
    if found.dtype.kind in 'biuf':
        with np.errstate(invalid='ignore'):
            whole = found.astype(np.int64)
        if (odd := found[whole != found]).size:
            raise ValueError(f'{odd[0]:g} is no label: expected whole numbers or words')
        found = whole
    elif found.dtype.kind != 'U':
        raise ValueError(f'the labels are {found.dtype}: expected whole numbers or words')
    if not len(names):
        distinct = np.unique(found)
        return np.searchsorted(distinct, found), tuple(map(str, distinct))
    names = tuple(map(str, names))
    if found.dtype.kind != 'U' and not any(name.isdecimal() for name in names):
        return found, names                                 # indices
    known = {name: k for k, name in enumerate(names)}
    words = found.astype(str)
    if unknown := [word for word in words.flat if word not in known]:
        raise ValueError(f'no class is called {unknown[0]}: expected some of {",".join(names)}')
    return np.array([known[word] for word in words.flat], np.int64).reshape(words.shape), names


@dataclass(frozen=True, eq=False)
class ImageSet:
    "Images with or without classes. Raises ValueError for anything else."
    pixels: np.ndarray              # (N, C, H, W) uint8, C = 1 or 3, H = W
    labels: np.ndarray | None       # (N,) int64 in 0..len(classes)-1; None without classes
    classes: tuple[str, ...] = ()   # the classes' names, in label order
    known_digest: str = ''          # the digest, where it is known already

    def __post_init__(self) -> None:
        pixels, labels, shape = self.pixels, self.labels, self.pixels.shape
        square = len(shape) == 4 and shape[1] in (1, 3) and shape[2] == shape[3]
        if pixels.dtype != np.uint8 or not square or not pixels.size:
            raise ValueError(f'the pixels are {pixels.dtype} of shape {shape}: expected uint8, 0 '
                             'to 255, of shape (N, 1, size, size) or (N, 3, size, size)')
        if labels is None:
            return
        if labels.shape != shape[:1] or labels.min() < 0 or labels.max() >= len(self.classes):
            raise ValueError(f'the labels are of shape {labels.shape}, from {labels.min()} to '
                             f'{labels.max()}: expected shape {shape[:1]}, and from 0 to less '
                             f'than {len(self.classes)}, the number of classes')

    @classmethod
    def of(cls, pixels: Any, labels: Any = None, names: Sequence[str] = ()) -> 'ImageSet':
        """Of arrays (N, H, W), (N, H, W, C) or (N, C, H, W): uint8, or floats from 0 (black) to 1,
        or from -1 to 1 where any is below 0. Labels (N,) are whole numbers or words. Without names
        each that occurs is a class of that name, in their order: 1, 3, 7 become 0, 1, 2. With names
        they are words among these, or numbers: indices, or names as well where a class is called by
        a number. Give training and held-out images as one, and take rows: then both have the same
        limits and classes. Raises ValueError where these make no data set."""
        pixels = np.asarray(pixels)
        if pixels.dtype.kind == 'f' and pixels.size:
            pixels = as_bytes(pixels, black_of(pixels), 1)
        pixels = pixels[..., None] if pixels.ndim == 3 else pixels
        if pixels.shape[3:] in ((1,), (3,)):                        # channels last
            pixels = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))
        if labels is not None:
            labels, names = number_labels(labels, names)
        return cls(pixels, labels, tuple(names))

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, rows: Any) -> 'ImageSet':
        "Some of them: a slice, indices, or a bool for each."
        labels = None if self.labels is None else self.labels[rows]
        return ImageSet(self.pixels[rows], labels, self.classes)

    def by_names(self, classes: Sequence[str]) -> 'ImageSet':
        "With labels that count these classes. Raises ValueError where an image is of another."
        if self.labels is None or not len(classes) or self.classes == tuple(classes):
            return self
        labels, names = number_labels(np.array(self.classes)[self.labels], classes)
        return ImageSet(self.pixels, labels, names)

    def spread(self, most: int) -> 'ImageSet':
        "At most so many of them, evenly spaced: all classes, where they lie class by class."
        n = min(most, len(self))
        return self[np.arange(n) * len(self) // n]

    @property
    def channels(self) -> int:
        "1 (grey) or 3 (red, green, blue)."
        return self.pixels.shape[1]

    def labels_at(self, rows: Any = slice(None)) -> Tensor:
        "(B,) int64 classes of some images (indices or a slice). Raises ValueError without classes."
        if self.labels is None:
            raise ValueError('these images have no classes')
        return torch.from_numpy(self.labels[rows])

    @cached_property
    def digest(self) -> str:
        "16 hexadecimal digits, equal for equal pixels and labels."
        if self.known_digest:
            return self.known_digest
        total = sha256(np.ascontiguousarray(self.pixels).data)
        total.update(b'' if self.labels is None else np.ascontiguousarray(self.labels).data)
        return total.hexdigest()[:16]


ASSETS = Path(str(files('ddpm_course'))) / 'assets'


RESIZED = 1         # of what `resize` gives: with another number all kept images are decoded anew


def resize(image: Image.Image, size: int) -> Image.Image:
    "Scale the shorter side to `size` (bilinear, antialiased), then crop the centre square."
    width, height = image.size
    scale = size / min(width, height)
    if scale != 1:
        width, height = max(size, round(width * scale)), max(size, round(height * scale))
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = (width - size) // 2, (height - size) // 2
    return image.crop((left, top, left + size, top + size))


def every_tenth(n: int) -> np.ndarray:
    "(n,) bool, true at 9, 19, 29, ...: the images held out where nobody else has decided."
    return np.arange(n) % 10 == 9


@lru_cache(maxsize=8)       # to resize them all takes a moment, and pages ask again and again
def bundled(split: str, size: int) -> tuple[np.ndarray, np.ndarray]:
    "Pixels and labels of `load_digits`, for all who ask: not to be changed."
    with np.load(ASSETS / 'mnist5k.npz') as file:
        images, labels = file['images'], file['labels'].astype(np.int64)
    # those held out, or all others
    keep = every_tenth(len(images)) == (split == 'test')
    pixels = np.stack([np.asarray(resize(Image.fromarray(image), size)) for image in images[keep]])
    return pixels[:, None], labels[keep]


def load_digits(split: str = 'train', size: int = 28) -> ImageSet:
    "The bundled MNIST digits, `size` x `size`: 4,500 for `'train'`, 500 for `'test'`."
    if split not in ('train', 'test'):
        raise ValueError(f"a split is 'train' or 'test', not {split!r}")
    pixels, labels = bundled(split, size)
    return ImageSet(pixels.copy(), labels.copy(), tuple('0123456789'))


def to_float(pixels: np.ndarray | Tensor) -> Tensor:
    "Bytes 0..255 to float32 in [-1, 1]."
    return torch.as_tensor(pixels).float() / 127.5 - 1


def to_uint8(images: Tensor) -> Tensor:
    "Floats to bytes 0..255: [-1, 1] to the nearest, anything beyond clamped."
    return ((images.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


@lru_cache(maxsize=4)
def epoch_order(n: int, seed: int, epoch: int) -> np.ndarray:
    "A shuffle of 0..n-1, its own for each epoch."
    return generator(seed, Purpose.ORDER, epoch).permutation(n)


def batch_indices(n: int, batch: int, step: int, seed: int) -> np.ndarray:
    "(batch,) indices into n images for a step from 0 on: each once per epoch, in its own order."
    places = np.arange(step * batch, (step + 1) * batch)
    return np.array([epoch_order(n, seed, place // n)[place % n] for place in places])
