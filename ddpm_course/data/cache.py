import json
import os
import shutil
import time
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from ..base.files import flush, read_json, write_whole
from ..base.machine import cores
from .decoding import MOST, NOWHERE, PART, Pair, Source, progress, read_source, two_sets
from .sets import RESIZED


def cache_folder() -> Path:
    "Where decoded images are kept: $DDPM_CACHE, or ~/.cache/ddpm_course/images."
    return Path(os.environ.get('DDPM_CACHE') or Path.home() / '.cache' / 'ddpm_course' / 'images')


def stamp(path: str) -> tuple[int, ...]:
    "What nobody can set back when a file changes; nothing for a link to nowhere."
    try:
        status = os.stat(path)
    except OSError as error:
        if error.errno in NOWHERE:
            return ()
        raise
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def proves(seen: tuple[int, ...], now: int) -> bool:
    """Whether a file that has the same stamp later has the same content: not where it has changed
    within two seconds, perhaps after it was read in the same tick of the disk's clock; nor where
    the time is of hundredths or whole seconds, as disks have it that keep no time of change (FAT,
    images of CDs); nor on Windows, which keeps the time of creation."""
    return not seen or bool(os.name != 'nt' and seen[-1] < now - 2 * 10**9 and seen[-1] % 10**7)


def sums(paths: Sequence[str]) -> list[str]:
    "The SHA-256 of each file; its size where it is too large to be decoded; '' for a link to nowhere."
    found = []
    for path in paths:
        try:
            with open(path, 'rb', buffering=0) as file:
                total, size = sha256(), os.fstat(file.fileno()).st_size
                while size <= MOST and (part := file.read(1 << 20)):
                    total.update(part)
            found.append(total.hexdigest() if size <= MOST else str(size))
        except OSError as error:
            if error.errno not in NOWHERE:
                raise
            found.append('')
    return found


def sum_of(known: Any) -> str:
    "A name for what JSON can hold."
    return sha256(json.dumps(known).encode()).hexdigest()[:32]


def content_of(source: Source) -> str:
    """A name for all that is read: names and bytes of the files. Only those are read for it whose
    stamp is another than before, or proves nothing; the others' sums are kept by their stamps."""
    now = time.time_ns()                                    # before anything is looked at
    paths = [os.path.join(source.root, name) for name in source.files]
    seen = [stamp(path) for path in paths]
    marks = [' '.join(map(str, one)) for one in seen]
    note, known = cache_folder() / f'{sum_of(stamp(str(source.root))[:1])}.sums', {}
    with suppress(OSError, ValueError, AttributeError):     # none, or damaged
        known = dict(read_json(note, MOST).items())
    new = [k for k, mark in enumerate(marks) if mark not in known]
    found = [known.get(mark, '') for mark in marks]
    with progress('reading', len(new), 'files') as bar, ThreadPoolExecutor(min(8, cores())) as pool:
        parts = [new[first:first + PART] for first in range(0, len(new), PART)]
        for part, some in zip(parts, pool.map(lambda part: sums([paths[k] for k in part]), parts)):
            for k, one in zip(part, some):
                found[k] = one
            bar.update(len(part))
    if any(proves(seen[k], now) for k in new):
        kept = {mark: one for mark, each, one in zip(marks, seen, found) if proves(each, now)}
        with suppress(OSError):                             # of the cache
            write_whole(note, json.dumps(kept))
    return sum_of([source.files, found])


def cache_key(source: Source, size: int, channels: int | None) -> str:
    "A name for the decoded images: the same as long as what they are made of is the same."
    return sum_of([RESIZED, size, channels, content_of(source)])


def open_cache(folder: Path) -> tuple[np.ndarray, dict[str, Any]] | None:
    "The pixels, mapped into memory, and the facts; None where they are missing or do not fit."
    file = folder / 'pixels.npy'
    with suppress(Exception):               # whatever a damaged file leads to
        facts = read_json(folder / 'kept.json', 1 << 30)
        if file.is_file():
            pixels = np.asarray(np.load(file, mmap_mode='c'))               # writing stays private
            two_sets(pixels, facts)
            if {'unreadable', 'scales'} <= set(facts):
                return pixels, facts
    return None


