import torch
from torch import Tensor

from ...exact import dataset_denoiser
from ...forward import q_posterior
from ..answers import Answer, Checks
from ...schedules import Schedule, cosine

ENDS = torch.tensor([[-1.0], [1.0]], dtype=torch.float64)
AFTER_FOUR = 0.866      # the mean square of where walks of four steps end; of four million


def check_walk(f: Answer) -> None:
    """With these lines you can sample from any data set; put a network in the place of the exact
    denoiser, and you have the sampler of chapter 05.

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


POINTS, FEW = torch.tensor([[-1.0], [0.2], [1.0]], dtype=torch.float64), cosine(4)


def bayes(xt: float, t: int) -> Tensor:
    "The weights of the three POINTS, by Bayes' rule for one number."
    abar = FEW.alpha_bars[t]
    bells = torch.distributions.Normal(abar.sqrt() * POINTS[:, 0], (1 - abar).sqrt())
    return bells.log_prob(torch.tensor(xt, dtype=torch.float64)).softmax(0)


def check_chosen(first: Tensor, rows: Tensor, pair: Tensor) -> None:
    "Steps at index 0: many from 0.6, and some from a -1 and a 1 with hardly any noise in them."
    off = (first - POINTS.T).abs().min(1).values                   # to the nearest of the data
    assert first.std() > 1e-6 or off.max() < 1e-9, (
        f'at index 0 a step returns the x_0 it has chosen, and {first[0].item():.3f} is none of '
        f'the data: draw one, do not average')
    assert off.max() < 1e-9, 'at index 0 the variance is 0: no noise is added to the chosen x_0'
    assert torch.allclose(rows, pair), (
        'with hardly any noise, -1 came from -1 and 1 from 1: each row is drawn by its own weights')
    drawn = torch.stack([((first - point).abs() < 1e-6).double().mean() for point in POINTS])
    wanted = bayes(0.6, 0)
    assert (drawn - wanted).abs().max() < 0.03, (
        f'the data were drawn {[round(d, 2) for d in drawn.tolist()]} of the time, their weights '
        f'are {[round(w, 2) for w in wanted.tolist()]}: the likeliest is not the only one possible')


def check_drawn_step(f: Answer) -> None:
    """Such a step is exact, however long it is; exercise 5 puts it to use.

    `dataset_weights` says how likely each data point is. A mean is one use of it. And a draw?

    First choose a data point for each row, by the weights of that row. Then take its posterior.

    `data[torch.multinomial(weights, 1, generator=random)[:, 0]]` is the choice; the rest is
    `q_posterior`.
    """
    random = torch.Generator().manual_seed(0)
    same = torch.full((20_000, 1), 0.6, dtype=torch.float64)
    first = f(same, 0, POINTS, FEW, random)
    assert first.shape == same.shape, f'{tuple(same.shape)} was expected, not {tuple(first.shape)}'
    pair = ENDS.repeat(500, 1)
    check_chosen(first, f(pair, 0, POINTS, cosine(1000), random), pair)

    means, tilde = q_posterior(POINTS, torch.full_like(POINTS, 0.6), 2, FEW)
    w, means = bayes(0.6, 2), means[:, 0]
    mean = (w * means).sum()
    variance = tilde.squeeze() + (w * (means - mean) ** 2).sum()   # of the mixture
    found = f(same, 2, POINTS, FEW, random)
    errors = ((found.mean() - mean) / (variance / len(found)).sqrt()).item()
    assert abs(errors) < 5, (f'at index 2 the mean is {errors:.0f} standard errors off: is it the '
                             f'posterior of the drawn point?')
    ratio = (found.var() / variance).item()                        # chance alone: about 0.01 off
    assert ratio > 0.95, f'{ratio:.2f} of the variance is there: is the noise there, and its root?'
    assert ratio < 1.05, f'{ratio:.2f} times the right variance: which one has a posterior?'


check = Checks(check_walk, check_two_points, check_drawn_step)
