import torch
from torch import Tensor

from ..answers import Answer, Checks
from ...steps import ddim_step


def check_step_up(f: Answer) -> None:
    """With it a picture comes back from its noise, however few the steps of DDIM.

    One round asks once. What changes from round to round, and what stays?

    Each round begins from x again. Only the slope is new: that at the newest x_up.

    `x_up = abar_up**0.5 * (x / abar**0.5 + (s_up - s) * ask(x_up))`, where x_up is x at first.
    """
    asked = []

    def ask(x: Tensor) -> Tensor:
        asked.append(x)
        return torch.sin(x) / 2

    x, abar, abar_up = torch.linspace(-2, 2, 9).double(), 0.6, 0.5
    s, s_up = (((1 - level) / level) ** 0.5 for level in (abar, abar_up))
    one = f(ask, x, abar, abar_up, 1)
    assert len(asked) == 1, f'one round asks once, not {len(asked)} times'
    wanted = abar_up**0.5 * (x / abar**0.5 + (s_up - s) * torch.sin(x) / 2)
    assert not torch.allclose(one, abar_up**0.5 * x / abar**0.5, atol=1e-3), (
        'the noise is still missing: add (s_up - s) times the answer')
    assert torch.allclose(one, wanted, atol=1e-9), (
        f'after one round the last number is {wanted[-1]:.4f}, not {one[-1]:.4f}: mind the roots')
    many = f(ask, x, abar, abar_up, 40)
    eps = torch.sin(many) / 2
    down = ddim_step((many - (1 - abar_up) ** 0.5 * eps) / abar_up**0.5, eps, x, abar_up, abar, 0.0)
    assert not torch.allclose(many, wanted, atol=1e-9), (
        'after forty rounds it is what it was after one: ask about the newest x_up')
    assert torch.allclose(down, x, atol=1e-9), (
        f'from your x_up DDIM steps to {down[-1]:.4f}, not to x, which is {x[-1]:.4f}: begin each '
        'round from x, only the slope is new')


check = Checks(check_step_up)
