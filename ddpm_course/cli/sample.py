"`ddpm sample`: draw a grid of samples, from noise, from a picture, or from one seed to another."
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from .. import sampling
from ..base.fields import option
from ..base.files import content_of, output, write_together
from ..base.group import Group
from ..config import RunConfig, SamplingConfig
from ..data.sets import ASSETS, to_uint8
from ..editing import Edit, plan_edit, read_mask, read_picture, sample_edits
from ..film import column_titles, grid_image
from ..flow import sample_between
from ..model import Model
from ..run.runs import load_run
from ..share.pipelines import load_published
from .flags import Loaded, Processes
from .terminal import say


@dataclass(frozen=True)
class Source(Loaded):
    "Which model."
    run: str | None = option(None, "a run's folder (default: the model that ships)",
                             name='run', nargs='?')
    weights: str | None = option(None, 'a diffusers pipeline, such as google/ddpm-cifar10-32',
                                 metavar='FOLDER_OR_HUB_ID')

    def __post_init__(self):
        if self.run and self.weights:
            raise ValueError('argument --weights: not allowed with argument run')
        if self.run and Path(self.run, 'model_index.json').exists():
            raise ValueError(f'{self.run} holds published weights: name them with --weights')

    def load(self, group: Group, how: SamplingConfig) -> tuple[Model, RunConfig]:
        "It and its configuration. Raises ValueError where it cannot be sampled as `how` says."
        where = group.device or 'cpu'
        model, config = (
            load_published(self.weights, where, self.precision) if self.weights else
            load_run(self.run or ASSETS / 'mnist16', where, self.plugins, self.precision))
        sampling.plan(how, model)
        return model, config


@dataclass(frozen=True)
class Beginning:
    "Where samples begin, if not at noise, or end, and what of a picture is drawn anew."
    to_seed: int | None = option(None, 'the rows lead from --seed to this one',
                                 low=0, high=2**64 - 1, metavar='SEED')
    picture: str | None = option(None, 'a picture to begin with, noised, in place of pure noise',
                                 name='--from', metavar='FILE')
    strength: float | None = option(
        None, 'with --from: share of the walk that is done anew, above 0 and at most 1, which keeps '
        'nothing (0.6; 1 with --mask)', low=0, high=1, metavar='SHARE')
    mask: str | None = option(None, 'with --from: a picture, white where it is drawn anew; all else '
                              'stays', metavar='FILE')
    rounds: int | None = option(None, 'with --mask: how often each step is taken, so that new fits '
                                'old (1)', low=1, high=1000, metavar='R')

    def __post_init__(self):
        for name in ('strength', 'mask', 'rounds'):
            if self.picture is None and getattr(self, name) is not None:
                raise ValueError(f'--{name} belongs to --from FILE, and there is none')
        if self.picture and self.to_seed is not None:
            raise ValueError('argument --to-seed: not allowed with argument --from')

    def edit(self, shape: tuple[int, ...]) -> Edit | None:
        "Of images of a shape, (C, H, W); None without a picture. Raises OSError without its file."
        if self.picture is None:
            return None
        for name in filter(None, (self.picture, self.mask)):
            if not Path(name).is_file():
                raise FileNotFoundError(f'there is no picture {name}')
        mask = None if self.mask is None else read_mask(self.mask, shape)
        strength = (0.6 if mask is None else 1.0) if self.strength is None else self.strength
        return Edit(read_picture(self.picture, shape), strength, mask, self.rounds or 1)


@dataclass(frozen=True)
class Request(Processes):
    "What is drawn, of which model, from which beginning, and where it goes."
    source: Source = Source()
    how: SamplingConfig = SamplingConfig()
    classes: str | None = option(None, 'names, with commas (default: all); numbers from '
                                '0, where no class is called by one')
    n: int = option(8, 'rows: samples of each class, of ten where there are none',
                    low=1, high=100_000)
    out: str | None = option(None, 'where it goes (default: drawn.png in the run, samples.png here)',
                             ending='.png')
    beginning: Beginning = Beginning()
    npz: str | None = option(None, 'also keep the images as an array', ending='.npz')
    images: str | None = option(None, 'also keep each image as a PNG', metavar='DIR')


def chosen_classes(text: str | None, model: Model) -> list[int]:
    """A grid's columns: names, `'cat,dog'`, or numbers, `'3,7'`, to indices; see `columns_of`. Where
    a class is called by a number, names alone count. Raises ValueError for an unknown one."""
    if text is None:
        return sampling.columns_of(model)
    known = {name.strip(): i for i, name in enumerate(model.classes)}
    if not any(name.isdecimal() for name in known):
        known |= {str(i): i for i in range(len(model.classes))}
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
    model, _ = r.source.load(group, r.how)
    columns, edit = chosen_classes(r.classes, model), start.edit(model.shape)
    if edit:
        plan_edit(model, edit, r.how)
    labels = (columns if model.classes else [-1] * len(columns)) * r.n
    singles = places(r.images, labels, model.classes) if r.images else []
    usual = Path(r.source.run, 'drawn.png') if r.source.run else 'samples.png'
    out = output(r.out or usual, start.picture, start.mask)
    for more in [*singles[:1], *([Path(r.npz)] if r.npz else [])]:
        output(more)
    if edit:
        images = sample_edits(model, edit, columns, r.n, r.how, group)
    elif start.to_seed is not None:
        images = sample_between(model, start.to_seed, columns, r.n, r.how, group)
    else:
        images = sampling.sample(model, columns, r.n, r.how, group=group)
    if group.rank == 0:
        grid = grid_image(images, len(columns), column_titles(model, columns))
        pixels, files = to_uint8(images).permute(0, 2, 3, 1).numpy(), {}
        if r.npz:
            files[Path(r.npz)] = content_of(np.savez_compressed, images=pixels,
                                            labels=np.array(labels, np.int64))
        files |= {path: content_of(Image.fromarray(image.squeeze()).save, 'PNG')
                  for path, image in zip(singles, pixels)}
        write_together({**files, out: content_of(grid.save, 'PNG')})
    say(group, 'wrote', *filter(None, (out, r.npz, r.images)))
