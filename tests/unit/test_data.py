"Images from all kinds of files and folders: every outcome that chapters 01 to 01c promise, and the cache under fire."

import errno
import hashlib
import os
import pickle
import re
import shutil
import struct
import subprocess
import sys
import warnings
import zlib
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import CIFAR10

from ddpm_course.data import cache as caching
from ddpm_course.data import decoding, sources
from ddpm_course.data.sets import ImageSet, batch_indices, load_digits, resize, to_float
from ddpm_course.data.sources import load_data
from helpers import wait_for, warm


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


def layout(root: Path) -> Path:
    for seed, (part, count) in enumerate({"train/ape": 12, "train/bee": 12, "test/ape": 4, "test/bee": 4}.items()):
        fill(root / part, count, seed)
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


# -- files and folders ------------------------------------------------------------------------------------------------


def test_transparency_lies_over_white(tmp_path):
    alpha = np.zeros((12, 12), np.uint8)
    alpha[6:], alpha[:3] = 255, 51
    for channels in (1, 3):
        image = picture(0, (12, 12), channels)
        colours = np.asarray(image)
        image.putalpha(Image.fromarray(alpha))
        image.save(tmp_path / "x.png")
        found = np.asarray(decoding.open_image(tmp_path / "x.png"))
        assert found.shape == colours.shape
        assert np.array_equal(found[6:], colours[6:]) and (found[3:6] == 255).all()
        assert np.abs(found[:3] - (0.2 * colours[:3] + 0.8 * 255)).max() <= 1


def test_damaged_files_raise_one_kind_of_error(tmp_path):
    for kind in ("png", "jpeg", "bmp", "webp", "gif", "tiff"):
        picture(0, (60, 60)).save(tmp_path / "x", kind)
        (tmp_path / "x").write_bytes((tmp_path / "x").read_bytes()[:900])
        with pytest.raises(ValueError, match="x is not an image that can be read"):
            decoding.open_image(tmp_path / "x")


def test_unusual_files_show_what_they_hold(tmp_path):
    "16 bits a pixel, a palette, inks, a camera held upright, moving pictures, several pages."
    digit = Image.fromarray(load_digits("train", 28).pixels[1402, 0])
    red = Image.merge("RGB", [digit, *[Image.new("L", (28, 28))] * 2])
    turned = Image.Exif()
    turned[0x0112] = 6  # turn me by 90 degrees to see me upright
    Image.fromarray(np.asarray(digit).astype(np.uint16) * 257).save(tmp_path / "grey.png")
    digit.convert("P").save(tmp_path / "palette.png")
    digit.save(tmp_path / "moving.gif", save_all=True, append_images=[digit.rotate(90)])
    digit.rotate(90).save(tmp_path / "turned.jpg", exif=turned, quality=95)
    red.save(tmp_path / "pages.tif", save_all=True, append_images=[digit.convert("RGB")])
    red.convert("CMYK").save(tmp_path / "inks.jpg", quality=95)
    for path in tmp_path.iterdir():
        found, wanted = decoding.open_image(path), red if path.stem in ("pages", "inks") else digit
        off = np.abs(np.asarray(found.convert(wanted.mode), float) - np.asarray(wanted)).mean()
        assert off <= (4 if path.suffix == ".jpg" else 0), path.name


def test_train_and_test_folders(tmp_path):
    root = layout(tmp_path / "d")
    train, test = silent(load_data, root, 8)
    assert train.classes == test.classes == ("ape", "bee")
    assert train.labels.tolist() == [0] * 12 + [1] * 12 and test.labels.tolist() == [0] * 4 + [1] * 4
    for images, split in ((train, "train"), (test, "test")):
        assert np.array_equal(images.pixels, pixels_of(*sorted(root.glob(f"{split}/*/*"))))
    shutil.rmtree(root / "test/ape")
    _, test = silent(load_data, root, 8)
    assert test.classes == ("ape", "bee") and test.labels.tolist() == [1] * 4  # labels do not shift


def test_flat_folders(tmp_path):
    flat = fill(tmp_path / "flat", 17, size=(40, 23))
    for k, ending in enumerate(("BMP", "gif", "Tiff")):
        picture(k, (9 + 4 * k, 14)).save(flat / f"x.{ending}")
    paths = sorted(flat.iterdir())
    train, test = silent(load_data, flat, 8)
    assert train.labels is None and train.classes == ()
    assert np.array_equal(test.pixels, pixels_of(*paths[9::10]))
    assert np.array_equal(train.pixels, pixels_of(*[p for k, p in enumerate(paths) if k % 10 != 9]))
    fill(tmp_path / "both/train", 5)
    fill(tmp_path / "both/test", 3)
    assert [len(images) for images in silent(load_data, tmp_path / "both", 8)] == [5, 3]


