import copy
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..base.registry import check_own, look_up
from ..base.group import Group
from ..base.machine import prefetch, to_device
from ..config import RunConfig, TrainingConfig
from ..criteria import CRITERIA, build_criterion
from ..simple import LOSSES, Batch, Simple, quarter_sums
from ..data.sets import ImageSet, batch_indices, to_float
from ..draws import Purpose, generator, normal, uniform
from ..embeddings import drop_labels
from ..model import NETWORKS, Model, build_model, build_network
from .muon import muon
from .shards import cut, whole
from ..schedules import SCHEDULES


def make_batch(
    images: ImageSet,
    config: RunConfig,
    step: int,                              # training step, from 0
    criterion: Simple = Simple(),           # chooses t: here every t equally often
    part: int = 0,                          # this slice of the global batch ...
    parts: int = 1,                         # ... of so many
) -> Batch:                                 # on the CPU
    "The batch of a step, lines 2 to 4: a function of its arguments and of nothing else."
    training, seed = config.training, config.training.seed
    mine = np.array_split(np.arange(training.batch), parts)[part].tolist()
    chosen = batch_indices(len(images), training.batch, step, seed)[mine]
    x0 = to_float(images.pixels[chosen])
    if config.data.augment == 'flip':
        mirrored = uniform(seed, Purpose.FLIP, step, mine) < 0.5
        x0 = torch.where(mirrored[:, None, None, None], x0.flip(3), x0)
    t, weight = criterion.times(uniform(seed, Purpose.TIME, step, mine), config.diffusion.T)
    eps = normal(x0.shape[1:], seed, Purpose.NOISE, step, mine)
    y = None
    if config.num_classes:
        dropped = uniform(seed, Purpose.DROP, step, mine) < training.label_drop
        y = drop_labels(images.labels_at(chosen), dropped, config.num_classes)
    return Batch(torch.tensor(mine), x0, t, weight, eps, y)


def lr_at(step: int, training: TrainingConfig) -> float:
    "Learning rate of a step, counted from 0: linear warm-up, then as `training.decay` says."
    rise = min(1.0, (step + 1) / training.warmup) if training.warmup else 1.0
    done = max(0, step - training.warmup) / max(1, training.steps - training.warmup)
    fall = 0.5 * (1 + math.cos(math.pi * done)) if training.decay == 'cosine' else 1.0
    return training.lr * rise * fall


def ema_decay(step: int, decay: float, warmup: bool) -> float:
    "Decay at a step from 0: `decay`, or min(decay, (1 + step) / (10 + step)) with warm-up."
    return min(decay, (1 + step) / (10 + step)) if warmup else decay


@torch.no_grad()
def update_ema(average: nn.Module, network: nn.Module, decay: float) -> None:
    "Move the parameters of `average` towards those of `network`; buffers are copied, not averaged."
    weights = [whole(weight) for weight in network.parameters()]
    torch._foreach_lerp_(list(average.parameters()), weights, 1 - decay)
    for mine, theirs in zip(average.buffers(), network.buffers()):
        mine.copy_(theirs)


