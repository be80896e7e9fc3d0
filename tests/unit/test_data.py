"Images from all kinds of files and folders: every outcome that chapters 01 to 01c promise, and the cache under fire."

import errno
import hashlib
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time
import warnings
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from PIL import Image, ImageFile
from torchvision.datasets import CIFAR10

from ddpm_course.data import cache as caching
from ddpm_course.data import decoding, sources
from ddpm_course.data.sets import ImageSet, load_digits, resize
from ddpm_course.data.sources import load_data

LEVEL = np.random.default_rng(0).integers(0, 256, (12, 12), dtype=np.uint8)
COLOUR = np.random.default_rng(1).integers(0, 256, (12, 12, 3), dtype=np.uint8)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    "Every test has a cache of its own."
    monkeypatch.setenv("DDPM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def picture(seed, size=(10, 10), channels=3):
    shape = size[::-1] + ((channels,) if channels > 1 else ())
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))


def fill(folder: Path, count: int, seed: int = 0, **how) -> Path:
    "A folder of so many PNG images."
    folder.mkdir(parents=True, exist_ok=True)
    for k in range(count):
        picture((seed, k), **how).save(folder / f"{k:03}.png")
    return folder


def layout(root: Path, train=12, test=4, names=("ape", "bee")) -> Path:
    for split, count in (("train", train), ("test", test)):
        for c, name in enumerate(names):
            fill(root / split / name, count, seed=c + 10 * (split == "test"))
    return root


def pixels_of(*paths: Path, size=8) -> np.ndarray:
    "What the pixels must be, by Pillow alone."
    return np.stack([np.asarray(resize(Image.open(path).convert("RGB"), size)).transpose(2, 0, 1) for path in paths])


def told(call, *args, **kwargs):
    "What a call returns and the warnings it gave."
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        return call(*args, **kwargs), [str(w.message) for w in caught]


def silent(call, *args, **kwargs):
    result, said = told(call, *args, **kwargs)
    assert not said
    return result


# -- one file ---------------------------------------------------------------------------------------------------------


def opened(image: Image.Image, tmp_path: Path, name: str, **how) -> Image.Image:
    image.save(tmp_path / name, **how)
    return decoding.open_image(tmp_path / name)


@pytest.mark.parametrize("how", [None, "tiff_lzw"])
def test_tiff_packed_paged_turned_and_in_inks(tmp_path, how):
    image = Image.fromarray(COLOUR)
    pages = {"save_all": True, "append_images": [Image.new("RGB", image.size, "red")]}
    assert np.array_equal(opened(image, tmp_path, "pages.tif", compression=how, **pages), COLOUR)
    deep = opened(Image.fromarray(LEVEL.astype(np.uint16) * 257), tmp_path, "deep.tif", compression=how)
    assert deep.mode == "L" and np.array_equal(deep, LEVEL)
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = image.transpose(Image.Transpose.ROTATE_90)
    assert np.array_equal(opened(turned, tmp_path, "turned.tif", compression=how, exif=exif), COLOUR)
    assert opened(image.convert("CMYK"), tmp_path, "inks.tif", compression=how).mode == "RGB"
    floats = Image.fromarray(LEVEL / np.float32(255))
    with pytest.raises(ValueError, match="floats.tif is not an image that can be read") as caught:
        opened(floats, tmp_path, "floats.tif", compression=how)
    assert "it holds floats" in str(caught.value.__cause__)


def test_transparency_lies_over_white(tmp_path):
    alpha = np.zeros((12, 12), np.uint8)
    alpha[6:], alpha[:3] = 255, 51
    rgba = Image.fromarray(np.dstack([COLOUR, alpha]))
    found = np.asarray(opened(rgba, tmp_path, "x.png"))
    assert np.array_equal(found[6:], COLOUR[6:]) and (found[3:6] == 255).all()
    assert np.abs(found[:3] - (0.2 * COLOUR[:3] + 0.8 * 255)).max() <= 1
    la = Image.merge("LA", [Image.fromarray(LEVEL), Image.fromarray(alpha)])
    found = opened(la, tmp_path, "la.png")
    assert (
        found.mode == "L" and np.array_equal(np.asarray(found)[6:], LEVEL[6:]) and (np.asarray(found)[3:6] == 255).all()
    )