def test_order_is_by_class_then_name(tmp_path):
    "As it was before, whatever characters are in the names: caches and the images of a step depend on it."
    for name in ("x", "x y", "x-", "train"):
        fill(tmp_path / "d" / name, 10)
    source = sources.folder_source(tmp_path / "d")
    assert source.files[::10] == [f"{c}/000.png" for c in ("train", "x", "x y", "x-")]
    for k, name in enumerate(("a/000.png", "a-/000.png")):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(bytes([k]))
    kept = decoding.Source(tmp_path, ["a/000.png", "a-/000.png"], source.read)
    assert caching.cache_key(kept, 8, None) == "46235f885ab1f4ab1eed37202d265fdc"
    assert load_data(tmp_path / "d", 8)[0].classes == ("train", "x", "x y", "x-")  # `train` may be a class


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
    for k in range(1000):
        (root / f"train/empty{k:03}").mkdir()
    os.mkfifo(root / "train/bee/x.png")  # is not waited for
    images, said = told(load_data, root, 8)
    assert len(images[0]) == 24 and images[0].classes == ("ape", "bee")
    assert said == [f"{root}: 1008 things that are no images are ignored, such as photo.heic"]


def test_damaged_image_is_left_out_and_named(tmp_path):
    root = fill(tmp_path / "d", 200)
    for name in ("019.png", "020.png"):  # the first is held out
        (root / name).write_bytes((root / name).read_bytes()[:60])
    (train, test), said = told(load_data, root, 8)
    assert said == [f"{root}: 2 files that cannot be read are left out, such as 020.png"]
    assert (len(train), len(test)) == (179, 19)  # the others keep their places
    assert np.array_equal(test.pixels[1], pixels_of(root / "029.png")[0])
    assert told(load_data, root, 8)[1] == said  # said again from the cache
    (root / "021.png").unlink()
    (root / "021.png").symlink_to("021.png")  # to itself; a link to nowhere is the same
    with pytest.raises(ValueError, match=r"3 of 200 .* the first is .*020\.png: at most one in a hundred"):
        load_data(root, 8)


@pytest.mark.parametrize(
    "prepare, words",
    [
        (lambda root: None, "holds no image: expected train/<class>/* and test/<class>/*, or <class>/*"),
        (lambda root: (layout(root), fill(root / "test/cat", 1)), "the class 'cat' is only in test/"),
        (lambda root: (fill(root / "train/ape", 5), (root / "test").mkdir()), "holds images in train/ape: expected"),
        (lambda root: (fill(root, 2), fill(root / "ape", 20)), "holds images in . and in ape: expected"),
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


@pytest.mark.parametrize("where", ["runs/mnist16-d", "train/run"])
@pytest.mark.parametrize("parts", [("a", "b"), ("",), ("train/a", "test/a")])
def test_runs_are_no_images(tmp_path, where, parts):
    "What `ddpm train --data .` leaves there must not stop the same line from going on, nor be trained on."
    root = tmp_path / "d"
    for part in parts:
        fill(root / part, 20, seed=len(part))
    before = silent(load_data, root, 8)
    fill(root / where / "samples", 2)
    for name in ("config.json", "metrics.jsonl"):
        (root / where / name).write_text("{}")
    after = silent(load_data, root, 8)
    assert [(s.classes, s.digest) for s in after] == [(s.classes, s.digest) for s in before]


@pytest.mark.parametrize("name", ["a\0b", "~nobody-of-that-name/x", "x" * 5000, "minst", __file__])
def test_names_of_no_data(name):
    "NUL bytes, users that are not there, names that are too long, a slip, a file."
    with pytest.raises(FileNotFoundError, match="no data set or folder is called '.*: expected mnist5k, ") as caught:
        load_data(name, 8)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("there", [False, True])  # True: but damaged
def test_what_cannot_be_downloaded_is_one_sentence(tmp_path, monkeypatch, there):
    failing = mock.Mock(side_effect=RuntimeError("Error downloading x:\nTried y"))
    monkeypatch.setattr("torchvision.datasets.MNIST", failing)
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    (tmp_path / ".cache/ddpm_course/MNIST" / ("raw" if there else "")).mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match="mnist is not whole in .*downloading x: Tried y") as caught:
        silent(load_data, "mnist", 8)
    assert "\n" not in str(caught.value)


class Trap:
    def __reduce__(self):
        return os.mkdir, ("caught",)


def test_cifar_is_read_and_what_others_made_is_refused_unread(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder, draws, images = tmp_path / "d/cifar-10-batches-py", np.random.default_rng(0), []
    folder.mkdir(parents=True)
    for name, _ in CIFAR10.train_list + CIFAR10.test_list:  # ten images each
        images.append(draws.integers(0, 256, (10, 3072), dtype=np.uint8))
        (folder / name).write_bytes(pickle.dumps({"data": images[-1], "labels": list(range(10))}))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list("abcdefghij")}))
    md5 = lambda path: hashlib.md5(path.read_bytes()).hexdigest()
    lists = {w: [[n, md5(folder / n)] for n, _ in getattr(CIFAR10, w)] for w in ("train_list", "test_list")}
    monkeypatch.setattr(CIFAR10, "meta", CIFAR10.meta | {"md5": md5(folder / "batches.meta")})
    for which, names in lists.items():
        monkeypatch.setattr(CIFAR10, which, names)
    shutil.copytree(folder, "renamed")
    for place in ("d", folder, "renamed"):
        train, test = silent(load_data, place, 32)
        assert np.array_equal(np.concatenate([train.pixels, test.pixels]).reshape(60, 3072), np.concatenate(images))
        assert train.labels.tolist() == [*range(10)] * 5 and train.classes == test.classes == tuple("abcdefghij")
    for name in ("data_batch_3", "test_batch", "batches.meta"):
        whole = Path("renamed", name).read_bytes()
        Path("renamed", name).write_bytes(pickle.dumps(Trap()))
        with pytest.raises(ValueError, match="renamed is not CIFAR-10 for Python, or a file is missing or damaged"):
            silent(load_data, "renamed", 32)
        Path("renamed", name).write_bytes(whole)
    assert not Path("caught").exists()
    train, _ = silent(load_data, f"cifar10:{tmp_path / 'd'}", 32)
    assert np.array_equal(train.pixels.reshape(50, 3072), np.concatenate(images[:5]))


