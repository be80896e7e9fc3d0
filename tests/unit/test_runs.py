"Runs that live on: of fewer steps, with other threads, beside a slow disk. The rest: 11a, 11b; faults."

import json
import os
import signal
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from ddpm_course import PRESETS, ImageSet, Run, heldout_loss, load_digits, override, plot_losses
from ddpm_course.base.group import Group
from ddpm_course.run import checkpoints, runs, stopping
from ddpm_course.run.checkpoints import newest_checkpoint, read_log, read_metrics
from ddpm_course.run.stopping import Interrupt, must_stop
from ddpm_course.run.trackers import curves
from ddpm_course.run.training import ema_decay, lr_at, make_batch, new_state
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


def test_threads_and_compilation_may_change(tmp_path, digits):
    "A laptop's run uses a server's cores; without a wish it keeps what it had."
    train(tmp_path / "run", PLAN, digits, stop_after=2)
    assert train(tmp_path / "run", override(PLAN, threads=0, steps=5), digits).notes == ["steps 6 -> 5"]
    more = override(PLAN, threads=2, keep=3)
    with Run.open(tmp_path / "run", more, digits) as run:
        assert run.notes == ["steps 5 -> 6", "threads 1 -> 2", "keep 2 -> 3"]
        assert torch.get_num_threads() == 2
        list(run)
    assert not {"threads", "compile"} & set(checkpoints.read_meta(newest_checkpoint(tmp_path / "run"))["settings"])


def test_what_is_decided_once_for_a_run(tmp_path, digits):
    "The data fill in what they decide; a run keeps its precision and threads; a lock that is a link is not followed."
    cpu, free = torch.device("cpu"), override(PLAN, threads=0, precision="auto")
    mine = runs.complete_config(override(PLAN, threads=3), None, digits, cpu)
    assert (mine.data.classes, mine.data.digest) == (digits.classes, digits.digest)
    kept = runs.complete_config(free, mine, digits, cpu).training
    assert (kept.precision, kept.threads) == ("fp32", 3)
    with pytest.raises(ValueError, match="image_channels 3, the images have size 16 and 1 channels"):
        runs.complete_config(override(PLAN, image_channels=3), None, digits, cpu)
    (tmp_path / ".lock").symlink_to(tmp_path / "photo.png")
    with runs.only_one(tmp_path):
        assert not (tmp_path / "photo.png").exists() or not (tmp_path / "photo.png").read_bytes()


def test_training_goes_on_while_a_checkpoint_is_written(tmp_path, monkeypatch):
    "What is written are the weights at the time of the call; an error of the disk comes where one waits."
    state, ready, honest = new_state(PLAN), threading.Event(), checkpoints.flush
    before, writer = state.network.conv_in.weight.detach().clone(), checkpoints.Writer(tmp_path)
    monkeypatch.setattr(checkpoints, "flush", lambda path: ready.wait() and honest(path))
    writer.begin(state)
    assert newest_checkpoint(tmp_path) is None
    state.network.conv_in.weight.data.zero_()
    ready.set()
    writer.wait()
    kept = load_file(newest_checkpoint(tmp_path) / "model.safetensors")["conv_in.weight"]
    assert torch.equal(kept, before) and kept.any()

    def full(path):
        raise OSError("no space left")

    monkeypatch.setattr(checkpoints, "flush", full)
    state.step = 1
    writer.begin(state)
    with pytest.raises(OSError, match="no space left"):
        writer.wait()
    assert newest_checkpoint(tmp_path).name == "step_00000000"


def test_the_newest_checkpoint_has_the_greatest_number(tmp_path):
    for name in ("step_99999999", "step_00000007", "step_100000000", "step_00000008.old", ".writing"):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
    assert newest_checkpoint(tmp_path).name == "step_100000000"


def test_a_plugin_with_another_text_is_said(tmp_path, digits):
    (tmp_path / "mine.py").write_text("")
    config = replace(PLAN, plugins=(runs.load_plugin(tmp_path / "mine.py"),))
    train(tmp_path / "run", config, digits)
    with pytest.warns(UserWarning, match="another text of the plugin mine.py"):
        runs.load_run(tmp_path / "run", plugins=["mine.py:1234"])


