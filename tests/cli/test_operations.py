"""Every command on every kind of data, in fresh processes, as a person runs them one after the other."""

import json

import numpy as np
import pytest
from PIL import Image, ImageDraw

from ddpm_course.run.runs import load_run
from ddpm_course.unet import UNet
from helpers import colour_folder, contents, ddpm, refused

SMALL = "--steps 6 --batch 8 --channels 8 --log-every 2 --save-every 3 --grid-every 0 --T 8 --threads 1".split()


def flat_folder(root, draws):
    "ROOT/*.png, grayscale."
    root.mkdir()
    for k in range(40):
        Image.fromarray(draws.integers(0, 256, (20, 20), dtype=np.uint8)).save(root / f"{k:02d}.png")


KINDS = {
    "digits": (None, 4500, 500, 10, 1),
    "colour": (colour_folder, 24, 10, 2, 3),
    "flat": (flat_folder, 36, 4, 0, 1),
}


@pytest.mark.parametrize("kind", [pytest.param(k, marks=[pytest.mark.thorough] * (k != "colour")) for k in KINDS])
def test_all_operations(tmp_path, kind):
    make, images, held_out, classes, channels = KINDS[kind]
    data = []
    if make:
        make(tmp_path / "data", np.random.default_rng(0))
        data = ["--data", "data"]
    run = f"runs/{'data' if make else 'mnist16'}"
    printed = ddpm("train", *SMALL, *data, cwd=tmp_path)[0]
    assert f"{images:,} images of 16x16, {classes or 'no'} classes" in printed
    assert printed.startswith("data holds pictures in colour: preset ") == (kind == "colour"), printed
    for words in printed.split("next:  ")[1].split("      "):  # what it says to try next works
        assert ddpm(*words.split()[1:], cwd=tmp_path)[0].strip().splitlines()[-1].startswith("wrote")
    assert {"digits": "--classes 3,7", "colour": "--n 20", "flat": "--n 2"}[
        kind
    ] + "  " in printed  # 16, 40, 20 pictures
    model, config = load_run(tmp_path / run)
    assert config.data.data == (str(tmp_path / "data") if make else "mnist5k")  # to be found from anywhere
    assert config.data.image_channels == model.shape[0] == channels
    tested = json.loads((tmp_path / run / "test.json").read_text())
    assert tested["images"] == tested["bits_per_dim"]["images"] == held_out
    assert Image.open(tmp_path / run / "bits.png").width == 1000
    losses = [part[name]["mean"] for part in tested["losses"].values() for name in ("loss", "eps_mse", "x0_mse")]
    assert len(losses) == 6 and all(0 < loss < np.inf for loss in losses)

    ddpm("sample", run, "--n", 2, "--steps", 5, "--sampler", "dpm", "--npz", "s.npz", cwd=tmp_path)
    with np.load(tmp_path / "s.npz") as stored:
        assert stored["images"].shape == (2 * (classes or 10), 16, 16, channels)
        assert stored["labels"].tolist() == (list(range(classes)) * 2 or [-1] * 20)

    ddpm("genseq", run, "--n", 2, "--frames", "all", "--sampler", "ddpm", "--steps", 8, cwd=tmp_path)
    with Image.open(tmp_path / run / "denoising.gif") as gif:
        assert gif.n_frames == 9 and gif.size == (2 * 50 + 2, (classes or 10) * 50 + 2)
    assert Image.open(tmp_path / run / "denoising_strip.png").height == 14 + 2 * (classes or 10) * 50 + 2


def test_compare(tmp_path):
    "The verdict on each run; one process or two say the same; the file has the numbers."
    small = [*SMALL, "--size", "8", "--multipliers", "1,2", "--T", "50", "--precision", "fp32"]
    for name, more in (("a", "--steps 6"), ("b", "--steps 60"), ("c", "--steps 6 --no-conditional")):
        ddpm("train", *small, *more.split(), "--out", name, cwd=tmp_path)
    out = ddpm("compare", "b", "a", "b", "--out", "c.json", "--precision", "fp32", cwd=tmp_path)[0].splitlines()
    assert len(out) == 5 and "worse" in out[2] and "no difference larger than 0" in out[3]
    rows = json.loads((tmp_path / "c.json").read_text())
    assert rows[1]["mean"] > 0 and rows[1]["verdict"] == "worse" and rows[1]["n"] == 500 and rows[0]["mean"] == 0
    two = ddpm("compare", "b", "a", "b", "--nproc", "2", "--precision", "fp32", cwd=tmp_path)[0].splitlines()
    assert two[2].split("(")[1] == out[2].split("(")[1]
    refused("compare", "a", "c", cwd=tmp_path, sentence="c draws other images than a")


# -- where samples begin ----------------------------------------------------------------------------------------------


