"The checks: each looks for one symptom; `CHECKS` holds them all."

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import wraps
from graphlib import TopologicalSorter
from typing import Any

import numpy as np
import torch

from ..config import SamplingConfig
from ..data.sets import to_uint8
from .evaluation import nearest_distances
from .lab import answers, paired
from .patient import (
    Patient, bytes_per_picture, noise_shown, picture_errors, readings, small, some)
from ..run.datasets import fingerprints

SURE = 4        # standard errors: one of 30,000 healthy runs is as far from the truth by chance


@dataclass(frozen=True)
class Finding:
    "What a check looked at and found; where something is ill, what to do, and how sure that is."
    looked: str
    found: str
    value: float = 0.0          # what is compared with the limit; nan is never ill
    do: str = ''
    sure: str = 'certain'
    told: bool = True           # whether there is enough to tell
    limit: float = 0.0          # these three are filled in by the check and by `examine`
    ill: bool = False
    follows: str = ''           # another finding, which may explain it

    def __str__(self) -> str:
        said = f'{self.looked}: {self.found}'
        return f'{said}; {self.do} ({self.sure})' if self.ill else said


Look = Callable[['Patient'], Finding]


@dataclass(frozen=True)
class Check:
    "How to look for one symptom."
    look: Look
    needs: tuple[str, ...]      # fields of the patient, without which it is left out
    limit: float                # a value above it is ill ...
    why: str                    # ... because; or the numbers of benchmarks/results/clinic.json
    below: bool = False         # ... or, for these, a value below it
    early: bool = False         # before training; together these take less than a second
    least: int = 0              # held-out pictures that it takes to tell
    after: tuple[str, ...] = () # findings that explain this one: then it is no other finding


CHECKS: dict[str, Check] = {}           # in the order in which they are asked
FOREIGN = 'kept in bf16', 'dropout at work'     # of other code, see `lesson.symptoms`
UNTRAINED = 'not finite', 'flat loss', 'slow average', 'late average'
MISREAD = *UNTRAINED, 'reading', 'nothing learned'      # then no other answer means anything


def check(*needs: str, into: dict[str, Check] = CHECKS, **how: Any) -> Callable[[Look], Look]:
    "Enter a function, which finds a value, as a check, which compares the value with a limit."
    def enter(look: Look) -> Look:
        @wraps(look)
        def compare(p: Patient) -> Finding:
            found = look(p)
            over = found.value < mine.limit if mine.below else found.value > mine.limit
            return replace(found, value=float(found.value), limit=mine.limit,
                           told=bool(found.told), ill=bool(over and found.told))
        mine = into[look.__name__.replace('_', ' ')] = Check(compare, needs, **how)
        return compare
    return enter


# -- pictures and settings --------------------------------------------------------------------


@check('images', early=True, limit=0.99, why='a photograph may be grey, but not all are')
def grey_as_colour(p: Patient) -> Finding:
    "Whether colour pictures have no colour; what is drawn will then have some, by mistake."
    x = some(p.images, 1000).pixels
    grey = (x == x[:, :1]).all((1, 2, 3)).mean() if p.images.channels > 1 else 0.0
    return Finding(f'{p.images.channels} channels', f'equal in {grey:.0%} of the pictures', grey,
                   'train on grey ones, --image-channels 1')


@check('images', early=True, limit=0.05, why='fewer hardly count')
def twins(p: Patient) -> Finding:
    "Whether pictures are there more than once."
    share = 1 - len(np.unique(p.prints)) / len(p.prints)
    return Finding(f'{len(p.prints):,} pictures', f'{share:.1%} repeat another one', share,
                   'leave doubles out (fdupes finds equal files); of samples: give each '
                   'process noise of its own')


@check('images', 'held_out', early=True, limit=0.05, why='fewer hardly change a held-out loss')
def seen_before(p: Patient) -> Finding:
    "Whether held-out pictures are among those that are trained on."
    share = np.isin(fingerprints(p.held_out), p.prints).mean()
    return Finding(f'{len(p.held_out):,} held-out pictures', f'{share:.1%} are trained on', share,
                   'leave doubles out, and keep held-out pictures apart')


@check('images', early=True, limit=500, below=True,
       why='healthy runs from 4500, sick ones to 100')
def few_pictures(p: Patient) -> Finding:
    "Whether there are so few that they will be copied."
    return Finding('training pictures', f'{len(p.images):,}', len(p.images),
                   'find more, or stop early: few are learned by heart', 'likely')


@check('images', 'held_out', 'config', early=True, least=20, limit=0.3,
       why='healthy runs to 0, sick ones from 0.519')
