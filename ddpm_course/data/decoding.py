import errno
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageOps
from tqdm import tqdm

from ..base.files import read_whole
from ..base.machine import cores
from .sets import ImageSet, as_bytes, black_of, resize

FORMATS = {             # of the files that are read: how a name ends, and what Pillow calls it
    '.png': 'PNG', '.jpg': 'JPEG', '.jpeg': 'JPEG', '.bmp': 'BMP', '.webp': 'WEBP', '.tif': 'TIFF',
    '.tiff': 'TIFF', '.gif': 'GIF'}


MOST = 1 << 32                              # bytes of a file that is read
NOWHERE = (errno.ENOENT, errno.ELOOP)       # what opening a link that leads there says


class Scale(NamedTuple):
    "What the levels of a picture mean that are no bytes."
    kind: str                               # 'bits' (whole numbers) or 'floats'
    black: float
    white: float


class Unscaled(ValueError):
    "Levels of which nobody knows which are black and white."


LOW_BYTES = {           # of what Pillow reads with 16 bits a colour: to have the other 8
    'RGB;16B': 'RGB;16L', 'RGB;16L': 'RGB;16B', 'RGBA;16B': 'RGBA;16L', 'RGBA;16L': 'RGBA;16B',
    'RGBX;16B': 'RGBX;16L', 'RGBX;16L': 'RGBX;16B',
    'RGB;16N': 'RGB;16B' if sys.byteorder == 'little' else 'RGB;16L',
    'RGBA;16N': 'RGBA;16B' if sys.byteorder == 'little' else 'RGBA;16L',
    'LA;16B': 'RGBA'}   # four bytes: grey, its lower byte, alpha, its lower byte


def levels_of(file: Any, content: bytes) -> np.ndarray | None:
    """The levels of a file whose levels are no bytes, (H, W) or (H, W, 3), upright; None for others.
    It must not have been loaded."""
    mode = file.tile[0][3] if file.tile else ''
    mode = mode if isinstance(mode, str) else mode[0]       # how Pillow unpacks it
    if file.mode.startswith('I') or file.mode == 'F':
        return np.asarray(ImageOps.exif_transpose(file))
    if mode not in LOW_BYTES:
        if file.format == 'TIFF' and max(np.ravel(file.tag_v2.get(258, 8))) > 8:    # BitsPerSample
            raise Unscaled('16 bits a colour in planes, as inks or times alpha: save it as PNG')
        return None
    image = ImageOps.exif_transpose(file)
    with Image.open(BytesIO(content), formats=(file.format,)) as other:
        again: Any = other
        again.tile = [getattr(tile, '_make', tuple)(        # older ones of Pillow are plain tuples
            (*tile[:3], LOW_BYTES[mode] if isinstance(tile[3], str) else
             (LOW_BYTES[mode], *tile[3][1:]))) for tile in again.tile]
        low = np.asarray(ImageOps.exif_transpose(again)).astype(np.uint16)
    if mode == 'LA;16B':
        return low[..., 0] << 8 | low[..., 1]
    return (np.asarray(image).astype(np.uint16) << 8 | low)[..., :3]


def said_bits(file: Any, content: bytes) -> int:
    "How many bits of a level count, as far as a PNG (sBIT) or a TIFF says so; otherwise 0."
    if file.format == 'PNG':
        place = 8                                           # of a chunk: size, name, content, sum
        while (name := content[place + 4:place + 8]) not in (b'sBIT', b'IDAT', b''):
            place += 12 + int.from_bytes(content[place:place + 4], 'big')
        size = int.from_bytes(content[place:place + 4], 'big')
        return max(content[place + 8:place + 8 + size]) if name == b'sBIT' else 0
    tags = getattr(file, 'tag_v2', {})
    of = lambda *names: [x for name in names for x in np.ravel(tags.get(name, 0)).tolist()]
    depths = [depth for depth in of(258) if depth % 8]      # BitsPerSample: 16 may hold 12
    whites = [int(x).bit_length() for x in of(281, 341) if 0 < x < 1 << 32]    # MaxSampleValue, SMax...
    return max([0, *depths, *whites])


def scale_of(levels: np.ndarray, said: int) -> Scale:
    """Of one picture. Whole numbers have as many bits as the largest needs, or as the file says, if
    that is more. Raises Unscaled for levels below black, and for floats beyond white."""
    if levels.dtype.kind == 'f':
        try:
            return Scale('floats', black_of(levels), 1)
        except ValueError as error:
            raise Unscaled(str(error)) from error
    if levels.min() < 0:
        raise Unscaled(f'whole numbers from {levels.min()} to {levels.max()}: expected 0 for black')
    return Scale('bits', 0, 2**max(1, said, int(levels.max()).bit_length()) - 1)


