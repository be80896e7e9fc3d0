"Runs that live on: longer, in other slices, from other weights, and made by an older version. See also faults."

import json
import os
import threading
import time

import pytest
import torch
from safetensors.torch import load_file

from ddpm_course import PRESETS, Run, load_digits, load_model, override
from ddpm_course.base.group import Group
from ddpm_course.heldout import heldout_loss
from ddpm_course.run import checkpoints, stopping
from ddpm_course.run.checkpoints import checksum, newest_checkpoint, read_log, read_metrics, write_checkpoint
from ddpm_course.run.runs import read_config
from ddpm_course.run.stopping import Interrupt, must_stop
from helpers import same_bits, train

PLAN = override(
    PRESETS["mnist16"],
    steps=6,
    batch=8,
    channels=8,
    T=20,
    decay="constant",
    warmup=2,
    log_every=3,
    save_every=3,
    threads=1,
    precision="fp32",
)


@pytest.fixture(scope="module")
def digits():
    return load_digits("train", 16)


def test_longer_run_has_the_bits_of_one_planned_so(tmp_path, digits):
    long = override(PLAN, steps=12)
    train(tmp_path / "planned", long, digits)
    train(tmp_path / "grown", PLAN, digits)
    run = train(tmp_path / "grown", long, digits)
    same_bits(tmp_path / "planned", tmp_path / "grown")
    assert run.notes == ["steps 6 -> 12"]
    assert [line for line in read_log(tmp_path / "grown") if "changed" in line] == [
        {"step": 6, "changed": {"steps": [6, 12]}}
    ]
    with pytest.raises(ValueError, match="12 steps done there and steps 6 here"):
        train(tmp_path / "grown", PLAN, digits)


def test_steps_may_become_fewer_while_they_are_not_done(tmp_path, digits):
    "A mistaken number of steps, stopped: the right one goes on, with the bits of the run that it was meant to be."
    train(tmp_path / "meant", PLAN, digits)
    train(tmp_path / "run", PLAN, digits, stop_after=2)
    train(tmp_path / "run", override(PLAN, steps=100_000), digits, stop_after=5)
    assert train(tmp_path / "run", PLAN, digits).notes == ["steps 100000 -> 6"]
    same_bits(tmp_path / "meant", tmp_path / "run")
    with pytest.raises(ValueError, match="6 steps done there and steps 5 here"):
        train(tmp_path / "run", override(PLAN, steps=5), digits)


def test_longer_run_says_what_the_learning_rate_does(tmp_path, digits):
    falling = override(PLAN, decay="cosine")
    train(tmp_path / "run", falling, digits)
    run = train(tmp_path / "run", override(falling, steps=12), digits)
    lrs = {line["step"]: line["lr"] for line in read_metrics(tmp_path / "run")}
    assert "the learning rate goes from" in run.notes[1] and "at step 6" in run.notes[1]
    assert lrs[9] > lrs[6] > lrs[12]  # it jumps up, and falls again


def test_slices_may_change(tmp_path, digits):
    train(tmp_path / "one", override(PLAN, steps=9), digits)
    train(tmp_path / "two", override(PLAN, steps=9, accumulate=2), digits, stop_after=3)
    run = train(tmp_path / "two", override(PLAN, steps=9, log_every=1), digits)
    assert {"accumulate 2 -> 1", "log_every 3 -> 1"} == set(run.notes)
    weights = [newest_checkpoint(tmp_path / name) / "model.safetensors" for name in ("one", "two")]
    mine, theirs = (torch.cat([w.flatten() for w in load_file(path).values()]) for path in weights)
    assert (mine - theirs).norm() < 1e-4 * mine.norm()


def test_slices_that_change_dropout_are_said(tmp_path, digits):
    "Dropout belongs to a slice; it is noted in run.notes and in the log, never silent."
    plan = override(PLAN, dropout=0.2)
    train(tmp_path, plan, digits, stop_after=3)
    run = train(tmp_path, override(plan, accumulate=2), digits)
    assert run.notes[0] == "accumulate 1 -> 2" and "from step 3 on dropout falls on other features" in run.notes[1]
    assert [line["changed"] for line in read_log(tmp_path) if "changed" in line] == [{"accumulate": [1, 2]}]


