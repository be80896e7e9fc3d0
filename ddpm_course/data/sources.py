import os
import warnings
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np

from .cache import load_source, lock
from .decoding import FORMATS, Listing, Pair, Source
from .faces import PATH, read_faces
from .sets import ImageSet, every_tenth, load_digits


def find_images(root: Path, inside: tuple[str, ...] = ()) -> tuple[list[str], list[str]]:
    "The images of a folder down to `root/train/<class>/*`, in order, and what is none, by name."
    found = sorted((e for e in os.scandir(root.joinpath(*inside)) if e.name[0] != '.'),
                   key=lambda entry: entry.name)
    if {'config.json', 'metrics.jsonl'} <= {entry.name for entry in found}:     # a run
        return [], []
    images: list[str] = []
    others = [] if found else [os.path.join(*inside, '')]
    for entry in found:
        here, known = os.path.join(*inside, entry.name), os.path.exists(entry)
        if known and entry.is_dir() and len(inside) < 2:    # nobody looks deeper
            below, more = find_images(root, (*inside, entry.name))
            images, others = images + below, others + more
        elif here.lower().endswith(tuple(FORMATS)) and (not known or entry.is_file()):
            images.append(here)                             # a link to nowhere: unreadable, later
        else:
            others.append(here)
    return images, others


def folder_source(root: Path) -> Source:
    "Images in folders. Raises ValueError where they make no data set; warns of what is no image."
    images, others = find_images(root)
    places = sorted({os.path.dirname(name) for name in images})
    tops = {place.split(os.sep)[0] for place in places}             # '' where images lie loose
    split = {'train', 'test'} <= tops and '' not in tops
    parts: dict[str, dict[str, list[str]]] = {'train': {}, 'test': {}} if split else {'': {}}
    for file in images:
        part, *folders, _ = file.split(os.sep) if split else ['', *file.split(os.sep)]
        if part in parts and len(folders) < 2:
            parts[part].setdefault(''.join(folders), []).append(file)
        else:
            others.append(file)
    names = list(parts['train' if split else ''])
    if not names or tops in ({'train'}, {'test'}) or ('' in names and len(names) > 1):
        found = 'images in ' + ' and in '.join(place or '.' for place in places[:2])
        raise ValueError(f'{root} holds {found if places else "no image"}: expected '
                         "train/<class>/* and test/<class>/*, or <class>/*, or images, or "
                         f"CIFAR-10's batches; names of images end in {', '.join(FORMATS)}")
    if unknown := [name for name in parts.get('test', ()) if name not in names]:
        raise ValueError(f'{root}: the class {unknown[0]!r} is only in test/')
    if others:
        warnings.warn(f'{root}: {len(others)} things that are no images are ignored, such as '
                      f'{others[0]}', stacklevel=2)
    files, labels, held_out = zip(*(
        (file, label, part == 'test' if split else tenth)
        for part, classes in parts.items() for name, some in classes.items()
        for label in [names.index(name)] for file, tenth in zip(some, every_tenth(len(some)))))
    known = () if names == [''] else tuple(names)
    return Source(root, list(files), lambda: Listing(
        [os.path.join(root, name) for name in files],
        np.array(labels, np.int64) if known else None, np.array(held_out), known))


def one_listing(train: Any, test: Any) -> Listing:
    "Two of torchvision's data sets, to train on and to hold out, as one listing."
    labels = np.concatenate([np.asarray(part.targets, np.int64) for part in (train, test)])
    images = np.concatenate([np.asarray(part.data) for part in (train, test)])
    return Listing(images, labels, np.arange(len(labels)) >= len(train), tuple(train.classes))


def read_batches(path: Path) -> Listing:
    "CIFAR-10 from its folder. Raises ValueError where a file is missing or damaged."
    from torchvision.datasets import CIFAR10
    here = type('CIFAR10', (CIFAR10,), {'base_folder': ''})     # whatever the folder is called
    with suppress(RuntimeError):
        return one_listing(here(path, train=True), here(path, train=False))
    raise ValueError(f'{path} is not CIFAR-10 for Python, or a file is missing or damaged')


def names_of(paths: Iterable[Path]) -> list[str]:
    "The names of those that are files, in order."
    return sorted(path.name for path in paths if path.is_file())


def batch_source(root: Path) -> Source | None:
    "CIFAR-10's own files, where `root` is them or holds them under their usual name."
    for path in (root, root / 'cifar-10-batches-py'):
        if (path / 'data_batch_1').is_file():
            return Source(path, names_of(path.glob('*batch*')), partial(read_batches, path))
    return None


