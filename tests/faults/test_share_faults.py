"What strangers' folders and one's own mistakes can do to published weights, exports and drawings: one sentence each."

import errno
import json
import os
import shutil
import sys
from pathlib import Path
from unittest import mock

import pytest
import torch
from safetensors.torch import load_file, save_file

from ddpm_course.cli import export
from ddpm_course.config import PRESETS, from_json, override
from ddpm_course.data.sets import ASSETS
from ddpm_course.model import build_model
from ddpm_course.share.pipelines import find_published, load_published, save_pipeline
from ddpm_course.share.to_onnx import save_onnx

CONFIG = dict(size=8, channels=8, multipliers=(1, 2), T=20, image_channels=1, classes=("a", "b"), steps=2)
CONFIG = override(PRESETS["mnist16"], **CONFIG)
WEIGHTS = "unet/diffusion_pytorch_model.safetensors"
UNET, SCHEDULER = "unet/config.json", "scheduler/scheduler_config.json"


@pytest.fixture(scope="module")
def model():
    return build_model(CONFIG).eval()


@pytest.fixture
def folder(model, tmp_path):
    save_pipeline(model, CONFIG, tmp_path / "out")
    return tmp_path / "out"


def change(path, **settings):
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


def inside(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_links_make_room(model, folder, tmp_path):
    "A stranger's folder, with links to files and a folder of mine where the export writes."
    mine = tmp_path / "mine"
    mine.mkdir()
    names = ("README.md", "ddpm_course.json", SCHEDULER)
    for name in names:
        kept = mine / Path(name).name
        kept.write_bytes((folder / name).read_bytes())
        (folder / name).unlink()
        (folder / name).symlink_to(kept)
    shutil.move(folder / "unet", mine / "unet")
    (folder / "unet").symlink_to(mine / "unet")
    before = inside(mine)
    save_pipeline(model, override(CONFIG, steps=3), folder)
    assert inside(mine) == before and not any(path.is_symlink() for path in folder.rglob("*"))
    assert load_published(str(folder))[1].training.steps == 3


def test_others_pipelines_stay(model, folder):
    (folder / "ddpm_course.json").unlink()
    before = inside(folder)
    with pytest.raises(FileExistsError, match="holds something else"):
        save_pipeline(model, override(CONFIG, steps=3), folder)
    assert inside(folder) == before


@pytest.mark.parametrize("limit", [10, 1000, 100_000])
def test_a_full_disk(limit, model, tmp_path, monkeypatch):
    "Files of more bytes do not fit: a sentence with the folder's name, nothing half written, the same line goes on."
    write = Path.write_bytes

    def full(path, content):
        write(path, content[:limit])
        if len(content) > limit:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    for _ in range(2):
        with pytest.raises(OSError, match="'.*out'"):
            save_pipeline(model, CONFIG, tmp_path / "out")
        assert not list(tmp_path.iterdir())
    monkeypatch.undo()
    save_pipeline(model, CONFIG, tmp_path / "out")
    assert load_published(str(tmp_path / "out"))[1] == CONFIG
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def fails_at(k, monkeypatch):
    "The k-th change of the disk from now on fails, as on a full one: a file, its flush, or the new name of something."
    left = [k]

    def counted(honest):
        def change(*given, **how):
            left[0] -= 1
            if left[0] == 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return honest(*given, **how)

        return change

    for place, name in ((Path, "write_bytes"), (Path, "rename"), (Path, "replace"), (os, "fsync")):
        monkeypatch.setattr(place, name, counted(getattr(place, name)))
    return left


def test_an_export_over_an_export_is_one_of_the_two(model, tmp_path, monkeypatch):
    "Whichever change of the disk fails: what is there is the old one or the new one, whole."
    settings, seen = override(CONFIG, seed=1), []
    other = build_model(settings).eval()
    save_pipeline(model, CONFIG, tmp_path / "old")
    save_pipeline(other, settings, tmp_path / "new")
    old, new = inside(tmp_path / "old"), inside(tmp_path / "new")
    assert old[WEIGHTS] != new[WEIGHTS] and old["ddpm_course.json"] != new["ddpm_course.json"]
    for k in range(1, 100):
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        shutil.copytree(tmp_path / "old", tmp_path / "out")
        with monkeypatch.context() as calm:
            left = fails_at(k, calm)
            try:
                save_pipeline(other, settings, tmp_path / "out")
            except OSError as error:
                assert str(tmp_path / "out") in str(error)
        seen.append(inside(tmp_path / "out"))
        assert seen[-1] in (old, new), k
        assert {path.name for path in tmp_path.iterdir()} == {"old", "new", "out"}, k
        if left[0] > 0:
            break
    assert len(seen) > 10 and seen[0] == old and seen[-1] == new


def test_files_of_ones_own_beside_an_export_are_not_lost(model, folder):
    (folder / "notes.txt").write_text("mine")
    before = inside(folder)
    with pytest.raises(FileExistsError, match="holds something else, notes.txt: choose another folder"):
        save_pipeline(model, override(CONFIG, steps=3), folder)
    assert inside(folder) == before


def test_paths_are_not_published(model, tmp_path):
    typed = override(CONFIG, data="/home/me/private/photos", init="/home/me/private/runs/first")
    save_pipeline(model, typed, tmp_path)
    assert not any(b"private" in content for content in inside(tmp_path).values())
    said = from_json((tmp_path / "ddpm_course.json").read_text())
    assert (said.data.data, said.training.init) == ("photos", "first")
    assert " on photos," in (tmp_path / "README.md").read_text()


def test_export_without_onnx(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    wanted = export.Request(ASSETS / "mnist16", tmp_path / "out", tmp_path / "m.onnx")
    with pytest.raises(ValueError, match="ONNX needs: pip install onnx"):
        export.run(wanted)
    assert not list(tmp_path.iterdir())


def test_weights_that_are_damaged(folder):
    state = load_file(folder / WEIGHTS)
    save_file(state | {"conv_in.bias": torch.full((8,), float("nan"))}, folder / WEIGHTS)
    with pytest.raises(ValueError, match="diffusion_pytorch_model.safetensors is damaged"):
        load_published(str(folder))
    (folder / WEIGHTS).unlink()
    with pytest.raises(FileNotFoundError, match="there is no diffusion_pytorch_model.safetensors"):
        load_published(str(folder))


def test_what_is_no_folder_is_asked_of_the_hub(monkeypatch):
    hub = pytest.importorskip("huggingface_hub")
    monkeypatch.setattr(hub, "snapshot_download", mock.Mock(side_effect=OSError("no network")))
    with pytest.raises(FileNotFoundError, match="google/ddpm is no folder and could not be fetched from the hub"):
        find_published("google/ddpm")
    with pytest.raises(FileNotFoundError, match="could not be fetched"):
        find_published("a\0/b")


@pytest.mark.parametrize("settings", [{"block_out_channels": [8192, 8192]}, {"layers_per_block": 60}], ids=str)
def test_a_few_bytes_do_not_make_a_large_network(settings, folder, monkeypatch):
    "No tensor of more than a million numbers is made on the way to the refusal."
    (folder / "ddpm_course.json").unlink()
    change(folder / UNET, **settings)
    made, empty = [], torch.empty
    monkeypatch.setattr(torch, "empty", lambda *shape, **how: made.append(empty(*shape, **how)) or made[-1])
    with pytest.raises(ValueError, match="do not belong|unet"):
        load_published(str(folder))
    assert max((x.numel() for x in made), default=0) < 10**6


def test_a_few_bytes_do_not_make_many_classes(folder):
    (folder / "ddpm_course.json").unlink()
    change(folder / UNET, num_class_embeds=10**12)
    with pytest.raises(ValueError, match="do not belong"):
        load_published(str(folder))


def test_onnx_goes_into_a_regular_file(model, tmp_path):
    pytest.importorskip("onnx")
    os.mkfifo(tmp_path / "pipe.onnx")
    (tmp_path / "folder.onnx").mkdir()
    for name in ("pipe.onnx", "folder.onnx"):
        with pytest.raises(ValueError, match="is no file that can be written"):
            save_onnx(model, tmp_path / name)
