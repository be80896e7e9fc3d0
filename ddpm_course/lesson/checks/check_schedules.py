import numpy as np
import torch

from ..answers import Answer, Checks
from ...schedules import cosine, linear


def check_betas_from(f: Answer) -> None:
    """With it, any curve of alpha-bar that somebody draws becomes a schedule.

    A beta compares two neighbours in the table. What stands before the first one?

    A step leaves alpha_t = alpha-bar_t / alpha-bar_{t-1} of what it finds, and alpha-bar_0 = 1.

    `1 - alpha_bars / before`, where `before` is 1 and then all of `alpha_bars` but its last.
    """
    betas, abar = linear(50).betas, linear(50).alpha_bars
    found = f(abar.clone())
    same = lambda a, b: torch.allclose(a, b, rtol=1e-6, atol=1e-12)
    assert found.shape == (50,), (
        f'50 alpha-bars, and betas of shape {tuple(found.shape)}: the first step has a beta too')
    assert found.dtype == torch.float64, f'float64 has become {found.dtype}'
    assert not same(found, 1 - abar), 'this is the noise of all steps so far; a beta is of one step'
    assert not same(found.cumsum(0), 1 - abar), (
        'these are shares of what there was at the start; a beta is a share of what its step finds')
    assert not same((1 - found) ** 2, 1 - betas), 'a beta is about variances: no roots are needed'
    assert (found[1:] > 0).all(), 'some betas are not positive: of two neighbours, which is larger?'
    assert same(found[:1], betas[:1]), (
        f'the first beta is {found[0]:.4f}: how much of the image is there before any noise?')
    assert same(found, betas), f'betas[1] is {found[1]:.4f} where {betas[1]:.4f} was expected'


def check_alpha_bars_from(f: Answer) -> None:
    """Now you can draw a schedule as a curve of its log SNR.

    The SNR is a ratio of two shares that add up to one.

    Solve r = a / (1 - a) for the share a; r is the exponential of the log SNR.

    `1 / (1 + (-log_snr).exp())`, which PyTorch has as `torch.sigmoid(log_snr)`.
    """
    at = lambda snr: f(torch.tensor([snr], dtype=torch.float64).log())
    even, high = at(1.0).item(), at(3.0).item()
    near = lambda a, b: abs(a - b) < 1e-6
    assert high <= 1, f'a share is at most 1, so not {high:.3f}: is it the SNR, or its logarithm?'
    assert not near(even, 0.5**0.5), 'this is a factor, not a share of the variance'
    assert near(even, 0.5), f'at log SNR 0 image and noise are equal, so {even:.3f} cannot be right'
    assert not near(high, 0.25), 'three times as much image as noise, and 1/4: whose share is this?'
    assert not near(high, 1 / (1 + 10 ** -np.log(3))), 'the logarithm is the natural one'
    assert not near(high, 0.9), 'squared once too often: the SNR is a ratio of variances already'
    assert near(high, 0.75), f'three times as much image as noise, so {high:.3f} cannot be right'
    schedule = cosine(100)
    found = f(schedule.snr.log())
    assert found.shape == (100,) and found.dtype == torch.float64, 'it must be (T,) float64'
    assert torch.allclose(found, schedule.alpha_bars, rtol=1e-6, atol=0), 'far out it is inexact'


check = Checks(check_betas_from, check_alpha_bars_from)