def test_a_path_belongs_to_sets_that_take_one(tmp_path, monkeypatch):
    "The files of MNIST as its page defines them: magic number, sizes (big-endian), bytes."
    raw, digits = tmp_path / "here/MNIST/raw", load_digits("train", 28)
    raw.mkdir(parents=True)
    few = np.arange(0, 4500, 450)
    for prefix, rows in (("train", few), ("t10k", few + 1)):
        for kind, magic, array in (
            ("images-idx3", 2051, digits.pixels[rows, 0]),
            ("labels-idx1", 2049, digits.labels[rows]),
        ):
            head = np.array([magic, *array.shape], ">i4").tobytes()
            (raw / f"{prefix}-{kind}-ubyte").write_bytes(head + array.astype(np.uint8).tobytes())
    train, test = silent(load_data, f"mnist:{tmp_path / 'here'}", 28)
    assert np.array_equal(train.pixels, digits.pixels[few]) and np.array_equal(test.labels, digits.labels[few + 1])
    for name in ("mnist5k", "faces"):
        with pytest.raises(ValueError, match=f"{name} takes no path: expected '{name}', not '{name}:/x'"):
            load_data(f"{name}:/x", 16)
    for name in sources.TORCHVISION:
        with pytest.raises(FileNotFoundError, match=f"there is no folder /nowhere for {name}"):
            load_data(f"{name}:/nowhere", 16)
    monkeypatch.chdir(tmp_path)
    found = [sources.from_anywhere(source) for source in ("mnist5k", "mnist5k:", "mnist:here", "here", "~/x")]
    assert found == ["mnist5k", "mnist5k", f"mnist:{tmp_path}/here", f"{tmp_path}/here", str(Path.home() / "x")]


def test_a_set_and_a_folder_of_one_name_can_both_be_had(tmp_path, monkeypatch):
    "What a run has recorded means the set, whatever folder is there by now."
    monkeypatch.chdir(tmp_path)
    fill(tmp_path / "mnist5k", 20)
    for name, count in (("mnist5k", 4500), ("mnist5k:", 4500), ("./mnist5k", 18)):
        assert len(silent(load_data, name, 8)[0]) == count
    assert len(silent(load_data, sources.from_anywhere("./mnist5k"), 8)[0]) == 18


# -- levels that are no bytes -----------------------------------------------------------------------------------------


def deep_png(levels: np.ndarray, bits: int = 0) -> bytes:
    "A PNG of 16 bits, as its specification has it: grey, grey with alpha, or colour; with sBIT where bits are given."
    shape = levels.shape if levels.ndim == 3 else (*levels.shape, 1)
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[shape[2]]
    chunk = lambda name, data: struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in levels)
    said = chunk(b"sBIT", bytes([bits] * shape[2])) if bits else b""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", shape[1], shape[0], 16, kind, 0, 0, 0))
    text = chunk(b"tEXt", b"Comment\0sBIT\x01")  # is none
    parts = head, text, said, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def deep_tiff(levels: np.ndarray, tags: dict[int, int] = {}, strips: int = 4) -> bytes:  # noqa: B006
    "A colour TIFF of 16 bits in strips, as its specification has it."
    height, width, _ = levels.shape
    rows, body, at = height // strips, levels.astype("<u2").tobytes(), 8
    size, extra = len(body) // strips, at + len(body)
    offsets = struct.pack(f"<{strips}I", *(at + k * size for k in range(strips)))
    more = struct.pack("<3H", 16, 16, 16) + offsets + struct.pack(f"<{strips}I", *[size] * strips)
    entries = {
        **{256: (3, 1, width), 257: (3, 1, height), 258: (3, 3, extra), 259: (3, 1, 1), 262: (3, 1, 2)},
        **{273: (4, strips, extra + 6), 277: (3, 1, 3), 278: (3, 1, rows), 279: (4, strips, extra + 6 + 4 * strips)},
        **{tag: (3, 1, value) for tag, value in tags.items()},
    }
    table = b"".join(struct.pack("<HHII", tag, *entry) for tag, entry in sorted(entries.items()))
    place = extra + len(more)
    return b"II*\0" + struct.pack("<I", place) + body + more + struct.pack("<H", len(entries)) + table + bytes(4)


def levels_folder(root: Path, bits: int, write, count: int = 20, shape=(8, 8, 3)) -> np.ndarray:
    "Pictures whose levels need so many bits in the last, which is held out, and one less in all others."
    draws, found = np.random.default_rng(bits), []
    root.mkdir()
    for k in range(count):
        levels = draws.integers(0, 2 ** (bits - (k < count - 1)), shape).astype(np.uint16)
        levels.flat[0] = 2 ** (bits - (k < count - 1)) - 3
        write(root / f"{k:02}", levels)
        found.append(levels)
    return np.stack(found)


