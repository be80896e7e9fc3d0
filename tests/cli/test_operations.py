"""Every command on every kind of data, in fresh processes, as a person runs them one after the other."""

import json
import os
import pickle
import re
import shutil
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from ddpm_course.runs import load_run
from helpers import colour_folder, contents, ddpm, old_names, refused

SMALL = "--steps 6 --batch 8 --channels 8 --log-every 2 --save-every 3 --grid-every 0 --T 30 --threads 1".split()
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def flat_folder(root, draws):
    "ROOT/*.png, grayscale."
    root.mkdir()
    for k in range(40):
        Image.fromarray(draws.integers(0, 256, (20, 20), dtype=np.uint8)).save(root / f"{k:02d}.png")


def cifar_batches(root, draws):
    "CIFAR-10's own files, as its page describes them, with few images."
    root.mkdir()
    parts = {**{f"data_batch_{k}": 20 for k in range(1, 6)}, "test_batch": 20}
    for name, count in parts.items():
        batch = {
            b"data": draws.integers(0, 256, (count, 3072), dtype=np.uint8),
            b"labels": [k % 10 for k in range(count)],
            b"batch_label": b"made up",
            b"filenames": [b"x.png"] * count,
        }
        (root / name).write_bytes(pickle.dumps(batch, protocol=4))
    (root / "batches.meta").write_bytes(pickle.dumps({b"label_names": [name.encode() for name in CLASSES]}, protocol=4))


KINDS = {
    "digits": (None, 4500, 500, 10, 1),
    "colour": (colour_folder, 24, 10, 2, 3),
    "flat": (flat_folder, 36, 4, 0, 1),
    "cifar": (cifar_batches, 100, 20, 10, 3),
}


@pytest.mark.parametrize("kind", KINDS)
def test_all_operations(tmp_path, kind):
    make, images, held_out, classes, channels = KINDS[kind]
    data = []
    if make:
        make(tmp_path / "data", np.random.default_rng(0))
        data = ["--data", "data"]
    printed = ddpm("train", *SMALL, *data, "--out", "run", cwd=tmp_path)[0]
    assert f"{images:,} images of 16x16, {classes or 'no'} classes" in printed
    for words in printed.split("next:  ")[1].split("      "):  # what it says to try next works
        assert ddpm(*words.split()[1:], cwd=tmp_path)[0].strip().splitlines()[-1].startswith("wrote")
    model, config = load_run(tmp_path / "run")
    assert (
        config.data.image_channels == channels
        and model.network(torch.zeros(1, channels, 16, 16), torch.zeros(1).long(), None).shape[1] == channels
    )

    tested = json.loads((tmp_path / "run/test.json").read_text())
    assert (
        tested["images"] == held_out
        and tested["bits_per_dim"]["images"] == held_out
        and Image.open(tmp_path / "run/bits.png").width == 1000
    )
    assert all(
        0 < tested["losses"][split][loss]["mean"] < np.inf
        for split in ("test", "train")
        for loss in ("loss", "eps_mse", "x0_mse")
    )

    ddpm("sample", "run", "--n", 2, "--steps", 5, "--sampler", "dpm", "--npz", "s.npz", cwd=tmp_path)
    with np.load(tmp_path / "s.npz") as stored:
        assert stored["images"].shape == (2 * (classes or 10), 16, 16, channels)
        assert stored["labels"].tolist() == (list(range(classes)) * 2 or [-1] * 20)

    ddpm("genseq", "run", "--n", 2, "--frames", "all", "--sampler", "ddpm", "--steps", 30, cwd=tmp_path)
    with Image.open(tmp_path / "run/denoising.gif") as gif:
        assert gif.n_frames == 31 and gif.size == (2 * 50 + 2, (classes or 10) * 50 + 2)
    assert Image.open(tmp_path / "run/denoising_strip.png").height == 14 + 2 * (classes or 10) * 50 + 2


def test_topology(tmp_path):
    "One drawing of a small network, and one of a network that learns its variance, in colour and without classes."
    for words in (
        ["--preset", "mnist16"],
        ["--preset", "mnist16-hybrid", "--image-channels", 3, "--no-conditional", "--out", "drawn"],
    ):
        printed = ddpm("topology", *words, "--channels", 8, "--multipliers", "1,2", cwd=tmp_path)[0]
        paths = [tmp_path / name for name in printed.split()[1:]]
        assert {path.suffix for path in paths} == {".svg", ".png"} and all(path.stat().st_size for path in paths)
        diffusion = next(path for path in paths if path.name == "diffusion.svg")
        text = " ".join(ElementTree.parse(diffusion).getroot().itertext())
        assert "x_t" in text and "x_0 predicted" in text and ("y" in text.split()) == ("--no-conditional" not in words)


