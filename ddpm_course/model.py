from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .base.registry import look_up
from .base.machine import autocast
from .config import RunConfig
from .losses import OBJECTIVES, Objective
from .schedules import Schedule, make_schedule
from .unet import UNet


@dataclass(frozen=True)
class Prediction:
    "What a network's answer says about a noised image."
    x0: Tensor              # the clean image, like xt
    eps: Tensor             # the noise that belongs to it, like xt
    v: Tensor | None        # of a learned variance, about [-1, 1], like xt; None without one


def read_answer(
    output: Tensor,                 # the network's answer, like xt or with twice the channels
    xt: Tensor,                     # (B, C, ...) what it was asked about
    t: int | Tensor,                # index, or (B,) indices
    schedule: Schedule,
    objective: Objective,           # what the network was asked for
    clip: bool = True,              # x_0 to [-1, 1], and the noise that belongs to that
) -> Prediction:
    "What an answer to `xt` says."
    answer, v = output[:, :xt.shape[1]], output[:, xt.shape[1]:]
    signal, sigma = schedule.scales(t, like=xt)
    x0, eps = objective.solve(answer, xt, signal, sigma)
    if clip:
        x0 = x0.clamp(-1, 1)
        eps = (xt - signal * x0) / sigma
    return Prediction(x0, eps, v if v.shape[1] else None)


@dataclass(frozen=True, eq=False)
class Model:
    "A network with all that gives its answer a meaning."
    network: Any                            # network(xt, t, y) -> Tensor; y None without classes
    schedule: Schedule
    objective: Objective                    # what it predicts, an entry of `OBJECTIVES`
    shape: tuple[int, ...]                  # of one sample, (C, H, W)
    variance: str = 'large'                 # of its reverse steps: 'large', 'small' or 'learned'
    classes: tuple[str, ...] = ()           # names of the classes that it is told; none: ()
    can_guide: bool = False                 # it also knows "no class", index len(classes)
    precision: str = 'fp32'                 # in which the network computes: 'bf16', 'fp16'

    @property
    def device(self) -> torch.device:
        "Where its weights are; a plain function is on the CPU."
        weights = self.network.parameters() if isinstance(self.network, nn.Module) else ()
        return next((w.device for w in weights), torch.device('cpu'))

    def eval(self) -> 'Model':
        "The same, with dropout off."
        if isinstance(self.network, nn.Module):
            self.network.eval()
        return self

    def answer(self, xt: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        "What the network says, computed in the model's precision, in the type of `xt`."
        with autocast(self.precision, xt.device):
            return self.network(xt, t, y).to(xt.dtype)

    def predict(self, xt: Tensor, t: int | Tensor, y: Tensor | None = None,
                clip: bool = True) -> Prediction:
        "Ask the network about `xt` (B, ...) at index `t`, one for all or (B,); y (B,) classes."
        times = (t.to(xt.device).expand(xt.shape[0]) if isinstance(t, Tensor) else
                 torch.full((xt.shape[0],), t, device=xt.device))
        return read_answer(self.answer(xt, times, y), xt, t, self.schedule, self.objective, clip)


def unet(config: RunConfig) -> UNet:
    "The U-Net of page 08 that a configuration describes, with its first weights."
    channels, n = config.data.image_channels or 1, config.network
    outputs = channels * (2 if config.diffusion.variance == 'learned' else 1)
    return UNet(channels, config.data.size, n.channels, n.multipliers, n.blocks, n.attention,
                n.dropout, config.num_classes, n.groups, config.training.seed, outputs)


NETWORKS: dict[str, Callable[[RunConfig], nn.Module]] = {'unet': unet}


def build_network(config: RunConfig) -> nn.Module:
    "The network that a configuration names. Raises ValueError for one that is not in `NETWORKS`."
    return look_up('network', NETWORKS, config.network.network, config.training.own)(config)


def build_schedule(config: RunConfig) -> Schedule:
    "The schedule that a configuration names. Raises ValueError for an unknown one."
    return make_schedule(config.diffusion.schedule, config.diffusion.T, config.training.own)


def build_model(config: RunConfig, network: Callable[..., Tensor] | None = None) -> Model:
    "The model of a configuration: with this network, or with a new one and its first weights."
    d, c = config.data, config.diffusion
    objective = look_up('objective', OBJECTIVES, c.objective)
    return Model(build_network(config) if network is None else network, build_schedule(config),
                 objective, (d.image_channels or 1, d.size, d.size), c.variance,
                 d.classes if config.num_classes else (),
                 bool(config.num_classes and config.training.label_drop),
                 config.training.precision)