def test_run_from_other_weights_starts_with_their_loss(tmp_path, digits):
    teacher = train(tmp_path / "teacher", PLAN, digits).model
    pupil = override(PLAN, seed=1, lr=0.0, log_every=1, steps=2)
    first = train(tmp_path / "pupil", pupil, digits, init=teacher)
    with Run.open(tmp_path / "fresh", pupil, digits) as fresh:
        untrained = heldout_loss(fresh.model, load_digits("test", 16), fresh.state.criterion)["loss"]["mean"]
    found, expected = (
        heldout_loss(model, load_digits("test", 16), first.state.criterion)["loss"]["mean"]
        for model in (first.model, teacher)
    )
    assert found == pytest.approx(expected, rel=1e-6) and abs(expected / untrained - 1) > 0.01
    with pytest.raises(ValueError, match="of another network than the run has"):
        train(tmp_path / "wide", override(pupil, channels=16), digits, init=teacher)
    assert not (tmp_path / "wide").exists()


def old_version(run):
    "Turn a run's files into those that version 0.1 wrote."
    config = json.loads((run / "config.json").read_text())
    config.pop("plugins")
    config["data"]["flip"] = config["data"].pop("augment") == "flip"
    for section, name in (("network", "network"), ("training", "optimizer"), ("training", "init")):
        config[section].pop(name)
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
    plan = override(
        PLAN,
        steps=9,
        optimizer="adamw",
        loss=loss,
        variance="learned" if loss == "vlb" else "large",
        T=2 if loss == "vlb" else 20,
    )
    train(tmp_path / "new", plan, digits)
    train(tmp_path / "old", plan, digits, stop_after=6)
    old_version(tmp_path / "old")
    assert train(tmp_path / "old", plan, digits).notes == []
    same_bits(tmp_path / "new", tmp_path / "old")


def test_the_first_files_are_read(tmp_path, digits):
    "Before version 0.1 was done, neither loss nor slices nor compilation were settings."
    plan = override(PLAN, optimizer="adamw")
    train(tmp_path / "run", plan, digits)
    old_version(tmp_path / "run")
    path = tmp_path / "run/config.json"
    config = json.loads(path.read_text())
    for section, name in (("diffusion", "loss"), ("training", "accumulate"), ("training", "compile")):
        config[section].pop(name)
    path.write_text(json.dumps(config))
    assert read_config(tmp_path / "run") == override(
        plan, image_channels=1, classes=digits.classes, digest=digits.digest
    )
    load_model(tmp_path / "run")


def test_threads_and_precision_are_as_before(tmp_path, digits):
    torch.set_float32_matmul_precision("highest")
    before = torch.get_num_threads()
    with Run.open(tmp_path / "run", override(PLAN, threads=3), digits, Group("cpu")):
        assert torch.get_num_threads() == 3 and torch.get_float32_matmul_precision() == "high"
    assert torch.get_num_threads() == before and torch.get_float32_matmul_precision() == "highest"


def test_refused_start_leaves_no_run(tmp_path, digits):
    with pytest.raises(ValueError, match="a batch of 8 cannot be cut into 9 slices"):
        train(tmp_path / "run", override(PLAN, accumulate=9), digits)
    train(tmp_path / "run", override(PLAN, accumulate=8), digits)


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


def test_a_step_may_have_nine_digits(tmp_path):
    "Folders are counted as numbers: step_100000000 comes after step_99999999."
    for step in (99_999_998, 99_999_999, 100_000_000, 100_000_001):
        write_checkpoint(tmp_path, step, {}, keep=2)
        assert newest_checkpoint(tmp_path).name == f"step_{step}"
    names = {path.name for path in (tmp_path / "checkpoints").iterdir()}
    assert names == {"step_100000000", "step_100000001"}


def test_a_cut_last_line_of_the_log_is_written_again(tmp_path, digits):
    run, whole = tmp_path / "run", tmp_path / "whole"
    train(whole, PLAN, digits)
    train(run, PLAN, digits, stop_after=3)
    with open(run / "metrics.jsonl", "ab") as log:
        log.write(b'{"step": 6, "loss": 0.')
    train(run, PLAN, digits)
    same_bits(run, whole)


def test_files_have_the_modes_that_the_user_chose(tmp_path, digits):
    before = os.umask(0o022)
    try:
        train(tmp_path / "run", PLAN, digits)
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in newest_checkpoint(tmp_path / "run").iterdir()}
    assert set(modes.values()) == {0o644}, modes


def test_each_file_is_read_once(tmp_path, digits, monkeypatch):
    "Its checksum is that of the bytes that are used; and a second process reads nothing from the disk."
    train(tmp_path, PLAN, digits, stop_after=3)
    honest, read = checkpoints.read_whole, []
    monkeypatch.setattr(checkpoints, "read_whole", lambda path, most: read.append(path.name) or honest(path, most))
    load_model(tmp_path)
    assert read == ["ema.safetensors"]
    read.clear()
    with Run.open(tmp_path, PLAN, digits):
        assert sorted(set(read)) == sorted(read) == ["ema.safetensors", "model.safetensors", "optimizer.pt"]


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
