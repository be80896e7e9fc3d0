import torch
from torch import Tensor

from ..answers import Answer, Checks


class Grey:
    "A network that sees a wavy grey, the lighter the larger the label, and notes questions."

    def __init__(self, abars: Tensor) -> None:
        self.abars = abars
        self.asked: list[tuple[Tensor, int, int]] = []      # x, index and label of every row

    def __call__(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        t, y = (torch.as_tensor(v).long().reshape(-1).expand(len(x)) for v in (t, y))
        self.asked += list(zip(x.clone(), t.tolist(), y.tolist()))
        abar = self.abars[t].view(-1, 1, 1, 1)
        x0 = 0.2 * y.view(-1, 1, 1, 1) + 0.4 * torch.sin(2 * x)
        return (x - abar**0.5 * x0) / (1 - abar) ** 0.5


ABARS = torch.linspace(0.9995, 0.02, 60, dtype=torch.float64)
START = torch.linspace(-2.5, 2.5, 32, dtype=torch.float64).view(2, 1, 4, 4)
LABELS, NULL = torch.tensor([1, 6]), 4
BEFORE = ('the two images were clipped before they were mixed; mix the answers as they are, and '
          'clip the image that comes of them')
SLIPS = {'clipped before': BEFORE, 'clipped before only': BEFORE,
         'the paper': 'with w = 1 it must be the plain answer with the label: u + w (c - u)',
         'not clipped': 'an image outside [-1, 1] is none: clip x_0 at each step',
         'old noise': 'after clipping, the mixed eps no longer fits to x_t: derive eps again',
         'index before': 'a step goes to the next index that is visited, not to t - 1'}


def states(w: float, slip: str = '') -> list[Tensor]:
    "x at the indices 59, 39 and 19, and the images; with one mistake or with none."
    x, found = START, [START]
    for t, after in ((59, 39), (39, 19), (19, -1)):
        abar, abar_next = ABARS[t], ABARS[after] if after >= 0 else ABARS.new_ones(())
        network, rows = Grey(ABARS), torch.full((2,), t)
        u, c = network(x, rows, torch.full((2,), NULL)), network(x, rows, LABELS)
        mixed = (c if slip == 'the paper' else u) + w * (c - u)
        x0, a, b = ((x - (1 - abar) ** 0.5 * eps) / abar**0.5 for eps in (mixed, u, c))
        if slip.startswith('clipped before'):
            x0 = a.clamp(-1, 1) + w * (b.clamp(-1, 1) - a.clamp(-1, 1))
        x0 = x0 if slip in ('not clipped', 'clipped before only') else x0.clamp(-1, 1)
        eps = mixed if slip == 'old noise' else (x - abar**0.5 * x0) / (1 - abar) ** 0.5
        abar_next = ABARS[t - 1] if slip == 'index before' else abar_next
        x = abar_next**0.5 * x0 + (1 - abar_next) ** 0.5 * eps
        found.append(x)
    return found


def check_my_sampler(f: Answer) -> None:
    """You can draw from any network, in any number of steps, with nothing but PyTorch.

    In which order: mix the answers, find the image, clip it, find its noise?

    Mix first: u + w (c - u). One x_0 comes from the mixture. Clip it, and derive eps again from it.

    `x0 = ((x - (1 - abar)**0.5 * eps) / abar**0.5).clamp(-1, 1)`, and after it
    `eps = (x - abar**0.5 * x0) / (1 - abar)**0.5`.
    """
    network = Grey(ABARS)
    images = f(network, ABARS, START, LABELS, NULL, 3, 3.0)
    asked = sorted({t for _, t, _ in network.asked}, reverse=True)
    assert asked != [2, 1, 0], ('the network is asked about the indices 2, 1, 0: those count your '
                                'steps; tell it the index itself, here 59, 39, 19')
    assert asked == [59, 39, 19], (f'of 60 indices, three steps visit 59, 39 and 19, not '
                                   f'{", ".join(map(str, asked))}')
    heard = {y for _, _, y in network.asked}
    assert heard == {1, 6, NULL}, ('guidance needs two answers, one with the labels y and one with '
                                   f'null; the network heard only of {sorted(heard)}')
    right, second = states(3.0), torch.stack([x for x, t, y in network.asked if t == 39][:2])
    same = lambda a, b: a.shape == b.shape and bool(((a - b).abs() < 1e-6).all())
    for slip, hint in SLIPS.items():
        assert not same(second, states(3.0, slip)[1]), hint
    wild = (second[0] - right[1][0]).abs().max() if second.shape == right[1].shape else 0.0
    assert same(second, right[1]), (f'after the first step x is off by up to {wild:.2g}: mix x_0 '
                                    'and its noise by the roots of alpha-bar and of 1 - '
                                    'alpha-bar of the next index')
    assert same(images, right[-1]), 'the last step ends at the clipped x_0: there alpha-bar is 1'
    plain = f(Grey(ABARS), ABARS, START, LABELS, NULL, 3, 1.0)
    assert same(plain, states(1.0)[-1]), 'with w = 1 it must be the plain answer with the label'
    network, seven = Grey(ABARS), [round(60 - k * 60 / 7) - 1 for k in range(7)]
    f(network, ABARS, START, LABELS, NULL, 7, 1.0)
    asked = sorted({t for _, t, _ in network.asked}, reverse=True)
    assert asked == seven, (f'seven steps of 60 visit {seven}, not {asked}: round T - k T / steps '
                            'to the nearest number')


check = Checks(check_my_sampler)
