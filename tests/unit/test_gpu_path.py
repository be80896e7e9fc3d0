"""The GPU path, walked on `device='meta'`, whose tensors have a shape and a type and no numbers.

There the host cannot wait for a device (nothing can be read back) and devices cannot be mixed. What is copied to the
device is counted: each such copy makes a GPU's program wait, unless it comes from pinned memory.
"""

import ast
import re
import threading
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from ddpm_course import bits, sampling
from ddpm_course.base import machine
from ddpm_course.base.machine import prefetch
from ddpm_course.cli import main, train
from ddpm_course.config import PRESETS, RunConfig, SamplingConfig, override
from ddpm_course.data.sets import load_digits
from ddpm_course.judge import checks
from ddpm_course.run import distributed, launch, speed, training
from ddpm_course.run.training import fit, new_state
from ddpm_course.simple import quarter_sums
from helpers import ROOT, free_port, wait_for

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
        wait_for(lambda done=done: len(made) >= min(done + 1, 4))  # the next one is made while nobody asks
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


# -- what asks for CUDA, with PyTorch's functions for it replaced ------------------------------------------------------

CARD = torch.device("cuda", 1)


class On(torch.Tensor):
    "Numbers on the CPU that say they are elsewhere."

    kind = "cuda"
    device = property(lambda self: torch.device(self.kind))
    is_cuda = property(lambda self: self.kind == "cuda")


class OnMPS(On):
    kind = "mps"


def test_auto_is_the_best_that_there_is(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert machine.pick_device().type == "cuda"
    with pytest.raises(ValueError, match="no device 'mps' on this machine: it has cuda, cpu"):
        machine.pick_device("mps")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert machine.pick_device().type == "mps"


@pytest.mark.parametrize("has, precision", [(True, "bf16"), (False, "fp16")])
def test_an_older_card_takes_fp16(monkeypatch, has, precision):
    "PyTorch would call emulated bf16 support, too, unless asked not to."
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: has or including_emulation)
    assert machine.pick_precision("auto", CARD) == precision


def test_fp32_is_no_tf32():
    cudnn, seen = torch.backends.cudnn, {}
    for precision in ("fp32", "bf16"):
        with machine.torch_settings(1, precision):
            seen[precision] = torch.get_float32_matmul_precision(), cudnn.allow_tf32, cudnn.benchmark
    assert seen == {"fp32": ("highest", False, True), "bf16": ("high", True, True)}


def test_weights_lie_with_channels_last():
    weight = machine.to_device(torch.nn.Conv2d(3, 8, 3), "meta").weight
    assert weight.is_contiguous(memory_format=torch.channels_last) and not weight.is_contiguous()


def test_the_thread_that_makes_batches_has_this_process_s_card(monkeypatch):
    chosen = []
    monkeypatch.setattr(torch.cuda, "set_device", lambda card: chosen.append((card, threading.current_thread())))
    assert list(prefetch(str, range(3), CARD)) == ["0", "1", "2"]
    assert [card for card, _ in chosen] == [CARD] and chosen[0][1] is not threading.main_thread()


def test_a_batch_goes_from_pinned_memory_without_waiting(monkeypatch):
    pinned, moved = [], []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: pinned.append(self.shape) or self)
    monkeypatch.setattr(torch.Tensor, "to", lambda self, *where, **how: moved.append((where, how)) or self)
    training.make_batch(DIGITS, config_of(), 0).to(torch.zeros(1).as_subclass(On))
    assert len(pinned) == len(moved) == 6
    assert all(where[0].type == "cuda" and how == {"non_blocking": True} for where, how in moved)


def test_mps_has_no_double_precision(monkeypatch):
    "Sums are made on the CPU there, and bounds in single precision."
    losses, x, asked = torch.rand(8).as_subclass(OnMPS), torch.zeros(2, 1, 16, 16), []
    assert type(losses.detach()) is OnMPS and quarter_sums(losses, torch.arange(8), 8).dtype == torch.float64

    def seen(output, xt, *given):
        asked.append((output.dtype, xt.dtype))
        raise InterruptedError

    monkeypatch.setattr(bits, "read_answer", seen)
    for kind in (x, x.as_subclass(OnMPS)):
        with pytest.raises(InterruptedError):
            bits.output_bound(new_state(config_of()).model, kind, kind, kind, torch.tensor([3, 4]))
    assert asked == [(torch.float64,) * 2, (torch.float32,) * 2]


def test_adam_is_one_kernel(monkeypatch):
    asked = []
    monkeypatch.setattr(torch.optim, "AdamW", lambda *given, **how: asked.append(how["fused"]))
    for device in (CARD, torch.device("cpu")):
        training.adamw([], config_of().training, device)
    assert asked == [True, None]


