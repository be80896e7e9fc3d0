"`ddpm test`: measure a model on held-out images."
import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..base.fields import option
from ..base.files import content_of, output, write_together
from ..base.group import Group
from ..base.intervals import interval
from ..bits import bits_per_dim, plot_bits
from ..config import SamplingConfig
from ..criteria import build_criterion
from ..heldout import heldout_loss
from ..judge.scores import evaluate_samples, pick_extractor
from ..run.datasets import pictures_of
from .flags import Processes
from .sample import Source
from .terminal import say


@dataclass(frozen=True)
class Request(Processes):
    "What is measured, of which model, on which images, and where the numbers go."
    source: Source = Source()
    how: SamplingConfig = SamplingConfig()
    data: str | None = option(None, 'other images than the run was trained on')
    bpd: str | None = option(None, 'bits per dimension; full: all T terms',
                             choices=(None, 'estimate', 'full'), nargs='?', const='estimate')
    fid: int | None = option(None, 'Frechet distance, KID, Inception Score of N samples; usual '
                             'guidance 1', low=2, high=10**6, metavar='N')
    inception: str | None = option(None, 'Inception weights, where --fid needs any', metavar='FILE')
    batch: int | None = option(None, 'images at a time, where memory is short or plenty',
                               low=1, high=10**6, metavar='N')
    out: str | None = option(None, 'where the numbers go (default: test.json in the run, or here)',
                             ending='.json')

    def __post_init__(self):
        given = [name for name, value in vars(self.how).items() if value != vars(Request.how)[name]]
        if self.fid is None and (given or self.inception):
            raise ValueError(f'--{next(iter(given), "inception")} is for samples: ddpm test draws '
                             'them for --fid N')


def loss_table(found: dict[str, dict], n: int, name: str) -> str:
    "Losses of n held-out images and of as many of training as text; also by quarter of t."
    heads = [f'{n} test images', 'as many of training', *(f'quarter {q} of t' for q in range(1, 5))]
    rows = {'': heads}
    for key, label in (('loss', name), ('eps_mse', 'eps mse'), ('x0_mse', 'x0 mse')):
        test, train = found['test'][key], found['train'][key]
        rows[label] = [interval(part['mean'], part['se'], n) for part in (test, train)]
        rows[label] += [interval(*part, n) for part in zip(test['quarters'], test['quarters_se'])]
    lines = [f'{label:8}' + ''.join(f'  {cell:>19}' for cell in row) for label, row in rows.items()]
    return '\n'.join([*lines, '± is a 95 % confidence interval'])


def check_numbers(found: Any, model: str, where: str = '') -> None:
    "Raise ValueError where a result is no finite number; an error of one picture's loss is none."
    for name, value in found.items() if isinstance(found, dict) else ():
        if name not in ('se', 'quarters', 'quarters_se'):       # nor is a quarter without a draw
            check_numbers(value, model, f'{where} {name}')
    if isinstance(found, float) and not math.isfinite(found):
        raise ValueError(f'{model}: the result{where.replace("_", " ")} is {found}: the weights are '
                         'of no use (ddpm doctor may say why), nothing is written')


def run(request: Request, group: Group) -> None:
    "Held-out loss and, where asked, bits per dimension and the quality of samples; also test.json."
    r = request
    model, config = r.source.load(group, r.how)
    path = output(r.out or Path(r.source.run or '', 'test.json'))
    plot = output(path.with_name('bits.png')) if r.bpd else None
    images, held_out = pictures_of(config, r.data)
    group.barrier()                     # one may decode for minutes what others have in a cache
    judge = None if r.fid is None else pick_extractor(images, r.fid, r.inception)
    many: Any = {'group': group, **({'batch': r.batch} if r.batch else {})}
    parts = {'test': held_out, 'train': images.spread(len(held_out))}
    losses = {split: heldout_loss(model, part, build_criterion(config), **many)
              for split, part in parts.items()}
    name = r.source.weights or r.source.run or 'shipped'
    check_numbers(losses, name)
    say(group, loss_table(losses, len(held_out), config.loss_name))
    result: dict[str, Any] = {'model': name, 'images': len(held_out), 'losses': losses}
    files: dict[Path, bytes | str] = {}
    if plot:
        terms = model.schedule.T if r.bpd == 'full' else 16
        bits = bits_per_dim(model, held_out, terms, **many)
        result['bits_per_dim'] = bits.summary()
        check_numbers(result['bits_per_dim'], name)
        say(group, bits)
        if group.rank == 0:
            files[plot] = content_of(plot_bits({'held-out images': bits}).savefig, dpi=100)
    if judge:
        assert r.fid is not None
        judge.batch = r.batch or judge.batch
        found = evaluate_samples(model, (images, held_out), r.fid, r.how, judge, group)
        if group.rank == 0:
            result['samples'] = asdict(found)
            check_numbers(result['samples'], name)
        say(group, found)
    if group.rank == 0:
        write_together({**files, path: json.dumps(result, indent=2) + '\n'})
    say(group, 'wrote', path, *files)
