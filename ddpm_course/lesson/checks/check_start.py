import numpy as np
import torch

from ..answers import Answer, Checks, Table, table

row, column = np.mgrid[:28, :28] - 13.5
DISC = np.where(row**2 + column**2 < 64, 1.0, -1.0)


def chain(shrink: bool = True, power: float = 0.5, anew: bool = False) -> list[np.ndarray]:
    "x_0 to x_10 of a disc. Each argument makes one of the three mistakes of exercise 5."
    random, x = np.random.default_rng(0), DISC
    walk = [x]
    for beta in np.linspace(0.02, 0.7, 10):
        random = np.random.default_rng(0) if anew else random
        x = (1 - beta) ** 0.5 * x if shrink else x
        x = x + beta**power * random.standard_normal(x.shape)
        walk.append(x)
    return walk


def chains() -> Table:
    "A healthy chain and three that are not: standard deviation, and correlation with the disc."
    seen = lambda x: np.corrcoef(DISC.ravel(), x.ravel())[0, 1]
    made = {'right': chain(), 'A': chain(anew=True), 'B': chain(shrink=False), 'C': chain(power=1)}
    steps = range(0, 11, 2)
    return table({name: [f'{walk[t].std():.2f} ({seen(walk[t]):.2f})' for t in steps]
                  for name, walk in made.items()}, [f'$x_{{{t}}}$' for t in steps])


def check_share_left(f: Answer) -> None:
    """You can go from the paper's ruler to the code's, and x_0 is no trap for you any more.

    Which t of the paper has no entry in the array? And which t have no picture at all?

    The share at x_t stands at index t - 1, from t = 1 on; at x_0 everything is left.

    Raise ValueError unless `0 <= t <= len(shares)`; `return 1.0 if t == 0 else shares[t - 1]`.
    """
    shares = np.cumprod(np.full(10, 0.8))
    for t in range(1, 11):
        left = f(t, shares)
        assert abs(left - 0.8**t) < 1e-9, (
            f'x_{t}, after dose {t}: {0.8**t:.4f} is left, not {left:.4f}. Which index is that?')
    left = f(0, shares)
    assert left is not None, 'nothing comes back for x_0'
    assert abs(left - shares[-1]) > 1e-9, 'for x_0 this is the share at x_T: -1 is the last index'
    assert abs(left - 1) < 1e-9, f'x_0 has had no dose; how can only {left:.4f} be left?'
    for t in (-1, 11):
        try:
            f(t, shares)
        except (ValueError, IndexError):
            continue
        raise AssertionError(f'this chain has no x_{t}, and yet there is an answer')


def check_mix(f: Answer) -> None:
    """You can mix image and noise in any proportion, and the variance stays one.

    Which adds up to one: the two factors, or the two variances?

    k times the image has the variance k**2, so 1 - k**2 is left for the noise.

    `return k * image + (1 - k**2) ** 0.5 * noise`
    """
    one, zero = torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    draws = torch.randn(2, 200_000, generator=torch.Generator().manual_seed(0))
    for k in (0.6, 0.9):
        of_image, of_noise = f(one, zero, k).item(), f(zero, one, k).item()
        assert abs(of_image - k) < 1e-6, f'k = {k} is itself the factor, not {of_image:.3f}'
        found = f'for k = {k} the noise is scaled by {of_noise:.3f}: '
        assert abs(of_noise - (1 - k)) > 1e-6, (
            found + 'the two factors add up to one, but it is the variances that must')
        assert abs(of_noise - (1 - k**2)) > 1e-6, found + 'this is the variance that it should have'
        assert abs(of_noise - (1 - k) ** 0.5) > 1e-6, (
            found + 'k is a factor; how much of the variance does it leave for the noise?')
        variance = f(*draws, k).var().item()
        assert abs(variance - 1) < 0.02, f'for k = {k} the variance is {variance:.3f}, not one'


def check_mistakes(f: Answer) -> None:
    """You can tell three sick chains apart by two numbers at each step.

    Ask of each row: does the image disappear, and is the spread at the end one?

    What is never shrunk does not disappear. Doses that are all alike add up as factors do, so the
    spread grows far beyond one although the image disappears. Doses that are too small leave a dip.

    `return '312'`
    """
    found = f()
    assert sorted(str(found)) == list('123'), 'three mistakes, each made once: a string such as 123'
    a, b, _ = list(str(found))
    assert a != '1', 'the disc of A disappears: is an image ever lost that is never shrunk?'
    assert a != '2', 'the spread of A grows far beyond one: can doses that are too small do that?'
    assert b == '1', 'the disc of B can still be seen at the end, so what was left out?'


check = Checks(check_share_left, check_mix, check_mistakes)
