"Runs that live on: longer, in other slices and processes, from other weights, and made by an older version."

import copy
import json
import os
import shutil
import threading
import time
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from ddpm_course import PRESETS, Run, SamplingConfig, load_digits, load_model, override
from ddpm_course.base.group import Group
from ddpm_course.heldout import heldout_loss
from ddpm_course.model import build_model
from ddpm_course.run import checkpoints
from ddpm_course.run.checkpoints import (
    checksum,
    contents,
    load_checkpoint,
    newest_checkpoint,
    read_log,
    read_meta,
    read_metrics,
    write_checkpoint,
)
from ddpm_course.run.runs import read_config, start_from
from ddpm_course.run.training import fit, new_state
from ddpm_course.sampling import plan
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
    with pytest.raises(ValueError, match="steps 12 there and 6 here"):
        train(tmp_path / "grown", PLAN, digits)


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
    meta.pop("processes")
    meta.pop("sha256", None)
    meta["files"]["optimizer.pt"] = checksum(end / "optimizer.pt")
    (end / "meta.json").write_text(json.dumps(meta))


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


def test_asked_channels_are_not_dropped(tmp_path, digits):
    with pytest.raises(ValueError, match="image_channels 3, the images have size 16 and 1 channels"):
        train(tmp_path / "run", override(PLAN, image_channels=3), digits)
    assert not (tmp_path / "run").exists()


def test_refused_start_leaves_no_run(tmp_path, digits):
    with pytest.raises(ValueError, match="a batch of 8 cannot be cut into 9 slices"):
        train(tmp_path / "run", override(PLAN, accumulate=9), digits)
    train(tmp_path / "run", override(PLAN, accumulate=8), digits)


def test_variance_of_the_model_decides():
    "A model trained for small variance is sampled with it at full length, whoever asks."
    model = load_model()
    full = SamplingConfig(sampler="ddpm", steps=1000)
    assert (
        plan(full, model).variance == "large" and plan(full, replace(model, variance="small")).variance == "small"
    )
    assert decide(SamplingConfig(sampler="ddpm", steps=50), model).variance == "small"
    assert decide(SamplingConfig(), model) == SamplingConfig(steps=20, guidance=1.75)


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


def test_a_full_disk_is_said_by_the_run(tmp_path, digits, monkeypatch):
    def full(path):
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"), Run.open(tmp_path / "run", PLAN, digits) as run:
        monkeypatch.setattr(checkpoints, "flush", full)
        list(run)


def test_flipped_step_is_noticed(tmp_path, digits):
    run = tmp_path / "run"
    train(run, PLAN, digits)
    path = newest_checkpoint(run) / "meta.json"
    path.write_text(path.read_text().replace('"step": 6', '"step": 4'))
    with pytest.raises(ValueError, match="meta.json is damaged or missing: move the folder step_00000006 away"):
        load_model(run)
    shutil.rmtree(run / "checkpoints/step_00000003")
    with pytest.raises(ValueError, match="there is no older checkpoint"):
        train(run, override(PLAN, steps=9), digits)
    path.write_text(path.read_text().replace('"step": 4', '"step": 6'))
    load_model(run)


def test_every_flipped_bit_of_the_meta_file_is_noticed(tmp_path):
    "Each bit of meta.json in turn: it is refused, or says the same as before (as where a blank became another)."
    path = write_checkpoint(tmp_path, 6, {"some.bytes": b"1"}, processes=2) / "meta.json"
    good, unnoticed = path.read_bytes(), []
    meant = {key: read_meta(path.parent)[key] for key in ("step", "processes", "files", "versions")}
    for k in range(8 * len(good)):
        path.write_bytes(good[: k // 8] + bytes([good[k // 8] ^ 1 << k % 8]) + good[k // 8 + 1 :])
        try:
            found = read_meta(path.parent)
        except ValueError:
            continue
        if any(found.get(key) != value for key, value in meant.items()):
            unnoticed.append((k, path.read_bytes()))
    assert not unnoticed, (len(unnoticed), unnoticed[0])


def test_a_step_may_have_nine_digits(tmp_path, digits):
    "Folders are counted as numbers: step_100000000 comes after step_99999999."
    for step in (99_999_998, 99_999_999, 100_000_000, 100_000_001):
        write_checkpoint(tmp_path, step, {}, keep=2)
        assert newest_checkpoint(tmp_path).name == f"step_{step}"
    names = {path.name for path in (tmp_path / "checkpoints").iterdir()}
    assert names == {"step_100000000", "step_100000001"}
    shutil.rmtree(tmp_path / "checkpoints")
    for step in (99_999_999, 100_000_000):
        write_checkpoint(tmp_path, step, {})
    newest = newest_checkpoint(tmp_path)
    (newest / "meta.json").write_text("{")
    with pytest.raises(ValueError, match="move the folder step_100000000 away to go on from step_99999999"):
        read_meta(newest)


def numbers(state):
    "All numbers of a state, as copies."
    parts = state.network, state.ema.network, state.optimizer, state.scaler, state.criterion
    return copy.deepcopy([state.step, state.window, *(part.state_dict() for part in parts)])


def forge(checkpoint, name, change):
    "Change what a checkpoint's file holds, and make its sums right again."
    path, meta = checkpoint / name, json.loads((checkpoint / "meta.json").read_text())
    if name.endswith("pt"):
        kept = torch.load(path, weights_only=True)
        change(kept)
        torch.save(kept, path)
    else:
        kept = load_file(path)
        change(kept)
        save_file(kept, path)
    meta["files"][name] = checksum(path)
    meta.pop("sha256", None)
    (checkpoint / "meta.json").write_text(json.dumps(meta))


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("model.safetensors", lambda kept: kept.pop(max(kept))),
        ("ema.safetensors", lambda kept: kept.pop(max(kept))),
        ("optimizer.pt", lambda kept: kept.pop("optimizer")),
        ("optimizer.pt", lambda kept: kept["optimizer"]["param_groups"].clear()),
        ("optimizer.pt", lambda kept: kept.pop("window")),
        ("optimizer.pt", lambda kept: kept.update(window=torch.zeros(3))),
        ("optimizer.pt", lambda kept: kept.update(window="none")),
        ("optimizer.pt", lambda kept: kept.update(criterion={})),
    ],
)
def test_a_refused_load_leaves_the_state_as_it_was(tmp_path, digits, name, change):
    "Whatever is wrong, and however late it is found: all numbers of the state are the old ones."
    plan = override(PLAN, classes=digits.classes, loss="vlb", variance="learned", T=2, steps=2)
    other, state = new_state(plan), new_state(override(plan, seed=1))
    for part in (other, state):
        list(fit(part, digits, plan))
    state.step = 1
    checkpoint = write_checkpoint(tmp_path, other.step, contents(other))
    forge(checkpoint, name, change)
    before = numbers(state)
    with pytest.raises(ValueError, match=name):
        load_checkpoint(checkpoint, state)
    torch.testing.assert_close(numbers(state), before, rtol=0, atol=0, equal_nan=True)


