"The variational bound: each part beside PyTorch's own numbers, and the sum beside an entropy that is known."

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.distributions import Normal, kl_divergence

from ddpm_course.bits import output_bound
from ddpm_course.bound import (
    bound_term,
    decoder_nll,
    normal_kl,
    prior_term,
    reverse_log_variance,
    variance_tables,
)
from ddpm_course.data.sets import load_digits, to_float
from ddpm_course.forward import q_posterior, q_sample
from ddpm_course.losses import OBJECTIVES
from ddpm_course.model import Model
from ddpm_course.schedules import cosine, linear

LEVELS = torch.arange(256).double() / 127.5 - 1  # the values of the bytes
ENDS = torch.tensor([torch.inf])
EDGES = torch.cat([-ENDS, (LEVELS[1:] + LEVELS[:-1]) / 2, ENDS])


def noise(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).double()


def test_the_divergence_of_gaussians_is_that_of_pytorch():
    a, b, c, d = noise(4, 1000)
    expected = kl_divergence(Normal(a, (b / 2).exp()), Normal(c, (d / 2).exp()))
    assert torch.allclose(normal_kl(a, b, c, d), expected, atol=1e-12)
    assert not normal_kl(a, b, a, b).any()


@pytest.mark.parametrize("mean, sigma", [(0.1, 0.2), (-1.2, 0.05), (0.9999, 0.003), (0.5, 3.0), (0.3, 0.0005)])
def test_the_decoder_gives_each_byte_the_area_of_its_bin(mean, sigma):
    nll = decoder_nll(LEVELS, *torch.tensor([mean, 2 * math.log(sigma)]).double())
    assert abs((-nll).exp().sum() - 1) < 1e-9 and nll.isfinite().all()
    assert torch.allclose((-nll).exp(), Normal(mean, sigma).cdf(EDGES).diff(), atol=1e-12)


def test_the_decoder_is_finite_467_sigmas_away():
    far = decoder_nll(*torch.tensor([0.5, -0.9, 2 * math.log(0.003)]).double())
    assert abs(far / ((1.4 - 1 / 255) ** 2 / 2 / 0.003**2) - 1) < 1e-3


def test_the_variances_of_a_step():
    schedule, wide, t = cosine(1000), torch.zeros(5, 1, 1, 1).double(), torch.tensor([0, 1, 10, 100, 500])
    small, large, middle = (
        reverse_log_variance(k, t, schedule, wide) for k in ("small", "large", torch.zeros_like(wide))
    )
    assert torch.allclose(small[1:].exp(), q_posterior(wide, wide, t, schedule)[1][1:])
    assert small[0] == large[0] == small[1]
    assert variance_tables(schedule, True)[0][0] == variance_tables(schedule, False)[1][1]
    assert torch.allclose(large[1:].exp().flatten(), schedule.betas[t[1:]])
    assert torch.allclose(middle[1:], (small[1:] + large[1:]) / 2)


def test_with_the_small_variance_a_term_is_a_weighted_error():
    schedule, t, (x0, guess, eps) = cosine(1000), torch.tensor([1, 30, 300, 999]), noise(3, 4, 1, 8, 8)
    xt = q_sample(x0, t, eps, schedule)
    mean, _ = q_posterior(guess, xt, t, schedule)
    term = bound_term(x0, xt, t, mean, reverse_log_variance("small", t, schedule, xt), schedule)
    gain = (schedule.snr[t - 1] - schedule.snr[t]) / 2
    assert torch.allclose(term, gain * (x0 - guess).square().flatten(1).mean(1) / math.log(2))


