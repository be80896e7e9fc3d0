"Which pictures a run is asked about: its own, by checksum, or others with the same classes, by name."

import os

import numpy as np
import pytest
from PIL import Image

from ddpm_course.config import PRESETS, override
from ddpm_course.data.sets import ImageSet
from ddpm_course.data.sources import load_data
from ddpm_course.run.datasets import fingerprints, pictures_of, trained_on


@pytest.fixture
def folder(tmp_path, monkeypatch):
    "Thirty grey pictures each of cats and dogs."
    monkeypatch.setenv("DDPM_CACHE", str(tmp_path / "cache"))
    dice = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "all" / name).mkdir(parents=True)
        for k in range(30):
            pixels = dice.integers(0, 256, (8, 8), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / f"all/{name}/{k:02}.png")
    return tmp_path / "all"


def trained_with(images, **more):
    "The configuration of a run that these were trained on."
    told = {"size": 8, "image_channels": images.channels, "classes": images.classes, "digest": images.digest}
    return override(PRESETS["mnist16"], **told | more)


def test_a_run_is_asked_about_its_own_pictures(folder):
    images, held_out = load_data(folder, 8)
    config = trained_with(images, data=str(folder))
    assert pictures_of(config)[1].digest == held_out.digest
    (folder / "cat/00.png").unlink()  # each tenth is held out: now others are, which were trained on
    with pytest.raises(ValueError, match="holds other pictures than those this model was trained on"):
        pictures_of(config)
    asked = pictures_of(config, folder)[1]  # said to be the right ones
    assert trained_on(asked, images) == 2 and trained_on(held_out, images) == 0


def test_pictures_that_changed_places_are_others(folder):
    "Also where the files' names, sizes and dates are as they were."
    for path in sorted(folder.glob("*/*")):
        Image.open(path).save(path.with_suffix(".bmp"))
        path.unlink()
        os.utime(path.with_suffix(".bmp"), ns=(0, 0))
    images, _ = load_data(folder, 8, 1)
    config = trained_with(images, data=str(folder))
    pictures_of(config)
    one, other = folder / "cat/01.bmp", folder / "dog/01.bmp"
    for path, content in ((one, other.read_bytes()), (other, one.read_bytes())):
        path.write_bytes(content)
        os.utime(path, ns=(0, 0))
    with pytest.raises(ValueError, match="holds other pictures than those this model was trained on"):
        pictures_of(config)


def test_classes_are_compared_by_name_and_order(folder):
    images, _ = load_data(folder, 8)
    assert pictures_of(trained_with(images, conditional=False), "mnist5k")  # told none: any
    for classes in (("dog", "cat"), ("cat",), ("cat", "dog", "ant"), ("cat", "fox")):
        with pytest.raises(ValueError, match="the model knows the classes"):
            pictures_of(trained_with(images, classes=classes), folder)


@pytest.mark.parametrize("known, right", [(11, True), (10, True), (12, False), (9, False)])
def test_a_label_for_no_class_does_not_count(known, right):
    "Weights from elsewhere come without names, and may know one class more."
    config = override(PRESETS["mnist16"], size=8, classes=tuple(map(str, range(known))), data="theirs")
    if right:
        assert len(pictures_of(config, "mnist5k")[1]) == 500
    else:
        with pytest.raises(ValueError, match="the model knows the classes"):
            pictures_of(config, "mnist5k")


def test_fingerprints_tell_pictures_apart():
    pixels = np.random.default_rng(1).integers(0, 256, (1000, 1, 4, 4), dtype=np.uint8)
    prints = fingerprints(ImageSet(np.concatenate([pixels, pixels[:7]]), None))
    assert len(np.unique(prints)) == 1000 and (prints[:7] == prints[1000:]).all()
