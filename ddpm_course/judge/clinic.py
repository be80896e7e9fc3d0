import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..config import SamplingConfig
from ..data.sets import ImageSet, epoch_order, to_float
from .evaluation import allot_classes
from .lab import Difference, paired
from ..model import Model
from ..sampling import walk_to_the_end


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


def errors_away(d: Difference) -> float:
    "How many standard errors a difference is away from nothing."
    return float(d.mean / max(d.error, 1e-12))


def some(images: ImageSet, n: int) -> np.ndarray:
    "Indices of at most n images, chosen at random, but always the same."
    return np.sort(epoch_order(len(images), 0, 0)[:n])


@dataclass(frozen=True)
class Patient:
    "What is examined. What is not known is left out, and so are the checks that need it."
    images: Any = None              # ImageSet, to train on
    held_out: Any = None            # ImageSet
    config: Any = None              # RunConfig
    model: Any = None               # Model, that samples are drawn with
    raw: Any = None                 # Model, with the weights that are trained, not averaged
    log: Sequence[dict] = ()        # lines of metrics.jsonl
    scores: dict[str, Any] = field(default_factory=dict)    # 'samples' of test.json
    how: SamplingConfig = SamplingConfig(guidance=1)
    n: int = 100                    # samples to draw

    @cached_property
    def real(self) -> Tensor:
        "At most a thousand held-out pictures (N, C, H, W), for the samples to be compared with."
        return to_float(self.held_out.pixels[some(self.held_out, 1000)])

    @cached_property
    def samples(self) -> Tensor:
        "(n, C, H, W), classes as often as among the images, as the model and `how` draw them."
        model = self.model
        y = allot_classes(self.images.labels if self.images and model.classes else None, self.n)
        if model.classes and not self.images:
            y = torch.arange(self.n) % len(model.classes)
        return walk_to_the_end(model, range(self.n), y, self.how)


@dataclass(frozen=True)
class Check:
    "How to look for one symptom."
    look: Callable[[Patient], Finding]
    needs: tuple[str, ...]      # fields of the patient, without which it is left out
    early: bool                 # before training; together these take less than a second


CHECKS: dict[str, Check] = {}


def looks_for(name: str, *needs: str, early: bool = False) -> Callable:
    "Enter a function into `CHECKS`."
    def enter(look: Callable[[Patient], Finding]) -> Callable[[Patient], Finding]:
        CHECKS[name] = Check(look, needs, early)
        return look
    return enter


@looks_for('grey as colour', 'images', early=True)
def grey_as_colour(p: Patient) -> Finding:
    "Whether colour pictures have no colour."
    x = p.images.pixels[some(p.images, 1000)]
    grey = float((x == x[:, :1]).all((1, 2, 3)).mean()) if p.images.channels > 1 else 0.0
    return Finding(f'{p.images.channels} channels', f'equal in {grey:.0%} of the pictures',
                   grey > 0.99, 'train on grey ones, --image-channels 1')


def fingerprints(images: ImageSet, n: int = 100_000) -> list[int]:
    "A number for each picture, of at most n: equal ones have the same."
    return [hash(images.pixels[i].tobytes()) for i in some(images, n)]


@looks_for('twins', 'images', early=True)
def twins(p: Patient) -> Finding:
    "Whether pictures are there more than once."
    every = fingerprints(p.images)
    share = 1 - len(set(every)) / len(every)
    return Finding(f'{len(every):,} pictures', f'{share:.1%} repeat another one', share > 0.05,
                   'leave doubles out (fdupes finds equal files); of samples: give each '
                   'process noise of its own')


@looks_for('seen before', 'images', 'held_out', early=True)
def seen_before(p: Patient) -> Finding:
    "Whether held-out pictures are among those that are trained on."
    known, asked = set(fingerprints(p.images)), fingerprints(p.held_out, 5000)
    share = sum(x in known for x in asked) / len(asked)
    return Finding(f'{len(asked):,} held-out pictures', f'{share:.1%} are trained on', share > 0.05,
                   'leave doubles out, and keep held-out pictures apart')


@looks_for('few pictures', 'images', early=True)
def few_pictures(p: Patient) -> Finding:
    "Whether there are so few that they will be copied."
    return Finding('training pictures', f'{len(p.images):,}', len(p.images) < 500,
                   'find more, or stop early: few are learned by heart', 'likely')


@looks_for('dark pictures', 'images', early=True)
def dark_pictures(p: Patient) -> Finding:
    "Whether pictures were written as 0 to 1 in place of 0 to 255."
    top = float(np.median(p.images.pixels[some(p.images, 1000)].max((1, 2, 3))))
    return Finding('the brightest pixel of a picture, of 255', f'{top:g}', top < 32,
                   'multiply by 255 before pictures are saved', 'likely')


