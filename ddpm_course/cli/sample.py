"`ddpm sample`: draw a grid of samples, from noise, from a picture, or from one seed to another."
import argparse
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from .. import sampling
from ..base.files import output, write_by
from ..base.group import Group
from ..config import RunConfig, SamplingConfig
from ..data.sets import to_uint8
from ..editing import sample_edits
from ..edits import Edit, plan_edit, read_mask, read_picture
from ..film import column_titles, grid_image
from ..flow import sample_between
from ..model import Model
from .flags import add_grid, add_model, add_processes, file, read_loader, read_sampling, whole
from .terminal import say


@dataclass(frozen=True)
class Beginning:
    "A picture to begin with, what of it is drawn anew, and how."
    picture: str                    # files
    mask: str | None
    strength: float
    rounds: int


@dataclass(frozen=True)
class Request:
    "What is drawn, of which model, and where it goes."
    load: Callable[..., tuple[Model, RunConfig]]    # the model, on a device
    how: SamplingConfig
    classes: str | None             # names or numbers, with commas; None: all
    n: int                          # samples of each class
    beginning: Beginning | None     # None: pure noise
    to_seed: int | None             # the rows lead to this one
    out: Path                       # the grid
    npz: str | None
    images: str | None              # a folder for single pictures


def add_flags(p: argparse.ArgumentParser) -> None:
    "Flags that say what is drawn, of which model, from which beginning, and where it goes."
    add_processes(p)
    add_model(p)
    add_grid(p, 8, '.png', 'drawn.png in the run, samples.png here')
    group = p.add_argument_group('another beginning')
    either = group.add_mutually_exclusive_group()
    either.add_argument('--to-seed', type=whole(0, 2**64 - 1), metavar='SEED',
                        help='the rows lead from --seed to this one')
    either.add_argument('--from', dest='picture', metavar='FILE',
                        help='a picture to begin with, noised, in place of pure noise')
    group.add_argument('--strength', type=float, metavar='SHARE',
                       help='with --from: share of the walk that is done anew, above 0 and at '
                            'most 1, which keeps nothing (0.6; 1 with --mask)')
    group.add_argument('--mask', metavar='FILE',
                       help='with --from: a picture, white where it is drawn anew; all else stays')
    group.add_argument('--rounds', type=whole(1, 1000), metavar='R',
                       help='with --mask: how often each step is taken, so that new fits old (1)')
    p.add_argument('--npz', type=file('.npz'), help='also keep the images as an array')
    p.add_argument('--images', metavar='DIR', help='also keep each image as a PNG')


def read(args: argparse.Namespace) -> Request:
    "Flags as values. Raises ValueError for those that make no sense together."
    if args.picture is None:
        for name in ('strength', 'mask', 'rounds'):
            if getattr(args, name) is not None:
                raise ValueError(f'--{name} belongs to --from FILE, and there is none')
        beginning = None
    else:
        for name in filter(None, (args.picture, args.mask)):
            if not Path(name).is_file():
                raise FileNotFoundError(f'there is no picture {name}')
        usual = 0.6 if args.mask is None else 1.0
        beginning = Beginning(args.picture, args.mask, usual if args.strength is None
                              else args.strength, args.rounds or 1)
    out = Path(args.run, 'drawn.png') if args.run else Path('samples.png')
    return Request(read_loader(args), read_sampling(args), args.classes, args.n, beginning,
                   args.to_seed, Path(args.out or out), args.npz, args.images)


def chosen_classes(text: str | None, model: Model) -> list[int]:
    """A grid's columns: names or numbers, `'cat,dog'` or `'3,7'`, to indices; see `columns_of`.
    Raises ValueError for an unknown one."""
    if text is None:
        return sampling.columns_of(model)
    known = {str(i): i for i in range(len(model.classes))}
    known |= {name.strip(): i for i, name in enumerate(model.classes)}
    wanted = [part.strip() for part in text.split(',')]
    if unknown := [name for name in wanted if name not in known]:
        raise ValueError(f'no class is called {", ".join(unknown)}: expected some of '
                         f'{",".join(model.classes) or "none"}')
    return [known[name] for name in wanted]


def places(folder: str, labels: Sequence[int], names: Sequence[str]) -> list[Path]:
    """Where single pictures go, a folder per class. Raises ValueError where earlier ones would
    stay beside them: who counts that folder would count both."""
    inside = [re.sub(r'[/\\\0]|^\.\.?$', '_', names[label]) if names else '' for label in labels]
    paths = [Path(folder, name, f'{k:05d}.png') for k, name in enumerate(inside)]
    earlier = [path for depth in ('', '*/') for path in Path(folder).glob(depth + '[0-9]' * 5 + '.png')]
    if left := sorted(set(earlier) - set(paths)):
        raise ValueError(f'{folder} holds other pictures, such as {left[0]}: empty it, or name '
                         'another')
    return paths


def run(request: Request, group: Group) -> None:
    "Draw the grid, one column per class, and write it."
    r, start = request, request.beginning
    model, _ = r.load(group.device or 'cpu')
    sampling.plan(r.how, model)                         # complains before anything is written
    columns, edit = chosen_classes(r.classes, model), None
    if start:
        mask = None if start.mask is None else read_mask(start.mask, model.shape)
        edit = Edit(read_picture(start.picture, model.shape), start.strength, mask, start.rounds)
        plan_edit(model, edit, r.how)
    labels = (columns if model.classes else [-1] * len(columns)) * r.n
    singles = places(r.images, labels, model.classes) if r.images else []
    output(r.out, *((start.picture, start.mask) if start else ()))
    for more in [*singles[:1], *([Path(r.npz)] if r.npz else [])]:
        output(more)
    if edit:
        images = sample_edits(model, edit, columns, r.n, r.how, group)
    elif r.to_seed is not None:
        images = sample_between(model, r.to_seed, columns, r.n, r.how, group)
    else:
        images = sampling.sample(model, columns, r.n, r.how, group=group)
    if group.rank == 0:
        grid = grid_image(images, len(columns), column_titles(model, columns))
        write_by(r.out, grid.save, 'PNG')
        pixels = to_uint8(images).permute(0, 2, 3, 1).numpy()
        if r.npz:
            write_by(Path(r.npz), np.savez_compressed, images=pixels, labels=np.array(labels, np.int64))
        for path, image in zip(singles, pixels):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_by(path, Image.fromarray(image.squeeze()).save, 'PNG')
    say(group, 'wrote', *filter(None, (r.out, r.npz, r.images)))