def test_refused_weights_leave_a_state_as_it_was(digits):
    plan = override(PLAN, classes=digits.classes)
    state = new_state(plan)
    before = numbers(state)
    with pytest.raises(ValueError, match="of another network"):
        start_from(state, build_model(override(plan, multipliers=(1, 2, 3), seed=1)))
    torch.testing.assert_close(numbers(state), before, rtol=0, atol=0)


@pytest.mark.parametrize(
    "line",
    [b'{"loss": 0.5}', b'{"step": 3, "lo', b'{"step": "3", "loss": 0.5}', b"3", b"[]", b"\xff", b"[" * 100_000],
)
def test_a_bad_line_of_the_log_is_named(tmp_path, digits, line):
    "One sentence with the file, the line and the way out, which works."
    run = tmp_path / "run"
    train(run, PLAN, digits, stop_after=3)
    log = run / "metrics.jsonl"
    good = log.read_bytes()
    log.write_bytes(good + line + b"\n" + good)
    with pytest.raises(ValueError, match="metrics.jsonl is damaged in line 2 .*: mend it, or move it away") as said:
        train(run, PLAN, digits)
    assert "\n" not in str(said.value) and len(str(said.value)) < 1000
    log.rename(tmp_path / "away")
    train(run, PLAN, digits)
    assert [entry["step"] for entry in read_log(run)] == [6]


def test_a_cut_last_line_of_the_log_is_written_again(tmp_path, digits):
    run, whole = tmp_path / "run", tmp_path / "whole"
    train(whole, PLAN, digits)
    train(run, PLAN, digits, stop_after=3)
    with open(run / "metrics.jsonl", "ab") as log:
        log.write(b'{"step": 6, "loss": 0.')
    train(run, PLAN, digits)
    same_bits(run, whole)


def test_unreadable_is_not_damaged(tmp_path, digits, monkeypatch):
    "A file that may not be read is named as such: nobody is told to move or remove it."
    train(tmp_path / "run", PLAN, digits)

    def forbidden(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(checkpoints, "checksum", forbidden)
    with pytest.raises(PermissionError, match="Permission denied"):
        load_model(tmp_path / "run")


def test_files_have_the_modes_that_the_user_chose(tmp_path, digits):
    before = os.umask(0o022)
    try:
        train(tmp_path / "run", PLAN, digits)
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in newest_checkpoint(tmp_path / "run").iterdir()}
    assert set(modes.values()) == {0o644}, modes


def test_each_thing_is_done_once(tmp_path, monkeypatch, capsys):
    "A command parses config.json once and builds the network once; a finished run prints one line."
    from ddpm_course import model
    from ddpm_course.cli import main as cli
    from ddpm_course.run import runs

    counts = {"parsed": 0, "built": 0}

    def counted(name, function):
        def call(*args):
            counts[name] += 1
            return function(*args)

        return call

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runs, "from_json", counted("parsed", runs.from_json))
    monkeypatch.setitem(model.NETWORKS, "unet", counted("built", model.NETWORKS["unet"]))
    words = "train --steps 2 --batch 8 --channels 8 --T 20 --log-every 1 --grid-every 0 --threads 1 --out run".split()
    for command, parsed in ((words, 0), (words, 1), (["sample", "run", "--n", "1", "--steps", "2"], 1)):
        counts.update(parsed=0, built=0)
        capsys.readouterr()
        cli.main(command)
        assert counts == {"parsed": parsed, "built": 1}, command
        if command is words and parsed:
            assert capsys.readouterr().out == "run is finished; nothing to do (more --steps train it longer)\n"
