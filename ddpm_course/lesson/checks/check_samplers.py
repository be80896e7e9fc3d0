import torch
from torch import Tensor

from ..answers import Answer, Checks

KAPPA = torch.tensor([0.0, 0.01, 0.3, 1.0, 6.0], dtype=torch.float64)
LEVELS = ((0.01, 0.2), (0.5, 0.6), (0.9, 0.99), (0.7, 1.0))    # alpha-bar here and where we go


def right(kappa: Tensor, abar: float, abar_next: float, slip: str = '') -> Tensor:
    "The variance, with one mistake or with none."
    beta = 1 - abar / abar_next
    small = (1 - abar_next) / (1 - abar) * beta
    total, total_next = abar * kappa + 1 - abar, abar_next * kappa + 1 - abar_next
    weight = abar_next**0.5 * beta / (1 - abar)                 # of x_0 in the mean
    spread = kappa * (1 - abar) / total                         # of x_0 given x_t
    return {'small': small + 0 * kappa, 'large': beta + 0 * kappa,
            'not squared': small + weight * spread, 'spread': small + weight**2 * kappa,
            'one jump': beta * (kappa + 1 - abar_next) / (kappa + 1 - abar),
            'precision': total / (beta * total_next),
            'x_next alone': total_next}.get(slip, beta * total_next / total)


def check_right_variance(f: Answer) -> None:
    """With this variance ancestral sampling of Gaussian data is exact, in any number of steps.

    What do you know about x_next before you see x_t, and what does x_t add?

    Two precisions: 1 / v_next, and that of the jump, which is (1 - beta) / beta as seen from x_next.
    Their sum is the precision that you want.

    `beta * (abar_next * kappa + 1 - abar_next) / (abar * kappa + 1 - abar)`
    """
    hints = {
        'small': 'this is beta-tilde, which is right for kappa = 0 only: it must grow with kappa',
        'large': 'this is beta, which is right for kappa = 1 only: it must depend on kappa',
        'not squared': 'the weight of x_0 multiplies x_0, so the variance takes its square',
        'spread': 'kappa is the variance of x_0 before x_t is known: take that of x_0 given x_t',
        'one jump': 'the signal of x_t is shrunk: its variance is abar * kappa + 1 - abar',
        'precision': 'this is a precision: the variance is 1 over it',
        'x_next alone': 'this is the variance of x_next if x_t is not known'}

    def same(a: Tensor, b: Tensor) -> bool:
        return a.shape == b.shape and bool(((a - b).abs() < 1e-9).all())

    for k, (abar, abar_next) in enumerate(LEVELS):
        found = torch.as_tensor(f(KAPPA, abar, abar_next))
        if k == 0:
            for slip, hint in hints.items():
                assert not same(found, right(KAPPA, abar, abar_next, slip)), hint
        for what, place in (('kappa = 0 it is beta-tilde', 0), ('kappa = 1 it is beta', 3)):
            truth = right(KAPPA, abar, abar_next)[place]
            assert found.shape == KAPPA.shape and abs(found[place] - truth) < 1e-9, (
                f'for {what}: from alpha-bar {abar} to {abar_next} that is {truth:.4g}')
        truth = right(KAPPA, abar, abar_next)
        assert same(found, truth), (
            f'right for kappa 0 and 1, but from alpha-bar {abar} to {abar_next} it is off by up to '
            f'{(found - truth).abs().max():.2g}: add the precision of x_next and that of the jump')


check = Checks(check_right_variance)