def test_pictures_that_have_changed(tmp_path, digits):
    "That they have, and what one can do."
    train(tmp_path / "run", PLAN, digits, stop_after=2)
    fewer = ImageSet(digits.pixels[1:], digits.labels[1:], digits.classes)
    with pytest.raises(ValueError, match="own pictures: they have changed$") as said:
        train(tmp_path / "run", PLAN, fewer)
    assert "choose another folder (where one may begin from these weights)" in str(said.value)


def test_held_out_images_of_some_classes_keep_their_names(tmp_path, digits):
    "Made without those of training, they would count their own classes from 0."
    some = load_digits("test", 16)
    few = some[np.isin(some.labels, (3, 7))]
    held_out = ImageSet.of(few.pixels, few.labels)
    assert held_out.classes == ("3", "7") and set(held_out.labels) == {0, 1}
    with Run.open(tmp_path / "run", PLAN, digits, held_out=held_out) as run:
        assert np.array_equal(run.held_out.labels, few.labels) and run.held_out.classes == digits.classes
    with pytest.raises(ValueError, match="no class is called 3x: expected some of 0,1,2"):
        with Run.open(tmp_path / "other", PLAN, digits, held_out=ImageSet(few.pixels, held_out.labels, ("3x", "7"))):
            pass


def test_held_out_losses_on_the_way_change_no_bit(tmp_path, digits):
    "They have lines of their own, of 500 images with fixed noise, and go on where a run was stopped."
    held_out, plan = load_digits("test", 16), override(PLAN, dropout=0.1)
    train(tmp_path / "plain", plan, digits)
    asked = override(plan, eval_every=2)
    for folder, last in (("asked", 6), ("stopped", 3), ("stopped", 6)):
        found = {}
        with Run.open(tmp_path / folder, asked, digits, held_out=held_out) as run:
            for record in run:
                found |= {record["step"]: record["heldout"]} if "heldout" in record else {}
                if record["step"] == last:
                    run.save()
                    break
    same_bits(tmp_path / "plain", tmp_path / "asked")
    assert found.keys() == {4, 6} and found[6].keys() == {"images", "loss", "eps_mse", "x0_mse"}
    whole = heldout_loss(run.model, held_out, run.state.criterion, repeats=1)
    assert found[6]["images"] == 500 and found[6]["loss"] == pytest.approx(whole["loss"]["mean"], rel=1e-6)
    lines = [[line for line in read_log(tmp_path / name) if "heldout" in line] for name in ("asked", "stopped")]
    assert lines[0] == lines[1] and [line["step"] for line in lines[0]] == [2, 4, 6]
    assert curves(lines[0][0])["heldout/loss"] == lines[0][0]["heldout"]["loss"]
    assert plot_losses(read_metrics(tmp_path / "asked"), (), lines[0]).axes[0].get_legend()
    with pytest.raises(ValueError, match="eval_every needs held-out images"):
        train(tmp_path / "new", asked, digits)


def test_few_of_many_are_evenly_spaced(digits):
    assert load_digits("test", 16).spread(10).labels.tolist() == list(range(10))
    assert digits.spread(5000).digest == digits.digest
    assert digits[digits.labels == 3].labels_at().unique().tolist() == [3]


def test_a_run_of_version_0_1_0_goes_on(tmp_path, digits):
    "It has no `average`, `own` and `eval_every`, neither as settings nor in its checkpoint."
    train(tmp_path / "new", PLAN, digits)
    old = tmp_path / "old"
    train(old, PLAN, digits, stop_after=3)
    config = json.loads((old / "config.json").read_text())
    for name in ("average", "own", "eval_every"):
        del config["training"][name]
    (old / "config.json").write_text(json.dumps(config))
    end = newest_checkpoint(old)
    kept = torch.load(end / "optimizer.pt", weights_only=True)
    del kept["average"]
    torch.save(kept, end / "optimizer.pt")
    meta = json.loads((end / "meta.json").read_text())
    meta["files"]["optimizer.pt"] = checkpoints.checksum((end / "optimizer.pt").read_bytes())
    del meta["settings"]
    (end / "meta.json").write_text(json.dumps(meta))
    assert train(old, PLAN, digits).notes == []
    same_bits(tmp_path / "new", old)


