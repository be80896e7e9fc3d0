"""What can be wrong with a run's files and its trackers: one sentence, nothing lost, no other result.

Files that are damaged or of another run are refused; a tracker that fails costs the run nothing.
"""

import errno
import json
import os
import pickle
import shutil
import sys
import threading
import warnings
from contextlib import nullcontext
from unittest import mock

import pytest
import torch
from safetensors.torch import load_file, save_file

from ddpm_course import PRESETS, Run, load_digits, load_model, override
from ddpm_course.run import checkpoints, training
from ddpm_course.run.checkpoints import checksum, newest_checkpoint, read_log, read_meta, write_checkpoint
from ddpm_course.run.stopping import NotFinite
from ddpm_course.run.trackers import start_tracker
from helpers import contents, same_bits, train

PLAN = override(
    PRESETS["mnist16"], steps=4, batch=8, channels=8, T=20, log_every=1, save_every=2, threads=1, precision="fp32"
)
LONGER = override(PLAN, steps=6)
WORDS = "--steps 4 --batch 8 --channels 8 --T 20 --log-every 1 --grid-every 0 --threads 1 --precision fp32".split()
NEWEST = "checkpoints/step_00000004"


@pytest.fixture(scope="module")
def digits():
    return load_digits("train", 16)


@pytest.fixture(scope="module")
def made(tmp_path_factory, digits):
    "Runs that nobody touches: `run`, and `other`, of another seed."
    folder = tmp_path_factory.mktemp("made")
    train(folder / "run", PLAN, digits)
    train(folder / "other", override(PLAN, seed=1), digits)
    return folder


@pytest.fixture
def run(made, tmp_path):
    return shutil.copytree(made / "run", tmp_path / "run")


def refused(words, work, *args, folder=None):
    "What is said, in one sentence with these words and no warning; the folder is as it was."
    before = folder and contents(folder)
    with warnings.catch_warnings(), pytest.raises((ValueError, OSError), match=words) as said:
        warnings.simplefilter("error")
        work(*args)
    assert "\n" not in str(said.value) and len(str(said.value)) < 600
    assert not folder or contents(folder) == before


# -- damage ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["model.safetensors", "ema.safetensors", "optimizer.pt", "meta.json"])
def test_damaged_files_are_named(run, name):
    path, there = run / NEWEST / name, run / NEWEST
    good = path.read_bytes()
    sentence = f"{name} is damaged or missing: move the folder step_00000004 away to go on from the one before"
    path.write_bytes(good[:300] + bytes([good[300] ^ 1]) + good[301:])
    refused(sentence, checkpoints.read_file, there, "ema.safetensors" if name == "meta.json" else name)


def test_after_damage_the_older_checkpoint_goes_on(run, digits):
    calm, end = run.parent / "calm", load_file(run / NEWEST / "model.safetensors")
    shutil.copytree(run, calm)
    (run / NEWEST / "ema.safetensors").unlink()
    for work in (load_model, lambda run: train(run, LONGER, digits)):
        refused("ema.safetensors is damaged or missing", work, run, folder=run)
    shutil.rmtree(run / NEWEST)
    train(run, PLAN, digits)
    assert all(torch.equal(end[k], v) for k, v in load_file(run / NEWEST / "model.safetensors").items())
    same_bits(run, calm)


