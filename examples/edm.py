"""EDM (Karras et al. 2022): preconditioning, spacing by rho, Heun's method with churn.

    ddpm train --plugin examples/edm.py --objective edm --network edm --set data_std=0.6
    ddpm sample RUN --plugin examples/edm.py --sampler churn --spacing rho --set churn=20 --set rho=7

EDM's x is x_0 + s eps; a walk that keeps the variance has signal times it, with s = sigma / signal.
"""

import math

import torch
from torch import Tensor, nn

from ddpm_course import NETWORKS, OBJECTIVES, SAMPLERS, SPACINGS, Objective, RunConfig, Schedule, Step
from ddpm_course.model import build_schedule, unet

STD = 0.5  # of the data, in the objective: what the network is asked for has variance 1 (table 1)


def answer(x0: Tensor, eps: Tensor, signal: Tensor, sigma: Tensor) -> Tensor:
    "F such that x_0 = c_skip x + c_out F."
    skip, out = coefficients(sigma / signal)
    return (x0 - skip * (x0 + sigma / signal * eps)) / out


def coefficients(s: Tensor) -> tuple[Tensor, Tensor]:
    return STD**2 / (s**2 + STD**2), s * STD / (s**2 + STD**2) ** 0.5


def solve(F: Tensor, xt: Tensor, signal: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    skip, out = coefficients(sigma / signal)
    x0 = skip * xt / signal + out * F
    return x0, (xt - signal * x0) / sigma


class Scaled(nn.Module):
    "A network whose input has variance 1 (c_in)."

    def __init__(self, network: nn.Module, schedule: Schedule, data_std: float):
        super().__init__()
        self.network = network
        abar = schedule.alpha_bars
        self.register_buffer("scale", (abar * data_std**2 + 1 - abar).rsqrt().float(), persistent=False)

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        return self.network(x * self.scale[t][:, None, None, None], t, y)


def edm(config: RunConfig, *, data_std: float = STD) -> Scaled:
    return Scaled(unet(config), build_schedule(config), data_std)


def rho(T: int, steps: int, *, schedule: Schedule, rho: float = 7.0) -> list[int]:
    "Levels evenly apart in s^(1/rho) (eq. 5), from 80 down, each the nearest that the schedule has."
    s = (1 / schedule.alpha_bars - 1).sqrt()
    first, last = min(s[-1].item(), 80.0) ** (1 / rho), s[0].item() ** (1 / rho)
    wanted = torch.linspace(first, last, steps, dtype=torch.float64) ** rho
    nearest = (s.log()[None] - wanted.log()[:, None]).abs().argmin(1)
    return sorted(set(nearest.tolist()), reverse=True)


def churn(step: Step, *, churn: float = 0.0, noise: float = 1.0) -> Tensor:
    "Algorithm 2: add noise up to a higher level, then Heun's step from there."
    abars, t, x, now = step.alpha_bars, step.t, step.x, step.now
    level = lambda abar: math.sqrt(1 / abar - 1)
    if churn:
        more = min(churn / (len(step.indices) - 1), math.sqrt(2) - 1)
        s_hat = level(step.abar) * (1 + more)
        up = int(((1 / abars - 1).sqrt() - s_hat).abs().argmin())
        if up > t:
            added = math.sqrt(level(abars[up].item()) ** 2 - level(step.abar) ** 2)
            x = abars[up].item() ** 0.5 * (x / step.abar**0.5 + noise * added * step.noise())
            t, now = up, step.ask(x, up)
    abar = abars[t].item()
    s, s_next, x = level(abar), level(step.abar_next) if step.abar_next < 1 else 0.0, x / abar**0.5
    slope = (x - now.x0) / s
    ahead = x + (s_next - s) * slope
    if s_next:
        there = step.ask(ahead * step.abar_next**0.5, step.t_next)
        ahead = x + (s_next - s) * (slope + (ahead - there.x0) / s_next) / 2
    return ahead * step.abar_next**0.5


OBJECTIVES["edm"] = Objective(target=answer, solve=solve)
NETWORKS["edm"] = edm
SPACINGS["rho"] = rho
SAMPLERS["churn"] = churn
