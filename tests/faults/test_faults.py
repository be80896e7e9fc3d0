"""Faults that are really tried, each in a process of its own: damaged files, full disks, signals, strangers' folders.

Whatever happens: the command ends, with at most one sentence and no traceback; what was saved before is still there
byte for byte, and the next good start works. Of many alike every sixth is tried;
`FAULT_SHARE=1 python -m pytest tests/faults` tries them all, in some minutes.
"""

import io
import json
import os
import pickle
import random
import shutil
import signal
import subprocess
import tarfile
import zipfile
import zlib
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from bench import (
    JSON,
    NEWEST,
    PLACES,
    SAMPLE,
    STOP,
    TINY,
    TRAIN,
    Bench,
    Try,
    damages,
    everything,
    flipped,
    nothing,
    npy,
    photos,
    picture,
    write,
    wrong_typed,
)
from PIL import Image
from safetensors.torch import load_file, save_file

import helpers
from ddpm_course.run.checkpoints import checksum, newest_checkpoint, seal

GO_ON = [*TRAIN, 8]
STOPPED = {"code": STOP}
GOES = (143, 2)  # stopped after a step, or refused


@pytest.fixture(scope="module")
def bench():
    with Bench() as bench:
        yield bench


# -- files of a run ----------------------------------------------------------------------------------------------------


def by_file(bench, name, words, codes, how=None, again=7, **damage):
    "Each damage of one file, and each thing that may lie at its place; every seventh time the run is mended."
    good, how = (bench.good / name).read_bytes(), how or {}
    kinds = {**damages(good, **damage), **(JSON if "json" in name else {}), **PLACES}
    for k, (what, content) in enumerate(kinds.items()):
        if what == "a terabyte" and "json" not in name:  # it is read as long as it takes
            continue
        more = {"plain": True} if what == "unreadable" else {}
        says = "" if what == "missing" else "published" if "published" in name else Path(name).name
        yield Try(f"{name}: {what}", words, write(name, content), codes, says, {**how, **more}, again=k % again == 0)


@pytest.mark.parametrize("name", ["run/config.json", f"{NEWEST}/meta.json", f"{NEWEST}/ema.safetensors"])
def test_damaged_files_when_sampling(bench, name):
    bench.attempt_all(by_file(bench, name, SAMPLE, (0, 2)))


@pytest.mark.parametrize(
    "name", ["run/metrics.jsonl", f"{NEWEST}/model.safetensors", f"{NEWEST}/optimizer.pt", "run/config.json"]
)
def test_damaged_files_when_going_on(bench, name):
    bench.attempt_all(by_file(bench, name, GO_ON, GOES, STOPPED, cuts=5, flips=8))


def test_wrong_types_in_the_configuration(bench):
    "Each setting in turn is missing or of another type: one sentence that names the file, or a grid."
    name = "run/config.json"
    tries = [
        Try(f"{name}: {what}", SAMPLE, write(name, text), (0, 2), "run")
        for what, text in wrong_typed((bench.good / name).read_text())
        if not what.startswith("versions")
    ]
    bench.attempt_all(tries)


def sealed(folder, change):
    "Change a checkpoint's files, and make all sums right again: what a stranger could hand on."
    checkpoint = folder / NEWEST
    change(checkpoint)
    meta = json.loads((checkpoint / "meta.json").read_text())
    for name in meta["files"]:
        meta["files"][name] = checksum(checkpoint / name)
    (checkpoint / "meta.json").write_text(json.dumps(seal(meta)))


def stranger(name, file, content, words=SAMPLE, codes=(0, 2), how=None, says="", after=None):
    "A run whose sums are right, with this content of one of its files."

    def prepare(folder):
        sealed(folder, lambda checkpoint: write(file, content)(checkpoint))

    more = {"after": after} if after else {}
    return Try(f"a stranger's {file}: {name}", words, prepare, codes, says, how or {}, **more)


def test_strangers_meta(bench):
    "meta.json with another content and the right sum, and every eighth flipped bit of the true one."
    good = (bench.good / NEWEST / "meta.json").read_bytes()
    tries = []
    for what, text in wrong_typed(good):
        if what.startswith(("versions", "sha256")):
            continue
        content = json.loads(text)
        if isinstance(content, dict):
            content = seal(content)
        tries.append(Try(f"meta.json, sealed: {what}", SAMPLE, write(f"{NEWEST}/meta.json", json.dumps(content))))
    for bit in range(0, 8 * len(good), 41):
        content = flipped(good, bit)
        tries.append(Try(f"meta.json: bit {bit} flipped", SAMPLE, write(f"{NEWEST}/meta.json", content)))
    bench.attempt_all(tries)


def header(text, data=b""):
    "A safetensors file with this header."
    text = text if isinstance(text, bytes) else text.encode()
    return len(text).to_bytes(8, "little") + text + data


def weights(change):
    "What makes a safetensors file from the one that is there."

    def make(path):
        kept = load_file(path)
        change(kept)
        save_file(kept, path)

    return make


def first(kept):
    return next(iter(kept))


def all_nan(kept):
    for value in kept.values():
        value.fill_(float("nan"))


SAFETENSORS = {
    "no header": b"",
    "header of a terabyte": (1 << 40).to_bytes(8, "little") + b"{}",
    "header of -1": b"\xff" * 8,
    "empty header": header("{}"),
    "header cut": header("{"),
    "list": header("[]"),
    "deep header": header("[" * 100_000),
    "unknown type": header('{"a":{"dtype":"Q7","shape":[1],"data_offsets":[0,4]}}', bytes(4)),
    "offsets beyond": header('{"a":{"dtype":"F32","shape":[9],"data_offsets":[0,36]}}', bytes(4)),
    "offsets backwards": header('{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}', bytes(4)),
    "a shape that overflows": header('{"a":{"dtype":"F32","shape":[4294967296,4294967296,2],"data_offsets":[0,0]}}'),
    "no utf-8": header(b'{"\xff": 1}'),
    "half the names": weights(lambda kept: [kept.pop(name) for name in list(kept)[::2]]),
    "a name too many": weights(lambda kept: kept.update(extra=torch.zeros(3))),
    "another shape": weights(lambda kept: kept.update({first(kept): torch.zeros(3)})),
    "of no numbers": weights(lambda kept: kept.update({first(kept): torch.zeros(0)})),
    "complex": weights(lambda kept: kept.update({first(kept): torch.zeros(3, dtype=torch.complex64)})),
    "whole numbers": weights(lambda kept: kept.update({k: v.long() for k, v in kept.items()})),
    "NaN": weights(lambda kept: kept[first(kept)].fill_(float("nan"))),
    "infinite": weights(lambda kept: kept[first(kept)].fill_(float("inf"))),
    "all NaN": weights(all_nan),
}


def test_strangers_weights(bench):
    bench.attempt_all(
        [
            stranger(name, file, content, words, codes, how, file)
            for name, content in SAFETENSORS.items()
            for file, words, codes, how in (
                ("ema.safetensors", SAMPLE, (2,), {}),
                ("model.safetensors", GO_ON, GOES, STOPPED),
            )
            if name != "whole numbers"
        ]
    )


def test_weights_that_are_no_numbers_make_no_picture(bench):
    "NaN weights end each command with a sentence; nothing is drawn, nothing measured."
    tries = []
    for words in (SAMPLE, ["test", "run"], ["genseq", "run", "--n", "1", "--steps", "2"]):
        for value in ("nan", "inf", "-inf"):
            change = weights(lambda kept, value=value: list(kept.values())[-1].fill_(float(value)))
            tries.append(
                stranger(f"{words[0]} {value}", "ema.safetensors", change, words, (2,), says="ema.safetensors")
            )
    bench.attempt_all(tries)


