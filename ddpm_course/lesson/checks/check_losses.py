import torch

from ...exact import gaussian_denoiser
from ..answers import Answer, Checks
from ...losses import OBJECTIVES, diffusion_losses, target
from ...schedules import cosine


def check_solve_score(f: Answer) -> None:
    """With it the exact denoiser follows from the score of all data: Tweedie's formula.

    Write down log q(x_t | x_0) for one pixel, a Gaussian, and differentiate it with respect to x_t.

    The score is -(x_t - signal * x0) / sigma**2, and x_t - signal * x0 is sigma * eps.

    `eps = -sigma * score`, and then `(xt - sigma * eps) / signal, eps`.
    """
    random = torch.Generator().manual_seed(0)
    x0, eps = torch.randn(2, 5, generator=random, dtype=torch.float64)
    xt = (0.6 * x0 + 0.8 * eps).requires_grad_()
    torch.distributions.Normal(0.6 * x0, 0.8).log_prob(xt).sum().backward()
    found = f(xt.grad, xt.detach(), 0.6, 0.8)
    same = lambda a, b: (a - b).abs().max() < 1e-9
    x0_hat, eps_hat = found
    assert not same(x0_hat, eps), 'the pair is the wrong way round: first the image, then the noise'
    assert not same(eps_hat, -eps), (
        'the noise has the wrong sign: log q grows towards the image, and the noise leads away')
    times = (eps_hat / eps).mean().item()
    assert same(eps_hat, eps), (
        f'the noise comes out {times:.2f} times as large as it is, with a sigma of 0.8: '
        'differentiate log q by hand')
    assert same(x0_hat, x0), (
        'the noise is right, the image is not: signal * x0 + sigma * eps must be x_t again')

    schedule, cov = cosine(1000), torch.tensor([[0.05, 0.03], [0.03, 0.08]]).double()
    xt = torch.randn(6, 2, generator=random, dtype=torch.float64)
    for index in (50, 400, 900):                        # the score of q(x_t), of all data at once
        signal, sigma = schedule.scales(index, like=xt)
        spread = signal**2 * cov + sigma**2 * torch.eye(2).double()
        x0_hat, _ = f(-torch.linalg.solve(spread, xt.T).T, xt, signal, sigma)
        best = gaussian_denoiser(xt, index, torch.zeros(2).double(), cov, schedule)
        assert same(x0_hat, best), (
            f'right at 0.6 and 0.8, wrong at the scales of index {index}: what is taken as fixed?')


def check_min_snr(f: Answer) -> None:
    """One training, in three currencies: a weight means nothing without its loss.

    First ask what an error of one in x_0 costs in eps, and what it costs in v.

    It costs SNR in eps, and SNR + 1 in v: an error in v is one of both coordinates.

    `schedule.snr.clamp(max=cap)` divided by 1, by `schedule.snr`, or by `schedule.snr + 1`.
    """
    schedule = cosine(1000)
    snr, found = schedule.snr, f(schedule, 'x0', 5.0)
    same = lambda a, b: torch.allclose(a.double(), b.double(), rtol=1e-6, atol=0)
    assert found.shape == snr.shape, f'one weight for each index, (1000,), not {tuple(found.shape)}'
    high = snr > 5
    assert same(found[high], torch.full_like(snr[high], 5)), (
        'in x0, where the SNR is above the cap, the weight is the cap and no more')
    assert same(found[~high], snr[~high]), 'in x0, below the cap, the weight is the SNR itself'
    assert same(f(schedule, 'x0', 1.0), snr.clamp(max=1)), 'the cap is an argument, not always 5'

    random, t = torch.Generator().manual_seed(0), torch.arange(1000)
    x0, eps = torch.randn(2, 1000, 1, 2, 2, generator=random, dtype=torch.float64)
    signal, sigma = schedule.scales(t, like=x0)
    wrong_pair = x0 + 0.1, eps - 0.1 * signal / sigma   # they make up the same x_t
    for name in ('eps', 'v'):
        weights = f(schedule, name, 5.0)
        assert not same(weights, found), (
            f'{name}: the weights of x0 once more, but the same error is another loss in {name}')
        assert name == 'eps' or not same(weights, f(schedule, 'eps', 5.0)), (
            'v: the weights of eps once more, but an error in v is one of both coordinates')
        answer = target(name, *wrong_pair, t, schedule)
        xt = signal * x0 + sigma * eps
        loss = diffusion_losses(answer, xt, x0, eps, (signal, sigma), OBJECTIVES[name])['loss']
        ratio = weights * loss / (0.01 * snr.clamp(max=5))
        k = (ratio - 1).abs().argmax().item()
        assert same(ratio, torch.ones(1)), (
            f'{name}, index {k}: weight times loss is {ratio[k]:.3g} times what it is in x0; what '
            f'does an error of one in x0 cost in {name}?')


check = Checks(check_solve_score, check_min_snr)
