"Which pictures a run is asked about, and whether it was trained on them."

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from ..config import RunConfig
from ..data.decoding import Pair, open_image
from ..data.sets import ImageSet
from ..data.sources import DATA, batch_source, find_images, load_data


def in_colour(source: str) -> bool:
    "Whether this is a folder where any of some fifty pictures has colour, or CIFAR-10's own files."
    root = Path(os.path.expanduser(source))
    if source in DATA or not root.is_dir():                 # a name is taken for it
        return False
    if batch_source(root):
        return True
    files = [root / name for name in find_images(root)[0]]
    for file in files[::-(-len(files) // 50) or 1]:
        with suppress(ValueError):                          # decoding will tell
            pixels = np.asarray(open_image(file))
            if pixels.ndim == 3 and (pixels != pixels[..., :1]).any():
                return True
    return False


def check_classes(config: RunConfig, classes: Sequence[str]) -> None:
    """Raise ValueError where pictures have other classes than a model is told, in another order,
    or none. A model that came without names may know one class more: its label for "no class"."""
    known, there = config.data.classes, tuple(classes)
    unnamed = not config.data.digest and len(known) - len(there) in (0, 1)
    if config.num_classes and known != there and not (unnamed and there):
        raise ValueError(f'the model knows the classes {",".join(known)}, the images have '
                         f'{",".join(there) or "none"}')


def pictures_of(config: RunConfig, data: str | Path | None = None) -> Pair:
    """Training and held-out pictures for a run, or those of another place, in the size and with
    the channels of its own. Raises ValueError where the run's are not there any more, or where
    the classes are others; FileNotFoundError for what is not there."""
    d = config.data
    source = data or d.data
    images, held_out = load_data(source, d.size, d.image_channels or None)
    check_classes(config, images.classes)
    if data is None and d.digest not in ('', images.digest):
        raise ValueError(f'{source} holds other pictures than those this model was trained on, '
                         'or has changed since: name the right ones, or these again, with --data')
    return images, held_out


def fingerprints(images: ImageSet) -> np.ndarray:
    "(N,) int64, a number for each picture: equal pictures have equal ones."
    return np.fromiter((hash(picture.tobytes()) for picture in images.pixels), np.int64)


def trained_on(held_out: ImageSet, images: ImageSet) -> int:
    "How many held-out pictures are among those that are trained on."
    return int(np.isin(fingerprints(held_out), fingerprints(images)).sum())