def rounded(levels: np.ndarray, white: float) -> np.ndarray:
    "(N, H, W, ...) levels as bytes, channels first."
    return np.moveaxis(np.round(levels * 255.0 / white).reshape(*levels.shape[:3], -1), -1, 1).astype(np.uint8)


WRITERS = {
    "grey PNG": ((8, 8), lambda path, x: path.with_suffix(".png").write_bytes(deep_png(x))),
    "colour PNG": ((8, 8, 3), lambda path, x: path.with_suffix(".png").write_bytes(deep_png(x))),
    "grey TIFF": ((8, 8), lambda path, x: Image.fromarray(x).save(path.with_suffix(".tif"))),
    "colour TIFF": ((8, 8, 3), lambda path, x: path.with_suffix(".tif").write_bytes(deep_tiff(x))),
}


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("bits", [9, 12, 16])
def test_levels_of_16_bit_files_have_one_white_for_all(tmp_path, kind, bits):
    "The brightest one is held out; it is told from the files, and again from the cache. 16 bits need no word."
    shape, write = WRITERS[kind]
    levels = levels_folder(tmp_path / "d", bits, write, shape=shape)
    wanted, held = rounded(levels, 2**bits - 1), np.arange(20) % 10 == 9
    for _ in range(2):
        (train, test), said = told(load_data, tmp_path / "d", 8)
        assert np.array_equal(train.pixels, wanted[~held]) and np.array_equal(test.pixels, wanted[held])
        sentence = f"20 pictures hold levels of {bits} bits: 0 is taken for black and {2**bits - 1:,} for white"
        assert said == ([] if bits == 16 else [f"{tmp_path / 'd'}: {sentence}"])


@pytest.mark.parametrize(
    "content, white",
    [
        (lambda x: deep_png(x, 12), 4095),
        (lambda x: deep_png(x * 64, 10), 65535),  # as the specification wants it: 10 bits, stretched to 16
        (lambda x: deep_png(np.stack([x, x | 0xFFFF], -1)), 1023),  # opaque
        (lambda x: deep_png(np.dstack([x, x, x, x | 0xFFFF])), 1023),
        (lambda x: deep_tiff(np.dstack([x] * 3), {281: 3000}), 4095),
        (lambda x: deep_tiff(np.dstack([x] * 3), {341: 16383}), 16383),
        (lambda x: deep_tiff(np.dstack([x] * 3)), 1023),
    ],
)
def test_what_a_file_says_of_its_bits_counts(tmp_path, content, white):
    levels = np.arange(64, dtype=np.uint16).reshape(8, 8) * 16 + 15
    path = tmp_path / ("a.png" if content(levels)[:1] == b"\x89" else "a.tif")
    path.write_bytes(content(levels))
    found = np.asarray(decoding.open_image(path).convert("L"))
    stretched = levels * 64 if white == 65535 else levels
    assert np.array_equal(found, rounded(stretched[None], white)[0, 0])


def test_bytes_beside_deeper_files_stay_as_they_are(tmp_path):
    root = fill(tmp_path / "d", 10, size=(8, 8), channels=1)
    for k in range(10, 20):
        (root / f"{k:03}.png").write_bytes(deep_png(np.full((8, 8), 4095 if k == 12 else 2047, np.uint16)))
    (train, _), _ = told(load_data, root, 8)
    assert np.array_equal(train.pixels[:9], pixels_of(*sorted(root.iterdir())[:9])[:, :1])
    assert np.unique(train.pixels[9:], axis=0).ravel().tolist() == [127] * 64 + [255] * 64


@pytest.mark.parametrize("low", [0, -1])
def test_floats_in_files_have_one_black_for_all(tmp_path, low):
    "Also for those that stay above 0."
    root, bytes_ = tmp_path / "d", np.random.default_rng(0).integers(128, 256, (20, 8, 8), dtype=np.uint8)
    root.mkdir()
    bytes_[3] -= 128
    for k, image in enumerate(bytes_):
        Image.fromarray((image / 255 * (1 - low) + low).astype(np.float32)).save(root / f"{k:02}.tif")
    for _ in range(2):
        (train, _), said = told(load_data, root, 8)
        assert np.array_equal(train.pixels[:, 0], bytes_[np.arange(20) % 10 != 9])
        assert said == [f"{root}: 20 pictures hold floats: {low} is taken for black and 1 for white"]


@pytest.mark.parametrize(
    "image, sentence",
    [
        (np.full((8, 8), 200, np.float32), "floats from 200 to 200: expected 0 for black to 1 for white, or -1 to 1"),
        (np.full((8, 8), np.nan, np.float32), "floats from nan to nan: expected 0"),
        (np.full((8, 8), -5, np.int32), "whole numbers from -5 to -5: expected 0 for black"),
    ],
)
def test_levels_that_may_mean_anything_are_refused(tmp_path, image, sentence):
    "Even one in hundreds, which might be damaged: who knows what the others mean."
    root = tmp_path / "d"
    root.mkdir()
    for k in range(200):
        Image.fromarray(np.full((8, 8), 0.5, np.float32) if k != 77 else image).save(root / f"{k:03}.tif")
    with pytest.raises(ValueError, match=re.escape(f"077.tif holds {sentence}")) as caught:
        silent(load_data, root, 8)
    assert "\n" not in str(caught.value)