# -- pickles that would run something ----------------------------------------------------------------------------------


class Call:
    "Pickled as the call of a function."

    def __init__(self, function, *arguments):
        self.said = function, arguments

    def __reduce__(self):
        return self.said


class Named:
    "Pickled as the call of a function that is only named, as 'module name'."

    def __init__(self, name, argument):
        module, _, function = name.partition(" ")
        text = pickle.dumps(argument, 0)[:-1]
        self.raw = b"c" + module.encode() + b"\n" + function.encode() + b"\n(" + text + b"tR."


def payloads(mark):
    "Pickles that leave the file `mark` behind where they run, by name."
    touch = f"touch {mark}"
    python = f"open({str(mark)!r}, 'w')"
    calls = {
        "os.system": Call(os.system, touch),
        "subprocess.call": Call(subprocess.call, ["touch", str(mark)]),
        "subprocess.Popen": Call(subprocess.Popen, ["touch", str(mark)]),
        "eval": Call(eval, python),
        "exec": Call(exec, python),
        "open": Call(open, str(mark), "w"),
        "os.mkdir": Call(os.mkdir, str(mark)),
        "Path.touch": Call(Path.touch, Path(mark)),
        "pickle.loads": Call(pickle.loads, pickle.dumps(Call(os.system, touch))),
        "numpy.load": Call(np.load, str(mark), None, True),
        "numpy.save": Call(np.save, str(mark), 1),
        "torch.load": Call(torch.load, str(mark)),
        "torch.save": Call(torch.save, 1, str(mark)),
    }
    raw = {
        name: Named(name, argument).raw
        for name, argument in {
            "posix system": touch,
            "builtins eval": python,
            "__builtin__ exec": python,
            "runpy run_path": str(mark),
            "importlib import_module": "antigravity",
            "torch.serialization load": str(mark),
            "numpy ndarray": (1, 3072),
            "ddpm_course.run.runs load_plugin": str(mark),
            "torch._utils _rebuild_tensor": 5,
            "collections OrderedDict": 7,
            "functools partial": 7,
        }.items()
    }
    return {name: pickle.dumps(call) for name, call in calls.items()} | raw


def as_zip(content):
    "A pickle in the form that torch.save writes."
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in (("data.pkl", content), ("version", b"3\n"), ("byteorder", b"little")):
            archive.writestr(f"archive/{name}", data)
    return file.getvalue()


def nothing_ran(folder, result):
    return "it ran" if list(folder.parent.rglob("mark*")) else None


MARK = "mark"  # in the folder where the command runs


@pytest.mark.usefixtures("published")
def test_pickles_of_strangers_run_nothing(bench):
    "In a run's optimizer.pt, in published weights, in CIFAR-10's files; as they are, and as torch.save packs them."
    tries = []
    for name, content in payloads(MARK).items():
        for form, data in (("", content), (" packed", as_zip(content))):
            tries.append(
                stranger(name + form, "optimizer.pt", data, GO_ON, (2,), STOPPED, "optimizer.pt", after=nothing_ran)
            )
        tries.append(Try(f"published .bin: {name}", PUBLISHED, binary(content), (2,), ".bin", after=nothing_ran))
        for file in ("data_batch_1", "batches.meta"):
            tries.append(Try(f"{file}: {name}", CIFAR, batches(file, content), (2,), "cifar", after=nothing_ran))
    for name, content in strange_optimizers().items():
        codes = GOES if name in ("scaler of a number", "criterion of text") else (2,)  # this run has no use for them
        tries.append(stranger(name, "optimizer.pt", content, GO_ON, codes, STOPPED, "optimizer.pt"))
    bench.attempt_all(tries)


def strange_optimizers():
    "Contents of optimizer.pt that torch.load accepts, and no optimizer has."

    def saved(value):
        file = io.BytesIO()
        torch.save(value, file)
        return file.getvalue()

    def changed(change):
        def make(path):
            kept = torch.load(path, weights_only=True)
            change(kept)
            torch.save(kept, path)

        return make

    groups = "param_groups"
    return {
        **{
            f"the value {value!r:.20}": saved(value)
            for value in (None, 3, "x", [], {}, [1], {"optimizer": 1}, torch.zeros(3))
        },
        "no optimizer": changed(lambda k: k.pop("optimizer")),
        "optimizer of a list": changed(lambda k: k.update(optimizer=[])),
        "optimizer without state": changed(lambda k: k["optimizer"].pop("state")),
        "optimizer without groups": changed(lambda k: k["optimizer"].pop(groups)),
        "no groups": changed(lambda k: k["optimizer"][groups].clear()),
        "groups of numbers": changed(lambda k: k["optimizer"].update({groups: [1]})),
        "other parameters": changed(lambda k: k["optimizer"][groups][0].update(params=[0])),
        "state of text": changed(lambda k: k["optimizer"]["state"].update({0: "x"})),
        "rate of text": changed(lambda k: [g.update(lr="x", weight_decay="x") for g in k["optimizer"][groups]]),
        "no scaler": changed(lambda k: k.pop("scaler")),
        "scaler of a number": changed(lambda k: k.update(scaler=3)),
        "no window": changed(lambda k: k.pop("window")),
        "window of text": changed(lambda k: k.update(window="x")),
        "window of another shape": changed(lambda k: k.update(window=torch.zeros(2))),
        "criterion of text": changed(lambda k: k.update(criterion="x")),
    }


# -- published weights -------------------------------------------------------------------------------------------------

PUBLISHED = "sample --weights published --n 1 --steps 1 --guidance 1".split()


@pytest.fixture(scope="module")
def published(bench):
    "The tiny run's weights as a diffusers pipeline, beside the run."
    from ddpm_course.run.runs import load_run
    from ddpm_course.share.published import to_diffusers

    model, _ = load_run(bench.good / "run")
    config, state = to_diffusers(model.network, 8)
    folder = bench.good / "published"
    (folder / "unet").mkdir(parents=True)
    (folder / "scheduler").mkdir()
    (folder / "unet/config.json").write_text(json.dumps(config))
    save_file(state, folder / "unet/diffusion_pytorch_model.safetensors")
    scheduler = {"beta_schedule": "squaredcos_cap_v2", "num_train_timesteps": 20, "prediction_type": "v_prediction"}
    (folder / "scheduler/scheduler_config.json").write_text(json.dumps(scheduler))
    assert bench.run(PUBLISHED, bench.good).code == 0
    (bench.good / "samples.png").unlink()


def binary(content):
    "Published weights in the old form: a pickle."

    def prepare(folder):
        weights = folder / "published/unet/diffusion_pytorch_model.safetensors"
        weights.with_suffix(".bin").write_bytes(content)
        weights.unlink()

    return prepare


FULL_SCHEDULER = {
    "beta_schedule": "squaredcos_cap_v2",
    "prediction_type": "v_prediction",
    "variance_type": "fixed_small",
    "num_train_timesteps": 20,
    "beta_start": 1e-4,
    "beta_end": 0.02,
    "trained_betas": None,
    "rescale_betas_zero_snr": False,
    "thresholding": False,
    "clip_sample_range": 1.0,
}


