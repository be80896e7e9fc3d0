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
from ..draws import Purpose, normal
from .evaluation import nearest_distances
from .lab import answers, paired
from .likeness import apart, evenly, near_copies, nearest, traits
from ..model import build_network
from .patient import (
    LEVELS, Patient, bytes_per_picture, level_errors, noise_shown, pixel_filter, picture_errors,
    readings, some, with_exact_answers)
from ..run.datasets import fingerprints
from ..run.training import lr_at
from ..sampling import walk_to_the_end

SURENESS = {
    'certain': 'nothing else that the doctor knows of gives this measurement',
    'likely': 'other causes give it, too, but rarely',
    'cause open': 'several causes give it: what to do names some of them'}
FITS = 1.2      # times the error of a filter of each pixel: whoever errs more has not understood
SURE = 4        # standard errors: one of 30,000 healthy runs is as far from the truth by chance


@dataclass(frozen=True)
class Finding:
    "What a check looked at and found; where something is ill, what to do, and how sure that is."
    looked: str
    found: str
    value: float = 0.0          # what is compared with the limit; nan is never ill
    do: str = ''
    sure: str = 'likely'        # of SURENESS: how sure what to do is; what was found is measured
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
BEGUN = 'narrow range', 'rate', 'settings', 'little training', 'frozen weights'  # little is learned
UNTRAINED = *BEGUN, 'objective', 'not finite', 'flat loss', 'slow average', 'late average'
MISREAD = 'another kind', *UNTRAINED, 'reading', 'nothing learned'  # no other answer means anything


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


@check('images', early=True, limit=0.55, below=True,
       why='healthy runs from 0.7453, sick ones to 0.0549')
def narrow_range(p: Patient) -> Finding:
    "Whether pictures, or one of their channels, use few of the levels from black to white."
    x = some(p.images, 1000).pixels
    low, high = (np.quantile(ends, share, axis=0)
                 for ends, share in ((x.min((2, 3)), 0.05), (x.max((2, 3)), 0.95)))
    k = int((high - low).argmin())
    name = ('grey', 'red', 'green', 'blue')[k + (len(low) > 1)]
    return Finding(f'levels of {name} in training pictures, of 0 to 255',
                   f'from {low[k]:.0f} to {high[k]:.0f}', (high[k] - low[k]) / 255,
                   'are 12 or 16 bits read as if they were more, are pictures scaled twice, is a '
                   'channel missing?', 'cause open')


@check('images', early=True, limit=0.05, after=('narrow range',), why='fewer hardly count')
def blank(p: Patient) -> Finding:
    "Whether pictures are of one colour."
    x = some(p.images, 1000).pixels
    share = (np.ptp(x.reshape(*x.shape[:2], -1), 2).max(1) < 8).mean()
    return Finding('training pictures with fewer than 8 levels', f'{share:.1%}', share,
                   'leave them out, where they should show something', 'cause open')


@check('images', early=True, limit=0.99, why='a photograph may be grey, but not all are')
def grey_as_colour(p: Patient) -> Finding:
    "Whether colour pictures have no colour; what is drawn will then have some, by mistake."
    x = some(p.images, 1000).pixels
    grey = (x == x[:, :1]).all((1, 2, 3)).mean() if p.images.channels > 1 else 0.0
    return Finding(f'{p.images.channels} channels', f'equal in {grey:.0%} of the pictures', grey,
                   'train on grey ones, --image-channels 1, if they should be grey')


@check('images', early=True, limit=0.05, after=('blank',), why='fewer hardly count')
def twins(p: Patient) -> Finding:
    "Whether pictures are there more than once."
    share = 1 - len(np.unique(p.prints)) / len(p.prints)
    return Finding(f'{len(p.prints):,} pictures', f'{share:.1%} repeat another one', share,
                   'leave doubles out (fdupes finds equal files); of samples: give each '
                   'process noise of its own', 'certain')


