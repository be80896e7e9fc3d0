import math
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ..data.sets import to_float, to_uint8
from ..draws import Purpose, normal
from ..forward import q_sample
from .clinic import Finding, Patient, errors_away, looks_for, some
from .evaluation import nearest_distances
from .lab import paired
from ..losses import OBJECTIVES
from ..model import Model
from ..sampling import keyed_noise, plan, walk
from ..schedules import make_schedule

LEVELS = (0.98, 0.9, 0.7, 0.5, 0.3, 0.1, 0.05)      # alpha-bars at which a network is asked


def questions(p: Patient, n: int = 64) -> tuple[Tensor, Tensor | None]:
    "Held-out pictures (n, C, H, W) in [-1, 1], and their classes where the model is told them."
    i = some(p.held_out, n)
    return to_float(p.held_out.pixels[i]), p.held_out.labels_at(i) if p.model.classes else None


@torch.no_grad()
def picture_errors(model: Model, x0: Tensor, y: Tensor | None,
                   levels: tuple[float, ...] = LEVELS) -> np.ndarray:
    "(N,) mean squared errors of the pictures that a model finds in noised x0 (N, C, H, W)."
    rows, x0 = [], x0.to(model.device)
    for level in levels:
        t = int((model.schedule.alpha_bars - level).abs().argmin())
        eps = normal(x0.shape[1:], 0, Purpose.HELDOUT_NOISE, round(1000 * level), range(len(x0)))
        xt = q_sample(x0, t, eps.to(x0), model.schedule)
        told = y if y is None else y.to(x0.device)
        rows.append((model.predict(xt, t, told).x0 - x0).square().flatten(1).mean(1).cpu())
    return torch.stack(rows).mean(0).double().numpy()


def readings(model: Model, schedule: str) -> dict[str, Model]:
    "The same network, taken for one that was trained otherwise."
    T = model.schedule.T
    found = {f'objective {name}': replace(model, objective=OBJECTIVES[name])
             for name in ('eps', 'x0', 'v') if OBJECTIVES[name] is not model.objective}
    usual = (100, 200, 250, 400, 500, 1000, 2000, 4000)
    for name in ('linear', 'cosine'):
        for steps in {T, *(usual if name == schedule else ())} - {T if name == schedule else 0}:
            if name == 'cosine' or steps >= 21:         # the linear one has no fewer
                other = make_schedule(name, steps)
                found[f'{name} schedule, T = {steps}'] = replace(model, schedule=other)
    return found


@looks_for('reading', 'model', 'held_out', 'config')
def reading(p: Patient) -> Finding:
    "Whether the network's answers make more sense if it was trained otherwise."
    x0, y = questions(p)
    errors = {name: picture_errors(other, x0, y)
              for name, other in readings(p.model, p.config.diffusion.schedule).items()}
    errors['pictures in [0, 1]'] = 4 * picture_errors(p.model, (x0 + 1) / 2, y)
    best = min(errors, key=lambda name: errors[name].mean())
    own = picture_errors(p.model, x0, y)
    d = paired(own, errors[best])
    return Finding(f'errors of guessed pictures under {len(errors)} other readings',
                   f'{own.mean():.3f} as the settings say, {errors[best].mean():.3f} with {best}',
                   bool(errors_away(d) > 4 and errors[best].mean() < 0.8 * own.mean()),
                   f'it seems to have been trained with {best}',
                   f'{errors_away(d):.0f} standard errors')


def roughness(x: Tensor) -> Tensor:
    "(N,) mean squared Laplacians of pictures (N, C, H, W); 20 for standard normal noise."
    inner, up, down = x[..., 1:-1, 1:-1], x[..., :-2, 1:-1], x[..., 2:, 1:-1]
    left, right = x[..., 1:-1, :-2], x[..., 1:-1, 2:]
    return (up + down + left + right - 4 * inner).square().flatten(1).mean(1)


def noise_shown(p: Patient, n: int = 32) -> list[tuple[int, float]]:
    "For each question to the network in a walk: t, and how rough x_t is, over how rough at this t."
    model, seen = p.model.eval(), []
    real = roughness(p.real).mean().item()

    def watched(x: Tensor, t: Tensor, y: Tensor | None) -> Tensor:
        now = int(t[0])
        abar = model.schedule.alpha_bars[now].item()
        seen.append((now, roughness(x).mean().item() / (abar * real + 20 * (1 - abar))))
        return model.network(x, t, y)
    y = torch.arange(n) % len(model.classes) if model.classes else None
    for _ in walk(replace(model, network=watched), plan(p.how, model),
                  keyed_noise(model, p.how.seed, range(n)), y):
        pass
    return seen


@looks_for('more noise than told', 'model', 'held_out', 'how')
def more_noise_than_told(p: Patient) -> Finding:
    "Whether the network is shown another noise than it is told, somewhere on the way."
    t, ratio = max(noise_shown(p), key=lambda seen: abs(math.log(max(seen[1], 1e-9))))
    return Finding('the noise in what the network is shown on the way',
                   f'{ratio:.2f} times what it is told, at t = {t}', not 0.6 < ratio < 1.5,
                   'where answers are read rightly: few steps want the small variance, and an own '
                   'sampler must tell the right index', 'likely')


@looks_for('late average', 'model', 'raw', 'held_out')
def late_average(p: Patient) -> Finding:
    "Whether the averaged weights are worse than the raw ones."
    mine, raw = (picture_errors(model, *questions(p, 200)) for model in (p.model, p.raw))
    d = paired(mine, raw)
    return Finding('errors of averaged weights, less those of raw ones',
                   f'{d.mean:+.4f} ± {d.reach:.1g}, of {raw.mean():.3f}',
                   bool(errors_away(d) > 4 and d.mean > 0.02 * raw.mean()),
                   'a smaller --ema, --ema-warmup, or more steps; kept in float32?',
                   f'{errors_away(d):.0f} standard errors')


@looks_for('class ignored', 'model', 'held_out')
def class_ignored(p: Patient) -> Finding:
    "Whether the right class helps no more than another one."
    if len(p.model.classes) < 2:
        return Finding('classes', 'it is told none')
    x0, y = questions(p, 200)
    assert y is not None                            # it is told classes
    right, wrong = (picture_errors(p.model, x0, told, (0.3, 0.1, 0.03, 0.01))
                    for told in (y, (y + 1) % len(p.model.classes)))
    d, enough = paired(right, wrong), len(x0) >= 50
    alike = bool(errors_away(d) > -4 or d.mean > -0.02 * wrong.mean())
    return Finding('errors with the right class, less those with another',
                   f'{d.mean:+.4f} ± {d.reach:.1g}, of {wrong.mean():.3f}'
                   + ': too few to tell' * (alike and not enough), alike and enough,
                   'do labels and pictures have the same order? is the class told in training?',
                   f'they are {errors_away(d):.0f} standard errors apart')


@looks_for('copies', 'model', 'images', 'held_out', 'how')
def copies(p: Patient) -> Finding:
    "Whether samples lie much nearer to training pictures than held-out pictures do."
    drawn, others = to_uint8(p.samples.nan_to_num()), p.held_out.pixels[some(p.held_out, 500)]
    mine, unseen = (nearest_distances(x, p.images.pixels).median().item() for x in (drawn, others))
    return Finding('distance to the nearest training picture',
                   f'{mine:.2f} for samples, {unseen:.2f} for held-out pictures',
                   mine < 0.5 * unseen, 'more pictures, or stop earlier', 'likely')
