import argparse
import dataclasses
import io
import json
import logging
import os
import platform
import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .. import sampling, steps
from ..base.fields import given_fields
from ..base.registry import check_own
from ..base.files import write_whole
from ..base.group import Group
from ..base.machine import cores
from ..bound import bits_per_dim, plot_bits
from .parser import printable, read_settings
from ..config import RunConfig, SamplingConfig, override, to_json
from ..criteria import build_criterion
from ..data.sets import ASSETS, ImageSet, to_uint8
from ..data.sources import load_data
from ..editing import Edit, plan_edit, read_mask, read_picture, sample_edits
from ..film import Film, column_titles, film_strip, grid_image, save_gif, sequence
from ..flow import sample_between
from ..heldout import heldout_loss
from ..judge.lab import answers, paired
from ..judge.scores import evaluate_samples, pick_extractor
from ..judge.speedrun import Lap, laps, verdict
from ..model import Model, build_model
from ..run.checkpoints import versions
from ..run.runs import load_run
from ..run.training import entries
from ..share.diagram import draw_all
from ..share.published import load_published


def print_once(group: Group, *words: object) -> None:
    "Print, in one process of a group."
    if group.rank == 0:
        print(printable(' '.join(map(str, words))), flush=True)


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


def write_by(path: Path, save: Callable[..., object], *how: Any, **more: Any) -> None:
    "Write what `save(file, ...)` makes, whole or not at all."
    content = io.BytesIO()
    save(content, *how, **more)
    write_whole(path, content.getvalue())


def load(args: argparse.Namespace, group: Group) -> tuple[Model, RunConfig, SamplingConfig, Path]:
    """The model of a run, of --weights, or the one that ships; its configuration; how samples are
    drawn; where results go. Raises ValueError where model and wishes do not fit."""
    device, how = group.device or 'cpu', SamplingConfig(**given_fields(args, SamplingConfig()))
    if args.weights:
        model, config = load_published(args.weights, device, args.precision)
    else:
        model, config = load_run(args.run or ASSETS / 'mnist16', device, args.plugins,
                                 args.precision)
    logging.info('settings of the model: %s', to_json(config))
    sampling.plan(how, model)
    return model, config, how, Path(args.run or '')


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


def wanted_edit(args: argparse.Namespace, shape: Sequence[int]) -> Edit | None:
    "What is to be done with the picture of --from. Raises ValueError for what makes no sense."
    if args.picture is None:
        for name in ('strength', 'mask', 'rounds'):
            if getattr(args, name) is not None:
                raise ValueError(f'--{name} belongs to --from FILE, and there is none')
        return None
    mask = None if args.mask is None else read_mask(args.mask, shape)
    usual = 0.6 if mask is None else 1.0
    return Edit(read_picture(args.picture, shape),
                usual if args.strength is None else args.strength, mask, args.rounds or 1)


def save_samples(images: Tensor, labels: Sequence[int], names: Sequence[str],
                 npz: str | None, folder: str | None) -> None:
    "Samples as one array file (uint8 NHWC and labels) and as single PNGs, a folder per class."
    pixels = to_uint8(images).permute(0, 2, 3, 1).numpy()
    if npz:
        write_by(Path(npz), np.savez_compressed, images=pixels, labels=np.array(labels, np.int64))
    for k, (image, label) in enumerate(zip(pixels, labels)) if folder else ():
        name = re.sub(r'[/\\\0]|^\.\.?$', '_', names[label]) if names else ''    # in the folder
        path = Path(folder or '', name, f'{k:05d}.png')
        path.parent.mkdir(parents=True, exist_ok=True)
        write_by(path, Image.fromarray(image.squeeze()).save, 'PNG')


def sample(args: argparse.Namespace, group: Group) -> None:
    "Draw a grid, one column per class, from a run, published weights, or the model that ships."
    model, _, how, folder = load(args, group)
    columns = chosen_classes(args.classes, model)
    edit = wanted_edit(args, model.shape)
    if edit:
        plan_edit(model, edit, how)
    path = output(args.out or folder / ('drawn.png' if args.run else 'samples.png'),
                  args.picture, args.mask)
    for more in filter(None, (args.npz, args.images and f'{args.images}/x.png')):
        output(more)
    if edit:
        images = sample_edits(model, edit, columns, args.n, how, group)
    elif args.to_seed is not None:
        images = sample_between(model, args.to_seed, columns, args.n, how, group)
    else:
        images = sampling.sample(model, columns, args.n, how, group=group)
    if group.rank == 0:
        grid = grid_image(images, len(columns), column_titles(model, columns))
        write_by(path, grid.save, 'PNG')
        labels = columns * args.n if model.classes else [-1] * len(images)
        save_samples(images, labels, model.classes, args.npz, args.images)
    print_once(group, 'wrote', *filter(None, (path, args.npz, args.images)))