@check('images', 'held_out', early=True, limit=0.05, after=('blank',), why='fewer hardly change a held-out loss')
def seen_before(p: Patient) -> Finding:
    "Whether held-out pictures are among those that are trained on."
    share = np.isin(fingerprints(p.held_out), p.prints).mean()
    return Finding(f'{len(p.held_out):,} held-out pictures', f'{share:.1%} are trained on', share,
                   'leave doubles out, and keep held-out pictures apart', 'certain')


@check('images', 'held_out', least=20, limit=0.02, after=('blank', 'seen before'),
       why='fewer hardly change a held-out loss')
def nearly_seen_before(p: Patient) -> Finding:
    """Whether held-out pictures are nearly copies of training pictures, more often than training
    pictures are of each other."""
    known = some(p.images, 100_000).pixels                  # of more, memory would be short
    asked, places = some(p.held_out, 10_000).pixels, evenly(len(known), 1000)
    copied, usual = (near_copies(*each).astype(float) for each in (
        (asked, known), (known[places], known, places)))
    share, among = copied.mean(), usual.mean()
    error = (share * (1 - share) / len(copied) + among * (1 - among) / len(usual))**0.5
    return Finding(f'{len(asked):,} held-out pictures',
                   f'{share:.1%} are nearly a training picture (moved by a pixel, mirrored, '
                   f'lighter or saved again), and {among:.1%} of training pictures nearly another',
                   share - among - SURE * error, 'keep all copies of a picture on one side')


@check('images', 'held_out', early=True, least=20, limit=0.5,
       why='healthy runs to -0.1544, sick ones from 36.09')
def another_kind(p: Patient) -> Finding:
    """Whether held-out pictures are unlike training pictures: in brightness, contrast or detail,
    or farther from these than they are from each other."""
    mine, other = (traits(some(images, 1000)) for images in (p.held_out, p.images))
    found = {name: apart(mine[name], other[name]) for name in mine}
    usual, distance = p.kin['training'][0], 'distance to the nearest training picture'
    usual = usual[usual.isfinite()]                         # not of equal ones
    if len(usual) > 1 and (far := apart(p.kin['held-out'][0], usual))[0] > 0:   # nearer: a copy
        found[distance] = far
    most = max(sure for _, sure in found.values())
    shown = [name for name in found if found[name][1] > 0.5] or [max(found, key=found.__getitem__)]
    fits = [name for name, change in CHANGES.items() if most > 0.5 and len(usual) > 1 and
            apart(nearest(change(some(p.held_out, 200).pixels), some(p.images, 3000).pixels)[0],
                  usual)[0] < 0.5]
    return Finding('held-out pictures, less training pictures, in standard deviations of a picture',
                   ', '.join(f'{name} {found[name][0]:+.2f}' for name in shown)
                   + ''.join(f'; they fit if {name}' for name in fits[:1]), most,
                   f'one of the two seems to be {fits[0]}' if fits else
                   'are they scaled, cut or lit otherwise, or of another subject?',
                   'likely' if fits else 'cause open')


CHANGES: dict[str, Callable[[np.ndarray], np.ndarray]] = {      # of pixels (N, C, H, W)
    'inverted': lambda x: 255 - x, 'mirrored': lambda x: x[..., ::-1].copy(),
    'upside down': lambda x: x[..., ::-1, :].copy(),
    'turned': lambda x: x.swapaxes(2, 3)[..., ::-1].copy(),
    'turned back': lambda x: x.swapaxes(2, 3)[..., ::-1, :].copy(),
    'with red and blue exchanged': lambda x: x[:, ::-1].copy()}


@check('images', early=True, limit=500, below=True,
       why='healthy runs from 4500, sick ones to 100')
def few_pictures(p: Patient) -> Finding:
    "Whether there are so few that they will be copied."
    return Finding('training pictures', f'{len(p.images):,}', len(p.images),
                   'find more, or stop early: few are learned by heart', 'likely')