def small(pixels: np.ndarray) -> Tensor:
    "Pictures as rows of floats, scaled down to 32 by 32 pixels where they are larger."
    parts = np.array_split(pixels, 1 + pixels.nbytes // 10**8)
    rows = torch.cat([F.adaptive_avg_pool2d(to_float(part), min(32, part.shape[-1]))
                      for part in parts])
    return rows.flatten(1)


def mirrored_apart(p: Patient) -> tuple[Difference, bool]:
    """How much farther mirrored held-out pictures are from the training ones than plain ones, as
    a share of how far plain ones are; and whether that is much, and no chance."""
    x, real = (s.pixels[some(s, n)] for s, n in ((p.held_out, 200), (p.images, 3000)))
    rows = small(real)
    plain, mirrored = (torch.cdist(small(each), rows).amin(1) for each in (x, x[..., ::-1].copy()))
    usual = plain.mean() + 1e-9                             # 0 where all are training pictures
    d = paired((mirrored / usual).numpy(), (plain / usual).numpy())
    return d, errors_away(d) > 5 and d.mean > 0.3


@looks_for('flips', 'images', 'held_out', 'config', early=True)
def flips(p: Patient) -> Finding:
    "Whether pictures are mirrored that must not be."
    if len(p.held_out) < 20:
        return Finding('held-out pictures', f'{len(p.held_out)}: too few to tell')
    d, unlike = mirrored_apart(p)
    return Finding('mirrored held-out pictures, farther from real ones than plain ones',
                   f'by {d.mean:.0%} ± {d.reach:.0%}', unlike and p.config.data.augment == 'flip',
                   'train without --augment flip', f'{errors_away(d):.0f} standard errors')


@looks_for('labels', 'images', 'held_out', early=True)
def labels(p: Patient) -> Finding:
    "Whether classes have anything to do with pictures."
    if len(p.images.classes) < 2 or p.held_out.labels is None:
        return Finding('classes', 'fewer than two')
    i, j = some(p.held_out, 1000), some(p.images, 3000)
    near = torch.cdist(small(p.held_out.pixels[i]), small(p.images.pixels[j])).argmin(1).numpy()
    same = float((p.images.labels[j][near] == p.held_out.labels[i]).mean())
    share = np.bincount(p.images.labels, minlength=len(p.images.classes)) / len(p.images)
    chance = float(share[p.held_out.labels[i]].mean())
    error = (chance * (1 - chance) / len(i) + 1e-12)**0.5
    enough = 4 * error < 0.101 and chance < 0.8     # else right labels may look like wrong ones
    alike = same - chance < 2 * error                       # to what chance would give
    found = f'the same for {same:.0%}, {chance:.0%} by chance'
    return Finding('class of the most similar picture',
                   f'{found}: too few to tell' if alike and not enough else found,
                   enough and alike,
                   'do labels and pictures have the same order?',
                   'likely: classes may also differ in what pixels do not show')


@looks_for('slow average', 'config', early=True)
def slow_average(p: Patient) -> Finding:
    "Whether the averaged weights will still be the first, random ones."
    t = p.config.training
    begins_random = t.average == 'ema' and not t.ema_warmup and not t.init
    left = t.ema ** t.steps if begins_random else 0.0
    return Finding(f'an average with decay {t.ema:g} over {t.steps:,} steps',
                   f'{left:.1%} of it are the first weights', left > 0.02,
                   'a smaller --ema, or --ema-warmup')


@looks_for('picture left', 'model', early=True)
def picture_left(p: Patient) -> Finding:
    "Whether the noisiest level still has much of the picture."
    left = p.model.schedule.alpha_bars[-1].item() ** 0.5
    return Finding('the noisiest level', f'{left:.1%} of the picture is left', left > 0.1,
                   'a schedule that ends in noise: more steps, or larger betas')


def bytes_per_picture(model: Model) -> int:
    "What one more picture in a batch adds to the memory that training needs."
    def kept(n: int) -> int:
        found = {}
        def note(x: Tensor) -> Tensor:
            found[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
            return x
        t = torch.zeros(n, dtype=torch.long, device=model.device)
        training = model.network.training
        model.eval()                                # nothing is drawn or counted by this question
        with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
            answer = model.answer(torch.zeros(n, *model.shape, device=model.device), t,
                                  t if model.classes else None)
        model.network.train(training)
        return sum(found.values()) + 0 * answer.numel()         # until here they are kept
    return kept(2) - kept(1)


@looks_for('memory', 'raw', 'config', early=True)
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
