"What a training step costs on this machine, and where its time goes."
import os
import platform
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from ..base.group import Group
from ..base.machine import autocast, cores, pick_precision
from ..config import RunConfig, override
from ..data.sets import ImageSet
from .training import TrainState, add_gradients, fit, make_batch, new_state


def random_images(config: RunConfig) -> ImageSet:
    "A batch of random images as the settings want them: what a step costs does not depend on them."
    draws, d, n = np.random.default_rng(0), config.data, config.training.batch
    pixels = draws.integers(0, 256, (n, d.image_channels or 1, d.size, d.size), np.uint8)
    labels = draws.integers(0, len(d.classes), n) if d.classes else None
    return ImageSet(pixels, labels, d.classes)


def done(group: Group, where: torch.device) -> None:
    "Wait until all processes, and the device, have done what they were given."
    group.all_reduce(torch.zeros(1, device=where)).cpu()


def seconds_of(work: Callable[[], Any], group: Group, where: torch.device, budget: float) -> float:
    "Seconds that a piece of work takes, by about `budget` seconds; the first two times are slow."
    def timed(n: int) -> float:
        done(group, where)
        began = time.perf_counter()
        for _ in range(n):
            work()
        done(group, where)
        return group.broadcast((time.perf_counter() - began) / n)
    took = timed(1)
    for share in (0.0, 1.0):
        if took < budget:
            took = timed(max(1, int(share * budget / took)))
    return took


def images_per_s(config: RunConfig, group: Group, where: torch.device, budget: float,
                 layout: torch.memory_format | None = None) -> float | None:
    "Images that training steps take in a second, in all processes; None without memory for them."
    config, n = override(config, steps=10**9), config.training.batch
    try:
        state = new_state(config, where, group)
        if layout:
            state.network.to(memory_format=layout)              # type: ignore[call-overload]
        records = fit(state, random_images(config), config, group)
        return n / seconds_of(lambda: next(records), group, where, budget)
    except torch.OutOfMemoryError:
        return None


def ways(config: RunConfig, where: torch.device) -> dict[str, dict[str, Any]]:
    "What is tried: by name, the settings that differ from those of the run."
    n, t = config.training.batch, config.training
    low = {'fp32', pick_precision('auto', where), *(['fp16'] if where.type == 'cuda' else [])}
    return {'as it is': {}, **{f'batch {b}': {'batch': b} for b in (n // 4, n // 2, 2 * n) if b},
            **{kind: {'precision': kind} for kind in sorted(low - {t.precision})},
            **({} if t.compile or where.type != 'cuda' else {'compile': {'compile': True}})}


def parts_of(state: TrainState, config: RunConfig, group: Group, budget: float) -> dict[str, float]:
    """Milliseconds of each part of a step, measured alone. On a GPU the batch is made while the step
    before is computed, and sums are sent while gradients are; so they add up to more than a step."""
    where, images = state.model.device, random_images(config)
    cut = lambda: make_batch(images, config, 0, state.criterion, group.rank, group.world)
    like, batch = next(state.network.parameters()), cut()
    moved = batch.to(like)
    flat = torch.zeros(sum(p.numel() for p in state.network.parameters()), device=where)

    def update() -> None:
        state.optimizer.step()
        state.average.update(state.network, 0)

    alone = Group(where)
    works: dict[str, tuple[Callable[[], Any], Group]] = {
        'batch and noise': (cut, alone), 'copy': (lambda: batch.to(like), alone),
        'gradients': (lambda: add_gradients(state, moved, group.rank, config), alone),
        'optimizer and average': (update, alone), 'sums': (lambda: group.all_reduce(flat), group)}
    return {name: 1000 * seconds_of(work, who, where, budget)
            for name, (work, who) in works.items()}


def flops_of(state: TrainState, config: RunConfig) -> int:
    "Arithmetic of one step's gradients, in all processes: multiplications and additions."
    batch = make_batch(random_images(config), config, 0).to(next(state.network.parameters()))
    with FlopCounterMode(display=False) as counter:
        add_gradients(state, batch, 0, config)
    return counter.get_total_flops()


def peak_flops(precision: str, where: torch.device, budget: float) -> float:
    "Arithmetic a second of a product of large matrices here: what a network could reach at most."
    n = 8192 if where.type == 'cuda' else 1024
    a = torch.ones(n, n, device=where)
    with autocast(precision, where):
        return 2 * n**3 / seconds_of(lambda: a @ a, Group(where), where, budget)


def ring_of(group: Group, where: torch.device, most: int, budget: float) -> dict[str, Any]:
    """Seconds in which `world` processes add up their bytes, beside the formula of a ring: each sends
    its part 2 (n - 1) times, so 2 (n - 1) (latency + bytes / n / bandwidth). The two constants are
    those of the smallest and of the largest message; those between are the test."""
    sizes, turns = [most // 4**k for k in (5, 4, 3, 2, 1, 0)], 2 * (group.world - 1)
    took = [seconds_of(partial(group.all_reduce, torch.zeros(size // 4, device=where)), group,
                       where, budget) for size in sizes]
    per_byte = (took[-1] - took[0]) / (sizes[-1] - sizes[0])
    latency = (took[0] - per_byte * sizes[0]) / turns
    formula = [turns * latency + per_byte * size for size in sizes]
    return {'bytes': sizes, 'seconds': took, 'formula': formula, 'latency, s': latency,
            'bytes/s': turns / group.world / per_byte}


def machine_of(where: torch.device) -> dict[str, Any]:
    "What this machine is, for others to compare."
    card = torch.cuda.get_device_name(where) if where.type == 'cuda' else platform.processor()
    return {'device': card or platform.machine(), 'cores': cores(), 'cpus': os.cpu_count(),
            'threads': torch.get_num_threads(), 'system': platform.system(),
            'torch': torch.__version__, 'ddpm_course': version('ddpm_course')}


def measure(config: RunConfig, group: Group, where: torch.device, budget: float) -> dict[str, Any]:
    "All of it in about `budget` seconds, the same in all processes; see docs/benchmarks.md."
    tried = ways(config, where)
    other = torch.channels_last if where.type == 'cpu' else torch.contiguous_format
    each = budget / (len(tried) + 6)
    speed = {name: images_per_s(override(config, **new), group, where, each)
             for name, new in tried.items()}
    speed[str(other).removeprefix('torch.')] = images_per_s(config, group, where, each, other)
    if group.world > 1:
        group.barrier()
        if group.rank == 0:
            speed['one process'] = images_per_s(config, Group(where), where, each)
        group.barrier()
    state = new_state(config, where)
    parts = parts_of(state, config, group, each / 5)
    flops, peak = flops_of(state, config), peak_flops(config.training.precision, where, each / 2)
    usual = speed['as it is'] or 0
    size = sum(p.numel() for p in state.network.parameters())
    found: dict[str, Any] = {
        'machine': machine_of(where), 'processes': group.world,
        'run': {'preset': config.preset, 'batch': config.training.batch,
                'precision': config.training.precision, 'parameters': size},
        'images/s': speed, 'ms': parts, 'flops of an image': flops / config.training.batch,
        'share of the peak': usual * flops / config.training.batch / peak / group.world}
    most = max(4**8, 4 * (size // 1024) * 1024)                 # about the gradient
    return found | ({'ring': ring_of(group, where, most, each / 6)} if group.world > 1 else {})