# -- the cache --------------------------------------------------------------------------------------------------------


def entries(cache: Path) -> list[str]:
    "The decoded sets, and what is left of some."
    return sorted(path.name for path in cache.iterdir() if path.is_dir())


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
    for k, change in enumerate((image.unlink, lambda: fill(root / "test/bee", 5, seed=99))):
        change()
        load(root)
        assert len(decodes) == 5 + k
    assert len(load(root)) == 23 and load(root).digest != first.digest


def alike(root: Path) -> Path:
    "Two classes of pictures whose files have the same size and date."
    for name in ("ape", "bee"):
        (root / name).mkdir(parents=True)
        for k in range(20):
            picture((ord(name[0]), k)).save(root / f"{name}/{k:02}.bmp")
            os.utime(root / f"{name}/{k:02}.bmp", ns=(10**18, 10**18))
    return root


def as_it_was_dated(path: Path, content: bytes) -> None:
    "Write over a file, and set its date back."
    status = path.stat()
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def swap_contents(a: Path, b: Path) -> None:
    one, other = a.read_bytes(), b.read_bytes()
    as_it_was_dated(a, other)
    as_it_was_dated(b, one)


def swap_names(a: Path, b: Path) -> None:
    a.rename(a.with_suffix(".aside"))
    b.rename(a)
    a.with_suffix(".aside").rename(b)


def never_the_same_second(monkeypatch) -> None:
    "From now on, files that are there have changed more than two seconds ago."
    real = caching.time.time_ns
    monkeypatch.setattr(caching.time, "time_ns", lambda: real() + 3 * 10**9)


@pytest.mark.parametrize("swap", [swap_contents, swap_names])
@pytest.mark.parametrize("disk", ["exact", "coarse", "whole seconds"])
def test_two_pictures_that_change_places_are_seen(tmp_path, monkeypatch, swap, disk):
    "Whatever names, sizes and dates say: also where a disk's clock says the same of a change within its tick."
    root, real = alike(tmp_path / "d"), caching.stamp
    if disk == "exact":
        never_the_same_second(monkeypatch)
    else:
        tick = 10**9 if disk == "whole seconds" else caching.time.time_ns() + 1
        monkeypatch.setattr(caching, "stamp", lambda path: (*real(path)[1:-1], tick))
    silent(load_data, root, 8)
    swap(root / "ape/01.bmp", root / "bee/03.bmp")
    assert {path.stat().st_mtime_ns for path in root.glob("*/*")} == {10**18}
    train, _ = silent(load_data, root, 8)
    held_out = (root / f"{name}/{k}9.bmp" for name in ("ape", "bee") for k in range(2))
    assert np.array_equal(train.pixels, pixels_of(*sorted({*root.glob("*/*")} - {*held_out})))
    assert train.labels.tolist() == [0] * 18 + [1] * 18


def test_equal_contents_are_decoded_once(tmp_path, monkeypatch, decodes):
    "Touched, moved or copied files make no other set; one in another class does. What is as it was is not read."
    root = alike(tmp_path / "d")
    first, _ = silent(load_data, root, 8)
    never_the_same_second(monkeypatch)
    os.utime(root / "ape/01.bmp", ns=(1, 1))
    shutil.copy(root / "bee/03.bmp", tmp_path / "x")
    (tmp_path / "x").replace(root / "bee/03.bmp")
    shutil.copytree(root, tmp_path / "copy")
    for place in (root, tmp_path / "copy"):
        assert silent(load_data, place, 8)[0].digest == first.digest and len(decodes) == 1
    read, real = [], caching.sums
    monkeypatch.setattr(caching, "sums", lambda paths: read.extend(paths) or real(paths))
    silent(load_data, root, 8)
    shutil.move(root, tmp_path / "moved")
    silent(load_data, tmp_path / "moved", 8)
    assert read == []
    os.utime(tmp_path / "moved/ape/02.bmp", ns=(1, 1))
    silent(load_data, tmp_path / "moved", 8)
    (tmp_path / "moved/ape/01.bmp").rename(tmp_path / "moved/bee/20.bmp")
    assert len(decodes) == 1
    train, _ = silent(load_data, tmp_path / "moved", 8)
    assert np.bincount(train.labels).tolist() == [18, 19] and len(decodes) == 2
    once = [str(tmp_path / "moved" / name) for name in ("ape/02.bmp", "bee/20.bmp")]
    assert list(dict.fromkeys(read)) == once  # those that have changed, and no other


def test_a_stamp_proves_what_no_tick_can_hide():
    now = 10**18
    old, young, rough = now - 10**10 + 7, now - 10**9 + 7, now - 10**10
    assert [caching.proves((1, 1, 1, changed), now) for changed in (old, young, rough)] == [True, False, False]
    assert not caching.proves((1, 1, 1, now + 10**12 + 7), now)  # another machine's clock
    assert caching.proves((), now)  # a link to nowhere


