"`ddpm genseq`: film how samples come to be."
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ..base.fields import option
from ..base.files import content_of, output, write_together
from ..base.group import Group
from ..config import SamplingConfig
from ..film import Film, film_strip, save_gif, sequence
from .flags import Processes
from .sample import Source, chosen_classes
from .terminal import say


@dataclass(frozen=True)
class Request(Processes):
    "What is filmed, of which model, and where it goes."
    source: Source = Source()
    how: SamplingConfig = SamplingConfig()
    classes: str | None = option(None, 'names, with commas (default: all)')
    n: int = option(4, 'rows: samples of each class, of ten where there are none',
                    low=1, high=100_000)
    out: str | None = option(None, 'where it goes (default: denoising.gif, and a strip, in the run '
                             'or here)', ending='.gif')
    frames: str = option('auto', 'auto, where the picture changes, or all', choices=('auto', 'all'))


def strip_beside(path: Path) -> Path:
    "Where the strip of a film goes."
    return path.with_name(f'{path.stem}_strip.png')


def save_film(film: Film, path: Path, frames: int = 40) -> None:
    "Write a film as a GIF of at most so many frames and, beside it, as a strip."
    write_together({path: content_of(partial(save_gif, film), frames),
                    strip_beside(path): content_of(film_strip(film).save, 'PNG')})


def run(request: Request, group: Group) -> None:
    "Write a GIF, one row per class, and a strip of x_t and predicted x_0."
    r = request
    model, _ = r.source.load(group, r.how)
    columns = chosen_classes(r.classes, model)
    path = output(r.out or Path(r.source.run or '', 'denoising.gif'))
    strip = output(strip_beside(path))
    film = sequence(model, columns, r.n, r.how, group)
    if group.rank == 0:
        save_film(film, path, len(film.levels) if r.frames == 'all' else 40)
    say(group, 'wrote', path, strip)