def test_palette(tmp_path):
    indices = (LEVEL % 3).astype(np.uint8)
    image = Image.fromarray(indices).convert("P")
    image.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
    table = np.array([[0, 0, 0], [255, 0, 0], [0, 255, 0]])
    assert np.array_equal(opened(image, tmp_path, "x.png"), table[indices])
    table[1] = 255  # red is made invisible
    assert np.array_equal(opened(image, tmp_path, "clear.png", transparency=1), table[indices])
    one_bit = Image.fromarray(LEVEL > 127)
    assert np.array_equal(opened(one_bit, tmp_path, "bits.png"), (LEVEL > 127) * 255)


def test_damaged_files_raise_one_kind_of_error(tmp_path):
    for name in ("x.png", "x.jpg", "x.bmp", "x.webp", "x.gif", "x.tif"):
        picture(0, (60, 60)).save(tmp_path / name)
        whole = (tmp_path / name).read_bytes()
        for kept in (0, 5, 20, len(whole) // 2):
            (tmp_path / name).write_bytes(whole[:kept])
            with pytest.raises(ValueError, match="is not an image that can be read"):
                decoding.open_image(tmp_path / name)
        (tmp_path / name).unlink()
        with pytest.raises(ValueError, match="is not an image"):
            decoding.open_image(tmp_path / name)
    (tmp_path / "x.png").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")  # a program, not an image
    with pytest.raises(ValueError, match="is not an image"):
        decoding.open_image(tmp_path / "x.png")
    assert not ImageFile.LOAD_TRUNCATED_IMAGES


# -- folders ----------------------------------------------------------------------------------------------------------


def test_train_and_test_folders(tmp_path):
    root = layout(tmp_path / "d")
    train, test = silent(load_data, root, 8)
    assert train.classes == test.classes == ("ape", "bee")
    assert train.labels.tolist() == [0] * 12 + [1] * 12 and test.labels.tolist() == [0] * 4 + [1] * 4
    for images, split in ((train, "train"), (test, "test")):
        assert np.array_equal(images.pixels, pixels_of(*sorted(root.glob(f"{split}/*/*"))))


def test_flat_folders(tmp_path):
    fill(tmp_path / "flat", 20)
    train, test = silent(load_data, tmp_path / "flat", 8)
    assert (len(train), len(test)) == (18, 2) and train.labels is None and train.classes == ()
    assert np.array_equal(test.pixels, pixels_of(tmp_path / "flat/009.png", tmp_path / "flat/019.png"))
    fill(tmp_path / "both/train", 5)
    fill(tmp_path / "both/test", 3)
    assert [len(images) for images in silent(load_data, tmp_path / "both", 8)] == [5, 3]


def test_order_is_by_class_then_name(tmp_path):
    "As it was before, whatever characters are in the names: caches and the images of a step depend on it."
    for name in ("x", "x y", "x-", "train"):
        fill(tmp_path / "d" / name, 10)
    source = sources.folder_source(tmp_path / "d")
    assert [name for name, _, _ in source.files[::10]] == [f"{c}/000.png" for c in ("train", "x", "x y", "x-")]
    kept = decoding.Source(tmp_path, [("a/000.png", 7, 1), ("a-/000.png", 8, 2)], source.read)
    assert caching.cache_key(kept, 8, None) == "04f2a71b5583def1650b62d84646de6f"
    assert load_data(tmp_path / "d", 8)[0].classes == ("train", "x", "x y", "x-")  # `train` may be a class


def test_mixed_sizes_and_suffixes(tmp_path):
    root = fill(tmp_path / "d", 18, size=(40, 23))
    picture(1, (9, 31)).save(root / "x.BMP")
    picture(2, (50, 50)).save(root / "y.webp", lossless=True)
    picture(3, (14, 11)).save(root / "y.gif")
    picture(4, (17, 12)).save(root / "z.Tiff")
    trained_on = [p for k, p in enumerate(sorted(root.iterdir())) if k % 10 != 9]
    assert np.array_equal(load_data(root, 8)[0].pixels, pixels_of(*trained_on))


def test_channels_are_those_of_the_data_or_as_told(tmp_path):
    gray = fill(tmp_path / "gray", 20, channels=1)
    Image.open(gray / "003.png").convert("RGB").save(gray / "003.png")  # gray, whatever the file says
    assert [images.channels for images in load_data(gray, 8)] == [1, 1]
    assert load_data(gray, 8, channels=3)[0].pixels.shape == (18, 3, 8, 8)
    picture(0).save(gray / "009.png")  # one colour image, held out
    train, test = load_data(gray, 8)
    assert train.channels == test.channels == 3 and (train.pixels == train.pixels[:, :1]).all()
    one = load_data(gray, 8, channels=1)[1]
    expected = np.asarray(resize(Image.open(gray / "009.png").convert("L"), 8))
    assert one.channels == 1 and np.array_equal(one.pixels[0, 0], expected)


def test_what_is_no_image_is_ignored_with_one_warning(tmp_path):
    root = layout(tmp_path / "d")
    fill(root / "train/.cat", 3)
    (root / "train/ape/.DS_Store").write_text("x")
    assert silent(load_data, root, 8)[0].classes == ("ape", "bee")  # hidden: in silence
    for name in ("photo.heic", "train/Thumbs.db", "test/bee/notes.txt"):
        (root / name).write_text("x")
    fill(root / "train/ape/deeper", 3)
    fill(root / "val/ape", 3)
    images, said = told(load_data, root, 8)
    assert len(images[0]) == 24
    names = "photo.heic, test/bee/notes.txt, train/Thumbs.db, and 4 more"
    assert said == [f"{root}: ignored, as it is no image: {names} ({sources.ENDINGS})"]


def test_damaged_image_is_left_out_and_named(tmp_path):
    root = fill(tmp_path / "d", 200)
    (root / "019.png").write_bytes((root / "019.png").read_bytes()[:60])  # held out
    Image.fromarray(COLOUR).save(root / "020.tif", compression="tiff_lzw")
    (root / "020.tif").write_bytes((root / "020.tif").read_bytes()[:-30])  # Pillow would warn of it as well
    (root / "020.png").unlink()
    (train, test), said = told(load_data, root, 8)
    assert said == [f"{root}: left out, as it cannot be read: 020.tif, and 1 more"]
    assert (len(train), len(test)) == (179, 19)  # the others keep their places
    assert np.array_equal(test.pixels[1], pixels_of(root / "029.png")[0])
    assert told(load_data, root, 8)[1] == said  # said again from the cache
    (root / "021.png").unlink()
    (root / "021.png").symlink_to(root / "gone.png")
    with pytest.raises(ValueError, match=r"3 of 200 .* the first is .*020\.tif: at most one in a hundred"):
        load_data(root, 8)


@pytest.mark.parametrize(
    "prepare, words",
    [
        (lambda root: None, "holds no image: expected train/<class>/* and test/<class>/*, or <class>/*"),
        (lambda root: (root / "photo.heic").write_text("x"), "names of images end in .png, .jpg,"),
        (lambda root: (layout(root), fill(root / "test/cat", 1)), "test/ has cat, which train/ lacks"),
        (lambda root: (fill(root / "train/ape", 5), fill(root / "test", 2)), "test/ has loose images, which train/"),
        (lambda root: (fill(root / "train/ape", 5), (root / "test").mkdir()), "has images only in train/: expected"),
        (lambda root: (fill(root, 2), fill(root / "ape", 20)), "holds loose images (000.png) beside folders (ape)"),
        (lambda root: fill(root, 9), "holds 9 images, 0 of them held out"),
        (lambda root: [fill(root / name, 9) for name in "abc"], "holds 27 images, 0 of them held out"),
        (lambda root: (fill(root, 9), (root / "009.png").write_text("x"))[0], "1 of 10 images cannot be read"),
    ],
)
def test_each_mistake_has_its_sentence(tmp_path, cache, prepare, words):
    root = tmp_path / "d"
    root.mkdir()
    prepare(root)
    with pytest.raises(ValueError) as caught:
        told(load_data, root, 8)
    assert words in str(caught.value) and "\n" not in str(caught.value) and str(root) in str(caught.value)
    assert not list(cache.glob("*.part"))


def test_class_missing_among_the_test_images_is_a_warning(tmp_path):
    root = layout(tmp_path / "d")
    shutil.rmtree(root / "test/ape")
    (_, test), said = told(load_data, root, 8)
    assert test.classes == ("ape", "bee") and test.labels.tolist() == [1] * 4  # labels do not shift
    assert len(said) == 1 and "test/ has no image of the class ape" in said[0]


def test_very_large_images_are_named(tmp_path, monkeypatch):
    root = fill(tmp_path / "d", 20)
    picture(1, (12, 12)).save(root / "005.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 120)  # 10x10 is fine, 12x12 is not
    assert told(load_data, root, 8)[1] == [f"{root / '005.png'} is very large: 12 x 12 pixels"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="a system without named pipes")
def test_pipes_are_not_waited_for(tmp_path):
    root = fill(tmp_path / "d", 20)
    for name in ("x.png", "data_batch_1", "cifar-10-python.tar.gz"):
        os.mkfifo(root / name)
    signal.alarm(60)  # rather than wait for ever
    images, said = told(load_data, root, 8)
    with pytest.raises(ValueError, match="x.png is not an image that can be read"):
        decoding.open_image(root / "x.png")
    with pytest.raises(OSError, match="x.png"):
        load_data(root / "x.png", 8)
    signal.alarm(0)
    assert len(images[0]) == 18 and "x.png" in said[0]


@pytest.mark.parametrize("where", ["runs/mnist16-d", "run", "train/run"])
@pytest.mark.parametrize("kind", ["classes", "flat", "split"])
def test_runs_are_no_images(tmp_path, where, kind):
    "What `ddpm train --data .` leaves there must not stop the same line from going on, nor be trained on."
    root = tmp_path / "d"
    {
        "classes": lambda: [fill(root / name, 20, seed=k) for k, name in enumerate("ab")],
        "flat": lambda: fill(root, 20),
        "split": lambda: layout(root),
    }[kind]()
    before = silent(load_data, root, 8)
    fill(root / where / "samples", 2)
    picture(7).save(root / where / "samples.png")
    for name in ("config.json", "metrics.jsonl"):
        (root / where / name).write_text("{}")
    after = silent(load_data, root, 8)
    assert [(s.classes, s.digest) for s in after] == [(s.classes, s.digest) for s in before]


# -- names ------------------------------------------------------------------------------------------------------------


def test_what_cannot_be_downloaded_is_one_sentence(tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise RuntimeError("Error downloading x:\nTried y")

    monkeypatch.setattr("torchvision.datasets.MNIST", fail)
    with pytest.raises(FileNotFoundError, match="mnist is not whole in .*downloading x: Tried y") as caught:
        sources.load_torchvision("mnist", 8, root=tmp_path)
    assert "\n" not in str(caught.value)
    (tmp_path / "MNIST/raw").mkdir(parents=True)  # there, but damaged: found when it is read
    with pytest.raises(FileNotFoundError, match="mnist is not whole in"):
        silent(sources.load_torchvision, "mnist", 8, root=tmp_path)


# -- CIFAR-10's own files ---------------------------------------------------------------------------------------------


def cifar(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    "Files of CIFAR-10's form with random content, ten images each; returns images and labels."
    folder.mkdir(parents=True, exist_ok=True)
    draws, images, labels = np.random.default_rng(0), [], []
    for k, (name, _) in enumerate(CIFAR10.train_list + CIFAR10.test_list):
        rows, y = draws.integers(0, 256, (10, 3072), dtype=np.uint8), [(k + j) % 10 for j in range(10)]
        (folder / name).write_bytes(pickle.dumps({"data": rows, "labels": y}))
        images.append(rows.reshape(10, 3, 32, 32))
        labels += y
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": [f"class {c}" for c in range(10)]}))
    return np.concatenate(images), np.array(labels)


def believed(folder: Path, archive: Path):
    "As long as a block runs, these are CIFAR-10's checksums."
    md5 = lambda path: hashlib.md5(path.read_bytes()).hexdigest()
    lists = {w: [[n, md5(folder / n)] for n, _ in getattr(CIFAR10, w)] for w in ("train_list", "test_list")}
    meta = CIFAR10.meta | {"md5": md5(folder / "batches.meta")}
    return mock.patch.multiple(CIFAR10, **lists, meta=meta, tgz_md5=md5(archive))


def test_cifar_batches(tmp_path):
    images, labels = cifar(tmp_path / "d/cifar-10-batches-py")
    with tarfile.open(tmp_path / "cifar.tar", "w:gz") as archive:
        archive.add(tmp_path / "d/cifar-10-batches-py", "cifar-10-batches-py")
    (tmp_path / "box").mkdir()
    shutil.copy(tmp_path / "cifar.tar", tmp_path / "box/cifar-10-python.tar.gz")
    shutil.copytree(tmp_path / "d/cifar-10-batches-py", tmp_path / "renamed")
    before = sorted(tmp_path.rglob("*"))
    with believed(tmp_path / "renamed", tmp_path / "cifar.tar"):
        for place in ("d", "d/cifar-10-batches-py", "renamed", "cifar.tar", "box"):
            train, test = silent(load_data, tmp_path / place, 32)
            assert np.array_equal(train.pixels, images[:50]) and np.array_equal(test.pixels, images[50:])
            assert train.labels.tolist() == labels[:50].tolist() and test.labels.tolist() == labels[50:].tolist()
            assert train.classes == test.classes == tuple(f"class {c}" for c in range(10))
    assert [p for p in sorted(tmp_path.rglob("*")) if "cache" not in p.parts] == before  # nothing was unpacked


class Trap:
    def __reduce__(self):
        return os.mkdir, ("caught",)


@pytest.mark.parametrize("name", ["data_batch_3", "test_batch", "batches.meta", "cifar-10-python.tar.gz"])
def test_cifar_by_somebody_else_is_refused_unread(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    cifar(tmp_path / "d")
    with tarfile.open("cifar-10-python.tar.gz", "w:gz") as archive:
        archive.add("d", "cifar-10-batches-py")
    place = tmp_path / ("d" if name != "cifar-10-python.tar.gz" else name)
    with believed(tmp_path / "d", Path("cifar-10-python.tar.gz")):
        (place / name if place.is_dir() else place).write_bytes(pickle.dumps(Trap()))
        with pytest.raises(ValueError, match=f"{place.name} is damaged or not CIFAR-10 for Python: its checksum"):
            silent(load_data, place, 32)
        if place.is_dir():
            (place / name).unlink()
            with pytest.raises(ValueError, match="is damaged or not CIFAR-10"):
                silent(load_data, place, 32)
    assert not Path("caught").exists()


# -- the cache --------------------------------------------------------------------------------------------------------


def entries(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.iterdir() if path.suffix != ".lock")


@pytest.fixture
def decodes(monkeypatch) -> list:
    "A list that grows by one with each decoding."
    calls, real = [], decoding.decode
    monkeypatch.setattr(decoding, "decode", lambda *args: calls.append(1) or real(*args))
    return calls


def test_second_start_is_a_hit_and_a_change_is_a_miss(tmp_path, cache, decodes):
    root = layout(tmp_path / "d")
    load = lambda folder=root, size=8, channels=None: load_data(folder, size, channels)[0]
    first = load()
    assert np.array_equal(load().pixels, first.pixels) and len(decodes) == 1
    assert type(first.pixels.base.base).__name__ == "memmap"  # read when an image is asked for
    assert load().digest == ImageSet(np.array(first.pixels), first.labels, first.classes).digest
    root = root.rename(tmp_path / "moved")
    assert load(root).digest == first.digest and len(decodes) == 1
    load(root, size=16), load(root, channels=1), load(root, channels=3)
    assert len(decodes) == 4 and len(entries(cache)) == 4
    image = root / "train/ape/000.png"
    for k, change in enumerate(
        [
            lambda: os.utime(image, ns=(1, 1)),
            lambda: image.write_bytes((root / "train/ape/001.png").read_bytes()),
            lambda: image.rename(root / "train/ape/0.png"),
            lambda: (root / "train/ape/0.png").unlink(),
            lambda: fill(root / "test/bee", 5, seed=99),
        ]
    ):
        change()
        load(root)
        assert len(decodes) == 5 + k
    assert len(load(root)) == 23 and load(root).digest != first.digest


def test_equal_names_sizes_and_times_are_not_enough(tmp_path):
    found = []
    for k, folder in enumerate(("a", "b")):
        for n in range(10):
            (tmp_path / folder).mkdir(exist_ok=True)
            picture((k, n)).save(tmp_path / folder / f"{n}.bmp")
            os.utime(tmp_path / folder / f"{n}.bmp", ns=(0, 0))
        found.append(load_data(tmp_path / folder, 8)[0].digest)
    assert found[0] != found[1]


def facts_with(**change):
    "Spoil the facts beside the pixels."
    return lambda entry: (entry / "kept.json").write_text(
        json.dumps(json.loads((entry / "kept.json").read_text()) | change)
    )


@pytest.mark.parametrize(
    "spoil",
    [
        lambda entry: (entry / "pixels.npy").write_bytes((entry / "pixels.npy").read_bytes()[:-7]),
        lambda entry: np.save(entry / "pixels.npy", np.zeros((32, 3, 8, 8))),
        lambda entry: np.save(entry / "pixels.npy", np.full((32, 3, 8, 8), None)),
        lambda entry: (entry / "pixels.npy").unlink(),
        lambda entry: (entry / "kept.json").unlink(),
        lambda entry: (entry / "kept.json").write_text("[" * 100_000),
        facts_with(train=32),
        facts_with(labels="0" * 32),
        facts_with(labels=[0] * 31 + [2]),
        facts_with(labels=[0] * 31),
        facts_with(digests=None),
    ],
)
def test_cache_that_does_not_fit_is_made_again(tmp_path, cache, decodes, spoil):
    root = layout(tmp_path / "d")
    wanted = [images.digest for images in load_data(root, 8)]
    spoil(cache / entries(cache)[0])
    for _ in range(2):
        found = silent(load_data, root, 8)
        assert [ImageSet(i.pixels, i.labels, i.classes).digest for i in found] == wanted and len(decodes) == 2


def test_caches_of_older_versions_are_read(tmp_path, cache, decodes):
    root = fill(tmp_path / "d", 200)
    (root / "020.png").write_text("no image")
    (before, _), said = told(load_data, root, 8)
    left_out = {"train": ["020.png"], "test": []}
    facts_with(unreadable=left_out, checksum="x", seal="y")(cache / entries(cache)[0])
    (after, _), said_then = told(load_data, root, 8)
    assert after.digest == before.digest and said_then == said and len(said) == len(decodes) == 1


@pytest.mark.parametrize("place", ["a file", "read-only", "full disk"])
def test_cache_that_cannot_be_written(tmp_path, cache, monkeypatch, place):
    root = layout(tmp_path / "d")
    if place == "a file":
        cache.write_text("in the way")
    elif place == "read-only":
        cache.mkdir()
        cache.chmod(0o500)
        if os.access(cache, os.W_OK):
            pytest.skip("this user may write anywhere")
    else:
        full = mock.Mock(side_effect=OSError(errno.ENOSPC, "No space left on device"))
        monkeypatch.setattr(caching, "reserve", full)
    (found, _), said = told(load_data, root, 8)
    assert len(said) == 1 and "cannot keep the decoded images" in said[0] and str(cache) in said[0]
    assert np.array_equal(found.pixels, pixels_of(*sorted(root.glob("train/*/*"))))
    assert not cache.is_dir() or not list(cache.glob("*.part"))


def test_full_disk_is_an_error_and_kills_nobody(tmp_path):
    "Writing to a mapped file on a full disk would be the end of the process; a limit on files stands for the disk."
    code = """
import resource, signal, sys
from pathlib import Path
from ddpm_course.data.cache import reserve
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
try:
    reserve(Path(sys.argv[1]), (100, 3, 8, 8))
except OSError as error:
    print(error.strerror)
"""
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "x.npy"], capture_output=True, text=True)
    assert done.stdout == os.strerror(errno.EFBIG) + "\n", done.stderr


# -- several processes ------------------------------------------------------------------------------------------------

SLOW = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)         # ignored in what a shell has put into the background
from ddpm_course.data import cache, decoding, sources
real = decoding.decode_rows
def slowly(*args):
    print("decoding", flush=True)
    time.sleep(float(sys.argv[2]))
    return real(*args)
decoding.decode_rows = slowly
if "no locks" in sys.argv:
    def refuse(self):
        raise OSError("no locks here")
    cache.FileLock.acquire = refuse
print(sources.load_data(sys.argv[1], 8)[0].digest, flush=True)
"""


def start(root: Path, seconds: float, *words: str) -> subprocess.Popen:
    "A process that loads a folder, each part taking so many seconds."
    command = [sys.executable, "-c", SLOW, root, str(seconds), *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


@pytest.mark.parametrize("words", [(), pytest.param(("no locks",), marks=pytest.mark.thorough)])
def test_processes_that_start_at_once(tmp_path, cache, words):
    "One decodes and the others wait; on a disk without locks all decode, and do not disturb each other."
    root = layout(tmp_path / "d")
    processes = [start(root, 1, *words) for _ in range(2)]
    printed = [process.communicate(timeout=100)[0].split() for process in processes]
    assert printed[0][-1] == printed[1][-1] == load_data(root, 8)[0].digest and len(entries(cache)) == 1
    if not words:  # without locks the second may come late enough to find the work done
        assert sorted("decoding" in words for words in printed) == [False, True]


def test_killed_midway_leaves_nothing_wrong(tmp_path, cache):
    root = layout(tmp_path / "d")
    process = start(root, 60)
    assert process.stdout.readline() == "decoding\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    (left,) = entries(cache)
    assert left.endswith(".part")
    for name, days in (("old.part", 2), ("young.part", 0)):  # of other data: perhaps somebody is at work there
        (cache / name).mkdir()
        os.utime(cache / name, (time.time() - days * 86_400,) * 2)
    found = silent(load_data, root, 8)[0]
    assert np.array_equal(found.pixels, pixels_of(*sorted(root.glob("train/*/*"))))
    assert {left, "old.part", "young.part"} & set(entries(cache)) == {"young.part"}


@pytest.mark.thorough
def test_interrupted_leaves_nothing(tmp_path, cache):
    process = start(fill(tmp_path / "d", 400), 0.5)  # 25 parts
    assert process.stdout.readline() == "decoding\n"
    process.send_signal(signal.SIGINT)
    printed, _ = process.communicate(timeout=60)
    assert process.returncode != 0 and printed.count("decoding") < 10 and entries(cache) == []


def test_passing_fault_is_not_cached(tmp_path, cache, monkeypatch):
    "A file that cannot be opened for a moment is no damaged image."
    root, real = layout(tmp_path / "d"), Image.open

    def refuse(path, **how):
        if str(path).endswith("003.png"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, **how)

    with monkeypatch.context() as moment:
        moment.setattr(Image, "open", refuse)
        with pytest.raises(PermissionError, match="003.png"):
            silent(load_data, root, 8)
    assert entries(cache) == [] and len(silent(load_data, root, 8)[0]) == 24


def test_file_system_that_refuses_locks(tmp_path, monkeypatch):
    fcntl = pytest.importorskip("fcntl")
    monkeypatch.setattr(fcntl, "flock", mock.Mock(side_effect=OSError(errno.ENOLCK, "No locks available")))
    assert len(silent(load_data, layout(tmp_path / "d"), 8)[0]) == 24


# -- threads ----------------------------------------------------------------------------------------------------------


def test_interrupted_leaves_nobody_at_work(tmp_path, monkeypatch):
    "What has begun is waited for, what has not is never begun."
    files, begun, real = sorted(map(str, fill(tmp_path / "d", 400).iterdir())), [], decoding.decode_rows

    def slowly(*args):
        begun.append(args[2])
        time.sleep(0.05)
        return real(*args)

    bar = mock.MagicMock()
    bar.__enter__.return_value = bar
    bar.n, bar.update.side_effect = 0, KeyboardInterrupt  # Ctrl-C, at the worst of moments
    bar.__exit__.return_value = False
    monkeypatch.setattr(decoding, "decode_rows", slowly)
    monkeypatch.setattr(decoding, "progress", lambda n: bar)
    out, before = np.empty((400, 3, 10, 10), np.uint8), threading.enumerate()
    with pytest.raises(KeyboardInterrupt):
        decoding.decode(files, out, threads=3)
    assert set(threading.enumerate()) <= set(before)
    assert 3 <= len(begun) < 12  # of 25


def test_progress_is_hidden_when_quick_and_sparse_in_logs(capsys):
    with decoding.progress(10) as bar:
        bar.update(10)
    assert capsys.readouterr().err == ""
    with decoding.progress(10) as bar:
        bar.start_t -= 100
        bar.last_print_t -= 100
        for _ in range(10):
            bar.update(1)
        assert bar.mininterval == bar.maxinterval == 30  # tqdm's monitor looks at the second
    assert capsys.readouterr().err.count("images/s") <= 2  # one line, and the last


# -- arrays -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "shape, labels, words",
    [
        ((4, 4), None, "uint8 of shape (4, 4): expected"),
        ((0, 4, 4), None, "of shape (0, 1, 4, 4)"),
        ((2, 4, 5, 3), None, "of shape (2, 3, 4, 5)"),
        ((2, 4, 4), [], "the labels are float64 of shape (0,)"),
        ((2, 4, 4), [True, False], "the labels are bool"),
        ((2, 4, 4), [-1, 0], "the labels go from -1 to 0: expected 0 to 1 for 2 classes"),
    ],
)
def test_arrays_that_make_no_set(shape, labels, words):
    with pytest.raises(ValueError) as caught:
        ImageSet.of(np.zeros(shape, np.uint8), labels, () if labels is None else ("a", "b"))
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_bundled_digits_have_not_changed():
    digests = [load_digits(split, 16).digest for split in ("train", "test")]
    assert digests == ["d8a9eaf106d5c4f9", "858b33cdef9eb043"]