def common(scales: Iterable[Scale]) -> dict[str, Scale]:
    "For each kind the one scale that takes in all."
    found: dict[str, Scale] = {}
    for scale in scales:
        other = found.get(scale.kind, scale)
        found[scale.kind] = Scale(scale.kind, min(scale.black, other.black),
                                  max(scale.white, other.white))
    return found


def open_scaled(path: str | Path, scales: Mapping[str, Scale] = MappingProxyType({}),
                ) -> tuple[Image.Image, Scale | None]:
    "`open_image`, by one of these scales or else by the picture's own; and its own."
    try:
        content = read_whole(Path(path), MOST)
        with Image.open(BytesIO(content), formats=tuple(FORMATS.values())) as file:
            levels, own = levels_of(file, content), None
            image = ImageOps.exif_transpose(file)
            grey = image.mode in ('1', 'L', 'LA')
            if levels is not None:
                own = scale_of(levels, said_bits(file, content))
                scale = scales.get(own.kind, own)
                bytes_ = Image.fromarray(as_bytes(levels, scale.black, scale.white))
                if image.mode == 'RGBA':
                    bytes_.putalpha(image.getchannel('A'))
                image, grey = bytes_, levels.ndim == 2
            if image.has_transparency_data:
                white = Image.new('RGBA', image.size, 'white')
                image = Image.alpha_composite(white, image.convert('RGBA'))
            return image.convert('L' if grey else 'RGB'), own
    except Unscaled as error:
        raise Unscaled(f'{path} holds {error}') from error
    except Exception as error:              # decoders have a dozen ways to say it
        passes = isinstance(error, OSError) and error.errno not in (None, *NOWHERE)
        if passes or isinstance(error, MemoryError):
            raise
        raise ValueError(f'{path} is not an image that can be read') from error


def open_image(path: str | Path) -> Image.Image:
    """One image, upright, as grey ('L') or 'RGB'; levels of 16 bits, or floats, by what the file says
    or holds. Raises ValueError where that is not possible."""
    return open_scaled(path)[0]


def decode_rows(
    images: Sequence[str] | np.ndarray, rows: Sequence[int], out: np.ndarray, channels: int | None,
    scales: Mapping[str, Scale],
) -> tuple[list[int], bool, dict[int, Scale]]:
    "`decode` for some rows."
    bad, grey, found = [], True, {}
    for row in rows:
        try:
            given = images[row]
            image, own = (open_scaled(given, scales) if isinstance(given, str) else
                          (Image.fromarray(given), None))
            image = image.convert('L') if channels == 1 else image
            pixels = np.asarray(resize(image, out.shape[-1]))
        except Unscaled:
            raise
        except ValueError:
            bad.append(row)
            continue
        if own:
            found[row] = own
        if pixels.ndim == 3:
            pixels = pixels.transpose(2, 0, 1)
            grey = grey and bool((pixels == pixels[:1]).all())
        out[row] = pixels                   # grey fills all three channels
    return bad, grey, found


PART = 16                                   # images in one piece of work


def progress(what: str, total: int, unit: str) -> tqdm:
    "A bar for work that may take a moment, or minutes."
    return tqdm(total=total, desc=what, unit=f' {unit}', delay=1, maxinterval=30,
                mininterval=0.2 if sys.stderr.isatty() else 30)


def decode(
    images: Sequence[str] | np.ndarray, rows: Sequence[int], out: np.ndarray,
    channels: int | None = None, scales: Mapping[str, Scale] = MappingProxyType({}),
) -> tuple[list[int], bool, dict[int, Scale]]:
    """Decode files or arrays into some rows of `out`, (N, C, size, size) uint8, with a progress bar;
    with 1 channel all become grey. Gives the unreadable rows, whether the others are grey, and the
    scales of those whose levels are no bytes."""
    part = lambda first: decode_rows(images, rows[first:first + PART], out, channels, scales)
    bad: list[int] = []
    grey, found = True, dict[int, Scale]()
    bar = progress('decoding', len(rows), 'images')
    with warnings.catch_warnings(), bar, ThreadPoolExecutor(min(8, cores())) as pool:
        warnings.filterwarnings('ignore', module='PIL')         # ours name the file
        for left_out, all_grey, own in pool.map(part, range(0, len(rows), PART)):
            bad += left_out                 # an error here cancels what nobody has begun
            grey = grey and all_grey
            found |= own
            bar.update(min(PART, len(rows) - bar.n))
    return bad, grey, found


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
    bad, grey, own = decode(images, range(len(images)), pixels, channels)
    scales = common(own.values())
    if other := [row for row, scale in own.items() if scale != scales[scale.kind]]:
        decode(images, other, pixels, channels, scales)
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
        'unreadable': [os.path.relpath(images[row], source.root) for row in bad],
        'scales': [[sum(s.kind == kind for s in own.values()), *scale]
                   for kind, scale in scales.items()]}
    train, test = two_sets(pixels, facts | {'digests': {'train': '', 'test': ''}})
    return pixels, facts | {'digests': {'train': train.digest, 'test': test.digest}}