@pytest.mark.parametrize("damage", [b"", b"\xff", b"0" * 31, b"[1]", b'{"1 2 3 4": 5}'])
def test_a_damaged_note_of_what_was_read_is_made_again(tmp_path, cache, monkeypatch, damage, decodes):
    root = alike(tmp_path / "d")
    never_the_same_second(monkeypatch)
    first, _ = silent(load_data, root, 8)
    (note,) = cache.glob("*.sums")
    before = note.read_bytes()
    note.write_bytes(damage)
    assert silent(load_data, root, 8)[0].digest == first.digest and len(decodes) == 1
    assert note.read_bytes() == before


def test_what_changes_while_it_is_decoded_is_not_kept(tmp_path, cache, monkeypatch):
    root, real = alike(tmp_path / "d"), decoding.decode

    def meanwhile(*args):
        swap_contents(root / "ape/01.bmp", root / "bee/03.bmp")
        return real(*args)

    with monkeypatch.context() as moment:
        moment.setattr(decoding, "decode", meanwhile)
        with pytest.raises(ValueError, match="d has changed while it was read: start again"):
            silent(load_data, root, 8)
    assert entries(cache) == [] and len(silent(load_data, root, 8)[0]) == 36


def test_cache_that_does_not_fit_is_made_again(tmp_path, cache, decodes):
    root = layout(tmp_path / "d")
    wanted = [images.digest for images in load_data(root, 8)]
    kept = cache / entries(cache)[0] / "pixels.npy"
    kept.write_bytes(kept.read_bytes()[:-7])
    found = silent(load_data, root, 8)
    assert [ImageSet(i.pixels, i.labels, i.classes).digest for i in found] == wanted and len(decodes) == 2


def test_cache_that_cannot_be_written(tmp_path, cache, monkeypatch):
    root = layout(tmp_path / "d")
    full = mock.Mock(side_effect=OSError(errno.ENOSPC, "No space left on device"))
    monkeypatch.setattr(caching, "reserve", full)
    (found, _), said = told(load_data, root, 8)
    assert len(said) == 1 and f"{cache} cannot keep the decoded images" in said[0]
    assert np.array_equal(found.pixels, pixels_of(*sorted(root.glob("train/*/*"))))
    assert entries(cache) == []


def test_full_disk_is_an_error_and_kills_nobody(tmp_path):
    "Writing to a mapped file on a full disk would be the end of the process; a limit on files stands for the disk."
    code = """
from pathlib import Path
from ddpm_course.data.cache import reserve
try:
    reserve(Path("x.npy"), (100, 3, 8, 8))
except OSError as error:
    print(error.strerror)
"""
    done = warm().run(["--version"], tmp_path, file_size=10_000, code=code)
    assert os.strerror(errno.EFBIG) in done.out, done


# -- several processes ------------------------------------------------------------------------------------------------

LOADS = """
import sys
from pathlib import Path
from ddpm_course.data import cache, decoding, sources
root, mine, go = map(Path, sys.argv[1:])
decode_rows, lock = decoding.decode_rows, cache.lock
def waits(*args):
    mine.with_suffix(".decodes").touch()
    with open(go):                                  # until somebody opens the other end
        return decode_rows(*args)
def asks(*args):
    mine.with_suffix(".asks").touch()
    return lock(*args)
decoding.decode_rows, cache.lock = waits, asks
found = sources.load_data(root, 8)[0].digest
mine.with_suffix(".digest").write_text(found)
"""


@pytest.fixture
def loads(tmp_path):
    """Call as `loads(root, name)`: a process that loads a folder, and leaves NAME.asks before it asks for the lock,
    NAME.decodes when it decodes, which waits until the pipe `go` is opened, and its answer in NAME.digest."""
    os.mkfifo(tmp_path / "go")
    begun = []

    def start(root, name):
        command = [sys.executable, "-c", LOADS, root, tmp_path / name, tmp_path / "go"]
        begun.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        return begun[-1]

    yield start
    for process in begun:
        process.kill()
        process.wait()


def test_processes_that_start_at_once(tmp_path, cache, loads):
    "One decodes and the others wait."
    root = layout(tmp_path / "d")
    first = loads(root, "a")
    wait_for((tmp_path / "a.decodes").exists, first)
    second = loads(root, "b")
    wait_for((tmp_path / "b.asks").exists, first, second)
    with open(tmp_path / "go", "w"):
        assert first.wait() == 0
    assert second.wait() == 0 and not (tmp_path / "b.decodes").exists()
    assert {(tmp_path / f"{name}.digest").read_text() for name in "ab"} == {load_data(root, 8)[0].digest}
    assert len(entries(cache)) == 1


def test_killed_midway_leaves_nothing_wrong(tmp_path, cache, loads):
    root = layout(tmp_path / "d")
    process = loads(root, "a")
    wait_for((tmp_path / "a.decodes").exists, process)
    process.kill()
    process.wait()
    (left,) = entries(cache)
    assert left.endswith(".part")
    (cache / "other.part").mkdir()  # of other data: perhaps somebody is at work there
    found = silent(load_data, root, 8)[0]
    assert np.array_equal(found.pixels, pixels_of(*sorted(root.glob("train/*/*"))))
    assert {left, "other.part"} & set(entries(cache)) == {"other.part"}


