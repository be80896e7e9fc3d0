"Faults that testers met with data: each is one sentence, or goes on with a word, and nothing hangs."

import os
import warnings

import numpy as np
import pytest
from bench import TINY, photos
from PIL import Image

from ddpm_course.data.sets import ImageSet
from ddpm_course.data.sources import DATA, load_data


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    "A cache and a current folder of the test's own."
    monkeypatch.setenv("DDPM_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def said(source):
    "The sets of a source and what was said about it."
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        return load_data(source, 8), [str(w.message) for w in caught]


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda x, y: ImageSet(x / np.float32(255), y, ("a", "b")), "the pixels are float32"),
        (lambda x, y: ImageSet(x, y + 2, ("a", "b")), "the labels go from 2 to 3: expected 0 or more, and less than 2"),
    ],
)
def test_sets_that_a_plugin_makes_wrongly(refuses, monkeypatch, make, words):
    "Row 10: floats from 0 to 1 were trained on as if they were bytes, wrong labels ended in the loop."
    x, y = np.ones((6, 1, 8, 8), np.uint8), np.arange(6) % 2
    monkeypatch.setitem(DATA, "mine", lambda size, channels: [make(x, y)] * 2)
    refuses("train", "--data", "mine", "--out", "new", *TINY, sentence=words)
    assert not os.path.exists("new")


def test_folder_called_like_a_data_set(tmp_path):
    "Row 12: the bundled digits were taken without a word."
    photos(tmp_path / "mnist5k")
    (train, _), words = said("mnist5k")
    assert len(train) == 4500
    assert words == ["mnist5k is taken for the data set of that name, not for the folder here: that is ./mnist5k"]
    (train, _), words = said("./mnist5k")
    assert train.classes == ("cats", "dogs") and not words


def test_file_in_place_of_a_folder(refuses, tmp_path):
    "Row 28: the sentence was cut off in the middle of a bracket."
    Image.new("L", (8, 8)).save(tmp_path / "picture.png")
    sentence = "no data set or folder is called 'picture.png': expected mnist5k, "
    refuses("train", "--data", "picture.png", "--out", "new", *TINY, sentence=sentence)


def test_picture_that_links_to_itself(tmp_path):
    "Row 30: it stopped the whole data set, where a link to nowhere was left out."
    photos(tmp_path / "d", each=120)
    for name, target in (("me", "me.png"), ("gone", "nowhere.png")):
        (tmp_path / f"d/cats/{name}.png").symlink_to(target)
    (train, test), words = said("d")
    assert len(train) + len(test) == 240
    assert words == ["d: 2 files that cannot be read are left out, such as cats/gone.png"]


def test_empty_class_folders_are_counted_at_once(tmp_path):
    "Row 30: one was named at each start."
    photos(tmp_path / "d")
    for k in range(1000):
        (tmp_path / f"d/empty{k:03}").mkdir()
    (train, _), (words,) = said("d")
    assert train.classes == ("cats", "dogs")
    assert words == "d: 1000 things that are no images are ignored, such as empty000/"


@pytest.mark.parametrize("name", ["a\0b", "~nobody-of-that-name/x", "x" * 5000])
def test_names_that_no_file_can_have(name):
    "NUL bytes, users that are not there, names that are too long."
    with pytest.raises(FileNotFoundError, match="no data set or folder is called '") as caught:
        load_data(name, 8)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("label", [10**9, 2**63])
def test_labels_without_bound(label):
    "Row 20: the memory was filled with the names of a billion classes."
    with pytest.raises(ValueError, match="the labels go from -?[0-9]+ to [0-9]+: expected 0 or more") as caught:
        ImageSet.of(np.zeros((2, 4, 4), np.uint8), np.array([0, label], np.uint64))
    assert "\n" not in str(caught.value)