def flips(p: Patient) -> Finding:
    "Whether pictures are mirrored that must not be: mirrored, they are farther from the others."
    x, rows = some(p.held_out, 200).pixels, small(some(p.images, 3000).pixels)
    plain, mirrored = (torch.cdist(small(each), rows).amin(1) for each in (x, x[..., ::-1].copy()))
    usual = plain.mean() + 1e-9                             # 0 where all are training pictures
    d = paired((mirrored / usual).numpy(), (plain / usual).numpy())
    return Finding('mirrored held-out pictures, farther from real ones than plain ones',
                   f'by {d.mean:.0%} ± {d.reach:.0%}',
                   (d.mean - SURE * d.error) * (p.config.data.augment == 'flip'),
                   'train without --augment flip', f'{d.away:.0f} standard errors')


@check('images', 'held_out', early=True, limit=2, below=True, why='standard errors from chance')
def labels(p: Patient) -> Finding:
    "Whether classes have anything to do with pictures."
    if len(p.images.classes) < 2 or p.held_out.labels is None:
        return Finding('classes', 'fewer than two', told=False)
    asked, known = some(p.held_out, 1000), some(p.images, 3000)
    near, told = torch.cdist(small(asked.pixels), small(known.pixels)).argmin(1), asked.labels_at()
    same = (known.labels_at()[near] == told).double().mean().item()
    share = p.images.labels_at().bincount(minlength=len(p.images.classes)).double() / len(p.images)
    chance = share[told].mean().item()
    error = (chance * (1 - chance) / len(asked) + 1e-12)**0.5
    enough = 4 * error < 0.101 and chance < 0.8     # else right labels may look like wrong ones
    found = f'the same for {same:.0%}, {chance:.0%} by chance'
    return Finding('class of the most similar picture', found + ': too few to tell' * (not enough),
                   (same - chance) / error,
                   'do labels and pictures have the same order?',
                   'likely: classes may also differ in what pixels do not show', enough)


@check('config', early=True, limit=0.02,
       why='healthy runs to 0, sick ones from 0.9802')
def slow_average(p: Patient) -> Finding:
    "Whether the averaged weights will still be the first, random ones."
    t = p.config.training
    begins_random = t.average == 'ema' and not t.ema_warmup and not t.init
    left = t.ema ** t.steps if begins_random else 0.0
    return Finding(f'an average with decay {t.ema:g} over {t.steps:,} steps',
                   f'{left:.1%} of it are the first weights', left,
                   'a smaller --ema, or --ema-warmup')


