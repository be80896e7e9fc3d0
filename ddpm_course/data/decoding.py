import errno
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps
from tqdm import tqdm

from ..base.files import read_whole
from ..base.machine import cores
from .sets import ImageSet, resize

FORMATS = {             # of the files that are read: how a name ends, and what Pillow calls it
    '.png': 'PNG', '.jpg': 'JPEG', '.jpeg': 'JPEG', '.bmp': 'BMP', '.webp': 'WEBP', '.tif': 'TIFF',
    '.tiff': 'TIFF', '.gif': 'GIF'}


NOWHERE = (errno.ENOENT, errno.ELOOP)       # what opening a link that leads there says


def open_image(path: str | Path) -> Image.Image:
    "One image, upright, as grey ('L') or 'RGB'. Raises ValueError where that is not possible."
    try:
        content = BytesIO(read_whole(Path(path), 1 << 32))
        with Image.open(content, formats=tuple(FORMATS.values())) as file:
            if file.mode == 'F':
                raise ValueError('floats, of which nobody knows which are black and white')
            image = ImageOps.exif_transpose(file)
            if image.mode.startswith('I'):                  # 16 bits per pixel
                levels = np.asarray(image).clip(0, 65535) / 257
                image = Image.fromarray(levels.round().astype(np.uint8))
            grey = image.mode in ('1', 'L', 'LA')
            if image.has_transparency_data:
                white = Image.new('RGBA', image.size, 'white')
                image = Image.alpha_composite(white, image.convert('RGBA'))
            return image.convert('L' if grey else 'RGB')
    except Exception as error:              # decoders have a dozen ways to say it
        passes = isinstance(error, OSError) and error.errno not in (None, *NOWHERE)
        if passes or isinstance(error, MemoryError):
            raise
        raise ValueError(f'{path} is not an image that can be read') from error


def decode_rows(
    images: Sequence[str] | np.ndarray, out: np.ndarray, first: int, channels: int | None,
) -> tuple[list[int], bool]:
    "`decode` for some images, into the rows of `out` from `first` on."
    bad, grey = [], True
    for row, image in enumerate(images, first):
        try:
            image = open_image(image) if isinstance(image, str) else Image.fromarray(image)
            image = image.convert('L') if channels == 1 else image
            pixels = np.asarray(resize(image, out.shape[-1]))
        except ValueError:
            bad.append(row)
            continue
        if pixels.ndim == 3:
            pixels = pixels.transpose(2, 0, 1)
            grey = grey and bool((pixels == pixels[:1]).all())
        out[row] = pixels                   # grey fills all three channels
    return bad, grey


PART = 16                                   # images in one piece of work


def progress(what: str, total: int, unit: str) -> tqdm:
    "A bar for work that may take a moment, or minutes."
    return tqdm(total=total, desc=what, unit=f' {unit}', delay=1, maxinterval=30,
                mininterval=0.2 if sys.stderr.isatty() else 30)


def decode(images: Sequence[str] | np.ndarray, out: np.ndarray,
           channels: int | None = None) -> tuple[list[int], bool]:
    """Decode files or arrays into the rows of `out`, (N, C, size, size) uint8, with a progress bar;
    with 1 channel all become grey. Gives the unreadable rows, and whether the others are grey."""
    part = lambda first: decode_rows(images[first:first + PART], out, first, channels)
    bad, grey = [], True
    bar = progress('decoding', len(images), 'images')
    with warnings.catch_warnings(), bar, ThreadPoolExecutor(min(8, cores())) as pool:
        warnings.filterwarnings('ignore', module='PIL')         # ours name the file
        for found, all_grey in pool.map(part, range(0, len(images), PART)):
            bad += found                    # an error here cancels what nobody has begun
            grey = grey and all_grey
            bar.update(min(PART, len(images) - bar.n))
    return bad, grey


@dataclass(frozen=True, eq=False)
class Listing:
    "Images that are not decoded yet."
    images: list[str] | np.ndarray          # files, or pixels (N, H, W) or (N, H, W, 3) uint8
    labels: np.ndarray | None               # (N,) int64
    held_out: np.ndarray                    # (N,) bool
    classes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Source:
    "Where images come from."
    root: Path
    files: list[str]                   # all that is read, by its name below the root
    read: Callable[[], Listing]


Pair = tuple[ImageSet, ImageSet]            # to train on, held out


def two_sets(pixels: np.ndarray, facts: dict[str, Any]) -> Pair:
    "Training and held-out images. Raises ValueError, KeyError, TypeError where the two do not fit."
    labels = None if facts['labels'] is None else np.array(facts['labels'], np.int64)
    part = lambda split, rows: ImageSet(
        pixels[rows], labels if labels is None else labels[rows], tuple(facts['classes']),
        facts['digests'][split])
    return part('train', slice(facts['train'])), part('test', slice(facts['train'], None))


def read_source(source: Source, size: int, channels: int | None,
                allocate: Callable[[tuple], np.ndarray]) -> tuple[np.ndarray, dict[str, Any]]:
    """Decode a source into an array that `allocate` makes, (N, C, size, size), to train on first;
    and facts. Channels None: 1 where all images are grey, otherwise 3. Raises ValueError where it
    is too small or over 1 % of it is unreadable."""
    listing = source.read()
    order = np.argsort(listing.held_out, kind='stable')
    images = [listing.images[i] for i in order]
    pixels = allocate((len(order), channels or 3, size, size))
    bad, grey = decode(images, pixels, channels)
    if len(bad) > len(order) / 100:
        raise ValueError(f'{len(bad)} of {len(order)} images cannot be read, the first is '
                         f'{images[bad[0]]}: at most one in a hundred may be damaged')
    rows = np.delete(np.arange(len(order)), bad)
    held_out = listing.held_out[order[rows]]
    if held_out.all() or not held_out.any():
        raise ValueError(f'{source.root} holds {len(rows)} images, {held_out.sum()} of them held '
                         'out (every tenth of a class is): expected some of both')
    depth = 1 if channels is None and grey else pixels.shape[1]
    if (len(rows), depth) != pixels.shape[:2]:
        every, pixels = pixels, allocate((len(rows), depth, size, size))
        for k, row in enumerate(rows):              # one by one: all may not fit into memory
            pixels[k] = every[row, :depth]
    facts: dict[str, Any] = {
        'train': int((~held_out).sum()), 'classes': list(listing.classes),
        'labels': None if listing.labels is None else listing.labels[order[rows]].tolist(),
        'unreadable': [os.path.relpath(images[row], source.root) for row in bad]}
    train, test = two_sets(pixels, facts | {'digests': {'train': '', 'test': ''}})
    return pixels, facts | {'digests': {'train': train.digest, 'test': test.digest}}