@check('images', early=True, limit=0.1, below=True, why='ten times fewer than the mean')
def rare_class(p: Patient) -> Finding:
    "Whether a class has hardly any pictures."
    if len(p.images.classes) < 2 or p.images.labels is None:
        return Finding('classes', 'fewer than two', told=False)
    counts = p.images.labels_at().bincount(minlength=len(p.images.classes)).numpy()
    k = int(counts.argmin())
    return Finding(f'pictures of class {p.images.classes[k]}',
                   f'{counts[k]:,}, and {counts.mean():,.0f} of a class in the mean',
                   counts[k] / counts.mean(), 'find more, or leave the class out', 'certain')


@check('images', 'held_out', 'config', early=True, least=20, limit=0.3, after=('another kind',),
       why='healthy runs to 0, sick ones from 0.519')
def flips(p: Patient) -> Finding:
    "Whether pictures are mirrored that must not be: mirrored, they are farther from the others."
    x, known = some(p.held_out, 200).pixels, some(p.images, 3000).pixels
    plain, mirrored = (nearest(each, known)[0] for each in (x, x[..., ::-1].copy()))
    usual = plain.mean() + 1e-9                             # 0 where all are training pictures
    d = paired((mirrored / usual).numpy(), (plain / usual).numpy())
    return Finding('mirrored held-out pictures, farther from real ones than plain ones',
                   f'by {d.mean:.0%} ± {d.reach:.0%}',
                   (d.mean - SURE * d.error) * (p.config.data.augment == 'flip'),
                   'train without --augment flip')


@check('images', 'held_out', early=True, limit=2, below=True, after=('blank', 'another kind'),
       why='standard errors from chance')
def labels(p: Patient) -> Finding:
    "Whether classes have anything to do with pictures."
    if len(p.images.classes) < 2 or p.held_out.labels is None:
        return Finding('classes', 'fewer than two', told=False)
    (_, near, told), (_, theirs, mine) = p.kin['held-out'], p.kin['training']
    same, among = (near == told).mean(), (theirs == mine).mean()
    counts = p.images.labels_at().bincount(minlength=len(p.images.classes)).numpy()
    share = counts / len(p.images)
    chance = share[told].mean()
    error = (chance * (1 - chance) / len(told) + 1e-12)**0.5
    enough = 4 * error < 0.101 and chance < 0.8     # else right labels may look like wrong ones
    found = (f'that of a held-out picture for {same:.0%}, {chance:.0%} by chance; among training '
             f'pictures {among:.0%}')
    return Finding('class of the most similar training picture',
                   found + ': too few to tell' * (not enough), (same - chance) / error,
                   'do labels and pictures have the same order? classes may also differ in what '
                   'pixels do not show', 'cause open', enough)


@check('images', 'held_out', early=True, least=50, limit=0.02,
       after=('blank', 'labels', 'another kind'),
       why='healthy runs to -0.01509, sick ones from 0.04517')
def labels_differ(p: Patient) -> Finding:
    """Whether classes say less of held-out pictures than of training pictures, or more: both are
    compared with the most similar training picture, so wrong labels count once in one, and twice in
    the other."""
    if len(p.images.classes) < 2 or p.held_out.labels is None:
        return Finding('classes', 'fewer than two', told=False)
    same, among = ((near == told).astype(float) for _, near, told in
                   (p.kin['held-out'], p.kin['training']))
    error = (same.var() / len(same) + among.var() / len(among))**0.5
    return Finding('class of the most similar training picture',
                   f'that of a held-out picture for {same.mean():.0%}, of a training picture for '
                   f'{among.mean():.0%}', abs(same.mean() - among.mean()) - SURE * error,
                   'are some labels wrong, of training pictures or of held-out ones?', 'cause open')


@check('config', early=True, limit=0.5, below=True, after=('log and settings',),
       why='healthy runs from 1, sick ones to 0.002')