def genseq(args: argparse.Namespace, group: Group) -> None:
    "Write the denoising sequence: a GIF, one row per class, and a strip of x_t and predicted x_0."
    model, _, how, folder = load(args, group)
    columns = chosen_classes(args.classes, model)
    path = output(args.out or folder / 'denoising.gif')
    strip = output(path.with_name(f'{path.stem}_strip.png'))
    film = sequence(model, columns, args.n, how, group)
    if group.rank == 0:
        save_film(film, path, len(film.levels) if args.frames == 'all' else 40)
    print_once(group, 'wrote', path, strip)


def save_film(film: Film, path: Path, frames: int = 40) -> None:
    "Write a film as a GIF of at most so many frames and, beside it, as a strip."
    write_by(path, partial(save_gif, film), frames)
    write_by(path.with_name(f'{path.stem}_strip.png'), film_strip(film).save, 'PNG')


def loss_table(found: dict[str, dict], held_out: int, name: str) -> str:
    "Held-out losses as text: each with its standard error, for training images, by quarter of t."
    quarters = '  '.join(f'{f"quarter {q + 1} of t":>15}' for q in range(4))
    lines = [f'{"":8}  {f"{held_out} test images":>18}  {"as many of training":>19}  {quarters}']
    for key, label in (('loss', name), ('eps_mse', 'eps mse'), ('x0_mse', 'x0 mse')):
        test, train = found['test'][key], found['train'][key]
        parts = [f'{m:.4f} ± {s:.4f}' for m, s in zip(test['quarters'], test['quarters_se'])]
        lines.append(f'{label:8}  {test["mean"]:9.4f} ± {test["se"]:.4f}  '
                     f'{train["mean"]:10.4f} ± {train["se"]:.4f}  {"  ".join(parts)}')
    return '\n'.join(lines)


def test(args: argparse.Namespace, group: Group) -> None:
    "Held-out loss and, where asked, bits per dimension and the quality of samples; also test.json."
    model, config, how, folder = load(args, group)
    d, given = config.data, given_fields(args, SamplingConfig())
    if (given or args.inception is not None) and args.fid is None:
        raise ValueError(f'--{next(iter(given), "inception")} is for samples: ddpm test draws them '
                         'for --fid N')
    path = output(args.out or folder / 'test.json')
    paths = [path, *([output(path.with_name('bits.png'))] if args.bpd else [])]
    images, held_out = load_data(args.data or d.data, d.size, d.image_channels or None)
    group.barrier()                     # one may decode for minutes what others have in a cache
    if model.classes and held_out.classes != model.classes:
        raise ValueError(f'the model knows the classes {",".join(model.classes)}, the images have '
                         f'{",".join(held_out.classes) or "none"}')
    judge = None if args.fid is None else pick_extractor(images, args.fid, args.inception)
    n = min(len(held_out), len(images))
    keep = np.arange(n) * len(images) // n                  # evenly spaced
    labels = None if images.labels is None else images.labels[keep]
    some, criterion = ImageSet(images.pixels[keep], labels, images.classes), build_criterion(config)
    losses = {split: heldout_loss(model, part, criterion, group=group)
              for split, part in (('test', held_out), ('train', some))}
    print_once(group, loss_table(losses, len(held_out), config.loss_name))
    result: dict[str, Any] = {'model': args.weights or args.run or 'shipped',
                              'images': len(held_out), 'losses': losses}
    if args.bpd:
        terms = model.schedule.T if args.bpd == 'full' else 16
        bits = bits_per_dim(model, held_out, terms, group=group)
        result['bits_per_dim'] = bits.summary()
        print_once(group, bits)
        if group.rank == 0:
            write_by(paths[1], plot_bits({'held-out images': bits}).savefig, dpi=100)
    if judge:
        found = evaluate_samples(model, (images, held_out), args.fid, how, judge, group)
        result['samples'] = dataclasses.asdict(found)
        print_once(group, found)
    if group.rank == 0:
        write_whole(path, json.dumps(result, indent=2) + '\n')
    print_once(group, 'wrote', *paths)