def reserve(path: Path, shape: tuple) -> np.ndarray:
    "A memory-mapped uint8 array in a new .npy file. Raises OSError where the disk is full."
    path.unlink(missing_ok=True)            # what is mapped already stays so
    with open(path, 'wb') as file:
        head = {'descr': '|u1', 'fortran_order': False, 'shape': shape}
        np.lib.format.write_array_header_1_0(file, head)
        for _ in range(shape[0]):
            file.write(bytes(int(np.prod(shape[1:]))))
    return np.load(path, mmap_mode='r+')


SILENCE = 10                                # seconds that one waits for others without a word


@contextmanager
def lock(path: Path, patience: float) -> Iterator[bool]:
    """Hold a lock file while the block runs, after others; False where the disk refuses, or others
    hold it for longer than `patience` in seconds."""
    holder = FileLock(path, fallback_to_soft=False)
    try:
        with suppress(OSError):             # a disk without locks, or a link; or a Timeout
            try:
                holder.acquire(SILENCE)
            except Timeout:
                warnings.warn(f'waiting for up to {patience / 60:.0f} minutes for the process that '
                              f'holds {path}', stacklevel=4)
                holder.acquire(patience)
        yield holder.is_locked
    finally:
        holder.release()


def make_cache(folder: Path, source: Source, size: int, channels: int | None) -> None:
    """Decode `source` into `folder`, whole or not at all, unless another process has just done so.
    One that has not done so in five minutes, and ten milliseconds for each file, is taken for
    stuck."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with lock(folder.with_suffix('.lock'), 300 + len(source.files) / 100) as locked:
        if open_cache(folder):
            return
        for left in folder.parent.glob(f'{folder.name}.*.part') if locked else ():
            shutil.rmtree(left, ignore_errors=True)         # by a process that was killed
        with TemporaryDirectory('.part', f'{folder.name}.', folder.parent) as made:
            aside = Path(made)
            _, facts = read_source(source, size, channels, partial(reserve, aside / 'pixels.npy'))
            if cache_key(source, size, channels) != folder.name:
                raise ValueError(f'{source.root} has changed while it was read: start again')
            write_whole(aside / 'kept.json', json.dumps(facts))
            flush(aside / 'pixels.npy')
            if open_cache(folder):                          # without a lock another was quicker,
                return                                      # and has it in use
            shutil.rmtree(folder, ignore_errors=True)       # a damaged one must make room
            with suppress(OSError):
                aside.rename(folder)


def said_of(kind: str, white: float) -> str:
    "Levels that are no bytes, in words."
    return 'floats' if kind == 'floats' else f'levels of {int(white).bit_length()} bits'


def load_source(source: Source, size: int, channels: int | None = None) -> Pair:
    "Training and held-out images, `size` x `size`; warns of files that cannot be read."
    folder = cache_folder() / cache_key(source, size, channels)
    if not (found := open_cache(folder)):
        with suppress(OSError):             # of the cache; an image's will come again
            make_cache(folder, source, size, channels)
        found = open_cache(folder)
    if not found:
        found = read_source(source, size, channels, lambda shape: np.empty(shape, np.uint8))
        warnings.warn(f'{folder.parent} cannot keep the decoded images (is the disk full?): '
                      'they are decoded into memory at each start', stacklevel=2)
    for count, kind, black, white in found[1]['scales']:
        if (kind, white) != ('bits', 65535):
            warnings.warn(f'{source.root}: {count} pictures hold {said_of(kind, white)}: {black:g} is '
                          f'taken for black and {white:,} for white', stacklevel=2)
    if bad := found[1]['unreadable']:
        warnings.warn(f'{source.root}: {len(bad)} files that cannot be read are left out, '
                      f'such as {bad[0]}', stacklevel=2)
    return two_sets(*found)
