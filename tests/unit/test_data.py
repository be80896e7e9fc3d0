"Images from all kinds of files and folders: every outcome that chapters 01 to 01c promise, and the cache under fire."

import codecs
import errno
import io
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
import types
import warnings
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile

from ddpm_course.data import cache as caching
from ddpm_course.data import decoding, sources
from ddpm_course.data.sets import ImageSet, load_digits, resize, to_float
from ddpm_course.data.sources import DATA, load_data, load_images

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


def load_folder(root: Path, split: str, size: int, channels: int | None = None) -> ImageSet:
    "One of the two."
    return dict(zip(("train", "test"), sources.load_folder(root, size, channels), strict=True))[split]


def silent(call, *args, **kwargs):
    result, said = told(call, *args, **kwargs)
    assert not said
    return result


# -- one file ---------------------------------------------------------------------------------------------------------


def opened(image: Image.Image, tmp_path: Path, name: str, **how) -> Image.Image:
    image.save(tmp_path / name, **how)
    return decoding.open_image(tmp_path / name)


@pytest.mark.parametrize("suffix", ["png", "bmp", "webp", "tif", "tiff"])
def test_lossless_formats(tmp_path, suffix):
    how = {"lossless": True} if suffix == "webp" else {}
    assert np.array_equal(opened(Image.fromarray(COLOUR), tmp_path, f"x.{suffix}", **how), COLOUR)
    gray = opened(Image.fromarray(LEVEL), tmp_path, f"y.{suffix}", **how).convert("L")
    assert np.array_equal(gray, LEVEL)


@pytest.mark.parametrize("name", ["x.jpg", "x.JPEG"])
def test_jpeg(tmp_path, name):
    smooth = Image.fromarray(COLOUR).resize((60, 60), Image.Resampling.BICUBIC)
    found = opened(smooth, tmp_path, name, quality=97)
    assert found.mode == "RGB" and np.abs(np.asarray(found, float) - np.asarray(smooth, float)).mean() < 6
    assert opened(smooth.convert("L"), tmp_path, "g.jpg").mode == "L"
    inks = opened(smooth.convert("CMYK"), tmp_path, "inks.jpg", quality=97)
    assert inks.mode == "RGB" and np.abs(np.asarray(inks, float) - np.asarray(smooth, float)).mean() < 8


@pytest.mark.parametrize("how", [None, "tiff_lzw", "tiff_deflate", "packbits"])
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


def test_the_first_frame_of_a_gif(tmp_path):
    frames = [Image.fromarray(COLOUR).quantize(256), Image.new("RGB", COLOUR.shape[1::-1], "red").quantize()]
    found = opened(frames[0], tmp_path, "x.gif", save_all=True, append_images=frames[1:])
    assert np.array_equal(found, frames[0].convert("RGB"))
    grey = opened(Image.fromarray(LEVEL), tmp_path, "grey.gif")
    assert np.array_equal(grey.convert("L"), LEVEL)
    clear = opened(frames[0], tmp_path, "clear.gif", transparency=int(np.asarray(frames[0])[0, 0]))
    assert np.asarray(clear)[0, 0].tolist() == [255, 255, 255]


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


def test_sixteen_bits_and_phone_photos(tmp_path):
    deep = LEVEL.astype(np.uint16) * 257
    found = opened(Image.fromarray(deep), tmp_path, "deep.png")
    assert found.mode == "L" and np.array_equal(found, LEVEL)
    for orientation, undo in (
        (3, Image.Transpose.ROTATE_180),
        (6, Image.Transpose.ROTATE_90),
        (8, Image.Transpose.ROTATE_270),
        (2, Image.Transpose.FLIP_LEFT_RIGHT),
    ):
        exif = Image.Exif()
        exif[0x0112] = orientation
        stored = Image.fromarray(COLOUR).transpose(undo)
        assert np.array_equal(opened(stored, tmp_path, "turned.png", exif=exif), COLOUR), orientation


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
    train, test = (silent(load_folder, root, split, 8) for split in ("train", "test"))
    assert train.classes == test.classes == ("ape", "bee") and train.labels.tolist() == [0] * 12 + [1] * 12
    assert np.array_equal(train.pixels, pixels_of(*sorted(root.glob("train/*/*"))))
    assert (
        np.array_equal(test.pixels, pixels_of(*sorted(root.glob("test/*/*"))))
        and test.labels.tolist() == [0] * 4 + [1] * 4
    )
    assert train.pixels.dtype == np.uint8 and train.labels.dtype == np.int64


def test_one_folder_a_class_holds_out_every_tenth(tmp_path):
    fill(tmp_path / "d/bee", 25)
    fill(tmp_path / "d/ape", 9, seed=1)
    train, test = (silent(load_folder, tmp_path / "d", split, 8) for split in ("train", "test"))
    assert (
        train.classes == ("ape", "bee")
        and np.bincount(train.labels).tolist() == [9, 23]
        and test.labels.tolist() == [1, 1]
    )
    assert np.array_equal(test.pixels, pixels_of(tmp_path / "d/bee/009.png", tmp_path / "d/bee/019.png"))


def test_flat_folders(tmp_path):
    fill(tmp_path / "flat", 20)
    train, test = (silent(load_folder, tmp_path / "flat", split, 8) for split in ("train", "test"))
    assert (len(train), len(test)) == (18, 2) and train.labels is None and train.classes == ()
    assert np.array_equal(test.pixels, pixels_of(tmp_path / "flat/009.png", tmp_path / "flat/019.png"))
    fill(tmp_path / "both/train", 5)
    fill(tmp_path / "both/test", 3)
    assert [len(load_folder(tmp_path / "both", split, 8)) for split in ("train", "test")] == [5, 3]