def test_a_run_that_fails_leaves_what_was_begun(tmp_path, digits, monkeypatch):
    "The folder is free only when nothing is written any more."
    began, fails, honest = threading.Event(), threading.Event(), checkpoints.flush

    def slow(path):
        began.set()
        fails.wait()
        honest(path)

    with pytest.raises(KeyError), Run.open(tmp_path / "run", PLAN, digits) as run:
        monkeypatch.setattr(checkpoints, "flush", slow)
        for record in run:
            if record["step"] == 3:
                began.wait()
                fails.set()
                raise KeyError
    assert began.is_set() and newest_checkpoint(tmp_path / "run").name == "step_00000003"
    assert not (tmp_path / "run/checkpoints/.writing").exists()


def test_signals_become_wishes():
    "SIGTERM twice, from a batch system and from a parent, is one; a second Ctrl-C after a while stops at once."
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with Interrupt() as interrupt:
        assert not must_stop(interrupt, Group())
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGTERM)
        assert must_stop(interrupt, Group()) and interrupt.signal == signal.SIGTERM
    with Interrupt() as impatient, pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
        impatient.since -= 2
        os.kill(os.getpid(), signal.SIGINT)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_a_loop_of_ones_own_is_saved_where_a_signal_ends_it(tmp_path, digits, capsys):
    "It goes on with the same bits; in a thread, which hears no signals, it trains as anywhere."
    other = threading.Thread(target=train, args=(tmp_path / "calm", PLAN, digits))
    other.start()
    other.join()
    with pytest.raises(SystemExit) as stop, Run.open(tmp_path / "run", PLAN, digits) as run:
        for record in run:
            if record["step"] == 2:
                signal.raise_signal(signal.SIGTERM)
    assert stop.value.code == 143 and newest_checkpoint(tmp_path / "run").name == "step_00000002"
    assert capsys.readouterr().out == "stopped and saved step_00000002; the same start goes on\n"
    train(tmp_path / "run", PLAN, digits)
    same_bits(tmp_path / "calm", tmp_path / "run")


def test_rate_average_and_batches(digits):
    "Warm-up and decay; an average over a shorter past at first; slices that together are the batch."
    paper, plan = PRESETS["cifar10"].training, PRESETS["mnist16"].training
    assert lr_at(10**6, paper) == 2e-4 and lr_at(2499, paper) == 1e-4
    assert lr_at(0, plan) == 8e-3 / 50 and lr_at(50, plan) == 8e-3 and lr_at(649, plan) < 1e-7
    assert ema_decay(0, 0.99, True) == 0.1 and ema_decay(0, 0.99, False) == ema_decay(9999, 0.99, True) == 0.99
    config = override(PRESETS["mnist16"], classes=digits.classes)
    whole, flipped = make_batch(digits, config, 7), make_batch(digits, override(config, augment="flip"), 7)
    thirds = [make_batch(digits, config, 7, part=k, parts=3) for k in range(3)]
    for name in vars(whole):
        assert torch.equal(getattr(whole, name), torch.cat([getattr(part, name) for part in thirds]))
    mirrored = (flipped.x0 != whole.x0).flatten(1).any(1)
    assert torch.equal(flipped.x0[mirrored], whole.x0[mirrored].flip(3)) and 12 < mirrored.sum() < 52


def test_processes_ask_each_other_about_once_a_second(monkeypatch):
    "Not at each step; a wish of another one, at step 3,333 of 100 a second, is heard within a second."
    steps, asked = [0], []

    class Two(Group):
        world = 2

        def all_reduce(self, x):
            asked.append(steps[0])
            return torch.tensor([int(x[0]) + (steps[0] >= 3333), 2 * int(x[1])])

    monkeypatch.setattr(stopping.time, "monotonic", lambda: steps[0] / 100)
    with Interrupt() as interrupt:
        while steps[0] < 5000 and not must_stop(interrupt, Two()):
            steps[0] += 1
    assert len(asked) < 50 and 3333 <= steps[0] <= 3433