@pytest.mark.usefixtures("published")
def test_published_folders(bench):
    "Each file damaged in each way, each setting missing or of another type; keys that are none of theirs."
    tries, unet, scheduler = [], "published/unet/config.json", "published/scheduler/scheduler_config.json"
    for name in (unet, scheduler, "published/unet/diffusion_pytorch_model.safetensors"):
        tries += by_file(bench, name, PUBLISHED, (0, 2), again=10**6, cuts=4, flips=5)
    for name, good in ((unet, (bench.good / unet).read_text()), (scheduler, json.dumps(FULL_SCHEDULER))):
        for what, text in wrong_typed(good, few=2):
            tries.append(Try(f"{name}: {what}", PUBLISHED, write(name, text), (0, 2), "published"))
    for T in (0, 1, 2, -5, 10**9, 2.5):
        text = json.dumps(FULL_SCHEDULER | {"num_train_timesteps": T})
        tries.append(Try(f"published T = {T}", PUBLISHED, write(scheduler, text), (0, 2), "published"))
    for name, value in (
        ("block_out_channels", [0, 0]),
        ("block_out_channels", []),
        ("block_out_channels", [10**6, 10**6]),
        ("layers_per_block", 10**7),
        ("layers_per_block", 0),
        ("norm_num_groups", 0),
        ("sample_size", 0),
        ("sample_size", 10**6),
        ("sample_size", [8, 8]),
        ("in_channels", 0),
        ("in_channels", 10**9),
        ("out_channels", 7),
        ("dropout", 7.0),
        ("num_class_embeds", 10**12),
    ):
        text = json.dumps(json.loads((bench.good / unet).read_text()) | {name: value})
        tries.append(Try(f"published {name} = {value}", PUBLISHED, write(unet, text), (0, 2), "published"))
    for name, content in SAFETENSORS.items():
        path = "published/unet/diffusion_pytorch_model.safetensors"
        tries.append(Try(f"published {name}", PUBLISHED, write(path, content), (0, 2), "published"))
    bench.attempt_all(tries)


# -- data --------------------------------------------------------------------------------------------------------------

CIFAR = ["train", "--data", "cifar", "--out", "new", *TINY, "--steps", 2]
DATA = ["train", "--data", "photos", "--out", "new", *TINY, "--steps", 2]
NEW = ("new*",)


def cifar(folder, **replace):
    "CIFAR-10's own files, 20 images each."
    draws = np.random.default_rng(0)
    folder.mkdir()
    for name in (*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"):
        data = draws.integers(0, 256, (20, 3072), dtype=np.uint8)
        batch = {b"data": data, b"labels": [k % 10 for k in range(20)]}
        (folder / name).write_bytes(pickle.dumps(batch, protocol=2))
    names = {b"label_names": [f"class {k}".encode() for k in range(10)]}
    (folder / "batches.meta").write_bytes(pickle.dumps(names, protocol=2))


def batches(file, content):
    def prepare(folder):
        cifar(folder / "cifar")
        (folder / "cifar" / file).write_bytes(content)

    return prepare


def forged_arrays():
    "Pickles of CIFAR-10's form whose arrays are none."
    from numpy.core.multiarray import _reconstruct

    def batch(data):
        return pickle.dumps({b"data": data, b"labels": [0] * 20}, protocol=2)

    def state(shape, kind, content, version=1, by_column=False):
        array = Call(_reconstruct, np.ndarray, (0,), b"b")
        array.said = (*array.said, (version, shape, kind, by_column, content))
        return array

    byte, thing = np.dtype("u1"), np.dtype("O")
    pixels = bytes(20 * 3072)
    return {
        "objects by call": batch(Call(np.ndarray, (1, 3072), thing, b"A" * 24576)),
        "objects by state": batch(state((20, 3072), thing, b"A" * 20 * 24576)),
        "dtype of objects": batch(Call(np.dtype, "O8", False, True)),
        "too little content": batch(state((20, 3072), byte, pixels[:-1])),
        "too much content": batch(state((20, 3072), byte, pixels + b"x")),
        "huge shape": batch(state((2**62, 4), byte, pixels)),
        "shape of text": batch(state("xy", byte, pixels)),
        "no content": batch(state((20, 3072), byte, None)),
        "list as content": batch(state((20, 3072), byte, [1, 2])),
        "floats": batch(np.zeros((20, 3072))),
        "other rows": batch(np.zeros((7, 3072), np.uint8)),
        "a number": batch(3),
        "text": batch("x"),
        "labels beyond": pickle.dumps({b"data": np.zeros((20, 3072), np.uint8), b"labels": [10**9] * 20}, 2),
        "labels of text": pickle.dumps({b"data": np.zeros((20, 3072), np.uint8), b"labels": ["x"] * 20}, 2),
        "labels of another number": pickle.dumps({b"data": np.zeros((20, 3072), np.uint8), b"labels": []}, 2),
        "a list": pickle.dumps([1, 2], 2),
        "a deep list": b"(l" * 200_000 + b"a" * 199_999 + b".",
        "memo of a terabyte": b"\x80\x02" + b"r\xff\xff\xff\x7f.",
        "bytes of a terabyte": b"\x80\x04\x8e" + (1 << 40).to_bytes(8, "little") + b".",
    }


def archive(*members):
    "Prepare cifar-10-python.tar.gz with members: (name, type, content or link)."

    def prepare(folder):
        (folder / "cifar").mkdir()
        with tarfile.open(folder / "cifar/cifar-10-python.tar.gz", "w:gz") as tar:
            for name, kind, content in members:
                info = tarfile.TarInfo(name)
                info.type = kind
                if kind == tarfile.REGTYPE:
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
                else:
                    info.linkname = content
                    tar.addfile(info)

    return prepare


def bomb(folder):
    "An archive of some kilobytes that holds a batch of 256 MB; theirs have 31."
    (folder / "cifar").mkdir()
    info = tarfile.TarInfo("cifar-10-batches-py/data_batch_1")
    info.size = 1 << 28
    packer = zlib.compressobj(1, zlib.DEFLATED, 31)
    with open(folder / "cifar/cifar-10-python.tar.gz", "wb") as file:
        file.write(packer.compress(info.tobuf()))
        block = bytes(1 << 24)
        for _ in range(info.size >> 24):
            file.write(packer.compress(block))
        file.write(packer.flush())


def test_cifars_files(bench):
    "Forged arrays, archives that reach out of their folder, bombs; and each damage of a batch."
    regular = tarfile.REGTYPE
    ways = {
        "../": ("../../mark", regular, b"x"),
        "absolute": ("/tmp/mark-of-a-tar", regular, b"x"),
        "link": ("data_batch_1", tarfile.SYMTYPE, "/etc/passwd"),
        "hard link": ("data_batch_1", tarfile.LNKTYPE, "/etc/passwd"),
        "device": ("data_batch_1", tarfile.CHRTYPE, ""),
        "fifo": ("data_batch_1", tarfile.FIFOTYPE, ""),
    }
    tries = [
        Try(f"archive: {name}", CIFAR, archive(member), (2,), "cifar", after=nothing_ran)
        for name, member in ways.items()
    ]
    tries += [Try(f"batch: {name}", CIFAR, batches("data_batch_1", c), (2,)) for name, c in forged_arrays().items()]
    tries.append(Try("archive: a bomb", CIFAR, bomb, (2,), "cifar"))
    good = pickle.dumps({b"label_names": [b"a"] * 10}, protocol=2)
    tries += [
        Try(f"batches.meta: {name}", CIFAR, batches("batches.meta", c), (143, 2), how=STOPPED, changes=NEW)
        for name, c in damages(good, 4, 8).items()
    ]
    bench.attempt_all(tries)


def test_images_that_are_none(bench):
    "One of 24 images is something else: over one in a hundred, so it is refused by name."
    good = (bench.good / "photos/cats/00.png").read_bytes()
    name = "photos/cats/00.png"
    tries = []
    for what, content in {**damages(good, 4, 6), **PLACES}.items():
        how = STOPPED | ({"plain": True} if what == "unreadable" else {})
        tries.append(Try(f"an image: {what}", DATA, write(name, content), GOES, how=how, changes=NEW))
    for what, make in {"a bomb": png_bomb, "very wide": wide, "an svg": b"<svg/>", "a pdf": b"%PDF-1.4"}.items():
        tries.append(Try(f"an image: {what}", DATA, write(name, make), GOES, how=STOPPED, changes=NEW))
    bench.attempt_all(tries)


def png_bomb(path):
    "A file of 60 KB that says it holds 60,000 x 60,000 pixels."
    size = (60_000).to_bytes(4, "big")
    parts = {b"IHDR": size + size + b"\x08\0\0\0\0", b"IDAT": zlib.compress(bytes(60_000_000), 9), b"IEND": b""}
    chunks = [
        len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")
        for kind, data in parts.items()
    ]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))