def rate(p: Patient) -> Finding:
    "Whether the learning rate will rise to its peak."
    t = p.config.training
    highest = lr_at(min(max(1, t.warmup), t.steps) - 1, t)
    return Finding(f'the highest learning rate in {t.steps:,} steps',
                   f'{highest:.2g}, and --lr {t.lr:g}, after {t.warmup:,} steps of warm-up',
                   highest / t.lr if t.lr else 0.0,
                   'a smaller --warmup, or more --steps' if t.lr else 'set --lr', 'certain',
                   told=t.steps >= 100)                     # fewer are a trial


@check('config', early=True, limit=1, why='each setting over a bound of its own')
def settings(p: Patient) -> Finding:
    "Whether a setting is so far from usual that hardly anything can be learned."
    t, n = p.config.training, p.config.network
    over = {f'weights shrink by {t.lr * t.weight_decay:.1%} a step (--lr times --weight-decay)':
            t.lr * t.weight_decay / 0.02,                   # they forget in 50 steps
            f'gradients are cut to --clip {t.clip:g}, and AdamW adds 1e-8 to each number':
            1e-5 / t.clip,
            f'--dropout {n.dropout:g}': n.dropout / 0.6, f'--batch {t.batch}': 3.5 / t.batch}
    said = max(over, key=lambda said: over[said])
    return Finding('the least usual of four settings', said, over[said],
                   'take one nearer to that of a preset')


@check('config', early=True, limit=0.6, why='without classes a network cannot learn them')
def labels_dropped(p: Patient) -> Finding:
    "Whether a network that is told classes is mostly told none."
    share = p.config.training.label_drop if p.config.num_classes else 0.0
    return Finding('labels dropped in training', f'{share:.0%}', share, 'a smaller --label-drop')


@check('config', early=True, limit=0.02, after=('log and settings',),
       why='healthy runs to 0, sick ones from 0.9802')
def slow_average(p: Patient) -> Finding:
    "Whether the averaged weights will still be the first, random ones."
    t = p.config.training
    begins_random = t.average == 'ema' and not t.ema_warmup and not t.init
    left = t.ema ** t.steps if begins_random else 0.0
    return Finding(f'an average with decay {t.ema:g} over {t.steps:,} steps',
                   f'{left:.1%} of it are the first weights', left,
                   'a smaller --ema, or --ema-warmup', 'certain')


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
                   need / have, 'more slices (--accumulate), or a smaller --batch')


@check('log', 'config', limit=0, why='one rule gives each of these numbers')
def log_and_settings(p: Patient) -> Finding:
    "Whether the log contradicts itself, the settings, or the step that the weights are of."
    t, last = p.config.training, p.log[-1]
    steps = [line['step'] for line in p.log if 'step' in line]
    found = {'steps go back': steps != sorted(set(steps)),
             'a loss lies outside its quarters': any(map(outside, p.log))}
    if steps and 'lr' in last:      # earlier lines may be of a shorter plan
        due = lr_at(steps[-1] - 1, t)
        found[f'the last learning rate is {last["lr"]:.4g}, and {due:.4g} by the settings'] = (
            abs(last['lr'] - due) > 1e-3 * due)
    if steps and p.step is not None:
        found[f'the log ends at step {steps[-1]:,}, the weights are of step {p.step:,}'] = (
            abs(steps[-1] - p.step) > max(t.save_every, t.log_every))
    said = [name for name, true in found.items() if true]
    return Finding('log, settings and weights', '; '.join(said) or 'agree', len(said),
                   'is one of them of another run, older, or edited?', 'cause open')


def outside(line: Mapping[str, Any]) -> bool:
    "Whether a line's loss is none between those of its quarters of t, whose mean it is."
    known = [quarter for quarter in line.get('loss_quarters', ()) if quarter is not None]
    return bool(known) and not min(known) <= line['loss'] * (1 + 1e-6) <= max(known) * (1 + 2e-6)


