import torch

from ..answers import Answer, Checks
from ...losses import OBJECTIVES, diffusion_losses
from ...schedules import cosine


def check_min_snr(f: Answer) -> None:
    """One training, three losses: a weight means nothing without its loss.

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
        answer = OBJECTIVES[name].target(*wrong_pair, signal, sigma)
        xt = signal * x0 + sigma * eps
        loss = diffusion_losses(answer, xt, x0, eps, (signal, sigma), OBJECTIVES[name])['loss']
        ratio = weights * loss / (0.01 * snr.clamp(max=5))
        k = (ratio - 1).abs().argmax().item()
        assert same(ratio, torch.ones(1)), (
            f'{name}, index {k}: weight times loss is {ratio[k]:.3g} times what it is in x0; what '
            f'does an error of one in x0 cost in {name}?')


check = Checks(check_min_snr)