def pictures(folder):
    "A drawing of a one, a mask that is white in its lower half, a black mask, and a text that is called a picture."
    drawing = Image.new("RGB", (60, 48))
    ImageDraw.Draw(drawing).line([(30, 8), (30, 40)], fill=(255, 255, 255), width=6)
    drawing.save(folder / "one.jpg", quality=95)
    mask = Image.new("L", (60, 48))
    mask.paste(255, (0, 24, 60, 48))
    mask.save(folder / "lower.png")
    Image.new("L", (60, 48)).save(folder / "black.png")
    (folder / "text.png").write_text("one")
    (folder / "here").mkdir()


def drawn(*words, cwd, classes="1,7"):
    "What `ddpm sample` writes: (rows, columns, 16, 16), as numbers; here on the shipped model unless a run is named."
    out = ddpm("sample", *words, "--classes", classes, "--steps", 6, "--npz", "s.npz", cwd=cwd)[0]
    assert out.startswith("wrote ") and out.endswith("samples.png s.npz\n")
    with np.load(cwd / "s.npz") as stored:
        columns = len(classes.split(","))
        assert stored["labels"].tolist() == [int(c) for c in classes.split(",")] * (len(stored["labels"]) // columns)
        return stored["images"].reshape(-1, columns, 16, 16).astype(int)


def close(a, b):
    "The same pictures, but for rounding."
    return np.abs(a - b).max() <= 2


def test_from_one_seed_to_another(tmp_path):
    first, last = (drawn("--seed", seed, "--n", 1, cwd=tmp_path)[0] for seed in (3, 4))
    way = drawn("--seed", 3, "--to-seed", 4, "--n", 4, cwd=tmp_path)
    assert len(way) == 4 and close(way[0], first) and close(way[-1], last)
    assert not close(way[1], first) and not close(way[2], last)
    assert Image.open(tmp_path / "samples.png").size == (2 * 50 + 2, 14 + 4 * 50 + 2)


def test_a_part_of_a_picture(tmp_path):
    "Outside the mask all stays, to the last bit; of all of a picture the walk goes back 0.6, of a part all of it."
    pictures(tmp_path)
    known = "--from one.jpg --mask lower.png --n 2".split()
    once, thrice = (drawn(*known, *more, cwd=tmp_path) for more in ((), ("--rounds", 3)))
    assert all((grid[:, :, :8] == once[:1, :1, :8]).all() for grid in (once, thrice))
    assert not close(once[:, :, 8:], thrice[:, :, 8:])
    for words, strength in ((known, 1), ("--from one.jpg --n 1".split(), 0.6)):
        assert close(*(drawn(*words, *more, cwd=tmp_path) for more in ((), ("--strength", strength))))


@pytest.mark.parametrize(
    "words, sentence",
    [
        ("--strength 0.5", "--strength belongs to --from FILE, and there is none"),
        ("--mask lower.png", "--mask belongs to --from FILE, and there is none"),
        ("--rounds 2", "--rounds belongs to --from FILE, and there is none"),
        ("--from one.jpg --rounds 2", "more than one round is for pictures with a mask"),
        ("--from one.jpg --to-seed 4", "argument --to-seed: not allowed with argument --from"),
        ("--from one.jpg --strength 0", "strength lies above 0 and is at most 1, not 0"),
        ("--from one.jpg --strength nan", "strength must be between 0 and 1, not nan"),
        ("--from one.jpg --mask black.png", "black.png marks nothing to be drawn anew"),
        ("--from one.jpg --mask text.png", "text.png is not an image that can be read"),
        ("--from gone.png", "there is no picture gone.png"),
        ("--from one.jpg --spacing quadratic --strength 1", "quadratic spacing with 20 steps starts where the image"),
        ("--sampler heun --eta 0.5", "variance belongs to the ddpm sampler and eta to ddim"),
    ],
)
def test_beginnings_that_make_no_sense(tmp_path, refuses, monkeypatch, words, sentence):
    "One sentence before the network is asked for anything, and nothing is written."
    pictures(tmp_path)
    before = contents(tmp_path)
    monkeypatch.setattr(UNet, "forward", lambda *given: pytest.fail("the network was called"))
    refuses("sample", "--out", "deep/grid.png", *words.split(), sentence=sentence)
    assert contents(tmp_path) == before


# -- and the rest ------------------------------------------------------------------------------------------------------


@pytest.mark.thorough
def test_losses_again_and_quality_of_samples(tmp_path):
    "The same losses to the last bit, twice, of the shipped model; --fid adds what it measured, and of how many."
    losses = ddpm("test", "--out", "a.json", cwd=tmp_path)[0].splitlines()
    printed = ddpm("test", "--fid", 150, "--steps", 5, cwd=tmp_path)[0]
    assert losses[:-1] == printed.splitlines()[: len(losses) - 1] and "n = 150" in printed
    a, b = (json.loads((tmp_path / name).read_text()) for name in ("a.json", "test.json"))
    assert a == {name: b[name] for name in a} and 0.08 < a["losses"]["test"]["loss"]["mean"] < 0.14
    assert b["samples"]["n"] == 150 and b["samples"]["distance"] > b["samples"]["floor"] > 0
