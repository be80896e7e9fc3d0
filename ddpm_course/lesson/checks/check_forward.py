import torch

from ...forward import q_step
from ..answers import Answer, Checks
from ...schedules import linear


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
            'noise at t minus noise at s: but the noise that was there has been shrunk as well')
        assert not near(noise, variance), 'the noise is scaled by its variance: no factor'
        assert near(noise**2, variance), (
            f'{t - s} steps add the variance {float(variance):.4f}, not {float(noise**2):.4f}')


check = Checks(check_jump)
