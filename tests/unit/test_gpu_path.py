"""The GPU path, walked on `device='meta'`, whose tensors have a shape and a type and no numbers.

There the host cannot wait for a device (nothing can be read back) and devices cannot be mixed. What is copied to the
device is counted: each such copy makes a GPU's program wait, unless it comes from pinned memory.
"""

import threading
import time
from contextlib import nullcontext

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from ddpm_course import sampling
from ddpm_course.base.machine import prefetch
from ddpm_course.config import PRESETS, RunConfig, SamplingConfig, override
from ddpm_course.data.sets import load_digits
from ddpm_course.run import training
from ddpm_course.run.training import fit, new_state

DIGITS = load_digits("train", 16)


class Copies(TorchDispatchMode):
    "Shapes of what goes from the CPU to the device."

    def __init__(self):
        super().__init__()
        self.shapes: list[tuple[int, ...]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        copy = func in (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)
        if copy and out.device.type == "meta" and args[-1 if func is torch.ops.aten.copy_.default else 0].is_cpu:
            self.shapes.append(tuple(out.shape))
        return out


@pytest.fixture(autouse=True)
def no_autocast(monkeypatch):
    "There is none for this device."
    monkeypatch.setattr(torch, "autocast", lambda *args, **kwargs: nullcontext())


@pytest.fixture
def read_back(monkeypatch):
    "What may be read back, as zeros, in the order of reading."
    read: list[tuple[int, ...]] = []

    def cpu(self):
        if self.device.type != "meta":
            return self
        read.append(tuple(self.shape))
        return torch.zeros(self.shape, dtype=self.dtype)

    monkeypatch.setattr(torch.Tensor, "cpu", cpu)
    return read


def config_of(preset: str = "mnist16", **changes) -> RunConfig:
    small = dict(batch=8, channels=8, classes=DIGITS.classes, image_channels=1, precision="fp32", steps=4)
    return override(PRESETS[preset], **small | changes)


def own(config: RunConfig) -> list[tuple[int, ...]]:
    "What a slice of a batch has to bring along: places, images, times, weights, noise, labels."
    n, size = config.training.batch // config.training.accumulate, config.data.size
    return sorted([(n,)] * 4 + [(n, 1, size, size)] * 2) * config.training.accumulate


WAYS = {
    "simple": config_of(),
    "slices": config_of(accumulate=2, dropout=0.1, objective="eps", optimizer="adamw", lr=1e-3),
    "hybrid": config_of("mnist16-hybrid"),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_step_waits_for_nothing_and_copies_nothing_itself(way):
    "The batch comes from another thread, where this one's instrument does not look."
    config, state = WAYS[way], new_state(WAYS[way], "meta")
    records = fit(state, DIGITS, config)
    next(records)  # tables go there once
    with Copies() as copies:
        record = next(records)
    assert record["grad_norm"].device.type == "meta" and copies.shapes == []


def test_batches_come_one_ahead_from_another_thread_and_are_the_same(monkeypatch):
    made, honest = [], training.make_batch

    def noted(images, config, step, *rest):
        made.append((step, threading.current_thread() is threading.main_thread()))
        return honest(images, config, step, *rest)

    monkeypatch.setattr(training, "make_batch", noted)
    records = fit(new_state(config_of(), "meta"), DIGITS, config_of())
    for done in range(1, 5):
        next(records)
        before = time.monotonic()
        while len(made) < min(done + 1, 4) and time.monotonic() < before + 10:
            time.sleep(0.01)  # the next one is made while nobody asks
        assert made == [(step, False) for step in range(min(done + 1, 4))]
    assert list(records) == []
    made.clear()
    list(fit(new_state(config_of(steps=2)), DIGITS, config_of(steps=2)))
    assert made == [(0, True), (1, True)]  # a CPU has no time to spare


def test_what_is_made_ahead_may_fail():
    def make(step):
        if step == 2:
            raise ValueError("no batch")
        return step

    ahead = prefetch(make, range(4), torch.device("meta"))
    assert [next(ahead), next(ahead)] == [0, 1]
    with pytest.raises(ValueError, match="no batch"):
        next(ahead)
    assert list(prefetch(make, range(3, 3), torch.device("meta"))) == []


def test_importance_sampling_reads_its_losses_once_a_step(read_back):
    config = config_of("mnist16-vlb", accumulate=2)
    records = fit(new_state(config, "meta"), DIGITS, config)
    next(records)
    read_back.clear()
    with Copies() as copies:
        next(records)
    assert read_back == [(3, config.training.batch)]
    assert sorted(copies.shapes) == sorted(own(config))


@pytest.mark.parametrize("sampler, noise", [("ddim", 1), ("ddpm", 4)])
def test_a_sample_waits_at_its_end_and_copies_its_noise(sampler, noise, read_back):
    "x_T, and for an ancestral walk once before each step but the last."
    model, how = new_state(config_of(), "meta").ema, SamplingConfig(sampler=sampler, steps=4, guidance=2)
    sampling.sample(model, [3], 1, how)
    read_back.clear()
    with Copies() as copies:
        sampling.sample(model, [3], 2, how)
    assert read_back == [(2, 1, 16, 16)]
    assert sorted(copies.shapes) == [(2,)] + [(2, 1, 16, 16)] * noise
