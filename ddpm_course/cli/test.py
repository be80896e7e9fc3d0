"`ddpm test`: measure a model on held-out images."
import argparse
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..base.files import output, write_by, write_whole
from ..base.group import Group
from ..base.intervals import interval
from ..bits import bits_per_dim, plot_bits
from ..config import RunConfig, SamplingConfig
from ..criteria import build_criterion
from ..data.sets import ImageSet
from ..heldout import heldout_loss
from ..judge.scores import evaluate_samples, pick_extractor
from ..model import Model
from ..run.pictures import pictures_of
from ..sampling import plan
from .flags import add_model, add_processes, file, given_fields, read_loader, read_sampling, whole
from .terminal import say


@dataclass(frozen=True)
class Request:
    "What is measured, of which model, on which images, and where the numbers go."
    name: str                       # of the model
    load: Callable[..., tuple[Model, RunConfig]]    # the model, on a device
    how: SamplingConfig
    data: str | None                # None: what the run was trained on
    bpd: str | None                 # 'estimate', or 'full': all T terms
    fid: int | None                 # so many samples are drawn
    inception: str | None
    batch: int | None               # images at a time; None: what suits each measure
    out: Path


def add_flags(p: argparse.ArgumentParser) -> None:
    "Flags that say what is measured, of which model, and on which images."
    add_processes(p)
    add_model(p)
    p.add_argument('--data', help='other images than the run was trained on')
    p.add_argument('--bpd', nargs='?', const='estimate', choices=('estimate', 'full'),
                   help='bits per dimension; full: all T terms')
    p.add_argument('--fid', type=whole(2, 10**6), metavar='N',
                   help='Frechet distance, KID, Inception Score of N samples; usual guidance 1')
    p.add_argument('--inception', metavar='FILE', help='Inception weights, where --fid needs any')
    p.add_argument('--batch', type=whole(1, 10**6), metavar='N',
                   help='images at a time, where memory is short or plenty')
    p.add_argument('--out', type=file('.json'),
                   help='where the numbers go (default: test.json in the run, or here)')


def read(args: argparse.Namespace) -> Request:
    "Flags as values. Raises ValueError for those that make no sense together."
    given = given_fields(args, SamplingConfig())
    if (given or args.inception is not None) and args.fid is None:
        raise ValueError(f'--{next(iter(given), "inception")} is for samples: ddpm test draws them '
                         'for --fid N')
    return Request(args.weights or args.run or 'shipped', read_loader(args), read_sampling(args),
                   args.data, args.bpd, args.fid, args.inception, args.batch,
                   Path(args.out or Path(args.run or '', 'test.json')))


def loss_table(found: dict[str, dict], n: int, name: str) -> str:
    "Losses of n held-out images and of as many of training as text; also by quarter of t."
    heads = [f'{n} test images', 'as many of training', *(f'quarter {q} of t' for q in range(1, 5))]
    rows = {'': heads}
    for key, label in (('loss', name), ('eps_mse', 'eps mse'), ('x0_mse', 'x0 mse')):
        test, train = found['test'][key], found['train'][key]
        rows[label] = [interval(part['mean'], part['se'], n) for part in (test, train)]
        rows[label] += [interval(*part, n) for part in zip(test['quarters'], test['quarters_se'])]
    lines = [f'{label:8}' + ''.join(f'  {cell:>19}' for cell in row) for label, row in rows.items()]
    return '\n'.join([*lines, '± reaches the truth in 95 of 100 cases'])


def run(request: Request, group: Group) -> None:
    "Held-out loss and, where asked, bits per dimension and the quality of samples; also test.json."
    r = request
    model, config = r.load(group.device or 'cpu')
    plan(r.how, model)
    path = output(r.out)
    paths = [path, *([output(path.with_name('bits.png'))] if r.bpd else [])]
    images, held_out = pictures_of(config, r.data)
    group.barrier()                     # one may decode for minutes what others have in a cache
    judge = None if r.fid is None else pick_extractor(images, r.fid, r.inception)
    n = min(len(held_out), len(images))
    keep = np.arange(n) * len(images) // n                  # evenly spaced
    labels = None if images.labels is None else images.labels[keep]
    some, criterion = ImageSet(images.pixels[keep], labels, images.classes), build_criterion(config)
    many: Any = {'group': group, **({'batch': r.batch} if r.batch else {})}
    losses = {split: heldout_loss(model, part, criterion, **many)
              for split, part in (('test', held_out), ('train', some))}
    say(group, loss_table(losses, len(held_out), config.loss_name))
    result: dict[str, Any] = {'model': r.name, 'images': len(held_out), 'losses': losses}
    if r.bpd:
        terms = model.schedule.T if r.bpd == 'full' else 16
        bits = bits_per_dim(model, held_out, terms, **many)
        result['bits_per_dim'] = bits.summary()
        say(group, bits)
        if group.rank == 0:
            write_by(paths[1], plot_bits({'held-out images': bits}).savefig, dpi=100)
    if judge:
        assert r.fid is not None
        judge.batch = r.batch or judge.batch
        found = evaluate_samples(model, (images, held_out), r.fid, r.how, judge, group)
        say(group, found)
        if group.rank == 0:
            result['samples'] = asdict(found)
    if group.rank == 0:
        write_whole(path, json.dumps(result, indent=2) + '\n')
    say(group, 'wrote', *paths)