@check('config', limit=2000, below=True, why='healthy runs from 1.28e+04, sick ones to 640')
def little_training(p: Patient) -> Finding:
    "Whether a network was shown few pictures in all."
    t = p.config.training
    steps = p.step or (p.log[-1].get('step') if p.log else None) or t.steps
    return Finding(f'pictures shown in {steps:,} steps', f'{steps * t.batch:,}', steps * t.batch,
                   'train longer', told=not t.init)


@check('raw', 'model', 'config', limit=0.02, after=('rate', 'settings', 'slow average'),
       why='training moves each of them')
def frozen_weights(p: Patient) -> Finding:
    "Whether weights, or their averages, are still exactly those of the first step."
    if p.config.training.init:
        return Finding('first weights', 'of another run', told=False)
    first = build_network(p.config).state_dict()

    def share(network: Any) -> float:
        now = network.state_dict()
        same = [torch.equal(w.cpu(), first[name]) for name, w in now.items()
                if name in first and first[name].shape == w.shape]
        return float(np.mean(same or [False]))
    raw, averaged = share(p.raw.network), share(p.model.network)
    return Finding('tables of weights that are as before the first step',
                   f'{raw:.0%} of the raw ones, {averaged:.0%} of the averaged ones',
                   max(raw, averaged), 'does the optimizer have them all, does a gradient reach '
                   'them, does the average follow them?', 'cause open')


