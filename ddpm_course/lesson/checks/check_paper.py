import torch

from ..answers import Answer, Checks


def check_mixed(f: Answer) -> None:
    """Now every mixture has as much noise as the network expects at t.

    Which variance has a sum of two independent noises with weights a and b?

    The squares of the two weights of the noise must add up to 1; those of the pictures are
    1 - lam and lam.

    `turn = lam * pi / 2`, noise = cos(turn) eps + sin(turn) eps2
    """
    dice = torch.Generator().manual_seed(0)
    x0, x02 = torch.full((4000,), -0.5), torch.full((4000,), 0.75)
    eps, eps2 = torch.randn(2, 4000, generator=dice)
    abar = 0.3
    start, end = (f(x0, x02, eps, eps2, lam, abar) for lam in (0.0, 1.0))
    one, two = (abar**0.5 * x + (1 - abar)**0.5 * e for x, e in ((x0, eps), (x02, eps2)))
    assert torch.allclose(start, one, atol=1e-4), 'at lam = 0 it must be the first picture with '\
        'its own noise'
    assert torch.allclose(end, two, atol=1e-4), 'at lam = 1 it must be the second picture with '\
        'its own noise'
    for lam in (0.25, 0.5, 0.8):
        x = f(x0, x02, eps, eps2, lam, abar)
        mean = abar**0.5 * ((1 - lam) * x0[0] + lam * x02[0])
        assert (x.mean() - mean).abs() < 0.08, 'the pictures are to be mixed by 1 - lam and lam'
        assert x.var() > 0.9 * (1 - abar), f'at lam = {lam:g} the noise has only '\
            f'{x.var() / (1 - abar):.2f} of its variance'
        assert x.var() < 1.1 * (1 - abar), f'at lam = {lam:g} there is too much noise'


check = Checks(check_mixed)