TORCHVISION = {                             # its class there, and the place of its files
    'mnist': ('MNIST', 'MNIST/raw'), 'fashion-mnist': ('FashionMNIST', 'FashionMNIST/raw'),
    'cifar10': ('CIFAR10', 'cifar-10-batches-py')}


def load_torchvision(name: str, size: int, channels: int | None = None,
                     root: str | Path | None = None) -> Pair:
    """What torchvision finds in a folder of its own (None: ~/.cache/ddpm_course), or downloads to
    there. Raises FileNotFoundError where neither is possible."""
    from torchvision import datasets
    kind, place = TORCHVISION[name]
    if root is None:
        root = Path.home() / '.cache' / 'ddpm_course'
        root.mkdir(parents=True, exist_ok=True)
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f'there is no folder {root} for {name}')

    def part(train: bool) -> Any:
        try:
            return getattr(datasets, kind)(root, train, download=True)
        except Exception as error:              # a network's, a disk's or a damaged file's
            raise FileNotFoundError(f'{name} is not whole in {root} and could not be downloaded '
                                    f'({" ".join(str(error).split())})') from error

    with lock(root / f'{name}.lock', 3600):     # one of several processes downloads
        if not (root / place).is_dir():
            part(True)
    read = lambda: one_listing(part(True), part(False))
    return load_source(Source(root / place, names_of((root / place).iterdir()), read), size, channels)


def bundled_digits(size: int, channels: int | None = None) -> Pair:
    "The MNIST digits that come with the package; three equal channels where three are asked for."
    repeat = lambda d: ImageSet(np.repeat(d.pixels, channels or 1, 1), d.labels, d.classes)
    return repeat(load_digits('train', size)), repeat(load_digits('test', size))


def bundled_faces(size: int, channels: int | None = None) -> Pair:
    "The 6,000 faces that come with the package: drawn 16x16 in colour, five classes."
    def read() -> Listing:
        file = read_faces()
        here = file['split'] < 2                            # not those that nobody trains on
        return Listing(file['images'][here], file['labels'][here].astype(np.int64),
                       file['split'][here] == 1, tuple(file['classes']))

    return load_source(Source(PATH.parent, [PATH.name], read), size, channels)


DATA: dict[str, Callable[..., Pair]] = {         # (size, channels), and a path where one is given
    'mnist5k': bundled_digits, 'faces': bundled_faces,
    **{name: partial(load_torchvision, name) for name in TORCHVISION}}


def check_meant(source: str) -> None:
    "Raise ValueError where a data set and a folder here have the name that was given; not for a run's."
    both = source in DATA and os.path.isdir(source)
    if both and not {'.lock', 'config.json'} & set(os.listdir(source)):
        raise ValueError(f'{source} could be the known data set or the folder ./{source}: write '
                         f'{source}: for the data set, or ./{source} for the folder')


def from_anywhere(source: str) -> str:
    """A source by the same name wherever one stands: paths become absolute, names in `DATA` stay,
    without a colon at their end."""
    name, _, inside = source.partition(':')
    if name in DATA:
        return f'{name}:{os.path.abspath(os.path.expanduser(inside))}' if inside else name
    return os.path.abspath(os.path.expanduser(source))


def own_pair(name: str, *given: Any) -> Pair:
    "What an entry of `DATA` gives; both parts count the classes of what is trained on."
    images, held_out = DATA[name](*given)
    try:
        return images, held_out.by_names(images.classes)
    except ValueError as error:
        raise ValueError(f'{name}, held-out images: {error}') from error


def load_data(source: str | Path, size: int, channels: int | None = None) -> Pair:
    """Training and held-out images: of a name in `DATA` (NAME or NAME:, and with a path, NAME:PATH,
    where the entry takes one), a folder (./NAME, where it is called so, too), or CIFAR-10's own
    files. They become `size` x `size` with 1 or 3 `channels` (None: as the data are). The first call may take minutes:
    call it before processes join a group, which gives up waiting. Raises FileNotFoundError or
    ValueError with one sentence; warns of files that are left out."""
    path = os.path.expanduser(source)
    name, _, inside = str(source).partition(':')
    if inside and name in DATA:
        if len(signature(DATA[name]).parameters) < 3:
            raise ValueError(f'{name} takes no path: expected {name!r}, not {source!r}')
        return own_pair(name, size, channels, os.path.expanduser(inside))
    if str(source).removesuffix(':') in DATA:
        return own_pair(name, size, channels)
    if not os.path.isdir(path):
        raise FileNotFoundError(f'no data set or folder is called {str(source)!r}: '
                                f'expected {", ".join(DATA)}, or a folder of images')
    return load_source(batch_source(Path(path)) or folder_source(Path(path)), size, channels)
