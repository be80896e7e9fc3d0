import numpy as np
import torch

from ...forward import q_posterior, q_sample, q_step
from ..answers import Answer, Checks
from ...schedules import linear


def check_my_q_sample(f: Answer) -> None:
    """This is all that training needs of the forward process.

    Alpha-bar is a share of the variance. What multiplies an image is a factor.

    The factors are roots, shaped (B, 1, 1, 1). Take them in float64, and cast last.

    `share = alpha_bars[t].reshape(-1, 1, 1, 1)`; `share.sqrt().to(x0.dtype) * x0`, and the rest.
    """
    t, abar = torch.tensor([0, 10, 50, 99]), linear(100).alpha_bars
    one, zero = torch.ones(4, 1, 4, 4), torch.zeros(4, 1, 4, 4)
    parts = [f(one, t, zero, abar), f(zero, t, one, abar)]
    for part in parts:
        assert part.shape == one.shape, f'(4, 1, 4, 4) has become {tuple(part.shape)}'
        assert torch.equal(part, part[:, :, :1, :1].expand_as(part)), (
            'pixels of one image have different factors: along which axis does t run?')
    signal, sigma = (part[:, 0, 0, 0].double() for part in parts)
    shares = np.cumprod([1, *1 - np.linspace(1e-3, 0.2, 100)])       # by hand: 0.1 / T to 20 / T
    share, early = torch.tensor(shares[t + 1]), torch.tensor(shares[t])
    same = lambda a, b: torch.allclose(a, b, rtol=1e-4, atol=1e-7)
    assert not same(signal, share), 'the image is scaled by its share of the variance: no factor'
    assert not same(signal + sigma, torch.ones(4).double()), (
        'the two factors add up to one, but it is the variances that must')
    assert not same(signal[1:] ** 2, early[1:]), 'a dose too few: index t is the paper\'s t + 1'
    assert same(signal**2, share), 'the factor of the image is wrong'
    assert not same(sigma, 1 - share), 'the noise is scaled by its variance: no factor'
    assert same(sigma**2, 1 - share), 'the factor of the noise is wrong'
    x0, eps = torch.randn(2, 4, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    found, wanted = f(x0, t, eps, abar), q_sample(x0, t, eps, linear(100))
    assert found.dtype == torch.float32, f'float32 has become {found.dtype}: cast at the end'
    assert torch.allclose(found, wanted, atol=1e-5), 'each part alone is right, but not their sum'
    first = torch.zeros(4, dtype=torch.long)
    dose = f(zero.bfloat16(), first, one.bfloat16(), linear(1000).alpha_bars)
    assert (dose > 0).all(), 'in bfloat16 the first dose is gone: was a cast too early?'


def check_jump(f: Answer) -> None:
    """Samplers that leave out steps are built on such jumps.

    x at index s has been shrunk already, and has noise already.

    The steps after s leave alpha-bar_t / alpha-bar_s of any variance. They add the rest to one.

    `left = alpha_bars[t] / alpha_bars[s]`, then `left.sqrt() * xs + (1 - left).sqrt() * eps`.
    """
    schedule, abar = linear(100), linear(100).alpha_bars
    one, zero = torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    near = lambda a, b: abs(float(a) - float(b)) < 1e-9
    for s, t in ((10, 60), (10, 11)):
        image, noise = f(one, s, t, zero, abar), f(zero, s, t, one, abar)
        x, variance = one, zero
        for i in range(s + 1, t + 1):                                   # the slow way
            x = q_step(x, i, zero, schedule)
            variance = schedule.alphas[i] * variance + schedule.betas[i]
        assert not near(image, abar[t] ** 0.5), (
            'this shrinks as from x_0 on, but the image has been shrunk before')
        assert not any(near(image, abar[i] ** 0.5) for i in (t - s, t - s - 1)), (
            'the number of steps is right, but these are the first of the chain')
        assert not near(image, x**2), 'the image is scaled by its share of the variance: no factor'
        assert near(image, x), (
            f'from index {s} to {t} x shrinks by {x.item():.4f}, not {float(image):.4f}')
        assert not near(noise**2, 1 - abar[t]), 'this is all noise up to t; some is there already'
        assert not near(noise**2, abar[s] - abar[t]), (
            'noise at t less noise at s: but the noise that was there has been shrunk as well')
        assert not near(noise, variance), 'the noise is scaled by its variance: no factor'
        assert near(noise**2, variance), (
            f'{t - s} steps add the variance {float(variance):.4f}, not {float(noise**2):.4f}')


def check_two_bells(f: Answer) -> None:
    """This is the posterior of the chapter, and it never divides by a variance that may be 0.

    The narrow bell knows more, so its mean counts more.

    Precisions add up, and weight the means. Multiply above and below by both variances.

    The mean is `(var_2 * mean_1 + var_1 * mean_2) / (var_1 + var_2)`; the variance is like it.
    """
    found = f(*torch.tensor([[1.0], [0.5], [-1.0], [0.1]], dtype=torch.float64))
    mean, variance = (float(part) for part in found)
    x = np.linspace(-8, 8, 16_001)
    product = np.exp(-((x - 1) ** 2) / (2 * 0.5) - (x + 1) ** 2 / (2 * 0.1))
    product /= product.sum()
    grid_mean = (x * product).sum()
    grid_variance = ((x - grid_mean) ** 2 * product).sum()
    by_roots = (0.5**-0.5 - 0.1**-0.5) / (0.5**-0.5 + 0.1**-0.5)
    near = lambda a, b: abs(a - b) < 1e-6
    assert not near(mean, 0), 'the mean is half-way, as if both bells knew equally much'
    assert mean < 0, 'the mean is nearer to the wide bell: which of two knows more?'
    assert not near(mean, by_roots), 'a precision is one over the variance, not over its root'
    assert near(mean, grid_mean), f'the mean on a grid is {grid_mean:.4f}, not {mean:.4f}'
    assert not near(variance, 1 / grid_variance), 'this is the precision, not the variance'
    assert variance < 0.1, f'{variance:.3f}: two together know more, so it is below 0.5 and 0.1'
    assert near(variance, grid_variance), f'on a grid it is {grid_variance:.4f}, not {variance:.4f}'
    schedule = linear(25)
    before, alphas = schedule.alpha_bars_prev, schedule.alphas
    found = f(0.8 * before.sqrt(), 1 - before, 0.1 / alphas.sqrt(), schedule.betas / alphas)
    assert all(torch.isfinite(part).all() for part in found), (
        'nan at index 0, where a variance is 0: what is divided by it?')
    x0 = torch.full((25, 1), 0.8, dtype=torch.float64)
    wanted = q_posterior(x0, torch.full_like(x0, 0.1), torch.arange(25), schedule)
    for part, right in zip(found, wanted):
        assert torch.allclose(part, right.flatten(), rtol=0, atol=1e-9), 'this is not q_posterior'


check = Checks(check_my_q_sample, check_jump, check_two_bells)
