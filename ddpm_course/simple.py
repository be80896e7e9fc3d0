"The batch of a training step, and L_simple of it: Algorithm 1, lines 2 to 5."
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .base.group import Group
from .config import RunConfig
from .forward import q_sample
from .losses import diffusion_losses
from .model import Model


@dataclass(frozen=True)
class Batch:
    "What one training step sees, the arguments of Algorithm 1."
    place: Tensor           # (B,) places in the global batch
    x0: Tensor              # (B, C, H, W) in [-1, 1]
    t: Tensor               # (B,) indices
    weight: Tensor          # (B,) how much each counts; ones where every t is equally likely
    eps: Tensor             # like x0
    y: Tensor | None        # (B,) classes, num_classes where dropped; None without classes

    def to(self, like: Tensor) -> 'Batch':
        "On the device of `like`, images and noise in its type."
        def move(x: Tensor) -> Tensor:          # from pinned memory a GPU copies in the background
            x, kind = x.pin_memory() if like.is_cuda else x, like.dtype
            return x.to(like.device, kind if x.is_floating_point() else None, non_blocking=True)
        return replace(self, **{k: move(x) for k, x in vars(self).items() if x is not None})


def every_t(u: Tensor, T: int) -> tuple[Tensor, Tensor]:
    "Indices t, each equally likely, and their weights, (B,) each, from numbers `u` in [0, 1)."
    return (u * T).long(), torch.ones(len(u))


class Simple:
    "L_simple (DDPM, eq. 14): every t equally often, the squared error of the objective."
    ahead = True            # `times` does not depend on earlier losses: batches may be made ahead

    def __init__(self, config: RunConfig | None = None):
        "Take what is needed from a run's configuration; nothing, here."

    def times(self, u: Tensor, T: int) -> tuple[Tensor, Tensor]:
        "Line 3: indices t and their weights, (B,) each, from numbers `u` in [0, 1)."
        return every_t(u, T)

    def losses(self, model: Model, batch: Batch) -> dict[str, Tensor]:
        "Line 5: (B,) values of 'loss', which is minimised; 'eps_mse' and 'x0_mse' are watched."
        xt = q_sample(batch.x0, batch.t, batch.eps, model.schedule)
        out, scales = model.answer(xt, batch.t, batch.y), model.schedule.scales(batch.t, like=xt)
        return diffusion_losses(out, xt, batch.x0, batch.eps, scales, model.objective)

    def see(self, batch: Batch, loss: Tensor) -> None:
        "Learn from the losses of a slice; nothing, here."

    def end_step(self, group: Group, size: int) -> None:
        "Take in what all processes saw of a batch of `size`, once a step; nothing, here."

    def state_dict(self) -> dict[str, Tensor]:
        "What must be kept for the next step; it goes into the checkpoint."
        return {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        "Go on from what `state_dict` kept."


class Capped(Simple):
    """The squared error in x_0 times min(1 + SNR, cap), whatever the objective: the loss weight of
    v (page 09), with the cap that Hang et al. (2023) put on the SNR."""

    def __init__(self, config: RunConfig | None = None, *, cap: float = 5.0):
        "`--set cap=NUMBER` gives another cap; nothing of a run's configuration is needed."
        self.cap = cap

    def losses(self, model: Model, batch: Batch) -> dict[str, Tensor]:
        "As those of `Simple`, with another weight at each t in 'loss'."
        found = super().losses(model, batch)
        signal, sigma = (scale.flatten() for scale in model.schedule.scales(batch.t, batch.x0))
        plain = model.objective.target(1, -signal / sigma, signal, sigma)**2    # of an error in x_0
        return found | {'loss': found['loss'] * (1 / sigma**2).clamp(max=self.cap) / plain}


LOSSES = ('loss', 'eps_mse', 'x0_mse')  # what every criterion gives


def quarter_sums(
    values: Tensor,                 # (B,) one loss per sample
    t: Tensor,                      # (B,) indices in 0..T-1
    T: int,
    weight: Tensor | None = None,   # (B,) how often each counts; None: once
) -> Tensor:                        # (2, 4) float64: weighted sums and counts in each quarter of t
    "Add up losses by quarter of t; sums over counts give the means of any number of batches."
    device = 'cpu' if values.device.type == 'mps' else values.device    # mps has no float64
    inside = (t * 4 // T).to(device) == torch.arange(4, device=device)[:, None]
    exact = values.detach().to(device, torch.float64)
    once = torch.ones_like(exact) if weight is None else weight.to(device, torch.float64)
    sums = torch.where(inside, once * exact, 0.0).sum(1)
    return torch.stack([sums, torch.where(inside, once, 0.0).sum(1)])