def compare(args: argparse.Namespace, group: Group) -> None:
    "Runs on the same held-out images: losses, differences to the first, verdicts; also as JSON."
    device = group.device or 'cpu'
    loaded = [load_run(run, device, args.plugins, args.precision) for run in args.runs]
    first, data = loaded[0][0], loaded[0][1].data
    for run, (model, _) in zip(args.runs, loaded):
        if (model.shape, model.classes) != (first.shape, first.classes):
            raise ValueError(f'{run} draws other images than {args.runs[0]}')
    path = output(args.out) if args.out else None
    held_out = load_data(args.data or data.data, data.size, data.image_channels or None)[1]
    losses = [answers(model, held_out, group=group) for model, _ in loaded]
    found = [paired(own, losses[0]) for own in losses]
    rows = [{'run': run, 'eps_mse': own.mean(), **dataclasses.asdict(d), 'verdict': d.verdict}
            for run, own, d in zip(args.runs, losses, found)]
    wide = max(map(len, args.runs))
    print_once(group, f'{"":{wide}}  eps mse of {len(held_out)} held-out images, less the first')
    for row in rows:
        print_once(group, f'{row["run"]:{wide}}  {row["eps_mse"]:.4f}' + (
            f'  {row["mean"]:+.5f} ± {row["error"]:.5f}, {row["verdict"]}' * (row is not rows[0])))
    print_once(group, 'of these trainings; whether what trained them is better takes several seeds')
    if path and group.rank == 0:
        write_whole(path, json.dumps(rows, indent=2) + '\n')


def speedrun(args: argparse.Namespace) -> None:
    "Time files that learn to draw digits from nothing; certify those that keep the rules."
    path, rows = output(args.out) if args.out else None, []
    for file in args.files:
        if not Path(file).is_file():
            raise FileNotFoundError(f'there is no file {file}: expected a Python file, FILE.py')
    for file in args.files:
        found: list[Lap] = []
        for lap in laps(file):
            found.append(lap)
            print_once(Group(), f'{file}, seed {lap.seed}: {lap.seconds:.1f} s, of training '
                                f'{lap.training:.1f}; Fréchet distance {lap.distance:.2f}, '
                                f'class as asked {lap.asked:.3f}')
        rows.append({'file': str(file), 'laps': [dataclasses.asdict(lap) for lap in found],
                     'verdict': verdict(found)})
        print_once(Group(), f'{file}: {verdict(found)}')
        if path:
            kept = {'versions': versions(), 'machine': f'{platform.machine()}, {cores()} cores'}
            write_whole(path, json.dumps(kept | {'files': rows}, indent=1) + '\n')


def what_to_draw(args: argparse.Namespace) -> tuple[Model, Path]:
    "The model of a run, or a new one of a preset, and where the drawings go."
    config = read_settings(args)
    if args.run:
        if config != RunConfig(plugins=config.plugins):
            raise ValueError('a run has settings of its own: leave other flags than --out out')
        model, _ = load_run(args.run, 'cpu', args.plugins, 'fp32')
        return model, Path(args.out or Path(args.run, 'topology'))
    check_own(config.training.own, entries(config))
    if config.network.conditional:
        config = override(config, classes=tuple('0123456789'))     # all presets' data have ten
    return build_model(config).eval(), Path(args.out or f'topology/{args.preset}')


def topology(args: argparse.Namespace) -> None:
    "Draw a network as SVG and PNG: its diagram, all its parts, a step of the diffusion model."
    model, out = what_to_draw(args)
    s, index, x = model.schedule, model.schedule.T // 2, torch.zeros(1, *model.shape)

    def step(x_t: Tensor, t: Tensor, z: Tensor, y: Tensor | None = None) -> dict[str, Tensor]:
        "Algorithm 2, one turn."
        seen = model.predict(x_t, t, y)
        levels = s.alpha_bars[index].item(), s.alpha_bars_prev[index].item()
        variance = 'large' if seen.v is None else seen.v
        return {'x_0 predicted': seen.x0,
                'x_t-1': steps.ddpm_step(seen.x0, x_t, z, *levels, variance)}

    inputs = {'x_t': x, 't': torch.full((1,), index), 'z': torch.ones_like(x)}
    if model.classes:
        inputs['y'] = torch.zeros(1, dtype=torch.long)
    output(out / 'diagram.png')
    print_once(Group(), 'wrote', *draw_all(model.network, step, inputs, out))