def wide(path):
    Image.new("L", (65_000, 1)).save(path)


NAMES = ("..cats", "猫", "🐱 é", "a,b", "-dash", "'quote'", "$HOME `id`", "a\nb")


def test_class_folders_of_any_name(bench):
    "A run on two classes of which one has an odd name: it trains, its `next:` line works, nothing lies elsewhere."
    words, tries = [*DATA[:-1], 1], []

    def next_line(folder, result):
        if "next:  " not in result.out:
            return "no next line"
        run = 'ddpm() { printf "%s\\0" "$@"; }; ' + result.out.split("next:  ")[1].split("      ")[0]
        said = subprocess.run(["bash", "-c", run], capture_output=True, cwd=folder).stdout.decode().split("\0")[:-1]
        done = bench.run([*said, "--n", "1", "--steps", "1"], folder)
        return f"{said}: {done.err}" if done.code else None

    for name in NAMES:
        prepare = lambda folder, name=name: photos(folder / "photos", [f"{name}{k}" for k in range(6)], 10)
        tries.append(Try(f"a class {name!r:.20}", words, prepare, (0,), changes=NEW, after=next_line))
    bench.attempt_all(tries)


def test_class_names_of_strangers_reach_nowhere(bench):
    "Names in config.json that lead out of the folder of --images, or are none."
    words, tries = [*SAMPLE, "--images", "im/inner"], []

    def stays(folder, result):
        inside = {"here", "here/im", "here/im/inner"}
        beside = [p for p in (folder / "im").glob("*") if p.name != "inner"] if (folder / "im").exists() else []
        return f"written beside {inside}: {beside}" if beside else None

    for name in (
        "..",
        ".",
        "../x",
        "../../x",
        "/tmp/x",
        "a/../../../x",
        "",
        "a\0b",
        "\n",
        "x" * 300,
        "..\\x",
        "con",
        "🐱",
    ):
        change = lambda folder, name=name: edit(
            folder / "run/config.json", lambda c: c["data"].update(classes=[name, "b"])
        )
        tries.append(Try(f"a class called {name!r:.30}", words, change, (0, 2), changes=("im*",), after=stays))
    for names in (["a", "a"], ["a"], [], ["a", "b", "c"], [1, 2], "ab", [["a"], ["b"]], ["a"] * 100_000):
        change = lambda folder, names=names: edit(folder / "run/config.json", lambda c: c["data"].update(classes=names))
        tries.append(Try(f"classes {names!r:.30}", words, change, (0, 2), changes=("im*",), after=stays))
    bench.attempt_all(tries)


def edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_folders_of_data(bench):
    "Folders that hold runs, that hold nothing, that may not be read, that lead in circles."
    flat = lambda folder: [picture(folder / f"flat/{k}.png", np.random.default_rng(k)) for k in range(24)]
    tries = []
    for out in ("run1", "runs/run1"):
        for data, prepare in (("flat", flat), ("photos", lambda folder: None)):
            words = ["train", "--data", data, "--out", f"{data}/{out}", *TINY, "--steps"]

            def second(folder, result, words=words):
                more = bench.run([*words, 3], folder, code=STOP)
                return None if more.code == 143 else f"the second start: {more.err}"

            tries.append(
                Try(
                    f"{data} that holds {out}",
                    [*words, 2],
                    prepare,
                    (143,),
                    how=STOPPED,
                    changes=(f"{data}/run*",),
                    after=second,
                )
            )
    for name, prepare in {
        "nothing": lambda f: (f / "data").mkdir(),
        "empty classes": lambda f: [(f / f"data/{n}").mkdir(parents=True) for n in "ab"],
        "one image": lambda f: picture(f / "data/a/0.png", np.random.default_rng(0)),
        "a circle": lambda f: ((f / "data/a").mkdir(parents=True), (f / "data/a/b").symlink_to("..")),
        "a fifo": lambda f: (photos(f / "data"), os.mkfifo(f / "data/cats/x.png")),
        "a socket of a name": lambda f: (photos(f / "data"), os.mkfifo(f / "data/fifo")),
        "only text": lambda f: ((f / "data").mkdir(), (f / "data/a.txt").write_text("x")),
        "train alone": lambda f: photos(f / "data/train"),
        "a link to itself": lambda f: (f / "data").symlink_to("data"),
        "images beside folders": lambda f: (photos(f / "data"), picture(f / "data/x.png", np.random.default_rng(0))),
    }.items():
        words = ["train", "--data", "data", "--out", "new", *TINY, "--steps", 2]
        tries.append(Try(f"data: {name}", words, prepare, GOES, how=STOPPED, changes=NEW))
    closed = lambda f: (photos(f / "data"), (f / "data/cats").chmod(0))
    words = ["train", "--data", "data", "--out", "new", *TINY, "--steps", 2]
    tries.append(Try("data: a closed folder", words, closed, (2,), "cats", {"plain": True}))
    bench.attempt_all(tries)


# -- the cache of decoded images ---------------------------------------------------------------------------------------


def kept(folder):
    "The one folder in the cache."
    return next(path for path in (folder / "cache").iterdir() if path.is_dir())


def in_cache(name, content):
    return lambda folder: write(name, content)(kept(folder))


def test_damaged_cache(bench):
    "It is made anew or refused, and never believed: the run that goes on has the digest of its data."
    tries = []
    good = {name: (kept(bench.good) / name).read_bytes() for name in ("kept.json", "pixels.npy")}
    for name, content in good.items():
        kinds = {**damages(content, 5, 24), **(JSON if name == "kept.json" else {}), **PLACES}
        for what, damage in kinds.items():
            how = STOPPED | ({"plain": True} if what == "unreadable" else {})
            tries.append(Try(f"{name}: {what}", GO_ON, in_cache(name, damage), (143,), how=how, changes=("cache*",)))
    for what, text in wrong_typed(good["kept.json"]):
        if not any(f"labels.{k}" in what for k in range(1, 30)):
            prepare = in_cache("kept.json", text)
            tries.append(Try(f"kept.json: {what}", GO_ON, prepare, (143,), how=STOPPED, changes=("cache*",)))
    for what, array in {
        "floats": np.zeros((24, 1, 8, 8)),
        "objects": np.full((24, 1, 8, 8), None),
        "fewer": np.zeros((3, 1, 8, 8), np.uint8),
        "flat": np.zeros(9, np.uint8),
    }.items():
        prepare = in_cache("pixels.npy", npy(array, allow_pickle=True))
        tries.append(Try(f"pixels.npy, an array: {what}", GO_ON, prepare, (143,), how=STOPPED, changes=("cache*",)))
    bench.attempt_all(tries)