@pytest.mark.parametrize("fault", [PermissionError(13, "Permission denied"), MemoryError("003.png does not fit")])
@pytest.mark.parametrize("where", ["read_whole", "resize"])
def test_passing_fault_is_not_cached(tmp_path, cache, monkeypatch, fault, where):
    "A file that cannot be opened for a moment, or a full memory, makes no damaged image."
    root = layout(tmp_path / "d")
    with monkeypatch.context() as moment:
        moment.setattr(decoding, where, mock.Mock(side_effect=fault))
        with pytest.raises(type(fault)):
            silent(load_data, root, 8)
    assert entries(cache) == [] and len(silent(load_data, root, 8)[0]) == 24


def test_disk_without_locks(tmp_path, monkeypatch, cache):
    "All who start at once decode, and do not disturb each other."
    monkeypatch.setattr(caching.FileLock, "acquire", mock.Mock(side_effect=OSError(errno.ENOLCK, "No locks available")))
    root, real, found, inodes = layout(tmp_path / "d"), caching.read_source, [], []

    def twice(*args):
        "Somebody else is at it, too, and is quicker."
        monkeypatch.setattr(caching, "read_source", real)
        found.append(silent(load_data, root, 8)[0].digest)
        inodes.append((cache / entries(cache)[0] / "pixels.npy").stat().st_ino)
        return real(*args)

    monkeypatch.setattr(caching, "read_source", twice)
    assert [silent(load_data, root, 8)[0].digest] == found and len(entries(cache)) == 1
    assert inodes == [(cache / entries(cache)[0] / "pixels.npy").stat().st_ino]  # the quicker one has it mapped


def test_a_lock_that_nobody_lets_go_of(tmp_path, cache, monkeypatch):
    "It is said that one waits, and for what; in the end one decodes without it."
    root, honest = layout(tmp_path / "d"), caching.lock
    key = caching.cache_key(sources.folder_source(root), 8, None)
    cache.mkdir()
    monkeypatch.setattr(caching, "SILENCE", 0.1)
    monkeypatch.setattr(caching, "lock", lambda path, patience: honest(path, 0.1 if patience < 301 else -1))
    with caching.FileLock(cache / f"{key}.lock"):
        (train, _), said = told(load_data, root, 8)
    assert len(train) == 24 and said == [f"waiting for up to 0 minutes for the process that holds {cache / key}.lock"]
    assert len(silent(load_data, root, 8)[0]) == 24 and entries(cache) == [key]


# -- a set ------------------------------------------------------------------------------------------------------------

NIGHT = np.zeros((3, 1, 8, 8), np.uint8)


@pytest.mark.parametrize(
    "pixels, labels, classes, words",
    [
        (NIGHT / 255, None, (), "the pixels are float64 of shape (3, 1, 8, 8): expected uint8"),
        (NIGHT, np.array([0, 1]), "ab", "the labels are of shape (2,), from 0 to 1: expected shape (3,)"),
    ],
)
def test_what_makes_no_set_is_one_sentence(pixels, labels, classes, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        ImageSet(pixels, labels, classes)


def test_a_set_of_arrays():
    "Channels first or last, any whole numbers as labels."
    photos = np.zeros((3, 8, 8, 3), np.uint8)
    photos[..., 0] = 200  # red
    named = ImageSet.of(photos, [0, 1, 1], ["rose", "tulip"])
    assert (named.pixels[:, 0] == 200).all() and named.labels_at([2, 0]).tolist() == [1, 0]
    assert np.array_equal(ImageSet.of(photos.transpose(0, 3, 1, 2)).pixels, named.pixels)
    assert ImageSet.of(photos[..., 0], np.array([0, 1, 1], np.uint8)).classes == ("0", "1")
    assert named.digest != ImageSet.of(photos, [1, 0, 1]).digest != ImageSet.of(photos + 1, [1, 0, 1]).digest
    with pytest.raises(ValueError, match="these images have no classes"):
        ImageSet.of(photos).labels_at([0])


EIGHT = np.zeros((4, 8, 8), np.uint8)


@pytest.mark.parametrize(
    "labels, names, numbers, classes",
    [
        ([7, 1, 3, 1], (), [2, 0, 1, 0], ("1", "3", "7")),
        ([1.0, 2.0, 2.0, 10.0], (), [0, 1, 1, 2], ("1", "2", "10")),  # by number
        (["dog", "cat", "dog", "ant"], (), [2, 1, 2, 0], ("ant", "cat", "dog")),
        (np.array(["b", "a", "b", "b"], object), (), [1, 0, 1, 1], ("a", "b")),
        (np.array([12, 2, 12, 2], object), (), [1, 0, 1, 0], ("2", "12")),
        (torch.tensor([-1, 1, 1, -1]), (), [0, 1, 1, 0], ("-1", "1")),
        ([True, False, True, True], (), [1, 0, 1, 1], ("0", "1")),
        ([2, 0, 2, 2], ["rose", "aster", "tulip"], [2, 0, 2, 2], ("rose", "aster", "tulip")),
        (["tulip", "rose", "tulip", "rose"], ["rose", "aster", "tulip"], [2, 0, 2, 0], ("rose", "aster", "tulip")),
        ([3, 3, 7, 3], ("1", "3", "7"), [1, 1, 2, 1], ("1", "3", "7")),  # held out, of classes called so
        ([9, 0, 4, 9], tuple("0123456789"), [9, 0, 4, 9], tuple("0123456789")),
    ],
)
def test_labels_count_the_classes_that_there_are(labels, names, numbers, classes):
    found = ImageSet.of(EIGHT, labels, names)
    assert found.labels.tolist() == numbers and found.labels.dtype == np.int64 and found.classes == classes


@pytest.mark.parametrize(
    "labels, names, sentence",
    [
        ([0, 1.5, 2, 2], (), "1.5 is no label: expected whole numbers or words"),
        ([0, np.nan, 2, 2], (), "nan is no label: expected whole numbers or words"),
        ([None, 1, 2, 2], (), "the labels are object: expected whole numbers or words"),
        (["a", "b", "c", "a"], ("a", "b"), "no class is called c: expected some of a,b"),
        ([1, 2, 3, 1], ("1", "3", "7"), "no class is called 2: expected some of 1,3,7"),
        ([0, 1, 2, 3], ("a", "b", "c"), "from 0 to 3: expected shape (4,), and from 0 to less than 3"),
        ([[0, 1], [1, 0], [0, 1], [0, 1]], (), "the labels are of shape (4, 2), from 0 to 1: expected shape (4,)"),
    ],
)
def test_what_makes_no_labels_is_one_sentence(labels, names, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)):
        ImageSet.of(EIGHT, labels, names)


