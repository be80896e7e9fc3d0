"Runs that live on: of fewer steps, made by an older version, beside a slow disk. The rest: deep_dives 11a, 11b; faults."

import json
import threading
import time

import pytest
import torch

from ddpm_course import PRESETS, Run, load_digits, override
from ddpm_course.base.group import Group
from ddpm_course.run import checkpoints, stopping
from ddpm_course.run.checkpoints import checksum, newest_checkpoint
from ddpm_course.run.stopping import Interrupt, must_stop
from helpers import same_bits, train

PLAN = override(PRESETS["mnist16"], steps=6, batch=8, channels=8, T=20, decay="constant", warmup=2)
PLAN = override(PLAN, log_every=3, save_every=3, threads=1, precision="fp32")


@pytest.fixture(scope="module")
def digits():
    return load_digits("train", 16)


def test_steps_may_become_fewer_while_they_are_not_done(tmp_path, digits):
    "A mistaken number of steps, stopped: the right one goes on, with the bits of the run that it was meant to be."
    train(tmp_path / "meant", PLAN, digits)
    train(tmp_path / "run", PLAN, digits, stop_after=2)
    train(tmp_path / "run", override(PLAN, steps=100_000), digits, stop_after=5)
    assert train(tmp_path / "run", PLAN, digits).notes == ["steps 100000 -> 6"]
    same_bits(tmp_path / "meant", tmp_path / "run")
    with pytest.raises(ValueError, match="steps done 6 there and 5 here"):
        train(tmp_path / "run", override(PLAN, steps=5), digits)


def old_version(run):
    "Turn a run's files into those that version 0.1 wrote, before loss, slices and compilation were settings."
    config = json.loads((run / "config.json").read_text())
    config.pop("plugins")
    config["data"]["flip"] = config["data"].pop("augment") == "flip"
    for name in ("optimizer", "init", "accumulate", "compile"):
        del config["training"][name]
    del config["network"]["network"]
    if config["diffusion"]["loss"] == "simple":
        del config["diffusion"]["loss"]
    (run / "config.json").write_text(json.dumps(config))
    end = newest_checkpoint(run)
    kept = torch.load(end / "optimizer.pt", weights_only=True)
    kept["memory"] = kept.pop("criterion").get("memory", torch.zeros(0, dtype=torch.float64))
    torch.save(kept, end / "optimizer.pt")
    meta = json.loads((end / "meta.json").read_text())
    del meta["processes"], meta["settings"]
    meta["files"]["optimizer.pt"] = checksum((end / "optimizer.pt").read_bytes())
    (end / "meta.json").write_text(json.dumps(meta | {"sha256": "of all that is in it"}))


@pytest.mark.parametrize("loss", ["simple", "vlb"])
def test_run_of_the_old_version_goes_on(tmp_path, digits, loss):
    changes = dict(loss="vlb", variance="learned", T=2) if loss == "vlb" else {}
    plan = override(PLAN, steps=9, optimizer="adamw", **changes)
    train(tmp_path / "new", plan, digits)
    train(tmp_path / "old", plan, digits, stop_after=6)
    old_version(tmp_path / "old")
    assert train(tmp_path / "old", plan, digits).notes == []
    same_bits(tmp_path / "new", tmp_path / "old")


def test_training_goes_on_while_a_checkpoint_is_written(tmp_path, digits, monkeypatch):
    "It waits where the next one is due, at the end of the run, and for the lock."
    ready, honest = threading.Event(), checkpoints.flush

    def slow(path):
        assert ready.wait(30)
        honest(path)

    with Run.open(tmp_path / "run", PLAN, digits) as run:
        records = iter(run)
        monkeypatch.setattr(checkpoints, "flush", slow)
        assert [next(records)["step"] for _ in range(5)] == [1, 2, 3, 4, 5]  # step 3 is on its way
        assert newest_checkpoint(run.folder) is None
        ready.set()
        assert next(records)["step"] == 6
        assert newest_checkpoint(run.folder).name == "step_00000006"
    monkeypatch.setattr(checkpoints, "flush", honest)
    train(tmp_path / "quick", PLAN, digits)
    same_bits(tmp_path / "run", tmp_path / "quick")


def test_a_run_that_fails_leaves_what_was_begun(tmp_path, digits, monkeypatch):
    "The folder is free only when nothing is written any more."
    began, honest = threading.Event(), checkpoints.flush

    def slow(path):
        began.set()
        time.sleep(0.05)
        honest(path)

    with pytest.raises(KeyError), Run.open(tmp_path / "run", PLAN, digits) as run:
        monkeypatch.setattr(checkpoints, "flush", slow)
        for record in run:
            if record["step"] == 3:
                raise KeyError
    assert began.is_set() and newest_checkpoint(tmp_path / "run").name == "step_00000003"
    assert not (tmp_path / "run/checkpoints/.writing").exists()


class Ring(Group):
    "Processes that are threads: each adds what the others add."

    def __init__(self, rank, meeting, shared):
        super().__init__("cpu")
        self.rank, self.world, self.meeting, self.shared = rank, meeting.parties, meeting, shared

    def all_reduce(self, x):
        self.shared[self.rank] = x
        self.meeting.wait(30)
        total = sum(self.shared.values())
        self.meeting.wait(30)
        return total


def test_processes_with_other_clocks_stop_after_the_same_step(monkeypatch):
    "They ask each other about once a second, not at each step, and no wish is lost."
    meeting, shared, stopped, asked = threading.Barrier(3), {}, {}, []
    here = threading.local()
    monkeypatch.setattr(stopping.time, "monotonic", lambda: getattr(here, "now", 0.0))

    def work(rank):
        group, interrupt = Ring(rank, meeting, shared), Interrupt()
        interrupt.signal, interrupt.steps, interrupt.due, interrupt.asked = None, 0, 1, 0.0
        honest = group.all_reduce
        group.all_reduce = lambda x: asked.append(rank) or honest(x)
        for step in range(1, 5001):
            here.now = getattr(here, "now", 0.0) + 0.01 * (1 + rank / 10)
            if rank == 1 and step == 3333:
                interrupt.signal = 15
            if must_stop(interrupt, group):
                stopped[rank] = step
                return

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(set(stopped.values())) == 1 and len(stopped) == 3
    assert 3333 <= stopped[0] <= 3333 + 110  # about 91 steps a second
    assert len(asked) / 3 < 50  # in 3,400 steps