def test_a_class_may_be_called_train(tmp_path):
    for name in ("car", "train"):
        fill(tmp_path / "d" / name, 10)
    assert load_folder(tmp_path / "d", "train", 8).classes == ("car", "train")


def test_mixed_sizes_and_suffixes(tmp_path):
    root = tmp_path / "d"
    fill(root, 18, size=(40, 23))
    picture(1, (9, 31)).save(root / "x.BMP")
    picture(2, (50, 50)).save(root / "y.webp", lossless=True)
    picture(3, (14, 11)).save(root / "y.gif")
    picture(4, (17, 12)).save(root / "z.Tiff")
    assert np.array_equal(
        load_folder(root, "train", 8).pixels,
        pixels_of(*[p for k, p in enumerate(sorted(root.iterdir())) if k % 10 != 9]),
    )


def test_channels_are_those_of_the_data_or_as_told(tmp_path):
    gray = fill(tmp_path / "gray", 20, channels=1)
    Image.open(gray / "003.png").convert("RGB").save(gray / "003.png")  # gray, whatever the file says
    assert load_images(gray, "train", 8).channels == load_images(gray, "test", 8).channels == 1
    assert load_images(gray, "train", 8, channels=3).pixels.shape == (18, 3, 8, 8)
    picture(0).save(gray / "009.png")  # one colour image, held out
    train, test = (load_images(gray, split, 8) for split in ("train", "test"))
    assert train.channels == test.channels == 3 and (train.pixels == train.pixels[:, :1]).all()
    one = load_images(gray, "test", 8, channels=1)
    expected = np.asarray(resize(Image.open(gray / "009.png").convert("L"), 8))
    assert one.channels == 1 and np.array_equal(one.pixels[0, 0], expected)
    assert load_images("mnist5k", "test", 16, channels=3).pixels.shape == (500, 3, 16, 16)
    for source in (gray, "mnist5k"):
        with pytest.raises(ValueError, match="channels must be 1 or 3, not 2"):
            load_images(source, "train", 8, channels=2)


def test_what_is_no_image_is_ignored_with_one_warning(tmp_path):
    root = layout(tmp_path / "d")
    (root / ".git").mkdir()
    assert silent(load_folder, root, "train", 8)
    for name in ("train/ape/.DS_Store", "train/Thumbs.db", "test/bee/notes.txt"):
        (root / name).write_text("x")
    (root / "train/ape/deeper").mkdir()
    found, said = told(load_folder, root, "train", 8)
    assert len(found) == 24 and len(said) == 1 and said[0].startswith(f"{root}: ignored, as it is no image: ")
    assert said[0].endswith(f"Thumbs.db, and 3 more ({sources.ENDINGS})")


def test_what_is_ignored_is_told_which_endings_are_not(tmp_path):
    root = fill(tmp_path / "d", 20)
    (root / "photo.heic").write_text("x")
    _, said = told(load_folder, root, "train", 8)
    assert said == [f"{root}: ignored, as it is no image: photo.heic ({sources.ENDINGS})"]
    assert all(f" {suffix}" in sources.ENDINGS for suffix in sources.SUFFIXES)
    other = tmp_path / "phone"
    other.mkdir()
    (other / "photo.heic").write_text("x")
    with pytest.raises(ValueError, match="phone holds no image: expected .*; names of images end in .png, .* or .gif"):
        load_folder(other, "train", 8)


def test_a_damaged_tiff_is_named_by_us_alone(tmp_path):
    root = fill(tmp_path / "d", 200)
    Image.fromarray(COLOUR).save(root / "150.tif", compression="tiff_lzw")
    (root / "150.tif").write_bytes((root / "150.tif").read_bytes()[:-30])
    _, said = told(load_folder, root, "train", 8)
    assert len(said) == 1 and "150.tif" in said[0]


def test_damaged_image_is_left_out_and_named(tmp_path):
    root = fill(tmp_path / "d", 200)
    (root / "019.png").write_bytes((root / "019.png").read_bytes()[:60])  # held out
    (root / "020.png").write_text("no image")
    (train, said), (test, said_too) = (told(load_folder, root, split, 8) for split in ("train", "test"))
    assert said == said_too == [f"{root}: left out, as it cannot be read: 020.png, and 1 more"]
    assert (len(train), len(test)) == (179, 19)  # the others keep their places
    assert np.array_equal(test.pixels[1], pixels_of(root / "029.png")[0])
    assert told(load_folder, root, "train", 8)[1] == said  # said again from the cache
    (root / "021.png").unlink()
    (root / "021.png").symlink_to(root / "gone.png")
    with pytest.raises(
        ValueError, match=r"3 of 200 images cannot be read, the first is .*020\.png: at most one in a hundred"
    ):
        load_folder(root, "train", 8)


def sentence(tmp_path, prepare) -> str:
    root = tmp_path / "d"
    root.mkdir()
    prepare(root)
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        load_images(root, "train", 8)
    assert "\n" not in str(caught.value) and str(root) in str(caught.value)
    assert not list((tmp_path / "cache").glob("*.part"))
    return str(caught.value)