def test_held_out_images_count_the_classes_of_training(monkeypatch):
    "From an entry of one's own, and in a run: they may lack some, and know no other."
    images = ImageSet.of(EIGHT, [7, 1, 3, 1])
    for labels, numbers in (([7, 3, 3, 7], [2, 1, 1, 2]), (["7", "1", "1", "7"], [2, 0, 0, 2])):
        monkeypatch.setitem(sources.DATA, "mine", lambda *_, y=labels: (images, ImageSet.of(EIGHT, y)))
        _, held_out = load_data("mine", 8)
        assert held_out.labels.tolist() == numbers and held_out.classes == ("1", "3", "7")
    monkeypatch.setitem(sources.DATA, "mine", lambda *_: (images, ImageSet.of(EIGHT, [7, 4, 4, 7])))
    with pytest.raises(ValueError, match="mine, held-out images: no class is called 4: expected some of 1,3,7"):
        load_data("mine", 8)
    monkeypatch.setitem(sources.DATA, "mine", lambda *_: (images, ImageSet.of(EIGHT)))
    assert load_data("mine", 8)[1].labels is None


@pytest.mark.parametrize("low", [0, -1])
def test_floats_are_bytes_between_their_limits(low):
    pixels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    for kind in (np.float16, np.float32, np.float64):
        floats = (pixels / 255 * (1 - low) + low).astype(kind)
        assert np.array_equal(ImageSet.of(floats).pixels[:, 0], pixels), kind
    assert np.array_equal(ImageSet.of(to_float(pixels)).pixels[:, 0], pixels)
    assert np.array_equal(ImageSet.of(np.float32(floats * 1.0005)).pixels[:, 0, 8:], pixels[:, 8:])  # rounding


@pytest.mark.parametrize("low, high", [(0, 255), (-2, 1), (0, 1.01), (-128, 127), (0, np.nan), (0, np.inf)])
def test_floats_between_other_limits_are_refused(low, high):
    floats = np.zeros((2, 8, 8))
    floats[0, 0, :2] = low, high
    with pytest.raises(ValueError, match=r"floats from .* to .*: expected 0 for black to 1 for white, or -1 to 1$"):
        ImageSet.of(floats)


def test_shrinking_is_antialiased_as_in_pytorch():
    block = np.random.default_rng(0).integers(0, 256, (28, 28)).astype(np.uint8)
    given = torch.tensor(block)[None, None].double()
    theirs = torch.nn.functional.interpolate(given, (16, 16), mode="bilinear", antialias=True)
    assert abs(np.asarray(resize(Image.fromarray(block), 16)) - theirs[0, 0].numpy()).max() <= 1
    assert resize(picture(0, (40, 20)), 10).size == (10, 10)


@pytest.mark.parametrize("split, count, digest", [("train", 450, "d8a9eaf106d5c4f9"), ("test", 50, "858b33cdef9eb043")])
def test_bundled_digits_have_not_changed(split, count, digest):
    digits = load_digits(split, 16)
    assert digits.digest == digest and np.bincount(digits.labels).tolist() == [count] * 10
    digits.pixels[:] = 0
    assert load_digits(split, 16).digest == digest  # everybody gets a copy


def test_batches_take_each_image_once_an_epoch():
    queue = np.concatenate([batch_indices(10, 4, k, seed=0) for k in range(5)])  # batches may straddle two epochs
    assert sorted(queue[:10]) == sorted(queue[10:]) == list(range(10))
    assert list(queue[:10]) != list(queue[10:])
    assert np.array_equal(batch_indices(10, 4, 4, seed=0), queue[16:])  # step 4 asked for alone
