"`ddpm test`: measure a model on held-out images."
import argparse
import json
import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..base.files import output, write_by, write_whole
from ..base.group import Group
from ..bits import bits_per_dim, plot_bits
from ..config import SamplingConfig, to_json
from ..criteria import build_criterion
from ..data.sets import ImageSet
from ..data.sources import load_data
from ..heldout import heldout_loss
from ..judge.scores import evaluate_samples, pick_extractor
from ..sampling import plan
from .flags import (Source, add_model, add_processes, file, given_fields, read_sampling,
                    read_source, whole)
from .terminal import say


@dataclass(frozen=True)
class Request:
    "What is measured, of which model, on which images, and where the numbers go."
    source: Source
    how: SamplingConfig
    data: str | None                # None: what the run was trained on
    bpd: str | None                 # 'estimate', or 'full': all T terms
    fid: int | None                 # so many samples are drawn
    inception: str | None
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
    p.add_argument('--out', type=file('.json'),
                   help='where the numbers go (default: test.json in the run, or here)')


def read(args: argparse.Namespace) -> Request:
    "Flags as values. Raises ValueError for those that make no sense together."
    given = given_fields(args, SamplingConfig())
    if (given or args.inception is not None) and args.fid is None:
        raise ValueError(f'--{next(iter(given), "inception")} is for samples: ddpm test draws them '
                         'for --fid N')
    return Request(read_source(args), read_sampling(args), args.data, args.bpd, args.fid,
                   args.inception, Path(args.out or Path(args.run or '', 'test.json')))


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


def run(request: Request, group: Group) -> None:
    "Held-out loss and, where asked, bits per dimension and the quality of samples; also test.json."
    r = request
    model, config = r.source.load(group.device or 'cpu')
    logging.info('settings of the model: %s', to_json(config))
    plan(r.how, model)
    path, d = output(r.out), config.data
    paths = [path, *([output(path.with_name('bits.png'))] if r.bpd else [])]
    images, held_out = load_data(r.data or d.data, d.size, d.image_channels or None)
    group.barrier()                     # one may decode for minutes what others have in a cache
    if model.classes and held_out.classes != model.classes:
        raise ValueError(f'the model knows the classes {",".join(model.classes)}, the images have '
                         f'{",".join(held_out.classes) or "none"}')
    judge = None if r.fid is None else pick_extractor(images, r.fid, r.inception)
    n = min(len(held_out), len(images))
    keep = np.arange(n) * len(images) // n                  # evenly spaced
    labels = None if images.labels is None else images.labels[keep]
    some, criterion = ImageSet(images.pixels[keep], labels, images.classes), build_criterion(config)
    losses = {split: heldout_loss(model, part, criterion, group=group)
              for split, part in (('test', held_out), ('train', some))}
    say(group, loss_table(losses, len(held_out), config.loss_name))
    result: dict[str, Any] = {'model': r.source.weights or r.source.run or 'shipped',
                              'images': len(held_out), 'losses': losses}
    if r.bpd:
        terms = model.schedule.T if r.bpd == 'full' else 16
        bits = bits_per_dim(model, held_out, terms, group=group)
        result['bits_per_dim'] = bits.summary()
        say(group, bits)
        if group.rank == 0:
            write_by(paths[1], plot_bits({'held-out images': bits}).savefig, dpi=100)
    if judge:
        assert r.fid is not None
        found = evaluate_samples(model, (images, held_out), r.fid, r.how, judge, group)
        result['samples'] = asdict(found)
        say(group, found)
    if group.rank == 0:
        write_whole(path, json.dumps(result, indent=2) + '\n')
    say(group, 'wrote', *paths)