@pytest.mark.parametrize(
    "prepare, words",
    [
        (lambda root: None, "holds no image: expected train/<class>/* and test/<class>/*, or <class>/*"),
        (lambda root: [(root / s / "ape").mkdir(parents=True) for s in ("train", "test")], "holds no image: expected"),
        (lambda root: (layout(root), (root / "train/cat").mkdir()), "the class folder {}/train/cat is empty"),
        (lambda root: (fill(root / "ape", 20), (root / "cat").mkdir()), "the class folder {}/cat is empty"),
        (lambda root: (layout(root), fill(root / "test/cat", 1)), "test/ has the class cat, which train/ lacks"),
        (
            lambda root: (fill(root / "train/ape", 5), fill(root / "test", 2)),
            "one of train/ and test/ has class folders",
        ),
        (lambda root: (fill(root / "train/ape", 5), (root / "test").mkdir()), "test holds no image"),
        (lambda root: (fill(root, 2), fill(root / "ape", 20)), "holds loose images (000.png) beside folders (ape)"),
        (
            lambda root: fill(root / "train/ape", 20),
            "has only a folder train/: expected train/ and test/, or the class folders",
        ),
        (lambda root: fill(root, 9), "holds 9 images, 0 of them held out"),
        (lambda root: [fill(root / name, 9) for name in "abc"], "holds 27 images, 0 of them held out"),
        (lambda root: (fill(root, 9), (root / "009.png").write_text("x"))[0], "1 of 10 images cannot be read"),
    ],
)
def test_each_mistake_has_its_sentence(tmp_path, prepare, words):
    assert words.format(tmp_path / "d") in sentence(tmp_path, prepare)


def test_class_lost_to_damage_is_an_error(tmp_path):
    fill(tmp_path / "d/train/many", 199)
    fill(tmp_path / "d/train/one", 1)
    fill(tmp_path / "d/test/many", 10)
    (tmp_path / "d/train/one/000.png").write_text("x")
    with (
        pytest.warns(UserWarning, match="test/ has no image of the class one"),
        pytest.raises(ValueError, match="has no image to train on of the class one"),
    ):
        load_folder(tmp_path / "d", "train", 8)


def test_class_missing_among_the_test_images_is_a_warning(tmp_path):
    root = layout(tmp_path / "d")
    shutil.rmtree(root / "test/ape")
    test, said = told(load_folder, root, "test", 8)
    assert test.classes == ("ape", "bee") and test.labels.tolist() == [1] * 4  # labels do not shift
    assert len(said) == 1 and "test/ has no image of the class ape" in said[0]


def test_names_and_folders_that_are_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="no data set or folder is called 'minst': expected mnist5k, mnist"):
        load_images("minst", "train", 8)
    with pytest.raises(FileNotFoundError, match="nowhere is not a folder"):
        load_folder(tmp_path / "nowhere", "train", 8)
    with pytest.raises(ValueError, match="a split is 'train' or 'test', not 'val'"):
        load_images(layout(tmp_path / "d"), "val", 8)


# -- CIFAR-10's own files ---------------------------------------------------------------------------------------------


def short(text: bytes) -> bytes:
    "A Python 2 string, as pickles of that time hold it."
    return b"U" + bytes([len(text)]) + text


def cifar(folder: Path, count=10, **change) -> tuple[np.ndarray, np.ndarray]:
    "CIFAR-10's files with random content; returns images and labels."
    folder.mkdir(parents=True, exist_ok=True)
    draws, images, labels = np.random.default_rng(0), [], []
    for k, name in enumerate(decoding.BATCHES[:-1]):
        rows, y = draws.integers(0, 256, (count, 3072), dtype=np.uint8), [(k + j) % 10 for j in range(count)]
        content = {
            b"data": rows,
            b"labels": y,
            b"batch_label": name.encode(),
            b"filenames": [b"x.png"] * count,
            **change,
        }
        (folder / name).write_bytes(pickle.dumps(content, 2 + k % 4))
        images.append(rows.reshape(count, 3, 32, 32))
        labels += y
    names = b"".join(short(b"class %d" % c) for c in range(10))
    (folder / "batches.meta").write_bytes(
        b"\x80\x02}(" + short(b"label_names") + b"](" + names + b"eu."
    )  # as Python 2 wrote it
    return np.concatenate(images), np.array(labels)


def test_cifar_batches(tmp_path):
    images, labels = cifar(tmp_path / "d/cifar-10-batches-py")
    with tarfile.open(tmp_path / "cifar.tgz", "w:gz") as archive:
        archive.add(tmp_path / "d/cifar-10-batches-py", "cifar-10-batches-py")
    (tmp_path / "box").mkdir()
    shutil.copy(tmp_path / "cifar.tgz", tmp_path / "box/cifar-10-python.tar.gz")
    before = sorted(tmp_path.rglob("*"))
    digests = set()
    for source in ("d", "d/cifar-10-batches-py", "cifar.tgz", "box"):
        train, test = (silent(load_images, str(tmp_path / source), split, 32) for split in ("train", "test"))
        assert np.array_equal(train.pixels, images[:50]) and np.array_equal(test.pixels, images[50:])
        assert train.labels.tolist() == labels[:50].tolist() and test.labels.tolist() == labels[50:].tolist()
        assert train.classes == tuple(f"class {c}" for c in range(10))
        digests.add(train.digest)
    assert len(digests) == 1
    assert [p for p in sorted(tmp_path.rglob("*")) if "cache" not in p.parts] == before  # nothing was unpacked
    small = load_images(tmp_path / "d", "test", 16)
    assert np.array_equal(
        small.pixels[0], np.asarray(resize(Image.fromarray(images[50].transpose(1, 2, 0)), 16)).transpose(2, 0, 1)
    )


class Trap:
    def __reduce__(self):
        return os.mkdir, ("caught",)


