"What `ddpm bench` measures: against a clock that is made up, closed forms, and one real run of it."

import json
from types import SimpleNamespace

import pytest
import torch

from ddpm_course.base.group import Group
from ddpm_course.cli import bench
from ddpm_course.config import PRESETS, override
from ddpm_course.run import speed, training
from ddpm_course.run.training import new_state
from helpers import ddpm

CPU, ALONE = torch.device("cpu"), Group("cpu")
SMALL = override(PRESETS["mnist16"], classes=tuple("0123456789"), channels=8, batch=8, precision="fp32", threads=1)


@pytest.fixture
def clock(monkeypatch):
    "The time that `speed` reads: it stands still, but where somebody adds to it."
    now = [0.0]
    monkeypatch.setattr(speed, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    return now


@pytest.mark.parametrize("budget, calls, each", [(0.02, 1, 0.08), (0.09, 4, 0.04), (0.21, 7, 0.04)])
def test_time_is_taken_after_the_slow_first_calls(clock, budget, calls, each):
    "One that is over the budget at once is not repeated; the second is measured alone, and then as many as fit."
    made = []

    def work() -> None:
        made.append(0)
        clock[0] += 0.08 if len(made) == 1 else 0.04

    assert speed.seconds_of(work, ALONE, CPU, budget) == pytest.approx(each) and len(made) == calls


def test_images_a_second_are_those_of_whole_steps(clock, monkeypatch):
    honest = training.train_step

    def slow(*given):
        clock[0] += 0.3
        return honest(*given)

    monkeypatch.setattr(training, "train_step", slow)
    assert speed.images_per_s(SMALL, ALONE, CPU, 0.5) == pytest.approx(8 / 0.3)


def test_without_memory_there_is_no_number(monkeypatch):
    def full(*given):
        raise torch.OutOfMemoryError("no")

    monkeypatch.setattr(training, "train_step", full)
    assert speed.images_per_s(SMALL, ALONE, CPU, 0.1) is None


def test_arithmetic_grows_with_the_batch_alone():
    "And that of an image is three times that of its forward pass, but for the first layer's input."
    once, twice = (speed.flops_of(new_state(c), c) for c in (SMALL, override(SMALL, batch=16)))
    with torch.utils.flop_counter.FlopCounterMode(display=False) as forward, torch.no_grad():
        new_state(SMALL).model.network(torch.zeros(8, 1, 16, 16), torch.zeros(8).long(), torch.zeros(8).long())
    assert twice == 2 * once and 2.9 < once / forward.get_total_flops() < 3


def test_the_ring_s_constants_come_back(monkeypatch):
    "From times that follow the formula: 2 (n - 1) (latency + bytes / n / bandwidth)."

    class Eight(Group):
        world = 8

        def all_reduce(self, x):
            self.size = x.numel() * 4
            return x

    def exact(work, group, where, budget):
        work()
        return 14 * (1e-5 + group.size / 8 / 25e9)

    monkeypatch.setattr(speed, "seconds_of", exact)
    found = speed.ring_of(Eight("cpu"), CPU, 4**12, 1.0)
    assert found["latency, s"] == pytest.approx(1e-5) and found["bytes/s"] == pytest.approx(25e9)
    assert found["formula"] == pytest.approx(found["seconds"])


def test_the_screen_and_the_file_round_alike(tmp_path, monkeypatch, capsys):
    "Of 32.2526 the file has 32.25, which is 32.2 and not 32.3."
    found = {"images/s": {"as it is": 32.2526}, "ms": {"sums": 1.23456}, "share of the peak": 0.5}
    monkeypatch.setattr(bench, "measure", lambda *given: found)
    bench.run(bench.Request(out=str(tmp_path / "bench.json")), ALONE)
    kept = json.loads((tmp_path / "bench.json").read_text())
    assert kept["images/s"]["as it is"] == 32.25 and bench.table(kept) in capsys.readouterr().out


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.thorough)])
def test_the_command_writes_what_it_says(tmp_path, processes):
    words = "--seconds", 1, "--channels", 8, "--batch", 8, "--device", "cpu", "--nproc", processes
    said, _, _ = ddpm("bench", *words, cwd=tmp_path)
    found = json.loads((tmp_path / "bench.json").read_text())
    alone = {"one process"} if processes > 1 else set()
    assert {"as it is", "batch 2", "batch 4", "batch 16", "channels_last"} | alone <= set(found["images/s"])
    assert min(found["images/s"].values()) > 0 and found["processes"] == processes
    assert 0 < found["share of the peak"] < 1 and ("ring" in found) == (processes > 1)
    assert f"{found['images/s']['as it is']:,.1f} images/s" in said
