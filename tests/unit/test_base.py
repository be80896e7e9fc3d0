"Files that appear whole, JSON that may be damaged, devices, and what float32 means on a GPU."

import errno
import os
import threading

import pytest
import torch

from ddpm_course.base import files
from ddpm_course.base.files import write_together, write_whole
from ddpm_course.base.machine import autocast, pick_device, pick_precision, to_device, torch_settings
from ddpm_course.config import PRESETS, override
from ddpm_course.data.sets import load_digits
from ddpm_course.run.checkpoints import load_checkpoint, newest_checkpoint, weights_of
from ddpm_course.run.runs import Run, load_model
from ddpm_course.run.training import new_state


def test_a_file_is_written_whole_and_through_no_link(tmp_path):
    precious, note = tmp_path / "precious", tmp_path / "note"
    precious.write_text("not ours")
    note.symlink_to(precious)
    write_whole(note, "first")
    write_whole(note, b"second")
    assert note.read_bytes() == b"second" and precious.read_text() == "not ours"
    with pytest.raises(ValueError, match="is no file that can be written"):
        write_whole(tmp_path, "a folder")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["note", "precious"]


def test_a_disk_that_fails_leaves_no_open_file_and_nothing_aside(tmp_path, monkeypatch):
    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    before = len(os.listdir("/dev/fd"))
    for _ in range(20):
        with pytest.raises(OSError, match="No space left on device: '.*note"):
            write_whole(tmp_path / "note", "text")
    assert len(os.listdir("/dev/fd")) == before and not list(tmp_path.iterdir())


def test_files_that_belong_together_are_written_together(tmp_path, monkeypatch):
    "Whichever of them does not fit: all are as they were, and nothing is left aside."
    names, flush = [tmp_path / "a", tmp_path / "below/b", tmp_path / "c"], files.flush
    write_together(dict.fromkeys(names, "old"))
    for bad in names:

        def full(path, bad=bad):
            if path.name.startswith(bad.name + "."):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            flush(path)

        monkeypatch.setattr(files, "flush", full)
        with pytest.raises(OSError, match=f"'{bad}"):
            write_together(dict.fromkeys(names, b"new"))
        assert {path.read_text() for path in names} == {"old"} and len(list(tmp_path.rglob("*"))) == 4
    monkeypatch.undo()
    (tmp_path / "d").mkdir()
    with pytest.raises(ValueError, match="d is no file that can be written"):
        write_together({tmp_path / "a": "new", tmp_path / "d": "new"})
    assert (tmp_path / "a").read_text() == "old"
    write_together(dict.fromkeys(names, b"new"))
    assert {path.read_text() for path in names} == {"new"}


def test_two_who_write_the_same_file(tmp_path):
    "Each text is there whole; nobody takes the other's half-written one away."
    wrong = []

    def write(text):
        for _ in range(100):
            try:
                write_whole(tmp_path / "note", text)
            except OSError as error:
                wrong.append(error)

    threads = [threading.Thread(target=write, args=(letter * 1000,)) for letter in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == [] and (tmp_path / "note").read_text() in ("a" * 1000, "b" * 1000)


def test_devices_and_precisions():
    assert pick_device("cpu").type == "cpu" and pick_precision("bf16", torch.device("cpu")) == "bf16"
    assert pick_precision("auto", torch.device("mps")) == "fp32"
    with pytest.raises(ValueError, match="no device 'tpu' on this machine: it has .*cpu"):
        pick_device("tpu")
    with autocast("bf16", torch.device("cpu")):
        a = torch.rand(8, 8)
        assert (a @ a).dtype == torch.bfloat16 and (a + a).dtype == torch.float32


def exact() -> tuple[bool, bool]:
    "Whether products of matrices, and convolutions, of float32 are float32 on a GPU."
    return torch.get_float32_matmul_precision() == "highest", not torch.backends.cudnn.allow_tf32


@pytest.mark.parametrize("precision, wanted", [("fp32", (True, True)), ("bf16", (False, False))])
def test_float32_is_float32_where_it_is_promised(tmp_path, precision, wanted):
    "Read inside the network, in training and after it; elsewhere all stays as it was."
    before, seen = exact(), []
    digits = load_digits("train", 16)
    config = override(PRESETS["mnist16"], steps=1, batch=4, channels=8, T=20, precision=precision)
    with Run.open(tmp_path / "run", config, digits) as run:
        for network in (run.state.network, run.model.network):
            network.register_forward_hook(lambda *call: seen.append(exact()))
        list(run)
        run.state.network.conv_in.weight.register_hook(lambda gradient: seen.append(exact()))
        torch.nn.Module.__call__(run.state.network, torch.zeros(1, 1, 16, 16), torch.zeros(1).long(), None)
        run.state.network.conv_in.weight.sum().backward()
    assert set(seen) == {wanted} and len(seen) == 3
    assert exact() == before
    model = load_model(tmp_path / "run", precision=precision)
    seen.clear()
    model.network.register_forward_hook(lambda *call: seen.append(exact()))
    model.answer(torch.zeros(1, 1, 16, 16), torch.zeros(1).long(), None)
    assert seen == [wanted] and exact() == before


def test_settings_are_put_back_where_something_goes_wrong():
    how = lambda: (torch.get_num_threads(), torch.backends.cudnn.benchmark, *exact())
    before = how()
    with pytest.raises(KeyError), torch_settings(3, "bf16"):
        assert how() == (3, True, False, False)
        raise KeyError
    assert how() == before


def test_a_checkpoint_of_a_cpu_fits_channels_last(tmp_path):
    "AdamW's fused steps want weights and moments laid out alike."
    digits = load_digits("train", 16)
    config = override(PRESETS["mnist16"], steps=1, batch=4, channels=8, T=20, optimizer="adamw", precision="fp32")
    with Run.open(tmp_path / "run", config, digits) as run:
        list(run)
    state = new_state(run.config)
    state.network.to(memory_format=torch.channels_last)
    load_checkpoint(newest_checkpoint(tmp_path / "run"), state)
    for weight, moments in state.optimizer.state.items():
        assert all(moments[name].stride() == weight.stride() for name in ("exp_avg", "exp_avg_sq"))
    assert all(map(torch.equal, state.network.parameters(), run.state.network.parameters()))
    for mine, theirs in zip(state.optimizer.state.values(), run.state.optimizer.state.values()):
        assert torch.equal(mine["exp_avg"], theirs["exp_avg"])


def test_channels_are_last_on_a_gpu_only():
    "And a checkpoint holds them first, wherever it was written."

    def network():
        torch.manual_seed(0)
        return torch.nn.Conv2d(3, 5, 3)

    here, there = to_device(network(), "cpu"), to_device(network(), "meta")
    assert here.weight.is_contiguous() and not there.weight.is_contiguous()
    assert there.weight.is_contiguous(memory_format=torch.channels_last)
    assert weights_of(network().to(memory_format=torch.channels_last)) == weights_of(here)
