import torch
from torch import Tensor

from ...exact import dataset_denoiser
from ..answers import Answer, Checks
from ...schedules import Schedule, cosine

ENDS = torch.tensor([[-1.0], [1.0]], dtype=torch.float64)
AFTER_FOUR = 0.866      # the mean square of where walks of four steps end; of four million


def check_walk(f: Answer) -> None:
    """With these lines you can sample from any data set; put a network in the place of the exact
    denoiser, and you have the sampler of page 05.

    Start with noise. How many steps are there, and in which order do the indices come?

    In each step ask the denoiser at x, and put its answer in the place of x_0 in `q_posterior`.

    `mean + variance.sqrt() * torch.randn(x.shape, generator=random, dtype=x.dtype)`, for t in
    `reversed(range(schedule.T))`.
    """
    point = torch.tensor([[0.5, -2.0, 3.0]], dtype=torch.float64)
    found = f(point, cosine(20), 7, torch.Generator().manual_seed(0))
    assert found.shape == (7, 3), f'{tuple(found.shape)} came back, and (7, 3) was expected'
    off = (found - point).abs().max().item()
    assert off < 1e-6, (f'with a single data point every walk ends there; yours is {off:.2f} off: '
                        f'is the last step that at index 0, and are these data used?')
    again = f(ENDS, cosine(4), 2000, torch.Generator().manual_seed(0))
    same = f(ENDS, cosine(4), 2000, torch.Generator().manual_seed(0))
    assert torch.equal(again, same), 'the same generator must give the same walks: draw from it'
    assert again.std() > 0.1, 'all walks end at one place: each has noise of its own'
    half = Schedule(torch.tensor([0.5], dtype=torch.float64))
    start = f(ENDS, half, 50_000, torch.Generator().manual_seed(2))
    x = torch.randn(50_000, 1, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    wanted = torch.tanh(0.5**0.5 * x / 0.5).square().mean().item()     # one step from pure noise
    assert abs(start.square().mean().item() - wanted) < 0.02, (
        'a walk of a single step ends elsewhere: does it begin with standard normal noise?')
    ends = f(ENDS, cosine(4), 50_000, torch.Generator().manual_seed(4))
    ends = ends.square().mean().item()
    assert abs(ends - AFTER_FOUR) < 0.02, (
        f'after four steps between -1 and 1 the mean square is {ends:.2f}, and should be '
        f'{AFTER_FOUR:.2f}: is the noise multiplied by the root of the variance, and is it new in '
        f'each step?')


def check_two_points(f: Answer) -> None:
    """This one curve is the whole denoiser of a world with two points.

    A softmax of two logits depends on one number only. Which?

    The logit of 1 is u - c, that of -1 is -u - c, with u = sqrt(abar) x_t / (1 - abar): c cancels.

    (e^u - e^-u) / (e^u + e^-u), which is `torch.tanh(abar**0.5 * xt / (1 - abar))`.
    """
    def exact(x: Tensor, abar: float) -> Tensor:
        one_step = Schedule(torch.tensor([1 - abar], dtype=torch.float64))
        return dataset_denoiser(x[:, None], 0, ENDS, one_step)[:, 0]

    found = f(torch.tensor([-5.0, -0.1, 0.0, 0.1, 5.0], dtype=torch.float64), 0.5)
    assert found[0] < 0 < found[4], (
        'an x_t above 0 comes rather from 1, one below rather from -1, so that the mean is below 0 '
        'there: is this a probability?')
    assert abs(found[2]) < 1e-9, 'at x_t = 0 both are equally likely: the mean is 0'
    assert found.abs().max() < 1 + 1e-9, 'a weighted mean of -1 and 1 lies between them'
    assert found[3] < 0.9, 'the mean is asked for, not the nearer of the two: close to 0 both count'
    small = torch.tensor([1e-4], dtype=torch.float64)
    ratio = (f(small, 0.36) / exact(small, 0.36)).item()
    for wrong, hint in [(0.8, 'what are exponents divided by, a variance or a standard deviation?'),
                        (0.6, 'how much of x_0 is left in x_t, abar or its root?'),
                        (0.5, 'how far apart are the two logits?'),
                        (2.0, 'how far apart are the two logits?')]:
        assert abs(ratio - wrong) > 0.01, f'{ratio:.1f} times the right slope at 0: {hint}'
    x = torch.linspace(-2, 2, 41, dtype=torch.float64)
    for abar in (0.02, 0.36, 0.9):
        worst = (f(x, abar) - exact(x, abar)).abs().max().item()
        assert worst < 1e-9, f'{worst:.3f} off at abar = {abar}: write down both logits once more'


check = Checks(check_walk, check_two_points)
