from collections.abc import Callable

import torch
from torch import Tensor

from ...forward import q_posterior
from ..answers import Answer, Checks
from ...schedules import cosine

SHORT, ONE_X0 = cosine(10), torch.tensor([[0.6, -0.4]]).expand(5000, 2)


def noise_in(x: Tensor, t: Tensor) -> Tensor:
    "The noise in x_t, where all x_0 are the same."
    signal, sigma = SHORT.scales(t.long().clamp(0, SHORT.T - 1), like=x)
    return (x - signal * ONE_X0) / sigma


def check_shown(x: Tensor, t: Tensor) -> None:
    "What a network was shown: noised points, each at an index of its own, with the right noise."
    assert x.shape == ONE_X0.shape, f'the network expects (5000, 2), not {tuple(x.shape)}'
    assert not torch.equal(x, ONE_X0), 'the network was shown x_0 itself: it has to see x_t'
    assert t.numel() == len(x) and t.unique().numel() > 1, 'each point has a t of its own: (B,)'
    low, high = t.min().item(), t.max().item()
    assert (low, high) == (0, SHORT.T - 1), (
        f'the indices run from 0 to {SHORT.T - 1}, and were drawn from {low} to {high}')
    size = noise_in(x, t).square().mean().item()
    assert abs(size - 1) < 0.1, (f'the noise in x_t has the mean square {size:.2f}, not 1: look at '
                                 f'the two factors that make x_t, and at how eps is drawn')


def check_algorithm_1(f: Answer) -> None:
    """These lines train any network on any data. Chapter 11 only adds what makes it safe.

    The target is the very noise that went into x_t.

    Draw an index for each point, and eps. Make x_t by the jump, ask the network, compare with eps.

    `(eps - net(q_sample(x0, t, eps, schedule), t)).square().mean()`, where t and eps come from
    `torch.randint(schedule.T, (len(x0),), generator=random)` and `torch.randn`.
    """
    seen, random = [], torch.Generator().manual_seed(0)

    def knows(x: Tensor, t: Tensor) -> Tensor:
        seen.append((x, torch.as_tensor(t)))
        return noise_in(*seen[-1])

    found = f(knows, ONE_X0, SHORT, random)
    assert torch.as_tensor(found).numel() == 1, 'a loss is one number: take the mean'
    assert seen, 'the network was never asked'
    check_shown(*seen[-1])
    value, image = float(found), ONE_X0.square().mean().item()
    assert abs(value - 1 - image) > 0.1, 'eps-hat was compared with x_0: what is learned?'
    assert abs(value - 2) > 0.2, 'the target is another noise than the one that went into x_t'
    assert value < 1e-6, f'who knows the noise has the loss 0, not {value:.3f}'

    zero = lambda x, t: torch.zeros_like(x)
    first, again = (float(f(zero, ONE_X0, SHORT, torch.Generator().manual_seed(1))) for _ in '12')
    assert abs(first - 1) < 0.1, (f'to answer 0 costs the variance of the noise, 1, and not '
                                  f'{first:.2f}: the mean of all squares is asked for')
    assert first == again, 'the same generator must draw the same t and noise: pass it on each time'
    weight = torch.ones((), requires_grad=True)
    loss = f(lambda x, t: weight * x, ONE_X0, SHORT, random)
    assert torch.is_tensor(loss) and loss.requires_grad, (
        'no gradient can flow: no .item(), no .detach(), no torch.no_grad() here')


CHAIN = cosine(200)


def pair(value: float) -> Tensor:
    "Three points with this number everywhere."
    return torch.full((3, 2), value, dtype=torch.float64)


def made(x0: float, eps: float, t: int) -> float:
    "The x_t of this x_0 and eps."
    abar = CHAIN.alpha_bars[t].item()
    return abar**0.5 * x0 + (1 - abar) ** 0.5 * eps


def line_4(x0: float, eps: float, t: int) -> float:
    "Line 4 of Algorithm 2, without noise."
    alpha, abar = CHAIN.alphas[t].item(), CHAIN.alpha_bars[t].item()
    return (made(x0, eps, t) - (1 - alpha) / (1 - abar) ** 0.5 * eps) / alpha**0.5


def check_clip(step: Callable) -> None:
    "Only x_0-hat is clipped, at both ends."
    noisy, right = step(0.5, 2.5, 190), line_4(0.5, 2.5, 190)
    assert abs(noisy - right) < 1e-9, (
        f'x_t and x_(t-1) are no points of the data and may be large, here {right:.3f}, not '
        f'{noisy:.3f}: only x_0-hat is clipped')
    for x0, end in ((4.0, 1.5), (-4.0, -1.5)):
        found = step(x0, 0.5, 150)
        assert abs(found - line_4(x0, 0.5, 150)) > 1e-6, (
            f'an x_0-hat of {x0:g} went through: clip it, at both ends, before the step is taken')
        right = q_posterior(pair(end), pair(made(x0, 0.5, 150)), 150, CHAIN)[0][0, 0].item()
        assert abs(found - right) < 1e-9, (
            f'with x_0-hat = {end:g} the step leads to {right:.5f}, not {found:.5f}: is the box '
            f'right, and is x_t as it was?')


def check_back(f: Answer) -> None:
    """With it and your loss you have the whole method: exercise 4 trains and draws with them.

    Which x_0 does eps_hat stand for?

    Solve eq. 4 for x_0 and clip that. Then take mean and variance of the posterior.

    `x0_hat = ((x - sigma * eps_hat) / signal).clamp(-1.5, 1.5)`, and
    `mean + variance.sqrt() * z` of `q_posterior(x0_hat, x, t, schedule)`.
    """
    def step(x0: float, eps: float, t: int, z: float = 0.0) -> float:
        return f(pair(eps), pair(made(x0, eps, t)), t, pair(z), CHAIN)[0, 0].item()

    plain, right = step(0.3, 0.7, 50), line_4(0.3, 0.7, 50)
    assert abs(plain - 0.3) > 1e-6, 'this is x_0-hat: one step back leads to x_(t-1) only'
    assert abs(plain - right) < 1e-9, (
        f'without noise line 4 gives {right:.5f} here, not {plain:.5f}: which factors have a root, '
        f'and which belong to a single step?')
    spread = step(0.3, 0.7, 50, z=1.0) - plain
    tilde = q_posterior(pair(0.0), pair(0.0), 50, CHAIN)[1][0, 0].item()
    assert abs(spread) > 1e-9, 'z makes no difference: every step but the last adds noise'
    assert abs(spread - tilde) > 1e-9, 'the noise is multiplied by a variance: take its root'
    assert abs(spread - CHAIN.betas[50].item() ** 0.5) > 1e-6, 'this is beta, not beta-tilde'
    assert abs(spread - tilde**0.5) < 1e-9, f'z = 1 moves x by {tilde**0.5:.5f}, not {spread:.5f}'
    last = step(0.3, 0.7, 0, z=1.0)
    assert abs(last - 0.3) < 1e-9, f'at index 0 no noise is added, whatever z: 0.3, not {last:.3f}'
    check_clip(step)


check = Checks(check_algorithm_1, check_back)
