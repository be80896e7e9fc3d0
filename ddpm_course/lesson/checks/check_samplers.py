from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from ..answers import Answer, Checks


def a_step(x0: Tensor, x: Tensor, abar: float, abar_next: float) -> Any:
    "What a sampler may use, for this guess at x."
    eps = (x - abar**0.5 * x0) / (1 - abar) ** 0.5
    return SimpleNamespace(x=x, now=SimpleNamespace(x0=x0, eps=eps, v=None), before=None, t=499,
                           t_next=249, abar=abar, abar_next=abar_next, abar_before=abar,
                           noise=lambda: torch.ones_like(x))


def thresholded(step: Any, slip: str = '') -> Tensor:
    "The next x, with one mistake or with none."
    size = step.now.x0.abs().flatten(1)
    r = size.quantile(0.9) if slip == 'batch' else size.quantile(0.9, dim=1).view(-1, 1, 1, 1)
    r = size.amax(1).view(-1, 1, 1, 1) if slip == 'largest' else r
    r = r if slip == 'below 1' else r.clamp(min=1)
    x0 = step.now.x0.clamp(-1, 1) if slip == 'clipped' else step.now.x0.clamp(-r, r)
    x0 = x0 if slip in ('clipped', 'not divided') else x0 / r
    eps = (step.x - step.abar**0.5 * x0) / (1 - step.abar) ** 0.5
    eps = step.now.eps if slip == 'old noise' else eps
    return step.abar_next**0.5 * x0 + (1 - step.abar_next) ** 0.5 * eps


def check_gentle(f: Answer) -> None:
    """You have written a sampler that the course does not have; `SAMPLERS` takes it as it is.

    After the division, does the old noise still belong to this x?

    Find r for each image, clip to [-r, r], divide by r, derive eps again, mix as DDIM does.

    `r = step.now.x0.abs().flatten(1).quantile(0.9, dim=1).clamp(min=1).view(-1, 1, 1, 1)`
    """
    ramp = torch.linspace(-1, 1, 64, dtype=torch.float64).view(1, 1, 8, 8)
    calm, wild = 0.5 * ramp, 3.0 * ramp.flip(3)
    x = torch.cat([torch.sin(5 * ramp), torch.cos(7 * ramp)])
    both = a_step(torch.cat([calm, wild]), x, 0.49, 0.8)
    found = f(both)

    def same(a: Tensor, b: Tensor) -> bool:
        return a.shape == b.shape and bool(((a - b).abs() < 1e-9).all())

    hints = {
        'old noise': 'x_0 has changed, so the old eps does not make up x with it: derive eps again',
        'batch': 'r is one number for the whole batch: take the quantile for each image',
        'below 1': 'an image that lies within [-1, 1] has been stretched: r is at least 1',
        'clipped': 'this clips to [-1, 1], as always: clip to [-r, r], and divide by r',
        'not divided': 'clipped to [-r, r] and left there: divide by r, so that it is an image',
        'largest': 'r is the largest pixel: take the 0.9 quantile, as a few pixels may be wild'}
    for slip, hint in hints.items():
        assert not same(found, thresholded(both, slip)), hint
    quiet = a_step(calm, x[:1], 0.49, 0.8)
    assert same(f(quiet), thresholded(quiet)), ('where nothing lies outside [-1, 1] it is the step '
                                                'of DDIM with eta 0')
    assert same(found, thresholded(both)), (
        f'a wild image is off by up to {(found - thresholded(both))[1].abs().max():.2g}: mix the '
        'thresholded x_0 and its own eps by the roots of alpha-bar and of 1 - alpha-bar, next')
    last = a_step(torch.cat([calm, wild]), x, 0.9, 1.0)
    assert same(f(last), thresholded(last)), 'the last step goes to the thresholded x_0 itself'


check = Checks(check_gentle)