@check('model', limit=1e-3, why='one undoes the other')
def objective(p: Patient) -> Finding:
    "Whether the right answer, read as answers are read, gives the picture back."
    x0, eps = (torch.randn(2, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    signal, sigma = (torch.tensor(LEVELS, dtype=torch.float64)[:, None] ** 0.5,
                     (1 - torch.tensor(LEVELS, dtype=torch.float64)[:, None]) ** 0.5)
    how, xt = p.model.objective, signal * x0 + sigma * eps
    found = how.solve(how.target(x0, eps, signal, sigma), xt, signal, sigma)[0]
    error = (found - x0).square().mean().sqrt().item()
    return Finding('a picture, solved from its right answer', f'is off by {error:.2g}', error,
                   "the objective's target and solve do not belong together", 'certain')


@check('log', 'config', limit=0.9, after=(*BEGUN, 'objective'),
       why='healthy runs to 0.2114, sick ones from 0.9906')
def flat_loss(p: Patient) -> Finding:
    "Whether the training loss never fell. That it falls no more is no illness."
    if len(p.log) < 8:
        return Finding('the log', f'{len(p.log)} lines: too few to tell', told=False)
    first, now = p.log[0]['loss'], np.median([line['loss'] for line in p.log[-(len(p.log) // 4):]])
    return Finding('training loss', f'{first:.3g} at first, {now:.3g} in the last quarter of the '
                   'log', now / first if math.isfinite(now) else math.inf,
                   'another --lr? do gradients reach the weights?', 'cause open',
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
                   'look for damaged pictures; else a smaller --lr or --clip', 'cause open')


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
                   'go back to a checkpoint before it; a smaller --lr',
                   'certain' if exact < broken else 'cause open')


@check('model', 'raw', 'held_out', limit=0.02,
       after=(*BEGUN, 'not finite', 'slow average', *FOREIGN),
       why='healthy runs to 0.004306, sick ones from 0.1057')
def late_average(p: Patient) -> Finding:
    "Whether the averaged weights are worse than the raw ones."
    mine, raw = (picture_errors(model, *p.questions(200)) for model in (p.model, p.raw))
    d = paired(mine, raw)
    return Finding('errors of averaged weights, less those of raw ones',
                   f'{d.mean:+.4f} ± {d.reach:.1g}, of {raw.mean():.3f}',
                   (d.mean - SURE * d.error) / raw.mean(),
                   'a smaller --ema, --ema-warmup, or more steps? was it saved and loaded with '
                   'the run?', 'cause open')


@check('model', 'raw', limit=0.5, after=BEGUN, why='all weights are equal, or hardly any')
def no_average(p: Patient) -> Finding:
    "Whether samples are drawn with the raw weights."
    mine, raw = p.model.network.state_dict(), p.raw.network.state_dict()
    same = all(torch.equal(mine[name], raw[name]) for name in raw)
    none = bool(p.config) and p.config.training.average == 'ema' and p.config.training.ema == 0
    return Finding('averaged and raw weights', ('equal' if same else 'not equal')
                   + ', --ema is 0' * none, float(same),
                   'average them, for example --ema 0.999' if none else
                   'does the average follow the weights, for example --ema 0.999? was one file '
                   'saved as the other?', 'certain' if none else 'cause open')


@check('model', 'raw', limit=0.5, after=(*BEGUN, 'not finite', 'slow average', 'late average'),
       why='healthy runs to 0.01174, sick ones from 1.407')
def average_apart(p: Patient) -> Finding:
    "Whether averaged weights are far from the raw ones, as those of another run are."
    mine, raw = p.model.network.state_dict(), p.raw.network.state_dict()
    pairs = [(mine[name].double().cpu(), w.double().cpu()) for name, w in raw.items()
             if w.ndim > 1 and name in mine]
    far, size = (sum(x.square().sum().item() for x in each) ** 0.5 for each in (
        [a - b for a, b in pairs], [b for _, b in pairs]))
    return Finding('averaged weights, less raw ones', f'{far / (size + 1e-12):.2f} times as large '
                   'as these', far / (size + 1e-12), 'are both of this run?', 'cause open')


@check('model', 'config', limit=0.2, after=('another kind', *UNTRAINED),
       why='healthy runs to 0, sick ones from 0.4136')
def reading(p: Patient) -> Finding:
    """Whether the network's answers make sense if it was trained otherwise, and more than as the
    settings say: about held-out pictures, else about those that it draws. Of answers that make no
    sense either way, one reading is always the best."""
    x0, y = p.questions()
    errors = {name: level_errors(other, x0, y)
              for name, other in readings(p.model, p.config).items()}
    half = 'pictures in [0, 1]'
    errors[half] = 4 * level_errors(p.model, (x0 + 1) / 2, y)
    best = min(errors, key=lambda name: errors[name].mean())
    plain = 4 * pixel_filter(x0 / 2) if best == half else pixel_filter(x0)
    times = (errors[best].mean(1) / (plain + 1e-9)).max()
    own, other = picture_errors(p.model, x0, y), errors[best].mean(0)
    d, fits = paired(own, other), times < FITS or len(x0) < 20
    return Finding(f'errors of guessed pictures under {len(errors)} other readings',
                   f'{own.mean():.3f} as the settings say, {other.mean():.3f} ± {d.reach:.1g} with '
                   f'{best}, which errs up to {times:.1f} times as much as a filter of each pixel'
                   + ': it does not fit either' * (not fits),
                   (d.mean - SURE * d.error) / own.mean() if fits else 0.0,
                   f'it seems to have been trained with {best}')


@check('model', 'held_out', least=20, limit=0.8, after=('another kind', *UNTRAINED, 'reading'),
       why='healthy runs to 0.6379, sick ones from 0.9882')
def nothing_learned(p: Patient) -> Finding:
    "Whether the network guesses pictures no better than their mean."
    x0, y = p.questions()
    error = float(picture_errors(p.model, x0, y, (0.7, 0.5)).mean())
    mean = (x0 - x0.mean(0)).square().mean().item()
    return Finding('error of guessed pictures, at middling noise',
                   f'{error:.3f}, and {mean:.3f} for the mean of all pictures', error / mean,
                   'another --lr, ten times smaller or larger? longer training?', 'cause open')


@check('model', 'held_out', least=20, limit=2,
       after=('few pictures', 'trained too long', 'copies', *MISREAD),
       why='healthy runs to 1.01, sick ones from 4.65')
def weak_level(p: Patient) -> Finding:
    """Whether at some level of noise the network does worse than a filter that knows of each pixel
    no more than its mean and variance."""
    x0, y = p.questions()
    times = level_errors(p.model, x0, y).mean(1) / pixel_filter(x0)
    k = int(times.argmax())
    return Finding(f'error of guessed pictures where the picture is {LEVELS[k]:.0%} of the variance',
                   f'{times[k]:.2f} times that of a filter of each pixel; elsewhere from '
                   f'{times.min():.2f} times', times[k],
                   'is this level trained: schedule, times, weights of the loss?', 'cause open')


@check('model', limit=1e-3, below=True, after=MISREAD, why='rounding differs by less')
@torch.no_grad()
def time_ignored(p: Patient) -> Finding:
    "Whether the network answers the same whatever t it is given."
    x0, y = p.questions(16)
    x = (x0 + normal(x0.shape[1:], 0, Purpose.HELDOUT_NOISE, 0, range(len(x0)))).to(p.model.device)
    told = None if y is None else y.to(x.device)
    T = p.model.schedule.T
    one, other = (p.model.eval().answer(x, torch.full((len(x),), t, device=x.device), told)
                  for t in (T // 8, T * 3 // 4))
    size = one.norm().item()
    return Finding('answers to the same picture at two t', f'differ by {(one - other).norm():.2g}, '
                   f'of {size:.2g}', (one - other).norm().item() / (size + 1e-12),
                   'does the network use t? some learn well without', 'cause open', size > 0)


@check('model', 'held_out', least=50, limit=0.02, below=True,
       after=('labels', 'labels dropped', 'labels differ', *MISREAD),
       why='healthy runs from 0.1313, sick ones to -6.209e-05')
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
                   'cause open')


@check('model', 'raw', limit=0.01, below=True, after=('no average', 'slow average'),
       why='what is never used never changes: 0')
def guidance_untrained(p: Patient) -> Finding:
    "Whether the vector of no class, which guidance needs, is the same in averaged and raw weights."
    rows, raw = len(p.model.classes) + 1, p.raw.network.state_dict()
    moved = [(w - raw[name]).norm(dim=1) for name, w in p.model.network.state_dict().items()
             if w.ndim == 2 and len(w) == rows]             # the vectors of all classes
    if not p.model.can_guide or len(moved) != 1 or not moved[0].any():
        return Finding('guidance', 'it has no vector of no class', told=False)
    ratio = (moved[0][-1] / (moved[0][:-1].mean() + 1e-12)).item()
    return Finding('averaged and raw vector of no class', f'{ratio:.2g} times as far apart as '
                   'those of classes', ratio,
                   'train with --label-drop 0.1, or sample with --guidance 1', 'certain')


@check('log', 'config', 'raw', 'images', limit=0.5,
       after=('objective', 'log and settings', 'not finite', 'flat loss', 'reading', 'weak level',
              'copies'),
       why='healthy runs to -0.08083, sick ones from 2.033')
def easier_than_asked(p: Patient) -> Finding:
    "Whether training pictures under new noise have a far larger loss than the log says."
    if not p.log or p.config.diffusion.loss != 'simple':
        return Finding('the log', 'of another loss', told=False)
    logged = np.mean([line['loss'] for line in p.log[-(len(p.log) // 4 + 1):]])
    error = p.anew.std(ddof=1) / len(p.anew)**0.5
    return Finding('loss of training pictures under new noise', f'{p.anew.mean():.3g}, and '
                   f'{logged:.3g} in the log',
                   (p.anew.mean() - SURE * error) / logged - 1,
                   'is the noise new in every step? are weights and log of one run?', 'cause open')


@check('log', 'config', 'raw', 'images', limit=1.8,
       after=('few pictures', 'spikes', 'easier than asked', *MISREAD),
       why='healthy runs to 1.482, sick ones from 2.851')
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


@check('model', 'images', 'held_out', least=20, limit=0.33,
       after=('few pictures', 'labels differ', *MISREAD),
       why='healthy runs to -0.1633, sick ones from 0.5772')
def trained_too_long(p: Patient) -> Finding:
    "Whether held-out pictures have a larger loss than those that were trained on."
    unseen, seen = (answers(p.model, some(images, 400)) for images in (p.held_out, p.images))
    error = (unseen.var() / len(unseen) + seen.var() / len(seen))**0.5
    more = unseen.mean() - seen.mean()
    return Finding('eps mse of held-out pictures and of training pictures',
                   f'{unseen.mean():.4f} and {seen.mean():.4f}',
                   (more - SURE * error) / seen.mean(),
                   'stop earlier, or find more pictures')


@check('scores', limit=5, below=True,
       why='from n samples a distance of d features is too large by about d / n')
def few_samples_judged(p: Patient) -> Finding:
    "Whether a distance in test.json rests on too few samples to be compared."
    s = p.scores
    return Finding(f'the distance in test.json, by {s["features"]:,} features',
                   f'{s["n"]:,} samples, guidance {s["guidance"]:g}', s['n'] / s['features'],
                   f'at least {5 * s["features"]:,}; beside published ones 50,000, with the same '
                   'features, resizing, rounding to bytes, reference and guidance',
                   'certain')


# -- what it draws ----------------------------------------------------------------------------


@check('model', limit=0.01, after=(*MISREAD, 'noise in the last step'),
       why='healthy runs to 0, sick ones from 0.3136')
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
                   'index', 'cause open')


@check('model', limit=0.4, after=('objective', 'not finite', 'out of range', 'more noise than told',
                                   'noise in the last step'),
       why='healthy runs to 0.1271, sick ones from 0.4544')
def sampler(p: Patient) -> Finding:
    "Whether samples come out as they should where a network answers exactly: then it is not at fault."
    mean, std = 0.2, 0.3
    model = with_exact_answers(p.model, mean, std)
    x = walk_to_the_end(model, range(64), torch.full((64,), -1), replace(p.how, guidance=1))
    return Finding(f'samples with exact answers for pixels of mean {mean} and deviation {std}',
                   f'mean {x.mean():.3f}, deviation {x.std():.3f}',
                   max(abs(x.mean().item() - mean) / std, abs(math.log(x.std().item() / std))),
                   'other --sampler settings: steps, variance, eta; an own sampler may be wrong',
                   'cause open')


@check('model', 'images', 'held_out', limit=0.5, below=True,
       after=('few pictures', 'trained too long', *MISREAD),
       why='healthy runs from 1.117, sick ones to 0.3521')
def copies(p: Patient) -> Finding:
    "Whether samples lie much nearer to training pictures than held-out pictures do."
    drawn, others = to_uint8(p.samples.nan_to_num()), some(p.held_out, 500).pixels
    mine, unseen = (nearest_distances(x, p.images.pixels).median().item() for x in (drawn, others))
    return Finding('distance to the nearest training picture',
                   f'{mine:.2f} for samples, {unseen:.2f} for held-out pictures',
                   mine / (unseen + 1e-9),
                   'more pictures, or stop earlier? does the loader show them all?', 'cause open')


@check('model', 'held_out', least=2, limit=0.1, after=(*MISREAD, 'sampler', 'more noise than told'),
       why='healthy runs to -0.01107, sick ones from 0.1969')
def tint(p: Patient) -> Finding:
    "Whether samples are brighter, darker or of another tint than real pictures."
    mine, real = (x.nan_to_num().mean((2, 3)).double() for x in (p.samples, p.real))
    off = mine.mean(0) - real.mean(0)
    error = (mine.var(0) / len(mine) + real.var(0) / len(real)).sqrt()
    sure = off.abs() - SURE * error
    k = int(sure.argmax())
    return Finding('mean brightness of each channel, less that of real pictures',
                   ', '.join(f'{x:+.3f}' for x in off.tolist()), sure[k].item(),
                   'train longer; does the schedule end in noise? is the range [-1, 1]? are '
                   'red, green and blue in this order?', 'cause open')


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