def test_cache_that_cannot_be(bench):
    "A cache folder that is a file, read-only, a link to nowhere, on a full disk: the images are decoded into memory."

    def other(make):
        def prepare(folder):
            shutil.rmtree(folder / "cache")
            make(folder / "cache")

        return prepare

    ways = {
        "a file": lambda path: path.write_text("x"),
        "read-only": lambda path: path.mkdir(0o555),
        "link to nowhere": lambda path: path.symlink_to("/nowhere/at/all"),
        "link to itself": lambda path: path.symlink_to("cache"),
        "a fifo": lambda path: os.mkfifo(path),
    }
    tries = [
        Try(f"the cache is {name}", GO_ON, other(make), (143,), how={**STOPPED, "plain": True}, changes=("cache*",))
        for name, make in ways.items()
    ]

    def locked(folder):
        shutil.rmtree(kept(folder))
        for path in (folder / "cache").glob("*.lock"):
            path.unlink()
            path.symlink_to(folder / "photos/cats/00.png")

    tries.append(Try("the cache's lock is a link", GO_ON, locked, (143,), how=STOPPED, changes=("cache*",)))
    bench.attempt_all(tries)


# -- ends at each moment -----------------------------------------------------------------------------------------------

AT = """
import os, sys, signal
left = [{k}]
def watch(event, args):
    changes = event in ("os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.link", "os.truncate", "os.chmod")
    if event == "open":
        changes = isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    path = str(args[0]) if args and isinstance(args[0], (str, os.PathLike)) else ""
    if changes and {inside!r} in path:
        left[0] -= 1
        if left[0] == 0:
            {act}
sys.addaudithook(watch)
"""
KILL = "os.kill(os.getpid(), signal.SIGKILL)"
DOES = {
    "is killed": KILL,
    "has no space": "raise OSError(28, 'No space left on device', path)",
    "fails": "raise OSError(5, 'Input/output error', path)",
}
MOMENTS = 26  # changes of the folder in a start that makes one step and saves it


@pytest.mark.parametrize("what", DOES)
def test_end_at_each_change_of_a_run(bench, what):
    "A start that ends at its k-th change of the folder: what was saved is there, and the next start goes on."

    def goes_on(folder, result):
        if what == "is killed" and not newest_checkpoint(folder / "run"):
            return "no checkpoint"
        sampled, more = bench.run(SAMPLE, folder), bench.run(GO_ON, folder, code=STOP)
        step = newest_checkpoint(folder / "run").name
        good = (sampled.code, more.code) == (0, 143) and step > "step_00000004"
        return None if good else f"no next start: {sampled.err}{more.err}"

    tries = [
        Try(
            f"a run that {what} at change {k}",
            GO_ON,
            codes=(-9, 143) if what == "is killed" else (2, 143),
            how={"code": STOP + AT.format(k=k, inside="run/", act=DOES[what])},
            changes=("run/config.json*", "run/metrics.jsonl*", "run/checkpoints/.*"),
            after=goes_on if k % (2 if what == "is killed" else 5) == 1 else lambda folder, result: None,
        )
        for k in range(1, MOMENTS)
    ]
    bench.attempt_all(tries)


@pytest.mark.parametrize("what", DOES)
def test_end_at_each_change_of_a_cache(bench, what):
    "The same while the images are decoded for the first time."

    def prepare(folder):
        shutil.rmtree(folder / "cache")

    def goes_on(folder, result):
        more = bench.run(GO_ON, folder, code=STOP)
        left = [path.name for path in (folder / "cache").glob("*.part")] if (folder / "cache").exists() else []
        return more.err if more.code != 143 else f"left: {left}" if left and what == "is killed" else None

    tries = [
        Try(
            f"a cache whose maker {what} at change {k}",
            GO_ON,
            prepare,
            (-9, 143) if what == "is killed" else (143,),
            how={"code": STOP + AT.format(k=k, inside="cache", act=DOES[what])},
            after=goes_on if k % 2 else lambda folder, result: None,
        )
        for k in range(1, 13)
    ]
    bench.attempt_all(tries)