@pytest.mark.parametrize(
    "spoil, words",
    [
        (lambda d: (d / "data_batch_3").unlink(), "data_batch_3"),
        (lambda d: (d / "batches.meta").unlink(), "batches.meta"),
        (lambda d: (d / "test_batch").write_bytes(b"nothing"), "is damaged or not CIFAR-10"),
        (
            lambda d: (d / "test_batch").write_bytes((d / "test_batch").read_bytes()[:-2000]),
            "is damaged or not CIFAR-10",
        ),
        (lambda d: (d / "test_batch").write_bytes(pickle.dumps(Trap())), f"it asks for {os.name}.mkdir"),
        (lambda d: cifar(d, labels=[11] * 10), "is damaged or not CIFAR-10"),
        (lambda d: cifar(d, **{"data": np.zeros((10, 5), np.uint8)}), "is damaged or not CIFAR-10"),
    ],
)
def test_damaged_batches(tmp_path, monkeypatch, spoil, words):
    monkeypatch.chdir(tmp_path)
    cifar(tmp_path / "d")
    spoil(tmp_path / "d")
    with pytest.raises(ValueError, match=words) as caught:
        load_images("d", "train", 32)
    assert "\n" not in str(caught.value) and not Path("caught").exists()


def test_archive_that_is_cut_off(tmp_path):
    cifar(tmp_path / "d")
    with tarfile.open(tmp_path / "c.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "d", "cifar-10-batches-py")
    (tmp_path / "c.tar.gz").write_bytes((tmp_path / "c.tar.gz").read_bytes()[:50_000])
    with pytest.raises(ValueError, match="is damaged or not CIFAR-10"):
        load_images(tmp_path / "c.tar.gz", "train", 32)


@pytest.mark.parametrize("value", [os.system, np.lib.format.open_memmap, print, Image.Image, type])
def test_unpickler_knows_arrays_only(value):
    with pytest.raises(pickle.UnpicklingError, match="it asks for"):
        decoding.RecordingUnpickler(io.BytesIO(pickle.dumps(value)), encoding="bytes").load()


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
    load = lambda folder=root, size=8, channels=None: load_folder(folder, "train", size, channels)
    first = load()
    assert np.array_equal(load().pixels, first.pixels) and load_folder(root, "test", 8) and len(decodes) == 1
    assert load().digest == ImageSet(np.array(first.pixels), first.labels).digest
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
        found.append(load_folder(tmp_path / folder, "train", 8).digest)
    assert found[0] != found[1]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda entry: (entry / "pixels.npy").write_bytes((entry / "pixels.npy").read_bytes()[:-7]),
        lambda entry: (entry / "pixels.npy").write_bytes((entry / "pixels.npy").read_bytes()[:-7] + b"altered"),
        lambda entry: (entry / "pixels.npy").unlink(),
        lambda entry: (entry / "kept.json").unlink(),
        lambda entry: (entry / "kept.json").write_text("[]"),
        lambda entry: (entry / "kept.json").write_text('{"chec'),
    ],
)
def test_damaged_cache_is_made_again(tmp_path, cache, decodes, spoil):
    root = layout(tmp_path / "d")
    first = load_folder(root, "train", 8)
    wanted = np.array(first.pixels)
    spoil(cache / entries(cache)[0])
    assert np.array_equal(silent(load_folder, root, "train", 8).pixels, wanted) and len(decodes) == 2
    assert load_folder(root, "train", 8) and len(decodes) == 2


def test_pixels_are_mapped_and_private(tmp_path):
    root = layout(tmp_path / "d")
    images = load_folder(root, "train", 8)
    whole = images.pixels
    while isinstance(whole, np.ndarray) and whole.base is not None:
        whole = whole.base
    assert type(whole).__name__ == "mmap"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert to_float(images.pixels[2:4]).shape == to_float(images.pixels[np.array([5, 1])]).shape == (2, 3, 8, 8)
    images.pixels[:] = 0  # a careless script
    assert load_folder(root, "train", 8).pixels.any()


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

        def full(*args):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "posix_fallocate", full)
    found, said = told(load_folder, root, "train", 8)
    assert len(said) == 1 and "cannot keep the decoded images" in said[0] and str(cache) in said[0]
    assert np.array_equal(found.pixels, pixels_of(*sorted(root.glob("train/*/*"))))
    assert found.digest == ImageSet(found.pixels, found.labels).digest
    assert not cache.is_dir() or not list(cache.glob("*.part"))


def test_default_place(monkeypatch):
    monkeypatch.delenv("DDPM_CACHE")
    assert caching.cache_folder() == Path.home() / ".cache/ddpm_course/images"


# -- several processes ------------------------------------------------------------------------------------------------

SLOW = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)         # ignored in what a shell has put into the background
from ddpm_course.data import cache
from ddpm_course.data import decoding
from ddpm_course.data import sources
real = decoding.decode_rows
def slowly(*args):
    print("decoding", flush=True)
    time.sleep(float(sys.argv[2]))
    return real(*args)
decoding.decode_rows = slowly
if "no locks" in sys.argv:
    @cache.contextmanager
    def lock(path):
        yield False
    cache.lock = lock
