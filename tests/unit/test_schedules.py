"Noise schedules: against closed forms, in short types, and what bad ones say."

import pytest
import torch

from ddpm_course.betas import cosine_betas
from ddpm_course.schedules import SCHEDULES, Schedule, cosine, gather, linear, make_schedule, placed


def test_tables_of_equal_steps_are_powers():
    ten = Schedule(torch.full((10,), 0.2, dtype=torch.float64))
    powers = 0.8 ** torch.arange(1, 11, dtype=torch.float64)
    assert ten.T == 10 and torch.allclose(ten.alpha_bars, powers, rtol=1e-12)
    assert ten.alpha_bars_prev[0] == 1 and torch.equal(ten.alpha_bars_prev[1:], ten.alpha_bars[:-1])


@pytest.mark.parametrize("betas", [torch.tensor([0.5, 1.0], dtype=torch.float64), torch.tensor([0.5, 0.6])])
def test_bad_betas(betas):
    with pytest.raises(ValueError, match="strictly between 0 and 1"):
        Schedule(betas)


@pytest.mark.parametrize("T", [50, 100, 500, 4000])
def test_linear_ends_follow_its_length(T):
    "Another number of steps leaves about as little of the image; between the same ends it does not."
    assert abs(linear(T).alpha_bars[-1].log() / linear().alpha_bars[-1].log() - 1) < 0.25
    assert linear(T).alpha_bars[-1] < 1e-4
    assert linear(50, 1e-4, 0.02).alpha_bars[-1] > 0.5


def test_linear_by_logarithms():
    by_logs = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64).neg().log1p().cumsum(0).exp()
    assert torch.allclose(linear().alpha_bars, by_logs, rtol=1e-12)


def test_cosine_is_the_curve_but_for_the_clip():
    "Its constants, too: a run stores the name of its schedule, and no number of it."
    t = torch.arange(1001, dtype=torch.float64) / 1000
    f = torch.cos((t + 0.008) / 1.008 * torch.pi / 2) ** 2
    curve, made = f[1:] / f[0], cosine()
    assert torch.allclose(made.alpha_bars[:-1], curve[:-1], rtol=1e-9)
    assert made.alpha_bars[-1] > curve[-1] and (made.betas == 0.999).sum() == 1
    assert cosine_betas(s=0)[0] < made.betas[0] / 10 and cosine(2).T == 2


def test_too_short():
    with pytest.raises(ValueError, match="T = 20 is too short"):
        linear(20)
    with pytest.raises(ValueError, match="at least 2 steps"):
        cosine(1)


def test_the_cast_comes_last():
    "In bfloat16 alpha-bar of the first step is 1, and the noise would be 0."
    batch = torch.zeros(2, 3, 8, 8, dtype=torch.bfloat16)
    assert 1 - linear().alpha_bars[0].bfloat16() == 0
    signal, noise = linear().scales(torch.tensor([0, 999]), like=batch)
    assert abs(noise[0].item() - 0.01) < 1e-4 and noise[1] == 1 == signal[0]


def test_gather():
    entries, batch = torch.linspace(0, 1, 5, dtype=torch.float64), torch.zeros(2, 3, 8, 8, dtype=torch.bfloat16)
    picked = gather(entries, torch.tensor([1, 4]), batch)
    assert picked.shape == (2, 1, 1, 1) and picked.flatten().tolist() == [0.25, 1.0]
    assert gather(entries, 1, batch).dtype == torch.bfloat16
    assert placed(entries, torch.bfloat16, batch.device) is placed(entries, torch.bfloat16, batch.device)


def test_by_name(monkeypatch):
    assert torch.equal(make_schedule("cosine", 50).betas, cosine(50).betas)
    with pytest.raises(ValueError, match="no schedule is called 'foo': expected one of linear, cosine"):
        make_schedule("foo", 100)
    monkeypatch.setitem(SCHEDULES, "short", lambda T: cosine(T - 1))
    with pytest.raises(ValueError, match="the schedule short has 99 steps where 100 were asked for"):
        make_schedule("short", 100)
