"The flow: it carries the cloud and keeps the order, DDIM and Heun follow it, and it leads back to the noise."

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from ddpm_course.config import SamplingConfig
from ddpm_course.data.sets import load_digits, to_float
from ddpm_course.draws import Purpose, normal
from ddpm_course.exact import dataset_denoiser
from ddpm_course.flow import along, between, follow, invert, no_noise, sample_between
from ddpm_course.lesson.toys import digit_points
from ddpm_course.losses import OBJECTIVES
from ddpm_course.model import Model
from ddpm_course.run.runs import load_model
from ddpm_course.sampling import plan, sample, walk
from ddpm_course.schedules import cosine
from ddpm_course.steps import ddim_step, heun_step, sampling_indices, velocity

SCHEDULE = cosine(1000)
THREE = torch.tensor([[-0.9], [0.1], [0.7]]).double()
LEVELS = [t + 1 for t in sampling_indices(1000, 200)] + [0]
EXACTLY = {"clip": False, "guidance": 1.0}
PLAIN = {"guidance": 1.0}


def abar_at(t):
    return SCHEDULE.alpha_bars[t].item() if t >= 0 else 1.0


def s_at(t):
    return ((1 - abar_at(t)) / abar_at(t)) ** 0.5


def randn(step, shape):
    return normal(shape, 0, Purpose.LESSON, step, [0])[0].double()


def exact_model(data):
    def network(x, t, y):
        return dataset_denoiser(x, int(t[0]), data, SCHEDULE)

    return Model(network, SCHEDULE, OBJECTIVES["x0"], data.shape[1:])


def walks(model, x, steps=200, **how):
    "All x on the way, (steps + 1, ...)."
    route = plan(SamplingConfig(steps=steps, clip=False, **how), model)
    return torch.stack([state for _, state, _ in walk(model, route, lambda t: randn(10 + t, x.shape), x=x)])


LINE, PLANE = exact_model(THREE), exact_model(2 * digit_points(200).double())
START, CLOUD = randn(0, (400, 1)), randn(1, (400, 2))


@pytest.fixture(scope="module")
def ways():
    return {sampler: walks(LINE, START, sampler=sampler) for sampler in ("ddpm", "ddim")}


# -- the flow of three numbers ----------------------------------------------------------------------------------------


def bells(x, t):
    "The share of the noised data below x, at index t."
    signal, sigma = SCHEDULE.scales(t, like=x)
    return torch.special.ndtr((x - signal * THREE[:, 0]) / sigma).mean(1, keepdim=True)


def exact_flow(x, t, t_next):
    "Where the flow carries x (N, 1) from index t to t_next: to the same quantile."
    wanted = bells(x, t)
    low, high = torch.full_like(x, -8.0), torch.full_like(x, 8.0)
    for _ in range(60):
        middle = (low + high) / 2
        below = bells(middle, t_next) < wanted
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return middle


def largest_gap(x, t):
    "The largest vertical distance of the curves (Kolmogorov and Smirnov)."
    even = (torch.arange(len(x)) + 0.5) / len(x)
    return (bells(x, t)[:, 0].sort().values - even).abs().max().item()


def test_curves_keep_their_order(ways):
    order = START[:, 0].argsort()
    kept = {name: (x[:, order, 0].diff(dim=1) >= -1e-9).all(1).sum() for name, x in ways.items()}
    assert kept["ddim"] == 201 and kept["ddpm"] < 10


@pytest.mark.parametrize("t", [750, 500, 250])
def test_the_cloud_is_that_of_the_noised_data(ways, t):
    "With noise on the way and without; as a control, the truth at another level is refused."
    walked, flowed = (states[LEVELS.index(t)] for states in ways.values())
    assert max(largest_gap(walked, t - 1), largest_gap(flowed, t - 1)) < 0.081 < largest_gap(flowed, 0)


def test_ddim_follows_the_true_flow(ways):
    error = (ways["ddim"][LEVELS.index(500)] - exact_flow(START, 999, 499)).abs()
    assert error.max() < 0.05