print(sources.load_folder(sources.Path(sys.argv[1]), 8)[0].digest, flush=True)
"""


def start(root: Path, seconds: float, *words: str) -> subprocess.Popen:
    "A process that loads a folder, each part taking so many seconds."
    return subprocess.Popen(
        [sys.executable, "-c", SLOW, root, str(seconds), *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def test_processes_that_start_at_once_decode_once(tmp_path, cache):
    root = layout(tmp_path / "d")
    processes = [start(root, 0.2) for _ in range(2)]
    printed = [process.communicate(timeout=60)[0].split() for process in processes]
    assert printed[0][-1] == printed[1][-1] == load_folder(root, "train", 8).digest
    assert sorted("decoding" in words for words in printed) == [False, True]
    assert len(entries(cache)) == 1


def test_processes_without_locks_do_not_disturb_each_other(tmp_path, cache):
    root = layout(tmp_path / "d")
    processes = [start(root, 0.2, "no locks") for _ in range(2)]
    digests = {process.communicate(timeout=60)[0].split()[-1] for process in processes}
    assert digests == {load_folder(root, "train", 8).digest} and len(entries(cache)) == 1


def test_killed_midway_leaves_nothing_wrong(tmp_path, cache):
    root = layout(tmp_path / "d")
    process = start(root, 60)
    assert process.stdout.readline() == "decoding\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    left = entries(cache)
    assert len(left) == 1 and left[0].endswith(".part")
    old = cache / "other.abc.part"
    for path, age in ((old, 2), (cache / "young.abc.part", 0)):  # of other data sets
        path.mkdir()
        os.utime(path, (time.time() - age * 86_400,) * 2)
    found = silent(load_folder, root, "train", 8)
    assert np.array_equal(found.pixels, pixels_of(*sorted(root.glob("train/*/*"))))
    assert left[0] not in entries(cache) and not old.exists() and (cache / "young.abc.part").exists()


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
            silent(load_folder, root, "train", 8)
    assert entries(cache) == [] and len(silent(load_folder, root, "train", 8)) == 24


def test_interrupted_leaves_nothing(tmp_path, cache):
    process = start(fill(tmp_path / "d", 400), 0.5)  # 25 parts
    assert process.stdout.readline() == "decoding\n"
    process.send_signal(signal.SIGINT)
    printed, _ = process.communicate(timeout=60)
    assert process.returncode != 0 and printed.count("decoding") < 10 and entries(cache) == []


def test_interrupted_leaves_nobody_at_work(tmp_path, monkeypatch):
    "What has begun is waited for, what has not is never begun."
    files, begun, real = sorted(map(str, fill(tmp_path / "d", 400).iterdir())), [], decoding.decode_rows

    def slowly(*args):
        begun.append(args[2])
        time.sleep(0.05)
        return real(*args)

    class Bar:
        def __enter__(self):
            return self

        def __exit__(self, *args):
            pass

        def update(self, n):
            raise KeyboardInterrupt  # Ctrl-C, at the worst of moments

    monkeypatch.setattr(decoding, "decode_rows", slowly)
    monkeypatch.setattr(decoding, "progress", lambda n: Bar())
    out, before = np.empty((400, 3, 10, 10), np.uint8), threading.enumerate()
    with pytest.raises(KeyboardInterrupt):
        decoding.decode(files, out, threads=3)
    assert set(threading.enumerate()) <= set(before)
    assert 3 <= len(begun) < 12  # of 25


def test_result_does_not_depend_on_threads(tmp_path, monkeypatch):
    files, real = sorted(map(str, fill(tmp_path / "d", 100).iterdir())), decoding.decode_rows
    Path(files[37]).write_text("no image")
    wanted = np.empty((100, 3, 10, 10), np.uint8)
    assert decoding.decode(files, wanted, threads=1) == ([37], False)

    def backwards(images, out, first, channels):
        time.sleep(0.002 * (100 - first) % 0.05)  # whoever begins first ends last
        return real(images, out, first, channels)

    monkeypatch.setattr(decoding, "decode_rows", backwards)
    for threads in (2, 7):
        out = np.empty_like(wanted)
        out[37] = wanted[37]
        assert decoding.decode(files, out, threads=threads) == ([37], False) and np.array_equal(out, wanted)


def test_error_in_a_thread_is_raised(tmp_path, monkeypatch):
    files = sorted(map(str, fill(tmp_path / "d", 40).iterdir()))

    def refuse(*args):
        raise PermissionError(13, "Permission denied", files[3])

    monkeypatch.setattr(decoding, "decode_rows", refuse)
    with pytest.raises(PermissionError, match="003.png"):
        decoding.decode(files, np.empty((40, 3, 10, 10), np.uint8), threads=2)


def test_script_without_guard(tmp_path):
    "Decoding does not run the caller's script again, and needs no `if __name__ == '__main__'`."
    files = fill(tmp_path / "d", 80)
    (tmp_path / "script.py").write_text(
        "import sys\nfrom ddpm_course.sources import load_data\nprint('script runs')\nload_data(sys.argv[1], 8)\n"
    )
    done = subprocess.run([sys.executable, tmp_path / "script.py", files], capture_output=True, text=True)
    assert done.stdout == "script runs\n" and not done.stderr, done.stderr


def test_progress_is_hidden_when_quick_and_sparse_in_logs(capsys):
    with decoding.progress(10) as bar:
        bar.update(10)
    assert capsys.readouterr().err == ""
    with decoding.progress(10) as bar:
        bar.start_t -= 100
        bar.last_print_t -= 100
        for _ in range(10):
            bar.update(1)
    assert capsys.readouterr().err.count("images/s") <= 2  # one line, and the last


# -- arrays -----------------------------------------------------------------------------------------------------------


def test_sets_from_arrays():
    colour = np.stack([COLOUR, 255 - COLOUR])
    images = ImageSet.of(colour, [1, 0], ["ape", "bee"])
    assert np.array_equal(images.pixels, colour.transpose(0, 3, 1, 2)) and images.classes == ("ape", "bee")
    assert images.labels.tolist() == [1, 0] and images.labels.dtype == np.int64 and images.channels == 3
    for gray in (colour[..., 0], colour[..., :1]):
        assert np.array_equal(ImageSet.of(gray).pixels[:, 0], colour[..., 0]) and ImageSet.of(gray).labels is None
    assert ImageSet.of(colour, np.array([0, 2], np.uint8)).classes == ("0", "1", "2")
    same = ImageSet(np.ascontiguousarray(colour.transpose(0, 3, 1, 2)), np.array([1, 0]), ("ape", "bee"))
    assert images.digest == same.digest


@pytest.mark.parametrize(
    "pixels, labels, names, words",
    [
        (np.zeros((2, 4, 4)), None, (), "the pixels are float64: expected uint8"),
        (np.zeros((2, 3, 4, 4), np.uint8), None, (), "the pixels have shape (2, 3, 4, 4): expected (N, H, W)"),
        (np.zeros((4, 4), np.uint8), None, (), "the pixels have shape (4, 4)"),
        (np.zeros((0, 4, 4), np.uint8), None, (), "expected at least one image"),
        (np.zeros((2, 4, 5), np.uint8), None, (), "all of them square"),
        (
            np.zeros((2, 4, 4), np.uint8),
            [0],
            (),
            "the labels are int64 of shape (1,): expected whole numbers of shape (2,)",
        ),
        (np.zeros((2, 4, 4), np.uint8), [0.0, 1.0], (), "the labels are float64"),
        (np.zeros((2, 4, 4), np.uint8), [True, False], (), "the labels are bool"),
        (np.zeros((2, 4, 4), np.uint8), [-1, 0], ("a",), "the labels go from -1 to 0: expected 0 to 0 for 1 names"),
        (np.zeros((2, 4, 4), np.uint8), [0, 2], ("a", "b"), "the labels go from 0 to 2: expected 0 to 1 for 2 names"),
        (np.zeros((2, 4, 4), np.uint8), None, ("a", "b"), "2 names without labels"),
    ],
)
def test_arrays_that_make_no_set(pixels, labels, names, words):
    with pytest.raises(ValueError) as caught:
        ImageSet.of(pixels, labels, names)
    assert words in str(caught.value) and "\n" not in str(caught.value)


# -- what is no image -------------------------------------------------------------------------------------------------


@contextmanager
def within(seconds: int):
    "Fail instead of waiting for ever."

    def ring(*args):
        raise TimeoutError(f"still waiting after {seconds} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="a system without named pipes")
def test_pipes_are_not_waited_for(tmp_path):
    root = fill(tmp_path / "d", 20)
    os.mkfifo(root / "x.png")
    with within(60):
        images, said = told(load_data, root, 8)
        assert len(images[0]) == 18 and said == [f"{root}: ignored, as it is no image: x.png ({sources.ENDINGS})"]
        with pytest.raises(ValueError, match="x.png is not an image that can be read"):
            decoding.open_image(root / "x.png")
    for name in ("data_batch_1", "cifar-10-python.tar.gz"):
        os.mkfifo(root / name)
    with within(60):
        assert len(told(load_data, root, 8)[0][0]) == 18
        with pytest.raises(FileNotFoundError, match="is not a folder"):
            load_data(root / "x.png", 8)


def test_very_large_images_are_named(tmp_path, monkeypatch):
    root = fill(tmp_path / "d", 20)
    picture(1, (12, 12)).save(root / "005.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 120)  # 10x10 is fine, 12x12 is not
    _, said = told(load_data, root, 8)
    assert said == [f"{root / '005.png'} is very large: 12 x 12 pixels"]


def test_hidden_folders_with_images_are_mentioned(tmp_path):
    root = layout(tmp_path / "d")
    (root / ".git").mkdir()
    (root / "train/.cache").mkdir()
    assert silent(load_data, root, 8)
    fill(root / "train/.cat", 3)
    images, said = told(load_data, root, 8)
    assert images[0].classes == ("ape", "bee")
    assert said == [f"{root}: ignored, as it is no image: train/.cat (a hidden folder) ({sources.ENDINGS})"]


# -- runs among the images --------------------------------------------------------------------------------------------


def run_folder(folder: Path, sign: str = "metrics.jsonl") -> Path:
    "What a training run leaves."
    fill(folder / "samples", 2)
    (folder / "config.json").write_text("{}")
    (folder / sign).mkdir() if sign == "checkpoints" else (folder / sign).write_text("")
    for name in ("samples.png", "loss.png"):
        picture(7).save(folder / name)
    return folder


@pytest.mark.parametrize("where", ["runs/mnist16-d", "run", "runs/a b", "train/run", "."])
@pytest.mark.parametrize("kind", ["classes", "flat", "split"])
def test_runs_are_no_images(tmp_path, where, kind):
    root = tmp_path / "d"
    {
        "classes": lambda: [fill(root / name, 20, seed=k) for k, name in enumerate("ab")],
        "flat": lambda: fill(root, 20),
        "split": lambda: layout(root),
    }[kind]()
    before = silent(load_data, root, 8)
    if where == "train/run" and kind != "split":
        (root / "train").mkdir()
    run_folder(root / where)
    after = silent(load_data, root, 8)
    assert [s.classes for s in after] == [s.classes for s in before]
    assert [s.digest for s in after] == [s.digest for s in before]


def test_runs_alone_are_no_data_set_and_never_to_be_removed(tmp_path):
    run_folder(tmp_path / "d/runs/one", "checkpoints")
    with pytest.raises(ValueError, match="holds no image: expected") as caught:
        load_data(tmp_path / "d", 8)
    assert "remove" not in str(caught.value)
    fill(tmp_path / "d/ape", 20)
    (tmp_path / "d/results/deep").mkdir(parents=True)
    run_folder(tmp_path / "d/results/deep/one")  # deeper than anybody looks
    with pytest.raises(ValueError, match="the class folder .*results is empty") as caught:
        load_data(tmp_path / "d", 8)
    assert "remove" not in str(caught.value) and "delete" not in str(caught.value)


def test_folder_with_a_configuration_is_a_class(tmp_path):
    for name in ("ape", "bee"):
        fill(tmp_path / "d" / name, 20)
    (tmp_path / "d/bee/config.json").write_text("{}")
    (train, _), said = told(load_data, tmp_path / "d", 8)
    assert train.classes == ("ape", "bee") and said[0].endswith(f"bee/config.json ({sources.ENDINGS})")


# -- forged pickles ---------------------------------------------------------------------------------------------------


class Call:
    "In a pickle: call this function with these arguments, then set this state."

    def __init__(self, *call, state=None):
        self.call, self.state = call, state

    def __reduce__(self):
        return (self.call[0], self.call[1:], *([] if self.state is None else [self.state]))


REBUILD = np.empty(0).__reduce__()[0]  # _reconstruct
POINTERS = b"A" * 24576  # 3,072 addresses 0x4141414141414141
FORGED = {
    "array of pointers": lambda: Call(np.ndarray, (1, 3072), np.dtype("O"), POINTERS),
    "array by hand": lambda: Call(np.ndarray, (1, 3072), np.dtype("u1"), bytes(3072)),
    "pointers in a state": lambda: Call(
        REBUILD, np.ndarray, (0,), b"b", state=(1, (1, 3072), np.dtype("O"), False, POINTERS)
    ),
    "flags": lambda: Call(
        REBUILD,
        np.ndarray,
        (0,),
        b"b",
        state=(
            1,
            (1, 3072),
            Call(np.dtype, "V8", False, True, state=(3, "|", None, None, None, 8, 1, 63)),
            False,
            POINTERS,
        ),
    ),
    "number with flags": lambda: Call(
        REBUILD,
        np.ndarray,
        (0,),
        b"b",
        state=(
            1,
            (1, 3072),
            Call(np.dtype, "u1", False, True, state=(3, "|", None, ("a",), {"a": ("O", 0)}, 8, 1, 63)),
            False,
            bytes(7),
        ),
    ),
    "more than its bytes": lambda: Call(
        REBUILD, np.ndarray, (0,), b"b", state=(1, (10_000_000, 3072), np.dtype("u1"), False, bytes(3072))
    ),
    "negative shape": lambda: Call(
        REBUILD, np.ndarray, (0,), b"b", state=(1, (-1, -1), np.dtype("u1"), False, bytes(3072))
    ),
    "state of a class": lambda: Call(np.ndarray, state={"shape": 1}),
    "another array class": lambda: Call(REBUILD, np.dtype, (0,), b"b", state=(1, (1,), np.dtype("u1"), False, b"a")),
    "encoding": lambda: Call(codecs.encode, "abc", "zlib"),
}
LOAD = """
import sys, warnings
from pathlib import Path
from ddpm_course.data.sources import load_data
for folder in sorted(Path(sys.argv[1]).iterdir()):
    try:
        load_data(folder, 32)
        print(folder.name, "was loaded")
    except ValueError as error:
        print(folder.name, "refused" if "is damaged or not CIFAR-10" in str(error) else error)
    except Exception as error:
        print(folder.name, repr(error))
