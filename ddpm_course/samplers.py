"The samplers by name: each takes one step of a walk (see `sampling.walk`) by a formula of `steps`."
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .model import Prediction
from .steps import ddim_step, ddpm_step, dpm_step, heun_step


@dataclass(frozen=True)
class Step:
    "All that a sampler may use to take one step."
    x: Tensor                       # where we are, (B, ...)
    now: Prediction                 # what the model says about it
    before: Prediction | None       # what it said one step earlier; None in the first step
    t: int                          # index here ...
    t_next: int                     # ... and where we go; -1: the image
    abar_before: float              # alpha-bar one step earlier ...
    abar: float                     # ... here ...
    abar_next: float                # ... and where we go; 1 in the last step
    alpha_bars: Tensor              # (T,) of all indices, for `ask` at others
    indices: tuple[int, ...]        # of the whole walk, in its order
    variance: str                   # of ddpm: 'large', 'small' or 'learned'
    eta: float                      # noise of ddim
    noise: Callable[[], Tensor]     # standard normal, like x; the same at each call
    ask: Callable[[Tensor, int], Prediction]    # the model, about an x at an index


def ddpm(step: Step) -> Tensor:
    "Ancestral sampling (Ho et al., Algorithm 2). Raises ValueError for a variance nobody learned."
    variance = step.now.v if step.variance == 'learned' else step.variance
    if variance is None:
        raise ValueError('this network has learned no variance: expected large or small')
    z = torch.zeros_like(step.x) if step.abar_next == 1 else step.noise()
    return ddpm_step(step.now.x0, step.x, z, step.abar, step.abar_next, variance)


def ddim(step: Step) -> Tensor:
    "DDIM (Song et al. 2020)."
    z = step.noise() if step.eta and step.abar_next < 1 else torch.zeros_like(step.x)
    return ddim_step(step.now.x0, step.now.eps, z, step.abar, step.abar_next, step.eta)


def dpm(step: Step) -> Tensor:
    "DPM-Solver++(2M) (Lu et al. 2022)."
    before = None if step.before is None else step.before.x0
    return dpm_step(step.now.x0, before, step.x, step.abar_before, step.abar, step.abar_next)


def heun(step: Step) -> Tensor:
    "Heun's method (Karras et al. 2022), which asks the model twice."
    def ask(x: Tensor) -> tuple[Tensor, Tensor]:
        said = step.ask(x, step.t_next)
        return said.x0, said.eps
    return heun_step(step.now.x0, step.now.eps, step.x, ask, step.abar, step.abar_next)


SAMPLERS: dict[str, Callable[[Step], Tensor]] = {
    'ddpm': ddpm, 'ddim': ddim, 'dpm': dpm, 'heun': heun}