def test_the_order_of_each_method():
    "Between t = 900 and 100, doubling the steps halves DDIM's error and quarters Heun's."
    wanted, falls = exact_flow(START, 899, 99), {}
    for sampler in ("ddim", "heun"):
        how = SamplingConfig(sampler, **EXACTLY)
        found = [along(LINE, START, [899 - k * 800 // n for k in range(n + 1)], how=how) for n in (80, 160)]
        few, many = ((there - wanted).abs().mean().item() for there in found)
        falls[sampler] = few / many
    assert 1.8 < falls["ddim"] < 2.2 and 3.5 < falls["heun"] < 4.5


# -- steps ------------------------------------------------------------------------------------------------------------


def about(x, t):
    found = PLANE.predict(x, t, clip=False)
    return found.x0, found.eps


def test_ddim_is_eulers_method():
    here, there = abar_at(499), abar_at(399)
    x0, eps = about(CLOUD, 499)
    euler = there**0.5 * (CLOUD / here**0.5 + (s_at(399) - s_at(499)) * eps)
    assert (euler - ddim_step(x0, eps, 0 * CLOUD, here, there, 0.0)).abs().max() < 1e-12


def test_a_step_of_heun_by_hand():
    here, there = abar_at(499), abar_at(399)
    x0, eps = about(CLOUD, 499)
    fallen = math.acos(there**0.5) - math.acos(here**0.5)
    v = velocity(x0, eps, here)
    assert torch.allclose(v, here**0.5 * eps - (1 - here) ** 0.5 * x0)

    def ask(x):
        return about(x, 399)

    v_there = velocity(*ask(CLOUD + fallen * v), there)
    stepped = heun_step(x0, eps, CLOUD, ask, here, there)
    assert torch.allclose(stepped, CLOUD + fallen * (v + v_there) / 2)
    assert torch.equal(heun_step(x0, eps, CLOUD, ask, here, 1.0), x0)


@pytest.mark.parametrize("sampler", ["ddim", "heun", "dpm"])
def test_along_is_a_walk_without_its_last_step(sampler):
    how = SamplingConfig(sampler, **EXACTLY)
    found = along(PLANE, CLOUD, sampling_indices(1000, 10), how=how)
    assert torch.allclose(found, walks(PLANE, CLOUD, 10, sampler=sampler)[-2], atol=1e-12)


def test_the_flow_has_no_noise():
    for noisy in ({"sampler": "ddpm"}, {"sampler": "ddim", "eta": 0.5}):
        with pytest.raises(ValueError, match="the flow has no noise: expected the sampler dpm, heun, or ddim"):
            along(PLANE, CLOUD, sampling_indices(1000, 10), how=SamplingConfig(**noisy, **EXACTLY))
    with pytest.raises(ValueError, match="the flow has no noise"):
        no_noise()


# -- the network ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model():
    return load_model(precision="fp32")


@pytest.mark.thorough
def test_a_digit_comes_back_from_its_noise(model):
    held_out, y = load_digits("test", 16), torch.arange(10)
    unseen = to_float(held_out.pixels[[np.flatnonzero(held_out.labels == c)[1] for c in range(10)]])

    def back(name, n):
        how = SamplingConfig(name, steps=n, guidance=1.0)
        return (follow(model, invert(model, unseen, y, how), y, how) - unseen).abs().mean()

    missed = {name: {n: back(name, n) for n in (10, 20)} for name in ("ddim", "heun")}
    assert missed["heun"][20] < 0.02
    assert all(missed["heun"][n] < missed["ddim"][n] for n in (10, 20))
    assert all(found[10] > 1.5 * found[20] for found in missed.values())


# -- between noises ---------------------------------------------------------------------------------------------------


def test_between_goes_evenly_along_the_sphere():
    a, b = (normal((1, 16, 16), seed, Purpose.SAMPLE, 0, range(200)) for seed in (0, 1))
    assert torch.equal(between(a, b, 0.0), a) and torch.equal(between(a, b, 1.0), b)
    assert torch.allclose(between(a, a, 0.3), a, atol=1e-6)
    way = [between(a, b, r) for r in (0.25, 0.5, 0.75)]

    def turn(x, y):
        return torch.cosine_similarity(x.flatten(1), y.flatten(1)).arccos()

    for x, x_next in zip([a, *way], [*way, b]):  # four like angles
        assert (turn(x, x_next) - turn(a, b) / 4).abs().mean() < 0.03
    each = between(a[:2], b[:2], torch.tensor([0.0, 1.0]))
    assert torch.allclose(each, torch.stack([a[0], b[1]]), atol=1e-6)


def test_sample_between_ends_at_what_sample_draws(model):
    how = SamplingConfig(steps=15, seed=3)
    grid = sample_between(model, 4, n=5, how=how)
    assert grid.shape == (50, 1, 16, 16)
    assert torch.allclose(grid[:10], sample(model, how=how), atol=1e-3)
    assert torch.allclose(grid[-10:], sample(model, how=replace(how, seed=4)), atol=1e-3)
    with pytest.raises(ValueError, match="it takes at least 2 rows, not 1"):
        sample_between(model, 4, n=1)
    with pytest.raises(ValueError, match="the flow has no noise"):
        sample_between(model, 4, how=SamplingConfig("ddpm"))