def test_each_flipped_bit_of_meta_is_refused_or_changes_nothing(tmp_path):
    "Whatever is still read has the same step, and vouches for the same bytes."
    path = write_checkpoint(tmp_path, 6, {"some.bytes": b"1"}) / "meta.json"
    good = path.read_bytes()
    accepted = 0
    for bit in range(8 * len(good)):
        path.write_bytes(good[: bit // 8] + bytes([good[bit // 8] ^ 1 << bit % 8]) + good[bit // 8 + 1 :])
        try:
            assert checkpoints.read_file(path.parent, "some.bytes") == b"1" and read_meta(path.parent)["step"] == 6
            accepted += 1
        except ValueError as error:
            assert "is damaged or missing" in str(error)
    assert 0 < accepted < 4 * len(good)


def test_what_may_not_be_read_is_not_damaged(run, monkeypatch):
    "Nobody is told to move a file away because the system refuses it, or because the memory is full."
    for error in (PermissionError(errno.EACCES, "Permission denied"), RuntimeError("can't allocate memory")):

        def fails(path, most, error=error):
            raise error

        monkeypatch.setattr(checkpoints, "read_whole", fails)
        with pytest.raises(type(error), match="Permission denied|can't allocate"):
            load_model(run)


@pytest.mark.parametrize("times", [1, 2])
def test_a_checkpoint_that_is_dropped_while_it_is_read(run, digits, monkeypatch, times):
    "As by a training that keeps one: the newest is read; nobody is told to move a live run's folder away."
    honest, steps = checkpoints.read_file, [6, 7][:times]

    def late(checkpoint, name):
        if steps:
            with monkeypatch.context() as calm:
                calm.setattr(checkpoints, "read_file", honest)
                train(run, override(LONGER, keep=1, steps=steps.pop(0)), digits)
        return honest(checkpoint, name)

    monkeypatch.setattr(checkpoints, "read_file", late)
    if times == 1:
        load_model(run)
    else:
        refused("step_00000006 is there no more: another process is at work there, try again", load_model, run)


class Program:
    "Pickled as a call that makes a folder."

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_pickle_with_the_right_sum_runs_nothing_and_is_refused(run, digits, tmp_path):
    meta = json.loads((run / NEWEST / "meta.json").read_text())
    forged = pickle.dumps({"optimizer": Program(tmp_path / "it ran")}, 2)
    (run / NEWEST / "optimizer.pt").write_bytes(forged)
    meta["files"]["optimizer.pt"] = checksum(forged)
    (run / NEWEST / "meta.json").write_text(json.dumps(meta))
    refused("optimizer.pt is damaged", train, run, LONGER, digits)
    assert not (tmp_path / "it ran").exists()


CUT = [b'{"step": 2, "loss": 0.5, "loss_quarters": %b}' % quarters for quarters in (b"[]", b"[0.5, 0.4]", b"null")]


@pytest.mark.parametrize("line", [b'{"loss": 0.5}', b'{"step": "3"}', b"\xff", b"[" * 100_000, *CUT])
def test_a_bad_line_of_the_log_is_named(tmp_path, line):
    "One sentence with the file, the line and the way out; an unfinished last line is none."
    log = tmp_path / "metrics.jsonl"
    log.write_bytes(b'{"step": 1}\n{"step": 2}\n{"st')
    assert [entry["step"] for entry in read_log(tmp_path)] == [1, 2]
    log.write_bytes(b'{"step": 1}\n' + line + b'\n{"step": 2}\n')
    refused("metrics.jsonl is damaged in line 2: mend it, or move it away", read_log, tmp_path)


def test_a_full_disk_is_said_and_costs_nothing_that_was_saved(run, digits, monkeypatch):
    def full(path):
        raise OSError(errno.ENOSPC, "No space left on device")

    before = contents(run / "checkpoints")
    monkeypatch.setattr(checkpoints, "flush", full)
    refused("No space left on device: '.*run/checkpoints/.writing'", train, run, LONGER, digits)
    monkeypatch.undo()
    assert before.items() <= contents(run / "checkpoints").items()
    train(run, LONGER, digits)
    assert newest_checkpoint(run).name == "step_00000006"


@pytest.mark.parametrize("bad", [[7], [8, 7, 6], [7, 7], [8, 7, 6, 5], [2]], ids=str)
def test_a_gradient_that_is_none(tmp_path, digits, monkeypatch, capsys, bad):
    """A run goes on from its last checkpoint, with the bits of one where nothing happened. It ends where a step fails
    again, where a fourth one does, and where nothing was saved: the step is named, and the checkpoint is intact.
    """
    plan, calls = override(PLAN, steps=12, save_every=4, log_every=4), list(bad)
    train(tmp_path / "calm", plan, digits)
    honest = training.train_step

    def step(state, *args):
        norm = honest(state, *args)
        if [state.step] == calls[:1]:
            calls.pop(0)
            next(state.network.parameters()).data.fill_(torch.nan)
            return norm * torch.nan
        return norm

    monkeypatch.setattr(training, "train_step", step)
    goes_on = bad in ([7], [8, 7, 6])
    with nullcontext() if goes_on else pytest.raises(NotFinite) as ended:
        train(tmp_path / "run", plan, digits)
    notes = capsys.readouterr().out.splitlines()
    assert len(notes) == (len(bad) if goes_on else len(bad) - 1) and not calls
    assert all(note.endswith(": once more from step_00000004") for note in notes)
    if goes_on:
        same_bits(tmp_path / "calm", tmp_path / "run")
    else:
        assert str(ended.value).startswith(f"the gradient is nan at step {bad[-1]}: ")
        assert bad == [2] or newest_checkpoint(tmp_path / "run").name == "step_00000004"


@pytest.mark.parametrize("step", [3, 7])
@pytest.mark.parametrize("where", ["averaged weights", "what is kept beside them"])
def test_an_average_that_is_none_is_never_saved(tmp_path, digits, monkeypatch, where, step):
    "From a step on it is NaN: the sentence names the step it was to be saved at, and all that was saved stays."

    class Broken(training.Average):
        kept = torch.zeros(2)

        def update(self, network, at):
            super().update(network, at)
            if at + 1 >= step:
                broken = next(self.network.parameters()) if where == "averaged weights" else self.kept
                broken.view(-1)[0] = torch.nan

        def state_dict(self):
            return {"kept": self.kept.clone()}

        def load_state_dict(self, state):
            self.kept = state["kept"]

    monkeypatch.setitem(training.EMAS, "broken", Broken)
    plan = override(PLAN, steps=12, save_every=2, keep=1, average="broken")
    last = step - 1  # the last one that was saved
    with pytest.raises(NotFinite, match=f"the average of the weights is not finite at step {last + 2}: "):
        train(tmp_path / "run", plan, digits)
    assert newest_checkpoint(tmp_path / "run").name == f"step_{last:08d}"
    monkeypatch.setitem(training.EMAS, "broken", training.Average)  # and it can be gone on from
    train(tmp_path / "run", plan, digits)
    assert newest_checkpoint(tmp_path / "run").name == "step_00000012"


@pytest.mark.parametrize("words", ["test", "test --bpd", "compare"])
def test_results_that_are_no_numbers_are_an_error(run, refuses, words):
    "Of weights that are finite and absurd; the results that were there stay."
    path, meta = run / NEWEST / "ema.safetensors", json.loads((run / NEWEST / "meta.json").read_text())
    save_file({name: torch.full_like(weight, 1e30) for name, weight in load_file(path).items()}, path)
    meta["files"][path.name] = checksum(path.read_bytes())
    (run / NEWEST / "meta.json").write_text(json.dumps(meta))
    (run / "test.json").write_text("{}")
    (run / "bits.png").write_text("of yesterday")
    command, *flags = words.split()
    refuses(command, "run", *flags, "--out", "run/test.json", cwd=run.parent, sentence="run: the result")
    assert ((run / "test.json").read_text(), (run / "bits.png").read_text()) == ("{}", "of yesterday")


# -- files of another run ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("swapped", [["config.json"], [f"{NEWEST}/ema.safetensors", f"{NEWEST}/meta.json"]])
def test_files_of_another_run_are_noticed(run, made, digits, swapped):
    for name in swapped:
        shutil.copy(made / "other" / name, run / name)
    words = "is of another run than config.json describes: seed . there and . here"
    refused(words, load_model, run, folder=run)
    refused(words, train, run, LONGER, digits, folder=run)


# -- starts that come to nothing ---------------------------------------------------------------------------------------


def test_a_start_that_trains_nothing_changes_nothing(run, digits, tmp_path, monkeypatch, refuses):
    "A tracker that cannot begin, one that is refused, a second thought: the first line still goes on."
    before = contents(run)
    with Run.open(run, override(PLAN, steps=6, keep=9), digits) as opened:
        assert opened.notes == ["steps 4 -> 6", "keep 2 -> 9"]
    assert contents(run) == before
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    words = ["train", *WORDS, "--out", str(run), "--save-every", "2", "--steps", "6", "--log", "tensorboard"]
    refuses(*words, sentence="the tracker tensorboard cannot begin: ")
    assert contents(run) == before


def test_a_run_goes_on_without_the_source_of_its_first_weights(made, tmp_path, digits):
    train(tmp_path / "pupil", override(PLAN, init="teacher"), digits, init=load_model(made / "run"), stop_after=2)
    train(tmp_path / "pupil", PLAN, digits)  # the teacher has moved away
    assert newest_checkpoint(tmp_path / "pupil").name == "step_00000004"


def test_another_process_that_was_quicker(tmp_path, digits, monkeypatch):
    "What was there when the folder was looked into must be there when it is locked."
    from ddpm_course.run import runs

    def late(config, device, group):
        monkeypatch.undo()
        train(tmp_path / "run", PLAN, digits)
        return runs.new_state(config, device, group)

    monkeypatch.setattr(runs, "new_state", late)
    refused("another process has just trained in", train, tmp_path / "run", override(PLAN, seed=5), digits)
    load_model(tmp_path / "run")


# -- trackers ----------------------------------------------------------------------------------------------------------


def test_tensorboard_on_a_full_disk(tmp_path, monkeypatch):
    "Its failure comes where it can be caught, once."
    pytest.importorskip("tensorboard")
    from tensorboard.compat.tensorflow_stub.io.gfile import GFile

    monkeypatch.setattr(threading, "excepthook", lambda told: None)  # the writer's own thread prints its traceback
    tracker = start_tracker("tensorboard", tmp_path, PLAN, 0)
    monkeypatch.setattr(GFile, "write", mock.Mock(side_effect=OSError(errno.ENOSPC, "No space left on device")))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for step in range(3):
            tracker.numbers({"step": step, "loss": 0.5})
        tracker.close()
    assert [str(one.message).split(":")[0] for one in said] == [
        "the tracker tensorboard has failed, and is told no more"
    ]


@pytest.mark.parametrize("identity", [None, b"a/b", b"\xff"])
def test_wandb_that_cannot_begin(tmp_path, monkeypatch, identity):
    pytest.importorskip("wandb")
    for name in list(os.environ):
        if name.startswith("WANDB_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))  # where nobody has logged in
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    if identity:
        (tmp_path / "wandb_id.txt").write_bytes(identity)
    refused("the tracker wandb cannot begin: ", start_tracker, "wandb", tmp_path, PLAN, 0)
