"The checks: each looks for one symptom; `CHECKS` holds them all."

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch

from ..config import SamplingConfig
from ..data.sets import to_uint8
from .evaluation import nearest_distances
from .lab import answers, paired
from .patient import (
    Patient, bytes_per_picture, mirrored_apart, noise_shown, picture_errors, readings, small, some)
from ..run.pictures import fingerprints


@dataclass(frozen=True)
class Finding:
    "What a check looked at and found; where something is ill, what to do, and how sure that is."
    looked: str
    found: str
    ill: bool = False
    do: str = ''
    sure: str = 'certain'

    def __str__(self) -> str:
        said = f'{self.looked}: {self.found}'
        return f'{said}; {self.do} ({self.sure})' if self.ill else said


# -- pictures and settings --------------------------------------------------------------------


def grey_as_colour(p: Patient) -> Finding:
    "Whether colour pictures have no colour."
    x = some(p.images, 1000).pixels
    grey = float((x == x[:, :1]).all((1, 2, 3)).mean()) if p.images.channels > 1 else 0.0
    return Finding(f'{p.images.channels} channels', f'equal in {grey:.0%} of the pictures',
                   grey > 0.99, 'train on grey ones, --image-channels 1')


def twins(p: Patient) -> Finding:
    "Whether pictures are there more than once."
    share = 1 - len(np.unique(p.prints)) / len(p.prints)
    return Finding(f'{len(p.prints):,} pictures', f'{share:.1%} repeat another one', share > 0.05,
                   'leave doubles out (fdupes finds equal files); of samples: give each '
                   'process noise of its own')


def seen_before(p: Patient) -> Finding:
    "Whether held-out pictures are among those that are trained on."
    share = np.isin(fingerprints(p.held_out), p.prints).mean()
    return Finding(f'{len(p.held_out):,} held-out pictures', f'{share:.1%} are trained on',
                   bool(share > 0.05), 'leave doubles out, and keep held-out pictures apart')


def few_pictures(p: Patient) -> Finding:
    "Whether there are so few that they will be copied."
    return Finding('training pictures', f'{len(p.images):,}', len(p.images) < 500,
                   'find more, or stop early: few are learned by heart', 'likely')


def flips(p: Patient) -> Finding:
    "Whether pictures are mirrored that must not be."
    d, unlike = mirrored_apart(p)
    return Finding('mirrored held-out pictures, farther from real ones than plain ones',
                   f'by {d.mean:.0%} ± {d.reach:.0%}', unlike and p.config.data.augment == 'flip',
                   'train without --augment flip', f'{d.away:.0f} standard errors')


def labels(p: Patient) -> Finding:
    "Whether classes have anything to do with pictures."
    if len(p.images.classes) < 2 or p.held_out.labels is None:
        return Finding('classes', 'fewer than two')
    asked, known = some(p.held_out, 1000), some(p.images, 3000)
    near, told = torch.cdist(small(asked.pixels), small(known.pixels)).argmin(1), asked.labels_at()
    same = (known.labels_at()[near] == told).double().mean().item()
    share = p.images.labels_at().bincount(minlength=len(p.images.classes)).double() / len(p.images)
    chance = share[told].mean().item()
    error = (chance * (1 - chance) / len(asked) + 1e-12)**0.5
    enough = 4 * error < 0.101 and chance < 0.8     # else right labels may look like wrong ones
    alike = same - chance < 2 * error                       # to what chance would give
    found = f'the same for {same:.0%}, {chance:.0%} by chance'
    return Finding('class of the most similar picture',
                   f'{found}: too few to tell' if alike and not enough else found,
                   enough and alike,
                   'do labels and pictures have the same order?',
                   'likely: classes may also differ in what pixels do not show')


def slow_average(p: Patient) -> Finding:
    "Whether the averaged weights will still be the first, random ones."
    t = p.config.training
    begins_random = t.average == 'ema' and not t.ema_warmup and not t.init
    left = t.ema ** t.steps if begins_random else 0.0
    return Finding(f'an average with decay {t.ema:g} over {t.steps:,} steps',
                   f'{left:.1%} of it are the first weights', left > 0.02,
                   'a smaller --ema, or --ema-warmup')


