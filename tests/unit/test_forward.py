"Steps, jumps and the posterior agree exactly, at every step: a Gaussian is followed by its factor and its variance."

import pytest
import torch

from ddpm_course.forward import posterior_tables, q_sample, q_step
from ddpm_course.schedules import cosine, linear


@pytest.mark.parametrize("schedule", [linear(), cosine(), linear(25)], ids=["linear", "cosine", "short"])
def test_all_steps_are_one_jump(schedule):
    one, zero = torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    factor, variance = one, zero
    for t in range(schedule.T):
        factor = q_step(factor, t, zero, schedule)
        variance = q_step(zero, t, one, schedule) ** 2 + schedule.alphas[t] * variance
        assert torch.allclose(factor, q_sample(one, t, zero, schedule), rtol=1e-9)
        assert torch.allclose(variance, q_sample(zero, t, one, schedule) ** 2, rtol=1e-9)


@pytest.mark.parametrize("schedule", [linear(), cosine(), linear(25)], ids=["linear", "cosine", "short"])
def test_a_jump_and_a_step_back_are_the_jump_before(schedule):
    "If x_t is drawn by the jump and x_{t-1} by the posterior, then x_{t-1} is as drawn by its own jump."
    of_x0, of_xt, variance = posterior_tables(schedule)
    abar, before = schedule.alpha_bars, schedule.alpha_bars_prev
    assert torch.allclose(of_x0 + of_xt * abar.sqrt(), before.sqrt(), rtol=1e-9)
    assert torch.allclose(of_xt**2 * (1 - abar) + variance, 1 - before, rtol=1e-9, atol=1e-15)
    assert abs(of_x0[0] - 1) < 1e-9 and of_xt[0] == variance[0] == 0