def test_the_factor_of_equation_12():
    "Of an error of one in eps, with the large variance; the small one has its own alpha-bar in it."
    s, pixel, eps = linear(1000), torch.tensor(0.3).double(), torch.tensor(-0.2).double()
    eq_12 = s.betas / (2 * s.alphas * (1 - s.alpha_bars))
    for k in (1, 500, 999):
        beta, alpha, abar, before = s.betas[k], s.alphas[k], s.alpha_bars[k], s.alpha_bars[k - 1]

        def mean(e, beta=beta, alpha=alpha, abar=abar):  # eq. 11
            return (pixel - beta / (1 - abar).sqrt() * e) / alpha.sqrt()

        best = Normal(mean(eps), (beta * (1 - before) / (1 - abar)).sqrt())  # eq. 7
        right, wrong = (kl_divergence(best, Normal(mean(e), beta.sqrt())) for e in (eps, eps + 1))
        assert abs(wrong - right - eq_12[k]) < 1e-12
        small = (s.snr[k - 1] / s.snr[k] - 1) / 2
        assert torch.isclose(small, eq_12[k] * (1 - abar) / (1 - before))


def test_the_prior_is_that_of_pytorch_and_next_to_nothing():
    x0 = noise(4, 1, 8, 8)
    signal, sigma = (part.item() for part in linear().scales(999, like=x0))
    expected = kl_divergence(Normal(signal * x0, sigma), Normal(0.0, 1.0)).flatten(1).mean(1)
    assert torch.allclose(prior_term(x0, linear()), expected / math.log(2))
    assert prior_term(x0, linear()).mean() < 1e-4 and prior_term(x0, cosine(1000)).mean() < 1e-8


def bound_over_entropy(std, variance):
    "Of Gaussian bytes under their best mean: exact sums over the bytes and, by quadrature, over the noise."
    schedule, (nodes, weights) = linear(200), np.polynomial.hermite_e.hermegauss(10)
    pixel = LEVELS.repeat_interleave(10).view(-1, 1, 1, 1)  # every byte with every node
    eps = torch.from_numpy(nodes).repeat(256).view(-1, 1, 1, 1)
    p = Normal(0, std).cdf(EDGES).diff()  # probability of each byte
    chance = (p[:, None] * torch.from_numpy(weights / weights.sum())).flatten()
    total = prior_term(pixel, schedule)
    for index in range(schedule.T):
        t, abar = torch.full((len(pixel),), index), schedule.alpha_bars[index]
        xt = q_sample(pixel, t, eps, schedule)
        share = abar * std**2 + 1 - abar
        mean, posterior = q_posterior(abar.sqrt() * std**2 / share * xt, xt, t, schedule)
        if variance == "exact":  # the posterior's, plus what x_t leaves open about x_0
            weight, _ = q_posterior(torch.ones_like(pixel), torch.zeros_like(pixel), index, schedule)
            log_var = (posterior + weight**2 * std**2 * (1 - abar) / share).log()
        else:
            log_var = reverse_log_variance(variance, t, schedule, pixel)
        total = total + bound_term(pixel, xt, t, mean, log_var, schedule)
    entropy = -(p * p.log2())[p > 0].sum()
    return ((chance * total).sum() / entropy).item()


def test_the_bound_of_the_exact_model_is_the_entropy():
    "Under a fixed variance it lies above: broad data want the large one."
    assert abs(bound_over_entropy(0.25, "exact") - 1) < 0.002
    large, small = (bound_over_entropy(0.25, kind) for kind in ("large", "small"))
    assert 1.01 < large < small


def test_a_network_that_knows_the_noise_pays_the_decoder_only():
    schedule, pixels = cosine(1000), to_float(load_digits("test", 16).pixels[::200]).double()
    t, eps = torch.tensor([0, 3, 700]), noise(*pixels.shape)
    xt = q_sample(pixels, t, eps, schedule)
    knows = Model(lambda xt, t, y: eps, schedule, OBJECTIVES["eps"], (1, 16, 16), "small")
    perfect, x0_hat = output_bound(knows, eps, pixels, xt, t)
    assert torch.allclose(x0_hat, pixels, atol=1e-4)
    assert perfect[0] > 0.4 and perfect[1:].abs().max() < 1e-6
    v = torch.cat([eps, torch.full_like(eps, -1.0)], dim=1)  # v = -1 is small
    assert torch.allclose(output_bound(replace(knows, variance="learned"), v, pixels, xt, t)[0], perfect)
