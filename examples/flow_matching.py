"""Flow matching (Lipman et al. 2022; Liu et al. 2022): straight paths from noise to image, their slope, Euler's steps.

    ddpm train --plugin examples/flow_matching.py --schedule straight --objective slope
    ddpm sample RUN --plugin examples/flow_matching.py --sampler euler

On the straight path x = (1 - s) x_0 + s eps; a walk that keeps the variance, as all here do, is this x divided by
its length: signal / (signal + sigma) = 1 - s. So the schedule is one table, and the objective one formula.
"""

import torch
from torch import Tensor

from ddpm_course import OBJECTIVES, SAMPLERS, SCHEDULES, Objective, Schedule, Step


def straight(T: int) -> Schedule:
    "s grows evenly up to nearly 1."
    s = torch.arange(1, T + 1, dtype=torch.float64) / (T + 1)
    abar = (1 - s) ** 2 / ((1 - s) ** 2 + s**2)
    return Schedule(1 - abar / torch.cat([torch.ones(1, dtype=torch.float64), abar[:-1]]))


def solve(slope: Tensor, xt: Tensor, signal: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    "x_0 and eps, where eps - x_0 is the slope."
    x0 = (xt - sigma * slope) / (signal + sigma)
    return x0, x0 + slope


def euler(step: Step) -> Tensor:
    "One step of Euler's along the straight path, whose names are changed before and after."
    here, there = ((abar**0.5, (1 - abar) ** 0.5) for abar in (step.abar, step.abar_next))
    x, s, s_next = step.x / sum(here), here[1] / sum(here), there[1] / sum(there)
    return (x + (s_next - s) * (step.now.eps - step.now.x0)) * sum(there)


SCHEDULES["straight"] = straight
OBJECTIVES["slope"] = Objective(target=lambda x0, eps, signal, sigma: eps - x0, solve=solve)
SAMPLERS["euler"] = euler