@check('raw', 'config', early=True, limit=1, why='all that there is')
def memory(p: Patient) -> Finding:
    "Whether a training step needs more memory than there is."
    t, device = p.config.training, p.raw.device
    if not any(w.requires_grad for w in p.raw.network.parameters()):
        return Finding('memory for a step', 'nothing is trained here', told=False)
    fixed = 20 * sum(w.numel() for w in p.raw.network.parameters())
    need = fixed + bytes_per_picture(p.raw) * math.ceil(t.batch / t.accumulate)
    have = (torch.cuda.mem_get_info(device)[0] + fixed * 8 // 20 if device.type == 'cuda' else
            os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES'))
    return Finding('memory for a step', f'about {need / 2**30:.2g} GB of {have / 2**30:.3g}',
                   need / have, 'more slices (--accumulate), or a smaller --batch', 'likely')


@check('log', 'config', limit=0.9,
       why='healthy runs to 0.2114, sick ones from 0.9906')
def flat_loss(p: Patient) -> Finding:
    "Whether the training loss never fell. That it falls no more is no illness."
    if len(p.log) < 8:
        return Finding('the log', f'{len(p.log)} lines: too few to tell', told=False)
    first, now = p.log[0]['loss'], np.median([line['loss'] for line in p.log[-(len(p.log) // 4):]])
    return Finding('training loss', f'{first:.3g} at first, {now:.3g} in the last quarter of the '
                   'log', now / first if math.isfinite(now) else math.inf, 'another --lr',
                   told=not p.config.training.init)     # else it may begin with a low loss


@check('log', limit=10, after=('flat loss',),
       why='healthy runs to 1.372, sick ones from 138')
def spikes(p: Patient) -> Finding:
    "Whether loss, or gradient, of some steps are far above those before and after."
    rows = np.array([[line['loss'], line.get('grad_norm', 1)] for line in p.log], float)
    rows = rows[np.isfinite(rows).all(1)]               # float16 leaves out a step now and then
    if len(rows) < 12:
        return Finding('the log', f'{len(rows)} lines: too few to tell', told=False)
    near = np.stack([rows[k:len(rows) - 4 + k] for k in (0, 1, 3, 4)])
    loss, gradient = (rows[2:-2] / np.median(near, 0))[len(rows) // 4:].max(0)
    return Finding('the worst line of the log, over two before it and two after',
                   f'loss {loss:.2g} times, gradient {gradient:.2g} times',
                   max(loss, gradient / 3),         # a gradient is of one step: it varies more
                   'look for damaged pictures; else a smaller --lr or --clip', 'likely')


# -- the network, asked about pictures ---------------------------------------------------------


@check('model', limit=0, why='a number is finite')
def not_finite(p: Patient) -> Finding:
    "Whether samples are numbers, and whether float16 is at fault, which ends at 65,504."
    def share(p: Patient) -> float:
        return 1 - p.samples.isfinite().flatten(1).all(1).float().mean().item()
    broken, half = share(p), p.model.precision == 'fp16'
    exact = share(replace(p, model=replace(p.model, precision='fp32'))) if half else broken
    return Finding('samples', f'{broken:.0%} have values that are not finite'
                   + f', {exact:.0%} in float32' * half, broken,
                   'compute in bf16 or fp32 (--precision)' if exact < broken else
                   'go back to a checkpoint before it; a smaller --lr')


@check('model', 'raw', 'held_out', limit=0.02, after=('not finite', 'slow average', *FOREIGN),
       why='healthy runs to 0.004306, sick ones from 0.1057')
def late_average(p: Patient) -> Finding:
    "Whether the averaged weights are worse than the raw ones."
    mine, raw = (picture_errors(model, *p.questions(200)) for model in (p.model, p.raw))
    d = paired(mine, raw)
    return Finding('errors of averaged weights, less those of raw ones',
                   f'{d.mean:+.4f} ± {d.reach:.1g}, of {raw.mean():.3f}',
                   (d.mean - SURE * d.error) / raw.mean(),
                   'a smaller --ema, --ema-warmup, or more steps; was it saved and loaded with '
                   'the run?', f'{d.away:.0f} standard errors')


@check('model', 'raw', limit=0.5, why='all weights are equal, or hardly any')
def no_average(p: Patient) -> Finding:
    "Whether samples are drawn with the raw weights."
    mine, raw = p.model.network.state_dict(), p.raw.network.state_dict()
    same = all(torch.equal(mine[name], raw[name]) for name in raw)
    return Finding('averaged and raw weights', 'equal' if same else 'not equal', float(same),
                   'average them, for example --ema 0.999')


@check('model', 'config', limit=0.2, after=UNTRAINED,
       why='healthy runs to 0, sick ones from 0.4136')
def reading(p: Patient) -> Finding:
    """Whether the network's answers make more sense if it was trained otherwise: about held-out
    pictures, else about those that it draws."""
    x0, y = p.questions()
    errors = {name: picture_errors(other, x0, y)
              for name, other in readings(p.model, p.config).items()}
    errors['pictures in [0, 1]'] = 4 * picture_errors(p.model, (x0 + 1) / 2, y)
    best = min(errors, key=lambda name: errors[name].mean())
    own = picture_errors(p.model, x0, y)
    d = paired(own, errors[best])
    return Finding(f'errors of guessed pictures under {len(errors)} other readings',
                   f'{own.mean():.3f} as the settings say, {errors[best].mean():.3f} with {best}',
                   (d.mean - SURE * d.error) / own.mean(),
                   f'it seems to have been trained with {best}',
                   f'{d.away:.0f} standard errors')


@check('model', 'held_out', least=20, limit=0.8, after=(*UNTRAINED, 'reading'),
       why='healthy runs to 0.6379, sick ones from 0.9784')
def nothing_learned(p: Patient) -> Finding:
    "Whether the network guesses pictures no better than their mean."
    x0, y = p.questions()
    error = float(picture_errors(p.model, x0, y, (0.7, 0.5)).mean())
    mean = (x0 - x0.mean(0)).square().mean().item()
    return Finding('error of guessed pictures, at middling noise',
                   f'{error:.3f}, and {mean:.3f} for the mean of all pictures', error / mean,
                   'another --lr: ten times smaller, ten times larger', 'likely')


@check('model', 'held_out', least=50, limit=0.02, below=True, after=('labels', *MISREAD),
       why='healthy runs from 0.1313, sick ones to -6.217e-05')
def class_ignored(p: Patient) -> Finding:
    "Whether the right class helps no more than another one."
    if not p.model.classes or len(p.held_out.classes) < 2:
        return Finding('classes', 'it is given none, or one', told=False)
    x0, y = p.questions(200)
    assert y is not None                            # it is given classes
    right, wrong = (picture_errors(p.model, x0, told, (0.3, 0.1, 0.03, 0.01))
                    for told in (y, (y + 1) % len(p.held_out.classes)))
    d = paired(right, wrong)
    return Finding('errors with the right class, less those with another',
                   f'{d.mean:+.4f} ± {d.reach:.1g}, of {wrong.mean():.3f}',
                   -(d.mean + SURE * d.error) / wrong.mean(),
                   'do labels and pictures have the same order? is the class given in training?',
                   f'they are {d.away:.0f} standard errors apart')


@check('model', 'raw', limit=0.01, below=True, after=('no average', 'slow average'),
       why='what is never used never changes: 0')
def guidance_untrained(p: Patient) -> Finding:
    "Whether the vector of no class, which guidance needs, is the same in averaged and raw weights."
    rows, raw = len(p.model.classes) + 1, p.raw.network.state_dict()
    apart = [(w - raw[name]).norm(dim=1) for name, w in p.model.network.state_dict().items()
             if w.ndim == 2 and len(w) == rows]             # the vectors of all classes
    if not p.model.can_guide or len(apart) != 1 or not apart[0].any():
        return Finding('guidance', 'it has no vector of no class', told=False)
    ratio = (apart[0][-1] / (apart[0][:-1].mean() + 1e-12)).item()
    return Finding('averaged and raw vector of no class', f'{ratio:.2g} times as far apart as '
                   'those of classes', ratio,
                   'train with --label-drop 0.1, or sample with --guidance 1')


@check('log', 'config', 'raw', 'images', limit=0.5,
       after=('not finite', 'flat loss', 'reading', 'copies'),
       why='healthy runs to -0.08077, sick ones from 2.033')
def easier_than_asked(p: Patient) -> Finding:
    "Whether training pictures under new noise have a far larger loss than the log says."
    if not p.log or p.config.diffusion.loss != 'simple':
        return Finding('the log', 'of another loss', told=False)
    logged = np.mean([line['loss'] for line in p.log[-(len(p.log) // 4 + 1):]])
    error = p.anew.std(ddof=1) / len(p.anew)**0.5
    return Finding('loss of training pictures under new noise', f'{p.anew.mean():.3g}, and '
                   f'{logged:.3g} in the log',
                   (p.anew.mean() - SURE * error) / logged - 1, 'is the noise new in every step?',
                   'likely')


@check('log', 'config', 'raw', 'images', limit=1.8,
       after=('few pictures', 'spikes', 'easier than asked', *MISREAD),
       why='healthy runs to 1.477, sick ones from 2.851')
def draws_repeat(p: Patient) -> Finding:
    """Whether the logged loss varies more from line to line than means of independent losses do:
    as where all pictures of a batch, or all processes, have the same t or noise."""
    late = p.log[len(p.log) // 3:]
    if len(late) < 12 or p.config.diffusion.loss != 'simple':
        return Finding('the log', f'{len(p.log)} lines: too few to tell', told=False)
    losses, steps = (np.array([line[name] for line in late], float) for name in ('loss', 'step'))
    n = np.diff(steps).mean() * p.config.training.batch
    times = np.diff(losses).var() / 2 / (p.anew.var(ddof=1) / n)
    return Finding('how much the logged loss varies',
                   f'{times:.1f} times as much as the mean of {n:.0f} independent losses',
                   times / (1 + SURE * (3 / len(late))**0.5),
                   'draw t and noise for each picture, with another seed in each process', 'likely')


@check('model', 'images', 'held_out', least=20, limit=0.33, after=('few pictures', *MISREAD),
       why='healthy runs to -0.1635, sick ones from 0.5776')
def trained_too_long(p: Patient) -> Finding:
    "Whether held-out pictures have a larger loss than those that were trained on."
    unseen, seen = (answers(p.model, some(images, 400)) for images in (p.held_out, p.images))
    error = (unseen.var() / len(unseen) + seen.var() / len(seen))**0.5
    more = unseen.mean() - seen.mean()
    return Finding('eps mse of held-out pictures and of training pictures',
                   f'{unseen.mean():.4f} and {seen.mean():.4f}',
                   (more - SURE * error) / seen.mean(),
                   'stop earlier, or find more pictures', f'{more / error:.0f} standard errors')


@check('scores', limit=5, below=True,
       why='from n samples a distance of d features is too large by about d / n')
def few_samples_judged(p: Patient) -> Finding:
    "Whether a distance in test.json rests on too few samples to be compared."
    s = p.scores
    return Finding(f'the distance in test.json, by {s["features"]:,} features',
                   f'{s["n"]:,} samples, guidance {s["guidance"]:g}', s['n'] / s['features'],
                   f'at least {5 * s["features"]:,}; beside published ones 50,000, with the same '
                   'features, resizing, rounding to bytes, reference and guidance',
                   'certain: it is too large')


# -- what it draws ----------------------------------------------------------------------------


@check('model', limit=0.01, after=(*MISREAD, 'noise in the last step'),
       why='healthy runs to 0, sick ones from 0.3137')
def out_of_range(p: Patient) -> Finding:
    "Whether pixels leave [-1, 1] when pictures are drawn."
    share = (p.samples.nan_to_num().abs() > 1.05).float().mean().item()
    return Finding('pixels of samples', f'{share:.1%} are beyond [-1, 1] by more than 0.05', share,
                   'clip the guessed image (leave --no-clip out); less guidance', 'likely')


@check('model', 'held_out', limit=1.5, after=(*MISREAD, 'out of range'),
       why='healthy runs to 1, sick ones from 1.676')
def more_noise_than_told(p: Patient) -> Finding:
    """Whether x_t has another noise level than that of the given t, somewhere on the way, more so
    than with the usual sampler: there the network is at fault, which may need training."""
    def worst(how: SamplingConfig) -> tuple[float, float, int]:
        return max((max(x, 1 / max(x, 1e-9)), x, t) for t, x in noise_shown(replace(p, how=how)))
    (off, ratio, t), (usual, other, _) = worst(p.how), worst(SamplingConfig(guidance=1))
    return Finding('the noise in x_t on the way',
                   f'{ratio:.2f} times that of the given t = {t}'
                   + f'; with the usual sampler {other:.2f} times', off / usual,
                   'few steps want the small variance, and your own sampler must pass the right '
                   'index', 'likely')


@check('model', 'images', 'held_out', limit=0.5, below=True,
       after=('few pictures', 'trained too long', *MISREAD),
       why='healthy runs from 1.105, sick ones to 0.3548')
def copies(p: Patient) -> Finding:
    "Whether samples lie much nearer to training pictures than held-out pictures do."
    drawn, others = to_uint8(p.samples.nan_to_num()), some(p.held_out, 500).pixels
    mine, unseen = (nearest_distances(x, p.images.pixels).median().item() for x in (drawn, others))
    return Finding('distance to the nearest training picture',
                   f'{mine:.2f} for samples, {unseen:.2f} for held-out pictures',
                   mine / (unseen + 1e-9),
                   'more pictures, or stop earlier; does the loader show them all?', 'likely')


@check('model', 'held_out', least=2, limit=0.1, after=(*MISREAD, 'more noise than told'),
       why='healthy runs to -0.01107, sick ones from 0.2054')
def tint(p: Patient) -> Finding:
    "Whether samples are brighter, darker or of another tint than real pictures."
    mine, real = (x.nan_to_num().mean((2, 3)).double() for x in (p.samples, p.real))
    apart = mine.mean(0) - real.mean(0)
    error = (mine.var(0) / len(mine) + real.var(0) / len(real)).sqrt()
    sure = apart.abs() - SURE * error
    k = int(sure.argmax())
    return Finding('mean brightness of each channel, less that of real pictures',
                   ', '.join(f'{x:+.3f}' for x in apart.tolist()), sure[k].item(),
                   'train longer; does the schedule end in noise? is the range [-1, 1]? are '
                   'red, green and blue in this order?',
                   f'{(apart / error)[k].abs():.0f} standard errors')


def missing(p: Patient, check: Check) -> tuple[str, ...]:
    "What a check needs and nobody knows."
    return tuple(need for need in check.needs if not getattr(p, need))


def examine(p: Patient, early: bool = False,
            checks: Mapping[str, Check] = CHECKS) -> dict[str, Finding]:
    """What all checks say for which enough is known, by name, causes before consequences; `early`:
    only those before training. A finding that another one explains says which (`follows`)."""
    count = len(p.held_out or ())
    few = Finding('held-out pictures', f'{count}: too few to tell', told=False)
    found = {name: check.look(p) if count >= check.least else few for name, check in checks.items()
             if (check.early or not early) and not missing(p, check)}
    known = {name: {*checks[name].after} & found.keys() for name in found}
    for name in TopologicalSorter(known).static_order():     # causes before consequences
        one = found[name]
        causes = [c for c in checks[name].after if one.ill and c in found and found[c].ill]
        found[name] = replace(one, follows=found[causes[0]].follows or causes[0] if causes else '')
    return found