def memory(p: Patient) -> Finding:
    "Whether a training step needs more memory than there is."
    t, device = p.config.training, p.raw.device
    if not any(w.requires_grad for w in p.raw.network.parameters()):
        return Finding('memory for a step', 'nothing is trained here')
    fixed = 20 * sum(w.numel() for w in p.raw.network.parameters())
    need = fixed + bytes_per_picture(p.raw) * math.ceil(t.batch / t.accumulate)
    have = (torch.cuda.mem_get_info(device)[0] + fixed * 8 // 20 if device.type == 'cuda' else
            os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES'))
    return Finding('memory for a step', f'about {need / 2**30:.2g} GB of {have / 2**30:.3g}',
                   need > have, 'more slices (--accumulate), or a smaller --batch', 'likely')


# -- the network, asked about pictures ---------------------------------------------------------


def reading(p: Patient) -> Finding:
    """Whether the network's answers make more sense if it was trained otherwise: about held-out
    pictures, else about those that it draws."""
    x0, y = p.questions()
    errors = {name: picture_errors(other, x0, y)
              for name, other in readings(p.model, p.config.diffusion.schedule).items()}
    errors['pictures in [0, 1]'] = 4 * picture_errors(p.model, (x0 + 1) / 2, y)
    best = min(errors, key=lambda name: errors[name].mean())
    own = picture_errors(p.model, x0, y)
    d = paired(own, errors[best])
    return Finding(f'errors of guessed pictures under {len(errors)} other readings',
                   f'{own.mean():.3f} as the settings say, {errors[best].mean():.3f} with {best}',
                   bool(d.away > 4 and errors[best].mean() < 0.8 * own.mean()),
                   f'it seems to have been trained with {best}',
                   f'{d.away:.0f} standard errors')


def late_average(p: Patient) -> Finding:
    "Whether the averaged weights are worse than the raw ones."
    mine, raw = (picture_errors(model, *p.questions(200)) for model in (p.model, p.raw))
    d = paired(mine, raw)
    return Finding('errors of averaged weights, less those of raw ones',
                   f'{d.mean:+.4f} ± {d.reach:.1g}, of {raw.mean():.3f}',
                   bool(d.away > 4 and d.mean > 0.02 * raw.mean()),
                   'a smaller --ema, --ema-warmup, or more steps; kept in float32?',
                   f'{d.away:.0f} standard errors')


def class_ignored(p: Patient) -> Finding:
    "Whether the right class helps no more than another one."
    if not p.model.classes or len(p.held_out.classes) < 2:
        return Finding('classes', 'it is told none, or one')
    x0, y = p.questions(200)
    assert y is not None                            # it is told classes
    right, wrong = (picture_errors(p.model, x0, told, (0.3, 0.1, 0.03, 0.01))
                    for told in (y, (y + 1) % len(p.held_out.classes)))
    d, enough = paired(right, wrong), len(x0) >= 50
    alike = bool(d.away > -4 or d.mean > -0.02 * wrong.mean())
    return Finding('errors with the right class, less those with another',
                   f'{d.mean:+.4f} ± {d.reach:.1g}, of {wrong.mean():.3f}'
                   + ': too few to tell' * (alike and not enough), alike and enough,
                   'do labels and pictures have the same order? is the class told in training?',
                   f'they are {d.away:.0f} standard errors apart')


def no_average(p: Patient) -> Finding:
    "Whether samples are drawn with the raw weights."
    mine, raw = p.model.network.state_dict(), p.raw.network.state_dict()
    same = all(torch.equal(mine[name], raw[name]) for name in raw)
    return Finding('averaged and raw weights', 'equal' if same else 'not equal', same,
                   'average them, for example --ema 0.999')


def nothing_learned(p: Patient) -> Finding:
    "Whether the network guesses pictures no better than their mean."
    x0, y = p.questions()
    error = float(picture_errors(p.model, x0, y, (0.7, 0.5)).mean())
    mean = (x0 - x0.mean(0)).square().mean().item()
    return Finding('error of guessed pictures, at middling noise',
                   f'{error:.3f}, and {mean:.3f} for the mean of all pictures',
                   not error < 0.8 * mean, 'another --lr: ten times smaller, ten times larger',
                   'likely')


def flat_loss(p: Patient) -> Finding:
    "Whether the training loss never fell; else what it does now."
    lines = [line for line in p.log if 'loss' in line]
    if len(lines) < 8:
        return Finding('the log', f'{len(lines)} lines: too few to tell')
    fourth = len(lines) // 4
    rows = np.array([[line['loss'], *line['loss_quarters']] for line in lines], float)
    if not np.isfinite(rows[-fourth:, 0]).all():
        return Finding('training loss', 'no number any more', True, 'a smaller --lr')
    before, now = (np.ma.masked_invalid(rows[part]).mean(0).filled(np.nan)
                   for part in (slice(-2 * fourth, -fourth), slice(-fourth, None)))
    fell = 1 - now / before
    most = 1 + int(np.argmax(np.nan_to_num(fell[1:], nan=-np.inf)))
    fresh = not p.config.training.init                  # else it may begin with a low loss
    return Finding('training loss', f'{rows[0, 0]:.3g} at first, {now[0]:.3g} in the last quarter '
                   f'of the log, {fell[0]:.1%} less than in the third; in quarter {most} of t '
                   f'{fell[most]:.1%} less', bool(fresh and now[0] > 0.9 * rows[0, 0]),
                   'another --lr')


def trained_too_long(p: Patient) -> Finding:
    "Whether held-out pictures have a larger loss than those that were trained on."
    unseen, seen = (answers(p.model, some(images, 400)) for images in (p.held_out, p.images))
    error = (unseen.var() / len(unseen) + seen.var() / len(seen))**0.5
    away = (unseen.mean() - seen.mean()) / error
    return Finding('eps mse of held-out pictures and of training pictures',
                   f'{unseen.mean():.4f} and {seen.mean():.4f}',
                   bool(away > 4 and unseen.mean() > 1.33 * seen.mean()),
                   'stop earlier, or find more pictures', f'{away:.0f} standard errors')


def mirrored(p: Patient) -> Finding:
    "Whether a network takes mirrored pictures for real ones, where they are not."
    x0, y = p.questions(200)
    other, own = (picture_errors(p.model, x, y, (0.3, 0.1, 0.05)) for x in (x0.flip(3), x0))
    d, (data, unlike) = paired(other, own), mirrored_apart(p)
    return Finding('error on mirrored pictures, less that on plain ones',
                   f'{d.mean:+.4f} ± {d.reach:.2g}; in the data mirrored ones are {data.mean:.0%} '
                   'farther from real ones',
                   bool(unlike and d.mean + 4 * d.error < 0.1 * own.mean()),
                   'was it trained with flips? leave them out', 'likely')


def few_samples_judged(p: Patient) -> Finding:
    "Whether a distance in test.json rests on too few samples to be compared."
    s = p.scores
    return Finding(f'the distance in test.json, by {s["features"]:,} features',
                   f'{s["n"]:,} samples, guidance {s["guidance"]:g}', s['n'] < 5 * s['features'],
                   f'at least {5 * s["features"]:,}; beside published ones 50,000, with the same '
                   'features, reference and guidance', 'certain: it is too large')


# -- what it draws ----------------------------------------------------------------------------


def more_noise_than_told(p: Patient) -> Finding:
    """Whether the network is shown another noise than it is told, somewhere on the way, and is not
    in the usual walk: else the network is at fault, which may need training."""
    def worst(how: SamplingConfig) -> tuple[int, float]:
        return max(noise_shown(replace(p, how=how)),
                   key=lambda seen: abs(math.log(max(seen[1], 1e-9))))
    t, ratio = worst(p.how)
    off = not 0.6 < ratio < 1.5
    by_how = off and 0.6 < worst(SamplingConfig(guidance=1))[1] < 1.5
    return Finding('the noise in what the network is shown on the way',
                   f'{ratio:.2f} times what it is told, at t = {t}'
                   + ', as in the usual walk: is it trained?' * (off and not by_how), by_how,
                   'where answers are read rightly: few steps want the small variance, and an own '
                   'sampler must tell the right index', 'likely')


def copies(p: Patient) -> Finding:
    "Whether samples lie much nearer to training pictures than held-out pictures do."
    drawn, others = to_uint8(p.samples.nan_to_num()), some(p.held_out, 500).pixels
    mine, unseen = (nearest_distances(x, p.images.pixels).median().item() for x in (drawn, others))
    return Finding('distance to the nearest training picture',
                   f'{mine:.2f} for samples, {unseen:.2f} for held-out pictures',
                   mine < 0.5 * unseen, 'more pictures, or stop earlier', 'likely')


def not_finite(p: Patient) -> Finding:
    "Whether samples are numbers."
    share = 1 - p.samples.isfinite().flatten(1).all(1).float().mean().item()
    return Finding('samples', f'{share:.0%} have values that are not finite', share > 0,
                   'go back to a checkpoint before it; a smaller --lr; not fp16')


def tint(p: Patient) -> Finding:
    "Whether samples are brighter, darker or of another tint than real pictures."
    mine, real = (x.nan_to_num().mean((2, 3)).double() for x in (p.samples, p.real))
    apart = mine.mean(0) - real.mean(0)
    away = apart / (mine.var(0) / len(mine) + real.var(0) / len(real)).sqrt()
    k = int(apart.abs().argmax())
    return Finding('mean brightness of each channel, less that of real pictures',
                   ', '.join(f'{x:+.3f}' for x in apart.tolist()),
                   bool(apart[k].abs() > 0.1 and away[k].abs() > 4),
                   'train longer; does the schedule end in noise? is the range [-1, 1]? are '
                   'red, green and blue in this order?',
                   f'{away[k].abs():.0f} standard errors')


def colour_from_grey(p: Patient) -> Finding:
    "Whether samples have colours that real pictures have not."
    mine, real = ((x.amax(1) - x.amin(1)).mean().item() for x in (p.samples, p.real))
    return Finding('colour: largest less smallest channel',
                   f'{mine:.3f}, of real pictures {real:.3f}', real < 0.01 and mine > 0.02,
                   'train on one channel, --image-channels 1', 'likely')


def out_of_range(p: Patient) -> Finding:
    "Whether pixels leave [-1, 1] when pictures are drawn."
    share = (p.samples.nan_to_num().abs() > 1.05).float().mean().item()
    return Finding('pixels of samples', f'{share:.1%} are beyond [-1, 1] by more than 0.05',
                   share > 0.01, 'clip the guessed image (leave --no-clip out); less guidance',
                   'likely')


# -- all of them ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Check:
    "How to look for one symptom."
    look: Callable[[Patient], Finding]
    needs: tuple[str, ...]      # fields of the patient, without which it is left out
    early: bool = False         # before training; together these take less than a second
    least: int = 0              # held-out pictures that it takes to tell


CHECKS: dict[str, Check] = {        # causes before consequences
    'grey as colour': Check(grey_as_colour, ('images',), early=True),
    'twins': Check(twins, ('images',), early=True),
    'seen before': Check(seen_before, ('images', 'held_out'), early=True),
    'few pictures': Check(few_pictures, ('images',), early=True),
    'flips': Check(flips, ('images', 'held_out', 'config'), early=True, least=20),
    'labels': Check(labels, ('images', 'held_out'), early=True),
    'slow average': Check(slow_average, ('config',), early=True),
    'memory': Check(memory, ('raw', 'config'), early=True),
    'reading': Check(reading, ('model', 'config')),
    'late average': Check(late_average, ('model', 'raw', 'held_out')),
    'class ignored': Check(class_ignored, ('model', 'held_out')),
    'no average': Check(no_average, ('model', 'raw')),
    'nothing learned': Check(nothing_learned, ('model', 'held_out'), least=20),
    'flat loss': Check(flat_loss, ('log', 'config')),
    'trained too long': Check(trained_too_long, ('model', 'images', 'held_out'), least=20),
    'mirrored': Check(mirrored, ('model', 'images', 'held_out'), least=20),
    'few samples judged': Check(few_samples_judged, ('scores',)),
    'more noise than told': Check(more_noise_than_told, ('model', 'held_out')),
    'copies': Check(copies, ('model', 'images', 'held_out')),
    'not finite': Check(not_finite, ('model',)),
    'tint': Check(tint, ('model', 'held_out'), least=2),
    'colour from grey': Check(colour_from_grey, ('model', 'held_out')),
    'out of range': Check(out_of_range, ('model',)),
}


def missing(p: Patient, check: Check) -> tuple[str, ...]:
    "What a check needs and nobody knows."
    return tuple(need for need in check.needs if not getattr(p, need))


def examine(p: Patient, early: bool = False,
            checks: Mapping[str, Check] = CHECKS) -> dict[str, Finding]:
    """What all checks say for which enough is known, by name, causes before consequences; `early`:
    only those before training."""
    count = len(p.held_out or ())
    few = Finding('held-out pictures', f'{count}: too few to tell')
    return {name: check.look(p) if count >= check.least else few for name, check in checks.items()
            if (check.early or not early) and not missing(p, check)}
