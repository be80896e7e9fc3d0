"The files of a folder of pictures: which are equal, cannot be read, or are unlike the others."

import os
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from hashlib import sha256
from pathlib import Path

import numpy as np

from ..base.machine import cores
from ..data.decoding import open_image
from ..data.sets import resize
from ..data.sources import folder_source


@dataclass(frozen=True)
class Picture:
    "What is known of one file."
    width: int
    height: int
    blank: bool
    digest: bytes                   # equal for pictures that are equal in the size of training

    @property
    def short(self) -> int:
        "The shorter side."
        return min(self.width, self.height)

    @property
    def shape(self) -> float:
        "Width over height, on a scale where twice as wide and twice as high lie equally far."
        return float(np.log2(self.width / self.height))


def read(path: str, size: int) -> Picture | None:
    "One picture as it is trained on; None where it cannot be read."
    try:
        image = open_image(path)
    except ValueError:
        return None
    pixels = np.asarray(resize(image.convert('RGB'), size))
    levels = np.ptp(pixels.reshape(-1, 3), axis=0).max()
    return Picture(*image.size, bool(levels < 8), sha256(pixels.tobytes()).digest())


@dataclass(frozen=True)
class Album:
    "Names of files below a folder: of those that somebody should look at."
    equal: Sequence[tuple[str, str]] = ()       # the first of its kind, and each that repeats it
    unreadable: Sequence[str] = ()
    blank: Sequence[str] = ()
    small: Sequence[str] = ()       # less than a third of the usual shorter side; smallest first
    long: Sequence[str] = ()        # over twice as wide, or as high, as usual; the oddest first

    def lines(self, most: int = 5) -> list[str]:
        "A line for each kind that there is, which names at most so many."
        said = {'equal': 'equal pictures', 'unreadable': 'cannot be read',
                'blank': 'of one colour in the middle square, which is all that is used',
                'small': 'much smaller than most', 'long': 'much wider or higher than most'}
        found = {name: [' = '.join(x) if isinstance(x, tuple) else x for x in getattr(self, name)]
                 for name in (f.name for f in fields(self))}
        return [f'{said[name]}: {", ".join(names[:most])}'
                + (f' and {len(names) - most:,} more' if len(names) > most else '')
                for name, names in found.items() if names]


def look_through(folder: str | Path, size: int) -> Album:
    """Read every picture of a folder. Raises ValueError where it is no data set, and OSError where
    the disk fails."""
    root = Path(folder)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')                     # who loads the data hears them
        paths = folder_source(root).read().images
        with ThreadPoolExecutor(min(8, cores())) as pool:
            seen = list(pool.map(lambda path: read(path, size), paths))
    names = [os.path.relpath(path, root) for path in paths]
    known = [(name, picture) for name, picture in zip(names, seen) if picture]
    first: dict[bytes, str] = {}
    equal = [(earlier, name) for name, picture in known
             if (earlier := first.setdefault(picture.digest, name)) != name]
    short = np.median([picture.short for _, picture in known] or [0])
    shape = np.median([picture.shape for _, picture in known] or [0])
    sized = {f'{name} ({p.width}x{p.height})': p for name, p in known}
    small = {name: p.short for name, p in sized.items() if 3 * p.short < short}
    long = {name: abs(p.shape - shape) for name, p in sized.items() if abs(p.shape - shape) > 1}
    return Album(
        sorted(equal), [name for name, picture in zip(names, seen) if not picture],
        [name for name, picture in known if picture.blank],
        sorted(small, key=lambda name: small[name]), sorted(long, key=lambda name: -long[name]))
