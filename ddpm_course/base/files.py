import io
import json
import os
import secrets
import stat
from collections.abc import Callable, Iterator
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


def write_whole(path: Path, content: bytes | str) -> None:
    """Write a file whole or not at all, also where the power fails, its folder made where it is
    missing; a link of its name makes room."""
    if path.exists() and not path.is_file():
        raise ValueError(f'{path} is no file that can be written: name another')
    aside = path.with_name(f'{path.name}.{secrets.token_hex(8)}.new')       # nobody else's
    with naming(path):                          # a full disk does not say for what
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            aside.write_bytes(content.encode() if isinstance(content, str) else content)
            flush(aside)
            aside.replace(path)
        finally:
            aside.unlink(missing_ok=True)
        flush(path.parent)


def own_folder(path: Path) -> Path:
    "A folder inside a run or an export: a link of its name leads out, and makes room."
    if path.is_symlink():
        path.unlink()
    return path


def write_by(path: Path, save: Callable[..., object], *how: Any, **more: Any) -> None:
    "Write what `save(file, ...)` makes, whole or not at all."
    content = io.BytesIO()
    save(content, *how, **more)
    write_whole(path, content.getvalue())


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
