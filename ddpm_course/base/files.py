import io
import json
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def read_whole(path: Path, most: int = 1 << 26) -> bytes:
    "A file's content. Raises ValueError where it is no regular file, or has over `most` bytes."
    status = path.stat()                        # a pipe would be waited for, a device never ends
    if not stat.S_ISREG(status.st_mode) or status.st_size > most:
        raise ValueError(f'{path} is not a regular file of at most {most:,} bytes')
    return path.read_bytes()


def read_json(path: Path, most: int = 1 << 26) -> Any:
    "What a file of JSON says. Raises ValueError, with the file's name, where it is none."
    content = read_whole(path, most)
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f'{path} is damaged: no JSON ({error})') from error


@contextmanager
def naming(path: Path) -> Iterator[None]:
    "Let errors that come out of the block, ValueError and OSError, name a file."
    try:
        yield
    except ValueError as error:
        said = str(error)
        raise ValueError(said if str(path) in said else f'{path}: {said}') from error
    except OSError as error:
        if error.strerror:                      # one of the system's, with room for a name
            error.filename = error.filename or str(path)
        raise


def flush(path: Path) -> None:
    "Force a file or a folder's entries onto the disk."
    if os.name == 'nt' and path.is_dir():       # Windows keeps folders in order by itself
        return
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_together(files: Mapping[Path, bytes | str]) -> None:
    """Write files that belong together, all whole or none, also where the disk is full or the power
    fails, their folders made where they are missing; a link of a file's name makes room."""
    aside = {path: path.with_name(f'{path.name}.{secrets.token_hex(8)}.new') for path in files}
    for path in files:                          # nobody else's
        if path.exists() and not path.is_file():
            raise ValueError(f'{path} is no file that can be written: name another')
    try:
        for path, content in files.items():
            with naming(path):                  # a full disk does not say for what
                path.parent.mkdir(parents=True, exist_ok=True)
                aside[path].write_bytes(content.encode() if isinstance(content, str) else content)
                flush(aside[path])
        for path in files:
            aside[path].replace(path)
        for folder in {path.parent for path in files}:
            flush(folder)
    finally:
        for path in aside.values():
            path.unlink(missing_ok=True)


def write_whole(path: Path, content: bytes | str) -> None:
    "Write one file, see `write_together`."
    write_together({path: content})


def fill(folder: Path, files: Mapping[str, bytes]) -> None:
    "Write files below a folder that is new, and force them onto the disk."
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        flush(path)
    for place in {path.parent for path in folder.rglob('*')}:
        flush(place)


def write_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write a folder of files that belong together, all or none, also where the disk is full or the
    power fails. What a folder of that name held is gone afterwards."""
    folder = folder.resolve()
    aside, before = (folder.with_name(f'.{folder.name}.{secrets.token_hex(8)}.{kind}')
                     for kind in ('new', 'old'))
    with naming(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            fill(aside, files)
            if folder.exists():
                folder.rename(before)
            aside.rename(folder)
            flush(folder.parent)
        finally:
            if before.exists() and not folder.exists():
                before.rename(folder)
            for place in (aside, before):
                shutil.rmtree(place, ignore_errors=True)


def content_of(save: Callable[..., object], *how: Any, **more: Any) -> bytes:
    "What `save(file, ...)` writes."
    content = io.BytesIO()
    save(content, *how, **more)
    return content.getvalue()


def write_by(path: Path, save: Callable[..., object], *how: Any, **more: Any) -> None:
    "Write what `save(file, ...)` makes, whole or not at all."
    write_whole(path, content_of(save, *how, **more))


def output(path: Path | str, *inputs: str | None) -> Path:
    """Where a result goes, its folder made, before the work. Raises ValueError where it may not be
    written, is no file, or is an input or what a run is read from."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    there = path.exists()
    needed = path.name in ('config.json', 'meta.json') or there and (
        not path.is_file() or any(path.samefile(given) for given in inputs if given))
    places = [path.parent, path] if there and not path.is_symlink() else [path.parent]
    if needed or not all(os.access(place, os.W_OK) for place in places):
        raise ValueError(f'{path} may not be written: name another file')
    return path
