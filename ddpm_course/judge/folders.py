"The files of a folder of pictures: which are equal, cannot be read, or are unlike the others."

import os
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
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
    sizes: Mapping[str, tuple[int, int]] = field(default_factory=dict)  # width, height of those two

    def lines(self, most: int = 5) -> list[str]:
        "A line for each kind that there is, which names at most so many."
        def sized(names: Sequence[str]) -> list[str]:
            return [f'{name} ({self.sizes[name][0]}x{self.sizes[name][1]})' for name in names]
        found = {'equal pictures': [' = '.join(pair) for pair in self.equal],
                 'cannot be read': self.unreadable,
                 'of one colour in the middle square, which is all that is used': self.blank,
                 'much smaller than most': sized(self.small),
                 'much wider or higher than most': sized(self.long)}
        return [f'{said}: {", ".join(names[:most])}'
                + (f' and {len(names) - most:,} more' if len(names) > most else '')
                for said, names in found.items() if names]

    def __len__(self) -> int:
        "How many files to look at; of equal ones, all but the first."
        repeats = [name for _, name in self.equal]
        return len({*repeats, *self.unreadable, *self.blank, *self.small, *self.long})


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
    known = {name: picture for name, picture in zip(names, seen) if picture}
    first: dict[bytes, str] = {}
    equal = [(earlier, name) for name, picture in known.items()
             if (earlier := first.setdefault(picture.digest, name)) != name]
    short = np.median([picture.short for picture in known.values()] or [0])
    shape = np.median([picture.shape for picture in known.values()] or [0])
    small = {name: p.short for name, p in known.items() if 3 * p.short < short}
    long = {name: abs(p.shape - shape) for name, p in known.items() if abs(p.shape - shape) > 1}
    return Album(
        sorted(equal), [name for name, picture in zip(names, seen) if not picture],
        [name for name, picture in known.items() if picture.blank],
        sorted(small, key=lambda name: small[name]), sorted(long, key=lambda name: -long[name]),
        {name: (known[name].width, known[name].height) for name in (small | long)})