def test_ddp_is_told_its_card(monkeypatch):
    asked = []
    monkeypatch.setattr(distributed, "SettledDDP", lambda network, ids, **how: asked.append(ids))
    for device in (CARD, torch.device("cpu")):
        group = object.__new__(distributed.DDPGroup)
        group.device = device
        group.wrap(torch.nn.Linear(1, 1))
    assert asked == [[CARD], None]


def test_there_is_a_process_for_each_card(monkeypatch):
    asked = []
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(launch, "torchrun", lambda count, words: asked.append(count))
    main.dispatch(["sample", "run"])
    main.dispatch(["sample", "run", "--nproc", "2"])
    assert asked == [4, 2]


def test_memory_is_that_of_the_card(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2**30, 2**34))
    config = config_of()
    raw = SimpleNamespace(**{"device": CARD, "network": new_state(config).network, "shape": (1, 16, 16)})
    monkeypatch.setattr(checks, "bytes_per_picture", lambda model: 2**27)
    found = checks.memory(SimpleNamespace(config=config, raw=raw))
    fixed = sum(w.numel() for w in raw.network.parameters())
    assert found.value == pytest.approx((20 * fixed + 8 * 2**27) / (2**30 + 8 * fixed))


def test_each_card_is_asked_for_its_share(monkeypatch):
    asked = []
    monkeypatch.setattr(train, "Patient", lambda images, held_out, config, *models: asked.append(config.training.batch))
    monkeypatch.setattr(train, "examine", lambda patient, early: {})
    for kind in ("cuda", "cpu"):
        state = new_state(config_of())
        run = SimpleNamespace(
            began=0, config=config_of(), images=None, state=state, group=SimpleNamespace(rank=0, world=4)
        )
        run.model = SimpleNamespace(device=torch.device(kind))
        train.look_first(run, None)
    assert asked == [2, 8]


def test_more_is_tried_and_larger_matrices_are_multiplied(monkeypatch):
    sizes = []
    monkeypatch.setattr(speed, "seconds_of", lambda work, *given: sizes.append(work().shape) or 1.0)
    monkeypatch.setattr(speed.torch, "ones", lambda *shape, device: torch.empty(shape, device="meta"))
    monkeypatch.setattr(speed, "autocast", lambda *given: nullcontext())
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a card")
    assert {"compile", "bf16", "fp16"} <= set(speed.ways(config_of(), CARD)) and speed.machine_of(CARD)[
        "device"
    ] == "a card"
    assert speed.peak_flops("fp32", CARD, 1.0) == 2 * 8192**3 and sizes == [(8192, 8192)]


def test_the_list_of_what_a_gpu_changes_is_whole():
    "docs/gpu.md has each function of the package that asks for a kind of device, and no other."
    asks = re.compile(r"\bcuda\b|'mps'|cudnn|pin_memory")
    found = set()
    for path in (ROOT / "ddpm_course").rglob("*.py"):
        module = ".".join(path.relative_to(ROOT / "ddpm_course").with_suffix("").parts)
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            inside = node.body if isinstance(node, ast.ClassDef) else [node]
            owner = f"{module}.{node.name}" if isinstance(node, ast.ClassDef) else module
            for f in inside:
                if isinstance(f, ast.FunctionDef):
                    lines = [ast.unparse(line) for line in f.body[bool(ast.get_docstring(f)) :]]
                    found |= {f"{owner}.{f.name}"} if asks.search("\n".join(lines)) else set()
    listed = re.findall(r"^\| `([\w.]+)` \|", (ROOT / "docs/gpu.md").read_text(encoding="utf-8"), re.M)
    assert set(listed) == found and len(listed) == len(found)


@pytest.mark.parametrize("fails", [False, True])
def test_a_group_on_gpus(monkeypatch, fails):
    "NCCL, and Gloo beside it; where a process fails nobody waits for NCCL's farewell."
    place = {"RANK": 0, "WORLD_SIZE": 1, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    for name, value in place.items():
        monkeypatch.setenv(name, str(value))
    noted, begin, leave = [], launch.dist.init_process_group, launch.dist.destroy_process_group
    monkeypatch.setattr(launch, "pick_device", lambda name: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "set_device", noted.append)
    met = lambda kind, **how: (noted.append(kind), begin("gloo", **how))
    monkeypatch.setattr(launch.dist, "init_process_group", met)
    monkeypatch.setattr(launch.dist, "destroy_process_group", lambda: (noted.append("left"), leave()))
    try:
        with pytest.raises(ValueError) if fails else nullcontext(), launch.join():
            if fails:
                raise ValueError("no data")
    finally:
        if launch.dist.is_initialized():
            leave()
    assert noted == [torch.device("cuda", 0), "cpu:gloo,cuda:nccl", *(() if fails else ("left",))]