@contextmanager
def small_disk(folder, size):
    "A disk of so many bytes; skips the test where nobody may mount one."
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", folder], capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"no disk can be mounted here ({done.stderr.strip()}): the tries with a largest file stand for it")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def test_a_full_disk(bench):
    "A run on a disk of ten sizes: one sentence with the file's name; with room it goes on."
    used = sum(path.stat().st_size for path in (bench.good / "run").rglob("*") if path.is_file())
    one = sum(path.stat().st_size for path in (bench.good / NEWEST).iterdir())
    for k in range(10):
        folder = bench.folder()
        disk = folder / "disk"
        disk.mkdir()
        with small_disk(disk, (used + one * k // 8 + 4096 * 24) // 4096 * 4096):
            shutil.copytree(bench.good / "run", disk / "run")
            before = everything(disk / "run/checkpoints")
            words = [str(word).replace("run", "disk/run") if word == "run" else word for word in GO_ON]
            result = bench.run(words, folder, code=STOP)
            bench.known, bench.tried = bench.known + 1, bench.tried + 1
            now = everything(disk / "run/checkpoints")
            assert result.code in (2, 143) and result.ended and "Traceback" not in result.err, result
            assert result.code == 143 or ("No space left" in result.err and "disk/run" in result.err), result
            assert all(now.get(name) == content for name, content in before.items())
            bench.survived += 1
        shutil.rmtree(folder.parent)


def test_a_largest_file(bench):
    "No file may grow beyond so many bytes, as on a full disk: for a run that begins, one that goes on, and results."
    tries = []
    for size in (1000, 5000, 20_000, 100_000, 150_000, 200_000, 400_000):
        how = {"file_size": size}
        grown = ("run/config.json*", "run/metrics.jsonl*", "run/checkpoints/.*", "cache*")
        tries += [
            Try(f"going on, files of {size}", GO_ON, codes=GOES, how={**STOPPED, **how}, changes=grown, again=True),
            Try(f"beginning, files of {size}", DATA, codes=GOES, how={**STOPPED, **how}, changes=(*NEW, "cache*")),
            Try(f"a grid, files of {size}", SAMPLE, codes=(0, 2), how=how),
            Try(f"arrays, files of {size}", [*SAMPLE, "--npz", "s.npz", "--out", "s.png"], codes=(0, 2), how=how),
        ]
    for size in (10_000, 100_000):
        tries.append(Try(f"numbers, files of {size}", ["test", "run"], codes=(0, 2), how={"file_size": size}))
    bench.attempt_all(tries)


# -- places that cannot be written or read -----------------------------------------------------------------------------


def test_permissions(bench):
    "Folders and files that this user may not read or write: said before the work, and nothing is called damaged."
    plain = {"plain": True}

    def closed(*names, mode=0o555):
        return lambda folder: [(folder / name).chmod(mode) for name in names]

    grid = {"--out": "locked/s.png", "--npz": "locked/s.npz", "--images": "locked/pngs"}
    locked = lambda folder: (folder / "locked").mkdir(0o555)
    tries = []
    early, going = {**plain, "code": NO_WORK}, {**plain, **STOPPED}
    for flag, path in grid.items():
        words = [*SAMPLE, "--out", "s.png", flag, path]
        tries.append(Try(f"sample {flag} locked", words, locked, (2,), "locked", early))
    new, here = ["train", "--data", "photos", "--out", "locked/new", *TINY], ["sample", "--n", "1", "--steps", "1"]
    tries += [
        Try("test --out locked", ["test", "run", "--out", "locked/t.json"], locked, (2,), "locked", early),
        Try("genseq --out locked", ["genseq", "run", "--out", "locked/f.gif"], locked, (2,), "locked", early),
        Try("topology --out locked", ["topology", "--out", "locked/t"], locked, (2,), "locked", plain),
        Try("train --out locked", new, locked, (2,), "locked", going),
        Try("sample in a locked run", SAMPLE, closed("run"), (2,), "run", early),
        Try("train in a locked run", GO_ON, closed("run"), (2,), "run", going),
        Try("checkpoints locked", GO_ON, closed("run/checkpoints"), (2,), "checkpoints", going, GO),
        Try("the log locked", GO_ON, closed("run/metrics.jsonl", mode=0o444), GOES, "run", going, GO),
        Try("the lock locked", GO_ON, closed("run/.lock", mode=0), GOES, "run", going),
        Try("photos locked", DATA, closed("photos", mode=0), (2,), "photos", plain),
        Try("here locked", here, lambda folder: folder.chmod(0o555), (2,), "samples.png", early),
    ]
    for name in ("ema.safetensors", "meta.json"):
        prepare = closed(f"{NEWEST}/{name}", mode=0)
        tries.append(Try(f"{name} of another user", SAMPLE, prepare, (2,), "Permission denied", plain))
    for name in (NEWEST, "run/checkpoints", "run/config.json"):
        tries.append(Try(f"{name} of another user", SAMPLE, closed(name, mode=0), (2,), "ermission", plain))
    bench.attempt_all(tries)


GO = ("run/config.json*", "run/metrics.jsonl*", "run/checkpoints/.*")
NO_WORK = """
from ddpm_course import sampling
from ddpm_course.run import heldout
def never(*args, **kwargs):
    raise AssertionError('the work began, and its result cannot be kept')
sampling.walk = sampling.draw = never
heldout.heldout_draws = never
"""  # a command that is refused must be refused before it draws


def test_outputs_that_are_something_else(bench):
    "A result whose place is taken by a folder, a device, a link to another file, a FIFO."
    tries = []
    for what, make in {
        "a folder": lambda path: path.mkdir(),
        "link to nowhere": lambda path: path.symlink_to("/nowhere/x.png"),
        "link to itself": lambda path: path.symlink_to(path.name),
    }.items():
        for words in (["--out", "s.png"], ["--npz", "s.png"]):
            prepare = lambda folder, make=make: make(folder / "s.png")
            tries.append(Try(f"sample {words[0]} {what}", [*SAMPLE, *words], prepare, (2,), "s.png", {"code": NO_WORK}))
    for name in (".lock", "metrics.jsonl.new", "config.json.new", "checkpoints/.writing", "checkpoints/.dropped"):

        def hung(folder, name=name):
            path = folder / "run" / name
            if path.is_file():
                path.unlink()
            path.symlink_to(folder / "photos/cats/00.png")

        tries.append(Try(f"a run's {name} is a link to a photo", GO_ON, hung, GOES, how=STOPPED, changes=("run/*",)))
    for name, target in (
        ("samples.png", "photos/cats/00.png"),
        ("test.json", "photos/cats/01.png"),
        ("checkpoints", "away"),
    ):

        def outside(folder, name=name, target=target):
            path = folder / "run" / name
            if name == "checkpoints":
                path.rename(folder / target)
            else:
                path.unlink(missing_ok=True)
            path.symlink_to(folder / target)

        words = ["test", "run"] if name == "test.json" else SAMPLE
        tries.append(Try(f"a stranger's {name} is a link", words, outside, (0, 2)))
    bench.attempt_all(tries)


def test_results_that_are_gone(bench):
    "A finished run whose pictures are empty or gone makes them again; one of no steps more is left alone."
    words, tries = [*TRAIN, 4], []
    for name in ("loss.png", "samples.png", "denoising.gif"):
        for what, change in {"empty": b"", "gone": Path.unlink}.items() if name == "loss.png" else [("empty", b"")]:

            def made(folder, result, name=name):
                return None if (folder / "run" / name).stat().st_size else "not made again"

            tries.append(Try(f"{name} {what}", words, write(f"run/{name}", change), (0,), after=made))
    tries.append(Try("finished", words, codes=(0,)))
    tries.append(Try("finished, and no log", words, write("run/metrics.jsonl", Path.unlink), (0, 2)))
    tries.append(
        Try(
            "no log, no picture",
            words,
            lambda f: [(f / "run" / n).unlink() for n in ("metrics.jsonl", "loss.png")],
            (0, 2),
        )
    )
    bench.attempt_all(tries)


# -- words -------------------------------------------------------------------------------------------------------------

NUMBERS = (
    "-1",
    "0",
    "1e30",
    "10000000000",
    "99999999999999999999999999",
    "nan",
    "inf",
    "",
    "x",
    "0x10",
    "٣",
    "1_0",
    "1.5",
)


def test_absurd_numbers(bench):
    "Each flag that takes a number, with each number that makes no sense: a sentence, or the command does what it says."
    quick, draws = {"code": STOP}, random.Random(0)
    tries = []
    for flag in (
        "size image-channels T channels blocks dropout groups steps batch lr warmup weight-decay clip ema label-drop "
        "seed accumulate threads log-every save-every grid-every keep multipliers attention"
    ).split():
        for value in draws.sample(NUMBERS, 4):
            words = ["train", "--data", "photos", "--out", "new", *TINY, "--steps", 2, f"--{flag}={value}"]
            grown = (*NEW, "cache*")
            tries.append(Try(f"train --{flag} {value}", words, codes=(0, 143, 2), how=quick, changes=grown))
    for flag in ("steps", "guidance", "eta", "seed", "n", "strength", "rounds", "to-seed"):
        for value in draws.sample(NUMBERS, 6):
            tries.append(Try(f"sample --{flag} {value}", [*SAMPLE, f"--{flag}={value}"], codes=(0, 2)))
    for value in (*NUMBERS, "1", "10" * 20):
        tries.append(
            Try(f"test --fid {value}", ["test", "run", f"--fid={value}"], codes=(2,), how={"code": NO_WORK}, warns=True)
        )
    for value in ("-1", "0", "x", "", "1.5", "nan"):
        tries.append(Try(f"--nproc {value}", [*SAMPLE, f"--nproc={value}"], codes=(2,)))
    bench.attempt_all(tries)


SENTENCES = [
    # words, what is said; each ends with code 2 before any work
    ("train --preset cifar10 --data photos --out new --size 48", "--attention"),
    ("sample run --debug=3", "--debug"),
    ("test run --sampler foo", "--sampler"),
    ("test run --steps 5 --seed 1", "--steps"),
    ("test run --fid 5 --sampler foo", "sampler"),
    ("test run --fid 5 --steps 99", "steps"),
    ("sample run --n 10000000000", "--n"),
    ("train --data photos --out new --blocks 1000000", "blocks"),
    ("train --data photos --out new --threads 20000", "threads"),
    ("train --data photos --out new --channels 1000000", "channels"),
    ("train --data photos --out new --multipliers 1,99999999999", "multipliers"),
    ("train --data photos --out new --steps 1" + "0" * 26, "steps"),
    ("train --data photos --out new --batch 2 --accumulate 9", "batch of 2"),
    ("sample ''", "empty"),
    ("sample ' '", "holds no run"),
    ("train --data '' --out new", "empty"),
    ("train --data photos --out ''", "empty"),
    ("test ''", "empty"),
    ("sample run --out ''", "empty"),
    ("sample run --classes ''", "empty"),
    ("sample run --npz ''", "empty"),
    ("sample --weights ''", "empty"),
    ("train --data photos --out run/config.json", "config.json"),
    ("train --data photos --out photos", "photos"),
    ("train --data run --out new", "run"),
    ("sample photos", "photos"),
    ("sample run/config.json", "config.json"),
    ("sample run/checkpoints", "checkpoints"),
    ("sample nowhere/at/all", "nowhere"),
    ("sample /dev/null", "/dev/null"),
    ("sample run --plugin nothing.py", "nothing.py"),
    ("sample run --from nothing.png", "nothing.png"),
    ("sample run --from run/config.json", "config.json"),
    ("sample run --from photos", "photos"),
    ("sample run --from /dev/zero", "/dev/zero"),
    ("sample run --device gpu", "gpu"),
    ("sample run --classes a,b", "expected some of"),
    ("topology --channels 7", "channels"),
    ("bogus", "bogus"),
]


def test_words_that_are_refused(bench):
    import shlex

    bench.attempt_all(
        [Try(words, shlex.split(words), codes=(2,), says=said, how={"code": NO_WORK}) for words, said in SENTENCES]
    )


def test_a_refused_start_leaves_the_folder_free(bench):
    "A start that is refused, or diverges at once, and then the corrected one in the same folder."
    good = ["train", "--data", "photos", "--out", "new", *TINY, "--steps", 2]

    def corrected(folder, result):
        more = bench.run(good, folder, code=STOP)
        return None if more.code == 143 else more.err

    wrong = {
        "accumulate 9": (["--accumulate", 9], {}),
        "unknown loss": (["--loss", "foo"], {}),
        "unknown decay": (["--decay", "foo"], {}),
        "unknown schedule": (["--schedule", "foo"], {}),
        "too much memory": (["--batch", 8], {"code": STOP + NO_MEMORY}),
        "a very wide network": (["--channels", 8192, "--multipliers", "64,64"], {"code": STOP}),
        "a loss that is no number": (["--lr", 1], {"code": NAN_LOSS}),
    }
    tries = [
        Try(f"refused: {name}", [*good, *words], codes=(2,), how=how, changes=(*NEW, "cache*"), after=corrected)
        for name, (words, how) in wrong.items()
    ]
    bench.attempt_all(tries)


NAN_LOSS = """
from ddpm_course.run import training
honest = training.Simple.losses
training.Simple.losses = lambda *args: {name: value * float('nan') for name, value in honest(*args).items()}
"""
NO_MEMORY = """
import torch
def full(*args, **kwargs):
    raise torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of ...')
torch.nn.Conv2d.forward = full
"""


def test_memory_that_runs_out_is_advice(bench):
    "On a GPU and on the CPU: what can be made smaller is said."
    cpu = """
import torch
def full(*args, **kwargs):
    raise RuntimeError("[enforce fail at alloc_cpu.cpp:118] err == 0. DefaultCPUAllocator: can't allocate memory: you "
                       "tried to allocate 4096000000 bytes. Error code 12 (Cannot allocate memory)")
torch.nn.Conv2d.forward = full
"""
    tries = []
    for where, code in (("GPU", NO_MEMORY), ("CPU", cpu)):
        tries += [
            Try(
                f"training, {where} memory", GO_ON, nothing, (2,), "--accumulate", {"code": STOP + code}, GO, again=True
            ),
            Try(f"sampling, {where} memory", SAMPLE, nothing, (2,), "--n", {"code": code}),
        ]
    bench.attempt_all(tries)


# -- losses that are no numbers ----------------------------------------------------------------------------------------


def test_losses_that_are_no_numbers(bench):
    "NaN and infinity, at once, later, in the gradient alone: said, and the last checkpoint is intact."
    at = """
from ddpm_course.run import training
honest, calls = training.Simple.losses, [0]
def losses(self, model, batch):
    found = honest(self, model, batch)
    calls[0] += 1
    if calls[0] >= {k}:
        {act}
    return found
training.Simple.losses = losses
"""
    acts = {
        "NaN": "found['loss'] = found['loss'] * float('nan')",
        "infinity": "found['loss'] = found['loss'] * float('inf')",
        "a NaN gradient": "found['loss'].register_hook(lambda g: g * float('nan'))",
    }
    tries = []
    for name, act in acts.items():
        for k in (1, 2, 3):
            code = at.format(k=k, act=act)
            how = {"code": code}
            tries.append(Try(f"{name} from step {k}", GO_ON, nothing, (2,), "smaller --lr", how, GO, again=True))
    tries += [
        Try(f"--lr {lr}", [*DATA[:-1], 20, "--lr", lr, "--clip", "1e12"], codes=(0, 2), changes=(*NEW, "cache*"))
        for lr in ("1e6", "1e5")
    ]
    bench.attempt_all(tries)


# -- signals -----------------------------------------------------------------------------------------------------------


def at_record(k, act):
    "Code of a child: does something after the k-th step."
    return f"""
import os, signal, threading, time
from ddpm_course.cli import train as train_command
honest, calls = train_command.must_stop, [0]
def watched(interrupt, group):
    calls[0] += 1
    if calls[0] == {k}:
        {act}
    return honest(interrupt, group)
train_command.must_stop = watched
"""


def test_signals(bench):
    "Ctrl-C, SIGTERM and a closing terminal: saved, said how to go on; other ends leave the last checkpoint intact."
    tries = []

    def saved(folder, result):
        step = newest_checkpoint(folder / "run").name
        if step != "step_00000005":
            return f"{step} is the last that was saved"
        more = bench.run(GO_ON, folder, code=STOP)
        return None if more.code == 143 and "continuing" in more.out else more.err

    def intact(folder, result):
        more = bench.run(GO_ON, folder, code=STOP)
        return None if more.code == 143 else more.err

    for kind in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        code = at_record(1, f"os.kill(os.getpid(), {int(kind)})")
        tries.append(Try(f"{kind.name} after a step", GO_ON, codes=(128 + kind,), how={"code": code}, after=saved))
        code = at_record(1, f"os.kill(os.getpid(), {int(kind)}); os.kill(os.getpid(), {int(kind)})")
        tries.append(Try(f"{kind.name} twice", GO_ON, codes=(128 + kind,), how={"code": code}, after=saved))
    for kind in (signal.SIGQUIT, signal.SIGKILL, signal.SIGABRT, signal.SIGSEGV):
        code = at_record(1, f"os.kill(os.getpid(), {int(kind)})")
        tries.append(
            Try(f"{kind.name} after a step", GO_ON, codes=(-kind,), how={"code": code}, after=intact, changes=GO)
        )
    code = at_record(1, "os.kill(os.getpid(), 1)")
    gone = {"code": code, "stdout": "gone", "stderr": "gone"}
    tries.append(Try("a terminal that closes", GO_ON, codes=(129,), how=gone, after=saved))
    code = "import signal\nsignal.signal(signal.SIGHUP, signal.SIG_IGN)\n" + at_record(
        1, "os.kill(os.getpid(), 1); calls[0] = 99"
    )
    tries.append(Try("SIGHUP under nohup", [*TRAIN, 6], codes=(0,), how={"code": code}))
    for kind in (signal.SIGINT,):
        for moment in ("ddpm_course.sampling.walk", "ddpm_course.cli.train.load_data"):
            module, name = moment.rsplit(".", 1)
            code = f"import os, {module} as m\nm.{name} = lambda *a, **k: os.kill(os.getpid(), {int(kind)})\n"
            words = SAMPLE if "walk" in moment else GO_ON
            tries.append(Try(f"{kind.name} in {name}", words, codes=(130,), how={"code": code}))
    bench.attempt_all(tries)


def test_two_runs_in_one_folder(bench):
    "The second is refused, the first goes on; a lock that the disk refuses keeps nobody out."
    second = f"""
import os
def start_second():
    pid = os.fork()
    if pid == 0:
        from ddpm_course.cli import main as cli
        try:
            cli.main({[str(word) for word in GO_ON]!r})
        except SystemExit as end:
            import sys
            sys.stderr.flush()
            os._exit(end.code)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
"""
    code = second + at_record(1, "assert start_second() == 2; interrupt.signal = 15")
    both = Try("a second start", GO_ON, codes=(143,), how={"code": code}, after=lambda folder, result: None
               if "another process is training in run" in result.err else result.err)  # fmt: skip
    refused = """
import fcntl
def flock(*args):
    raise OSError({number}, 'no locks')
fcntl.flock = flock
"""
    tries = [both]
    for number in (37, 38, 95):  # ENOLCK, ENOSYS, EOPNOTSUPP
        code = STOP + refused.format(number=number)
        tries.append(Try(f"locks refused with {number}", GO_ON, codes=(143,), how={"code": code}))
    bench.attempt_all(tries)


# -- streams, languages, environments ----------------------------------------------------------------------------------


def test_streams(bench):
    "Closed, full and unread streams, ASCII: the work is done and kept, whoever listens."
    tries = []

    def finished(folder, result):
        return None if newest_checkpoint(folder / "run").name == "step_00000006" else "not finished"

    def tested(folder, result):
        return None if (folder / "run/test.json").exists() else "no test.json"

    for stream in ("stdout", "stderr"):
        for how in ("closed", "full", "gone", "ascii"):
            codes = (0,)
            tries.append(Try(f"train, {stream} {how}", [*TRAIN, 6], codes=codes, how={stream: how}, after=finished))
            tries.append(Try(f"test, {stream} {how}", ["test", "run"], codes=codes, how={stream: how}, after=tested))
            tries.append(Try(f"a grid, {stream} {how}", SAMPLE, codes=codes, how={stream: how}))
            tries.append(Try(f"a refusal, {stream} {how}", ["sample", "x"], codes=(2,), how={stream: how}))
    for env in (
        {"HOME": None, "DDPM_CACHE": None},
        {"HOME": "/nowhere", "DDPM_CACHE": None, "XDG_CACHE_HOME": None},
        {"LANG": "C", "LC_ALL": "C"},
        {"TERM": None, "COLUMNS": "0"},
        {"TMPDIR": "/nowhere"},
        {"MPLBACKEND": "nonsense"},
        {"COLUMNS": "-5", "LINES": "x"},
    ):
        tries.append(Try(f"train, {env}", [*TRAIN, 6], codes=(0,), how={"env": env}, after=finished))
    for umask in (0o077, 0o000, 0o022):
        expected = 0o666 & ~umask

        def modes(folder, result, expected=expected):
            found = {p.stat().st_mode & 0o777 for p in (folder / "run/checkpoints/step_00000006").iterdir()}
            return None if found == {expected} else f"modes {found}"

        tries.append(Try(f"umask {umask:o}", [*TRAIN, 6], codes=(0,), how={"umask": umask}, after=modes))
    bench.attempt_all(tries)


def test_names_of_any_kind(bench):
    "Runs and results in folders whose names are of any language, or of none."
    tries = []
    for name in (
        "a b",
        "ü",
        "猫/🐱",
        "-x",
        "$HOME",
        "a'b",
        "a\nb",
        "\udcff\udcfe",
        "x" * 250,
        "x" * 300,
        "a/" * 60 + "b",
    ):

        def sampled(folder, result, name=name):
            more = bench.run(["sample", "--n", "1", "--steps", "1", "--", name], folder)
            return None if more.code == 0 and more.out.startswith("wrote") else more.err

        words = ["train", "--data", "photos", *TINY, "--steps", 1, f"--out={name}"]
        codes = (2,) if len(name) == 300 else (143,)
        after = {} if codes == (2,) else {"after": sampled}
        tries.append(
            Try(f"--out {name!r:.20} ({len(name)})", words, codes=codes, how=STOPPED, changes=(*NEW, "cache*"), **after)
        )
    bench.attempt_all(tries)


SOON = """
import ddpm_course.run.distributed as d
d.join.__wrapped__.__defaults__ = ('auto', False, 3.0)
"""  # others are waited for three seconds


def test_environments_of_clusters(bench):
    "A process that believes to be one of several, and whose variables cannot be true: a sentence, at once."
    full = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
    tries = []
    for name in full:
        for value in (None, "", "x", "-1", "99999999999", "1.5"):
            if (name, value) in (("LOCAL_RANK", None), ("RANK", None)) or name == "MASTER_ADDR" and value:
                continue
            if name.startswith("MASTER") and value == "":  # PyTorch's own sentence has the word Error in it
                continue
            env = {"LOCAL_WORLD_SIZE": "1", **full, name: value}
            how = {
                "env": env,
                "code": SOON,
            }
            tries.append(Try(f"{name} = {value}", SAMPLE, codes=(2,), how=how))
    how = {"env": full | {"WORLD_SIZE": "0"}}
    tries.append(Try("WORLD_SIZE 0", SAMPLE, codes=(2,), how=how))
    tries.append(Try("RANK 5 of 2", SAMPLE, codes=(2,), how={"env": full | {"RANK": "5", "WORLD_SIZE": "2"}}))
    tries.append(Try("srun", SAMPLE, codes=(2,), says="srun", how={"env": {"SLURM_STEP_NUM_TASKS": "4"}}))
    bench.attempt_all(tries)


def test_processes(bench):
    "Code in the current folder is not run by workers; a worker that is killed is said in a sentence."
    trap = lambda folder: (folder / "torch.py").write_text("open('mark', 'w'); raise SystemExit(3)\n")
    words = [*SAMPLE, "--nproc", "2"]
    kill = """
from ddpm_course.run import launch as processes
honest = processes.wait
def wait(started, signals):
    import signal, time
    time.sleep(0.3)
    started[1].send_signal(signal.SIGKILL)
    return honest(started, signals)
processes.wait = wait
"""
    bench.attempt_all(
        [
            Try("torch.py in the folder", words, trap, (0,), after=nothing_ran),
            Try("a worker is killed", words, codes=(2,), says="SIGKILL", how={"code": kill}),
        ]
    )


def test_zz_what_was_tried(bench):
    "The count of this file, shown at the end of the tests."
    slow = sorted(bench.slowest, reverse=True)[:5]
    line = f"{bench.tried} of {bench.known} faults tried, {bench.survived} survived; "
    line += f"the longest took {slow[0][0]:.1f} s ({slow[0][1]})"
    helpers.PROMISES.append(line)
    print(line, *slow, sep="\n")
    assert not [what for what in bench.failures if "Traceback" in what or "no end" in what]
    assert bench.tried == bench.survived
