"`ddpm genseq`: film how samples come to be."
import argparse
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ..base.files import output, write_by
from ..base.group import Group
from ..config import RunConfig, SamplingConfig
from ..film import Film, film_strip, save_gif, sequence
from ..model import Model
from ..sampling import plan
from .flags import add_grid, add_model, add_processes, read_loader, read_sampling
from .sample import chosen_classes
from .terminal import say


@dataclass(frozen=True)
class Request:
    "What is filmed, of which model, and where it goes."
    load: Callable[..., tuple[Model, RunConfig]]    # the model, on a device
    how: SamplingConfig
    classes: str | None
    n: int                          # samples of each class
    every: bool                     # each state is a frame, or only where the picture changes
    out: Path                       # the GIF; a strip goes beside it


def add_flags(p: argparse.ArgumentParser) -> None:
    "Flags that say what is filmed, of which model, and where it goes."
    add_processes(p)
    add_model(p)
    add_grid(p, 4, '.gif', 'denoising.gif, and a strip, in the run or here')
    p.add_argument('--frames', default='auto', choices=('auto', 'all'),
                   help='auto, where the picture changes, or all')


def read(args: argparse.Namespace) -> Request:
    "Flags as values."
    return Request(read_loader(args), read_sampling(args), args.classes, args.n,
                   args.frames == 'all', Path(args.out or Path(args.run or '', 'denoising.gif')))


def strip_beside(path: Path) -> Path:
    "Where the strip of a film goes."
    return path.with_name(f'{path.stem}_strip.png')


def save_film(film: Film, path: Path, frames: int = 40) -> None:
    "Write a film as a GIF of at most so many frames and, beside it, as a strip."
    write_by(path, partial(save_gif, film), frames)
    write_by(strip_beside(path), film_strip(film).save, 'PNG')


def run(request: Request, group: Group) -> None:
    "Write a GIF, one row per class, and a strip of x_t and predicted x_0."
    model, _ = request.load(group.device or 'cpu')
    plan(request.how, model)                            # complains before anything is written
    columns = chosen_classes(request.classes, model)
    paths = output(request.out), output(strip_beside(request.out))
    film = sequence(model, columns, request.n, request.how, group)
    if group.rank == 0:
        save_film(film, request.out, len(film.levels) if request.every else 40)
    say(group, 'wrote', *paths)
