"The loss weight min(1 + SNR, cap): one training, whatever the network predicts."

import math
from types import SimpleNamespace

import pytest
import torch

from ddpm_course.config import PRESETS, override
from ddpm_course.criteria import build_criterion
from ddpm_course.losses import OBJECTIVES
from ddpm_course.schedules import cosine
from ddpm_course.simple import Batch

T = torch.tensor([0, 1, 90, 300, 500, 700, 950, 999])
X0, EPS = torch.randn(2, len(T), 1, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("own, cap", [((), 5), (("cap=2",), 2), (("cap=1e9",), 1e9)])
def test_an_error_in_x0_has_the_weight_of_v_up_to_a_cap(objective, own, cap):
    config = override(PRESETS["mnist16"], loss="capped", own=own, objective=objective)
    abar = cosine(1000).alpha_bars[T].view(-1, 1, 1, 1)
    wrong = X0 + torch.linspace(0.1, 0.8, len(T), dtype=torch.float64).view(-1, 1, 1, 1)
    noise = EPS + (abar.sqrt() * (X0 - wrong)) / (1 - abar).sqrt()  # that goes with it
    answer = OBJECTIVES[objective].target(wrong, noise, abar.sqrt(), (1 - abar).sqrt())
    model = SimpleNamespace(answer=lambda *_: answer, schedule=cosine(1000), objective=OBJECTIVES[objective])
    batch = Batch(T, X0, T, torch.ones(len(T)), EPS, None)
    found = build_criterion(config).losses(model, batch)["loss"]
    for k, signal in enumerate(abar.flatten().tolist()):
        assert math.isclose(found[k], min(1 / (1 - signal), cap) * (0.1 + 0.1 * k) ** 2, rel_tol=1e-4)


def test_a_learned_variance_would_not_be_learned():
    with pytest.raises(ValueError, match="variance learned goes with loss hybrid or vlb"):
        override(PRESETS["mnist16"], loss="capped", variance="learned")