def test_test_is_repeatable(tmp_path):
    "The same numbers to the last bit, twice; and the shipped model needs no run."
    first, second = (ddpm("test", "--out", name, cwd=tmp_path)[0] for name in ("a.json", "b.json"))
    assert first.splitlines()[:-1] == second.splitlines()[:-1] and "500 test images" in first
    a, b = (json.loads((tmp_path / name).read_text()) for name in ("a.json", "b.json"))
    assert a == b and 0.08 < a["losses"]["test"]["loss"]["mean"] < 0.14
    assert all(len(a["losses"]["test"][name]["quarters_se"]) == 4 for name in ("loss", "eps_mse", "x0_mse"))


def test_quality_of_samples(tmp_path, refuses):
    "--fid prints one line that carries n, extractor and floor, and refuses what it cannot measure."
    printed = ddpm("test", "--fid", 150, "--steps", 5, cwd=tmp_path)[0]
    assert (
        re.search(r"n = 150", printed)
        and "judge" in printed
        and "real against real" in printed
        and "FID" not in printed
    )
    kept = json.loads((tmp_path / "test.json").read_text())["samples"]
    assert kept["n"] == 150 and kept["distance"] > kept["floor"] > 0
    refuses("test", "--fid", 20, sentence="n = 20 is too few for 64 features")


def test_other_images_than_the_run_knows(tmp_path, refuses):
    colour_folder(tmp_path / "data")
    refuses(
        "test",
        "--data",
        "data",
        sentence="the model knows the classes 0,1,2,3,4,5,6,7,8,9, the images have blues,reds",
    )
    assert not (tmp_path / "test.json").exists()


@pytest.fixture(scope="module", params=["to_q", "query"])
def published(tmp_path_factory, request):
    "A class-conditional pipeline as diffusers saves it; then with the attention's keys as older versions called them."
    from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel

    torch.manual_seed(0)
    unet = UNet2DModel(
        sample_size=16,
        in_channels=1,
        out_channels=1,
        block_out_channels=(32, 64),
        layers_per_block=1,
        norm_num_groups=8,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=None,
        downsample_padding=0,
        flip_sin_to_cos=False,
        freq_shift=1,
        num_class_embeds=3,
        norm_eps=1e-6,
    )
    folder = tmp_path_factory.mktemp("published") / "pipeline"
    DDPMPipeline(unet, DDPMScheduler(num_train_timesteps=1000)).save_pretrained(folder)
    if request.param == "query":
        weights = folder / "unet/diffusion_pytorch_model.safetensors"
        save_file(old_names(load_file(weights)), weights)
    return folder


def test_published_weights(tmp_path, published, refuses):
    before = contents(published)
    out = ddpm(
        "sample", "--weights", published, "--classes", "0,2", "--n", 2, "--steps", 4, "--npz", "s.npz", cwd=tmp_path
    )[0]
    assert out.startswith("wrote samples.png") and contents(published) == before
    with np.load(tmp_path / "s.npz") as stored:
        assert stored["images"].shape == (4, 16, 16, 1) and stored["labels"].tolist() == [0, 2, 0, 2]
    ddpm("genseq", "--weights", published, "--classes", "1", "--n", 1, "--steps", 4, cwd=tmp_path)
    assert (tmp_path / "denoising.gif").exists() and (tmp_path / "denoising_strip.png").exists()
    refuses("sample", "--weights", published, "--guidance", 2, sentence="was not trained for guidance")
    refuses("sample", "somewhere", "--weights", published, sentence="name one")


def test_published_weights_that_are_damaged(tmp_path, published, refuses):
    folder = tmp_path / "copy"
    shutil.copytree(published, folder)
    weights = folder / "unet/diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    refuses("sample", "--weights", folder, sentence=f"{weights} is damaged")


def test_published_weights_that_are_not_there(tmp_path, monkeypatch, refuses):
    monkeypatch.setitem(os.environ, "HF_HUB_OFFLINE", "1")
    refused(
        "sample",
        "--weights",
        "nobody/nothing",
        cwd=tmp_path,
        sentence="nobody/nothing is no folder and could not be fetched from the hub",
    )
    (tmp_path / "empty").mkdir()
    refuses("sample", "--weights", "empty", sentence="empty is no diffusers pipeline")


@pytest.mark.parametrize(
    "words, sentence",
    [
        ("genseq --frames some", "--frames must be auto or all, not 'some'"),
        ("genseq --out film.mp4", "--out must name a .gif file"),
        ("genseq nowhere", "nowhere holds no run"),
        ("genseq --classes 12", "no class is called 12"),
        ("test nowhere", "nowhere holds no run"),
        ("test --bpd half", "invalid choice: 'half'"),
        ("test --out numbers.txt", "--out must name a .json file"),
        ("test --data minst", "no data set or folder is called 'minst'"),
        ("topology --preset mnist64", "no preset is called 'mnist64'"),
        ("topology --attention 7", "attention at 7 is not among the resolutions"),
    ],
)
def test_bad_input_is_one_sentence(tmp_path, refuses, words, sentence):
    refuses(*words.split(), sentence=sentence)
    assert not contents(tmp_path)