class Average:
    "The running average of a network's weights, with which samples are drawn."

    def __init__(self, network: nn.Module, training: TrainingConfig):
        self.training = training
        self.network = copy.deepcopy(network).requires_grad_(False).eval()  # never in training mode

    def update(self, network: nn.Module, step: int) -> None:
        "Take in the weights after a step, counted from 0."
        decay = ema_decay(step, self.training.ema, self.training.ema_warmup)
        update_ema(self.network, network, decay)

    def state_dict(self) -> dict[str, Tensor]:
        "What must be kept beside the averaged network; it goes into the checkpoint."
        return {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        "Go on from what `state_dict` kept."


EMAS: dict[str, Callable[[nn.Module, TrainingConfig], Average]] = {'ema': Average}


def adamw(parameters: Any, training: TrainingConfig, device: torch.device) -> torch.optim.AdamW:
    "AdamW (Loshchilov and Hutter 2019); without weight decay it is Adam."
    return torch.optim.AdamW(parameters, training.lr, weight_decay=training.weight_decay,
                             fused=device.type == 'cuda' or None)


OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {'adamw': adamw, 'muon': muon}


@dataclass
class TrainState:
    "Everything that changes during a run."
    network: nn.Module
    model: Model                # its network as training calls it: wrapped, in a group of several
    average: Average
    ema: Model                  # with the averaged network, ready to sample
    criterion: Simple
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler    # of the loss, in fp16
    step: int                   # steps done
    window: Tensor      # (3, 2, 4) sums and counts of LOSSES by quarter of t, since a log line


def entries(config: RunConfig) -> list[Callable]:
    "What a run takes from the registries. Raises ValueError for a name that none of them knows."
    diffusion, training = config.diffusion, config.training
    return [look_up(*chosen) for chosen in (
        ('network', NETWORKS, config.network.network), ('schedule', SCHEDULES, diffusion.schedule),
        ('loss', CRITERIA, diffusion.loss), ('optimizer', OPTIMIZERS, training.optimizer),
        ('average', EMAS, training.average))]


def new_state(config: RunConfig, device: torch.device | str = 'cpu',
              group: Group = Group()) -> TrainState:
    "The state before the first step. Raises ValueError for a name or a setting that nobody knows."
    device, training = torch.device(device), config.training
    check_own(training.own, entries(config))
    if training.shard and training.optimizer == 'muon':
        raise ValueError('muon needs whole matrices: with --shard take --optimizer adamw')
    criterion, network = build_criterion(config), to_device(build_network(config), device)
    model = build_model(config, network)
    average = look_up('average', EMAS, training.average, training.own)(network, training)
    sharded = training.shard and group.world > 1
    if sharded:
        cut(network)
    if training.compile:
        network.compile()                               # in place: the names of the weights stay
    make = look_up('optimizer', OPTIMIZERS, training.optimizer, training.own)
    optimizer = make(network.parameters(), training, device)
    scaler = torch.amp.GradScaler(device.type, enabled=training.precision == 'fp16')
    window = torch.zeros(len(LOSSES), 2, 4, dtype=torch.float64)
    wrapped = network if sharded else group.wrap(network)
    return TrainState(network, replace(model, network=wrapped), average,
                      replace(model, network=average.network), criterion, optimizer, scaler, 0,
                      window)


def add_gradients(
    state: TrainState,
    batch: Batch,                           # a slice of the global batch
    part: int,                              # its number among all slices of the step
    config: RunConfig,
    world: int = 1,                         # processes
) -> dict[str, Tensor]:                     # (B,) values of each loss
    "Algorithm 1 up to the gradient of one slice, which is added to what is there."
    training = config.training
    if config.network.dropout:
        stream = generator(training.seed, Purpose.DROPOUT, state.step, part)
        torch.manual_seed(int(stream.integers(2**63)))
    losses = state.criterion.losses(state.model, batch)
    loss = (batch.weight * losses['loss']).sum() * world / training.batch
    state.scaler.scale(loss).backward()
    return {name: value.detach() for name, value in losses.items()}


def train_step(state: TrainState, batches: Sequence[Batch], config: RunConfig,
               group: Group = Group()) -> Tensor:
    "One step of Algorithm 1 from this process's slices: the gradient's norm, not yet read back."
    training, network = config.training, state.network.train()
    state.optimizer.zero_grad()
    sums = torch.zeros_like(state.window)
    for k, batch in enumerate(batches):
        wait = k + 1 < len(batches) and state.model.network is not network     # to send gradients
        with state.model.network.no_sync() if wait else nullcontext():
            losses = add_gradients(state, batch, group.rank * len(batches) + k, config, group.world)
        quarters = [quarter_sums(losses[name], batch.t, config.diffusion.T, batch.weight)
                    for name in LOSSES]
        sums = sums.to(quarters[0].device) + torch.stack(quarters)
        state.criterion.see(batch, losses['loss'])
    state.scaler.unscale_(state.optimizer)
    norm = whole(nn.utils.clip_grad_norm_(network.parameters(), training.clip))
    for parameters in state.optimizer.param_groups:
        parameters['lr'] = lr_at(state.step, training)
    state.scaler.step(state.optimizer)
    state.scaler.update()
    state.average.update(network, state.step)
    state.window = state.window.to(sums.device) + sums
    state.criterion.end_step(group, training.batch)
    state.step += 1
    return norm


def check_slices(config: RunConfig, world: int) -> int:
    "Slices that a batch is cut into. Raises ValueError where one of them would be empty."
    batch, parts = config.training.batch, config.training.accumulate
    if batch < world * parts:
        raise ValueError(f'a batch of {batch} cannot be cut into {world * parts} slices '
                         f'({world} processes, {parts} each)')
    return world * parts


def fit(state: TrainState, images: ImageSet, config: RunConfig,
        group: Group = Group()) -> Iterator[dict]:
    "Train to the configured number of steps: {'step': done, 'lr', 'grad_norm': tensor} for each."
    slices, like = check_slices(config, group.world), next(state.network.parameters())
    def cut(step: int) -> list[Batch]:
        return [make_batch(images, config, step, state.criterion, k, slices).to(like)
                for k in group.share(slices)]
    steps = range(state.step, config.training.steps)
    made = prefetch(cut, steps, like.device) if state.criterion.ahead else map(cut, steps)
    for batches in made:
        norm = train_step(state, batches, config, group)
        yield {'step': state.step, 'lr': state.optimizer.param_groups[0]['lr'], 'grad_norm': norm}