"""


def test_forged_arrays_never_reach_numpy(tmp_path):
    "In a process of its own: what goes wrong here ends the process."
    for name, forge in FORGED.items():
        cifar(tmp_path / "d" / name, count=1)
        content = {b"data": forge(), b"labels": [0]}
        (tmp_path / "d" / name / "data_batch_1").write_bytes(pickle.dumps(content, 4))
    done = subprocess.run([sys.executable, "-c", LOAD, tmp_path / "d"], capture_output=True, text=True)
    assert done.returncode == 0, f"the process died of {done.returncode}: {done.stdout}"
    assert done.stdout.splitlines() == [f"{name} refused" for name in sorted(FORGED)]


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_pickles_of_every_protocol(tmp_path, protocol):
    images, labels = cifar(tmp_path / "d")
    for k, name in enumerate(decoding.BATCHES[:-1]):
        rows = images[10 * k : 10 * k + 10].reshape(10, 3072)
        content = {b"data": rows, "labels": np.array(labels[10 * k : 10 * k + 10]) if k % 2 else labels[:10].tolist()}
        content[b"data"] = np.asfortranarray(rows) if k == 3 else rows
        (tmp_path / "d" / name).write_bytes(pickle.dumps(content, protocol))
    (tmp_path / "d/batches.meta").write_bytes(
        pickle.dumps({"label_names": [f"class {c}" for c in range(10)]}, protocol)
    )
    train, test = load_data(tmp_path / "d", 32)
    assert np.array_equal(train.pixels, images[:50]) and np.array_equal(test.pixels, images[50:])
    assert train.classes[9] == "class 9"


# -- one pass, and names ----------------------------------------------------------------------------------------------


def test_both_splits_come_in_one_pass(tmp_path, monkeypatch):
    root, calls = layout(tmp_path / "d"), []
    load_data(root, 8)
    for module, name in (
        (sources, "folder_source"),
        (caching, "cache_key"),
        (caching, "quick_checksum"),
        (caching, "open_cache"),
    ):
        real = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *args, real=real, name=name: calls.append(name) or real(*args))
    train, test = load_data(root, 8)
    assert sorted(calls) == ["cache_key", "folder_source", "open_cache", "quick_checksum"]
    for split, images in (("train", train), ("test", test)):
        assert load_images(root, split, 8).digest == images.digest


def test_names_from_outside(monkeypatch):
    train, test = ImageSet.of(np.zeros((4, 8, 8), np.uint8)), ImageSet.of(np.ones((2, 8, 8), np.uint8))
    monkeypatch.setitem(DATA, "mine", lambda size, channels: (train, test))
    assert load_data("mine", 8) == (train, test) and load_images("mine", "test", 8) is test
    with pytest.raises(FileNotFoundError, match="expected mnist5k, mnist, fashion-mnist, cifar10, mine, or a folder"):
        load_data("yours", 8)
    for other, words in [
        (ImageSet.of(np.zeros((2, 8, 8, 3), np.uint8)), "the training images have channels 1, the test images 3"),
        (ImageSet.of(np.zeros((2, 8, 8), np.uint8), [0, 0]), r"have classes \(\), the test images \('0',\)"),
    ]:
        monkeypatch.setitem(DATA, "mine", lambda size, channels, other=other: (train, other))
        with pytest.raises(ValueError, match="mine: .*" + words):
            load_data("mine", 8)


def test_name_of_a_function_to_be_imported(monkeypatch):
    module = types.ModuleType("my_pictures")
    module.load = lambda size, channels: load_data("mnist5k", size, channels)
    monkeypatch.setitem(sys.modules, "my_pictures", module)
    monkeypatch.setitem(DATA, "mine", "my_pictures:load")
    assert load_data("mine", 8, 3)[1].pixels.shape == (500, 3, 8, 8)


# -- facts beside the pixels ------------------------------------------------------------------------------------------


def old_facts(entry: Path, **change) -> None:
    "Kept as an older version did, with a change."
    facts = json.loads((entry / "kept.json").read_text())
    del facts["seal"]
    (entry / "kept.json").write_text(json.dumps(facts | change))


def test_any_flipped_bit_is_found(tmp_path, cache):
    load_data(layout(tmp_path / "d", train=2, test=1), 2)
    entry = cache / entries(cache)[0]
    _, facts = caching.open_cache(entry)
    whole, wanted = (entry / "kept.json").read_bytes(), {k: v for k, v in facts.items() if k != "seal"}
    for place in range(len(whole)):
        for bit in range(8):
            spoilt = whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :]
            (entry / "kept.json").write_bytes(spoilt)
            found = caching.open_cache(entry)
            assert found is None or {k: found[1][k] for k in wanted} == wanted, (place, bit, spoilt)


@pytest.mark.parametrize(
    "change",
    [
        {"train": 25},
        {"train": 0},
        {"train": 32},
        {"train": 24.0},
        {"train": True},
        {"labels": [1] + [0] * 31},
        {"labels": [0] * 31},
        {"labels": [0] * 31 + [2]},
        {"labels": [0] * 31 + [-1]},
        {"labels": None},
        {"labels": "0" * 32},
        {"classes": ["ape"]},
        {"classes": [1, 2]},
        {"classes": None},
        {"unreadable": {}},
        {"unreadable": []},
        {"digests": {"train": "x"}},
        {"digests": None},
    ],
)
def test_contradictions_are_found_with_and_without_a_seal(tmp_path, cache, decodes, change):
    root = layout(tmp_path / "d")
    wanted = [images.digest for images in load_data(root, 8)]
    entry = cache / entries(cache)[0]
    old_facts(entry, **change)
    assert [images.digest for images in silent(load_data, root, 8)] == wanted and len(decodes) == 2
    facts = json.loads((entry / "kept.json").read_text()) | change
    caching.write_facts(entry, facts)  # sealed, but at odds
    train, test = silent(load_data, root, 8)
    assert len(decodes) == 3 or change.get("labels") == [1] + [0] * 31 or change.get("train") == 25
    assert len(train.classes) == 2


def test_caches_of_older_versions_are_read_and_sealed(tmp_path, cache, decodes):
    root = layout(tmp_path / "d")
    wanted = [images.digest for images in load_data(root, 8)]
    entry = cache / entries(cache)[0]
    old_facts(entry)
    assert [images.digest for images in silent(load_data, root, 8)] == wanted and len(decodes) == 1
    facts = json.loads((entry / "kept.json").read_text())
    assert facts["seal"] == caching.seal(facts) and sorted(p.name for p in entry.iterdir()) == [
        "kept.json",
        "pixels.npy",
    ]


def test_deeply_nested_facts(tmp_path, cache, decodes):
    root = layout(tmp_path / "d")
    load_data(root, 8)
    (cache / entries(cache)[0] / "kept.json").write_text("[" * 100_000 + "]" * 100_000)
    assert len(silent(load_data, root, 8)[0]) == 24 and len(decodes) == 2


# -- locks ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_file_system_that_refuses_locks(tmp_path, monkeypatch, number):
    fcntl = pytest.importorskip("fcntl")

    def refuse(*args):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with within(60):
        assert len(silent(load_data, layout(tmp_path / "d"), 8)[0]) == 24
        with caching.lock(tmp_path / "x.lock") as held:
            assert not held


def test_links_in_place_of_the_lock_are_not_followed(tmp_path, cache):
    root = layout(tmp_path / "d")
    load_data(root, 8)
    entry = cache / entries(cache)[0]
    shutil.rmtree(entry)
    precious = tmp_path / "precious.txt"
    precious.write_text("a year's work")
    entry.with_suffix(".lock").unlink(missing_ok=True)
    entry.with_suffix(".lock").symlink_to(precious)
    assert len(silent(load_data, root, 8)[0]) == 24 and precious.read_text() == "a year's work"


# -- what was there before --------------------------------------------------------------------------------------------


def test_bundled_digits_have_not_changed():
    assert (
        load_digits("train", 16).digest == "d8a9eaf106d5c4f9" and load_digits("test", 16).digest == "858b33cdef9eb043"
    )
