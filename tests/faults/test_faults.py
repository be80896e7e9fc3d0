"""Faults that are really tried, each in a process of its own: damaged files, full disks, signals, strangers' folders.

Whatever happens: the command ends, well or with code 2 and one sentence; what was saved before is still there byte for
byte, and the next good start works. A few of each kind are tried by default, all of them by `-m thorough`.
"""

import hashlib
import io
import os
import pickle
import random
import shlex
import shutil
import signal
import subprocess
import tarfile
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from bench import (
    DATA,
    GO_ON,
    GOES,
    JSON,
    NEWEST,
    PLACES,
    SAMPLE,
    STOP,
    STOPPED,
    TINY,
    TRAIN,
    Bench,
    Try,
    at_step,
    damages,
    edit,
    faults,
    nothing,
    photos,
    picture,
    write,
    wrong_typed,
)
from PIL import Image
from safetensors.torch import load_file, save_file

import helpers
from ddpm_course.run.checkpoints import newest_checkpoint

NEW = ("new*", "cache*")
PLAIN = {"plain": True}
NO_WORK = """
from ddpm_course.model import Model
def never(*args, **kwargs):
    raise AssertionError('the work began, and its result cannot be kept')
Model.answer = never
"""  # a command that is refused must be refused before it asks a network


@pytest.fixture(scope="module")
def bench():
    with Bench() as bench:
        yield bench


# -- files of a run ----------------------------------------------------------------------------------------------------


def by_file(bench, name, words, codes=(0, 2), how=None, changes=()):
    "Each damage of one file, and each thing that may lie at its place."
    kinds = {**damages((bench.good / name).read_bytes()), **(JSON if name.endswith("json") else {}), **PLACES}
    for what, content in kinds.items():
        more = (how or {}) | (PLAIN if what == "unreadable" else {})
        yield Try(f"{words[0]}, {name}: {what}", write(name, content), words, codes, more, changes=changes)


@faults
def test_damaged_files_when_sampling(bench):
    for name in ("run/config.json", f"{NEWEST}/meta.json", f"{NEWEST}/ema.safetensors"):
        yield from by_file(bench, name, SAMPLE)


@faults
def test_damaged_files_when_going_on(bench):
    for name in ("run/metrics.jsonl", f"{NEWEST}/model.safetensors", f"{NEWEST}/optimizer.pt", "run/config.json"):
        yield from by_file(bench, name, GO_ON, GOES, STOPPED)


@faults
def test_damaged_cache(bench):
    "It is made anew, and never believed: the run that goes on has the digest of its data."
    folder = next(path for path in (bench.good / "cache").iterdir() if path.is_dir())
    for path in sorted(folder.iterdir()):
        name = str(path.relative_to(bench.good))
        yield from by_file(bench, name, GO_ON, (143,), STOPPED, changes=("cache*",))


@faults
def test_wrong_types(bench):
    "Each setting of a run, and each fact of a checkpoint, in turn missing or of another type."
    for name in ("run/config.json", f"{NEWEST}/meta.json"):
        for what, text in wrong_typed((bench.good / name).read_text()):
            if "versions" not in what:
                yield Try(f"{name}: {what}", write(name, text))


def stranger(name, file, content, words=SAMPLE, codes=(2,), how=None, **more):
    "A run whose sums are right, with this content of one of a checkpoint's files."

    def prepare(folder):
        write(file, content)(folder / NEWEST)
        digest = hashlib.sha256((folder / NEWEST / file).read_bytes()).hexdigest()
        edit(f"{NEWEST}/meta.json", lambda meta: meta["files"].update({file: digest}))(folder)

    return Try(f"a stranger's {file}: {name}", prepare, words, codes, how or {}, **more)


def header(text, data=b""):
    "A safetensors file with this header."
    return len(text).to_bytes(8, "little") + text.encode() + data


def weights(change):
    "What makes a safetensors file from the one that is there."

    def make(path):
        kept = load_file(path)
        change(kept, next(iter(kept)))
        save_file(kept, path)

    return make


SAFETENSORS = {
    "header of a terabyte": (1 << 40).to_bytes(8, "little") + b"{}",
    "empty header": header("{}"),
    "deep header": header("[" * 100_000),
    "unknown type": header('{"a":{"dtype":"Q7","shape":[1],"data_offsets":[0,4]}}', bytes(4)),
    "offsets beyond": header('{"a":{"dtype":"F32","shape":[9],"data_offsets":[0,36]}}', bytes(4)),
    "a shape that overflows": header('{"a":{"dtype":"F32","shape":[4294967296,4294967296,2],"data_offsets":[0,0]}}'),
    "half the names": weights(lambda kept, one: [kept.pop(name) for name in list(kept)[::2]]),
    "a name too many": weights(lambda kept, one: kept.update(extra=torch.zeros(3))),
    "another shape": weights(lambda kept, one: kept.update({one: torch.zeros(3)})),
    "of no numbers": weights(lambda kept, one: kept.update({one: torch.zeros(0)})),
    "complex": weights(lambda kept, one: kept.update({one: torch.zeros(3, dtype=torch.complex64)})),
    "float8": weights(lambda kept, one: kept.update({one: kept[one].to(torch.float8_e4m3fn)})),
    "NaN": weights(lambda kept, one: kept[one].fill_(float("nan"))),
    "infinite": weights(lambda kept, one: kept[one].fill_(float("inf"))),
}


@faults
def test_strangers_weights(bench):
    for name, content in SAFETENSORS.items():
        codes = (0, 2) if name == "float8" else (2,)
        yield stranger(name, "ema.safetensors", content, codes=codes)
        if name != "float8":
            yield stranger(name, "model.safetensors", content, GO_ON, codes, STOPPED)
    for words in (["test", "run"], ["genseq", "run", "--n", "1", "--steps", "2"]):
        yield stranger(f"{words[0]}, NaN", "ema.safetensors", SAFETENSORS["NaN"], words)


# -- pickles that would run something ----------------------------------------------------------------------------------


class Call:
    "Pickled as the call of a function."

    def __init__(self, function, *arguments):
        self.said = function, arguments

    def __reduce__(self):
        return self.said


def payloads():
    "Pickles that leave a file `mark` behind in the folder of the command where they run, by name."
    python, touch = "open('mark', 'w')", "touch mark"
    calls = {
        "os.system": Call(os.system, touch),
        "subprocess.Popen": Call(subprocess.Popen, ["touch", "mark"]),
        "eval": Call(eval, python),
        "exec": Call(exec, python),
        "open": Call(open, "mark", "w"),
        "Path.touch": Call(Path.touch, Path("mark")),
        "pickle.loads": Call(pickle.loads, pickle.dumps(Call(os.system, touch))),
        "numpy.save": Call(np.save, "mark", 1),
        "torch.save": Call(torch.save, 1, "mark"),
    }
    found = {name: pickle.dumps(call) for name, call in calls.items()}
    return found | {"posix system, protocol 0": b"cposix\nsystem\n(S'touch mark'\ntR."}


def as_zip(content):
    "A pickle in the form that torch.save writes."
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in (("data.pkl", content), ("version", b"3\n"), ("byteorder", b"little")):
            archive.writestr(f"archive/{name}", data)
    return file.getvalue()


def nothing_ran(folder, result):
    return "it ran" if list(folder.parent.rglob("mark*")) else None


CIFAR = ["train", "--data", "cifar", "--out", "new", *TINY, "--steps", 2]


def batches(file, content):
    "CIFAR-10's own files of 20 images each, one of them with this content."

    def prepare(folder):
        (folder / "cifar").mkdir()
        data = {b"data": np.zeros((20, 3072), np.uint8), b"labels": [k % 10 for k in range(20)]}
        for name in (*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"):
            (folder / "cifar" / name).write_bytes(pickle.dumps(data, protocol=2))
        names = {b"label_names": [f"class {k}".encode() for k in range(10)]}
        (folder / "cifar/batches.meta").write_bytes(pickle.dumps(names, protocol=2))
        (folder / "cifar" / file).write_bytes(content)

    return prepare


def archive(folder):
    "An archive that reaches out of its folder."
    (folder / "cifar").mkdir()
    with tarfile.open(folder / "cifar/cifar-10-python.tar.gz", "w:gz") as tar:
        info = tarfile.TarInfo("../../mark")
        info.size = 1
        tar.addfile(info, io.BytesIO(b"x"))


@faults
def test_pickles_of_strangers_run_nothing(bench):
    "In a run's optimizer.pt, in published weights, in CIFAR-10's files; as they are, and as torch.save packs them."
    for name, content in payloads().items():
        for form, data in (("", content), (" packed", as_zip(content))):
            yield stranger(name + form, "optimizer.pt", data, GO_ON, (2,), STOPPED, after=nothing_ran)
        for file in ("data_batch_1", "batches.meta"):
            yield Try(f"{file}: {name}", batches(file, content), CIFAR, (2,), changes=NEW, after=nothing_ran)
        yield Try(f"published: {name}", binary(content), PUBLISHED, (2,), after=nothing_ran)
    yield Try("an archive with ../", archive, CIFAR, (2,), changes=NEW, after=nothing_ran)


# -- published weights -------------------------------------------------------------------------------------------------

PUBLISHED = "sample --weights published --n 1 --steps 1 --guidance 1".split()
UNET, SCHEDULER = "published/unet/config.json", "published/scheduler/scheduler_config.json"
BLOB = "published/unet/diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module", autouse=True)
def published(bench):
    "The tiny run's weights as a diffusers pipeline, beside the run."
    assert bench.run(["export", "run", "published"], bench.good).code == 0


def binary(content):
    "Published weights in the old form: a pickle."

    def prepare(folder):
        (folder / BLOB).with_suffix(".bin").write_bytes(content)
        (folder / BLOB).unlink()

    return prepare


@faults
def test_published_folders(bench):
    for name in (UNET, SCHEDULER, BLOB):
        yield from by_file(bench, name, PUBLISHED)


# -- data --------------------------------------------------------------------------------------------------------------


def png_bomb(path):
    "A file of 60 KB that says it holds 60,000 x 60,000 pixels."
    size = (60_000).to_bytes(4, "big")
    parts = {b"IHDR": size + size + b"\x08\0\0\0\0", b"IDAT": zlib.compress(bytes(60_000_000), 9), b"IEND": b""}
    chunks = [
        len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")
        for kind, data in parts.items()
    ]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))


@faults
def test_images_that_are_none(bench):
    "One of 24 images is something else."
    name = "photos/cats/00.png"
    yield from by_file(bench, name, DATA, GOES, STOPPED, changes=NEW)
    wide = lambda path: Image.new("L", (65_000, 1)).save(path)
    for what, make in {"a bomb": png_bomb, "very wide": wide, "an svg": b"<svg/>"}.items():
        yield Try(f"an image: {what}", write(name, make), DATA, GOES, STOPPED, changes=NEW)


@faults
def test_class_folders_of_any_name(bench):
    "A run on classes of odd names: it trains, its `next:` line works, nothing lies elsewhere."

    def next_line(folder, result):
        run = 'ddpm() { printf "%s\\0" "$@"; }; ' + result.out.split("next:  ")[1].split("      ")[0]
        said = subprocess.run(["bash", "-c", run], capture_output=True, cwd=folder).stdout.decode().split("\0")[:-1]
        done = bench.run([*said, "--n", "1", "--steps", "1"], folder)
        return f"{said}: {done.err}" if done.code else None

    for name in ("..cats", "🐱 é", "a,b", "-dash", "$HOME `id`", "a\nb"):
        prepare = lambda folder, name=name: photos(folder / "photos", [f"{name}{k}" for k in range(6)], 10)
        yield Try(f"a class {name!r}", prepare, [*DATA[:-1], 1], (0,), changes=NEW, after=next_line)


@faults
def test_class_names_of_strangers_reach_nowhere(bench):
    "Names in config.json that lead out of the folder of --images, or are none."
    words = [*SAMPLE, "--images", "im/inner"]

    def stays(folder, result):
        beside = [path.name for path in (folder / "im").glob("*") if path.name != "inner"]
        return f"written beside: {beside}" if beside else None

    names = [[name, "b"] for name in ("..", "../../x", "/tmp/x", "", "a\0b", "x" * 300, "🐱", "\x1b[2J")]
    for classes in (*names, ["a", "a"], ["a"], [], [1, 2], "ab", ["a"] * 100_000):
        change = lambda config, classes=classes: config["data"].update(classes=classes)
        yield Try(f"classes {classes!r:.30}", edit("run/config.json", change), words, changes=("im*",), after=stays)


@faults
def test_folders_of_data(bench):
    "Folders that hold nothing, that may not be read, that lead in circles."
    words = ["train", "--data", "data", "--out", "new", *TINY, "--steps", 2]
    closed = lambda f: (photos(f / "data"), (f / "data/cats").chmod(0))
    yield Try("data: a closed folder", closed, words, (2,), PLAIN, "cats")
    for name, prepare in {
        "nothing": lambda f: (f / "data").mkdir(),
        "empty classes": lambda f: [(f / f"data/{n}").mkdir(parents=True) for n in "ab"],
        "one image": lambda f: picture(f / "data/a/0.png", np.random.default_rng(0)),
        "a circle": lambda f: ((f / "data/a").mkdir(parents=True), (f / "data/a/b").symlink_to("..")),
        "a fifo": lambda f: (photos(f / "data"), os.mkfifo(f / "data/cats/x.png")),
        "only text": lambda f: ((f / "data").mkdir(), (f / "data/a.txt").write_text("x")),
        "train alone": lambda f: photos(f / "data/train"),
        "a link to itself": lambda f: (f / "data").symlink_to("data"),
        "images beside folders": lambda f: (photos(f / "data"), picture(f / "data/x.png", np.random.default_rng(0))),
    }.items():
        yield Try(f"data: {name}", prepare, words, GOES, STOPPED, changes=NEW)


# -- ends at each moment -----------------------------------------------------------------------------------------------

AT = """
import os, sys, signal
left_changes = [{k}]
def hook(event, args):
    changes = event in ("os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.link", "os.truncate", "os.chmod")
    if event == "open":
        changes = isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    path = str(args[0]) if args and isinstance(args[0], (str, os.PathLike)) else ""
    if changes and {inside!r} in path:
        left_changes[0] -= 1
        if left_changes[0] == 0:
            {act}
sys.addaudithook(hook)
"""
KILL = "os.kill(os.getpid(), signal.SIGKILL)"
FULL = "raise OSError(28, 'No space left on device', path)"
MOMENTS = 26  # changes of the folder in a start that makes one step and saves it
GO = ("run/config.json*", "run/metrics.jsonl*", "run/checkpoints/.*")


@faults
def test_end_at_each_change_of_a_run(bench):
    "A start that ends at its k-th change of the folder: what was saved is there, and the next start goes on."
    for what, act, codes, moments in (
        ("is killed", KILL, (-9, 143), range(1, MOMENTS)),
        ("has no space", FULL, (2, 143), range(1, MOMENTS, 3)),
    ):
        for k in moments:
            how = {"code": STOP + AT.format(k=k, inside="run/", act=act)}
            yield Try(f"a run that {what} at change {k}", nothing, GO_ON, codes, how, changes=GO, after=bench.goes_on)


@faults
def test_end_at_each_change_of_a_cache(bench):
    "The same while the images are decoded for the first time; without a cache they are decoded into memory."
    gone = lambda folder: shutil.rmtree(folder / "cache")
    for what, act, codes in (("is killed", KILL, (-9, 143)), ("has no space", FULL, (143,))):
        for k in range(1, 10, 2):
            how = {"code": STOP + AT.format(k=k, inside="cache", act=act)}
            yield Try(f"a cache whose maker {what} at change {k}", gone, GO_ON, codes, how, after=bench.goes_on)
    for name, make in {
        "a file": lambda path: path.write_text("x"),
        "read-only": lambda path: path.mkdir(0o555),
        "link to nowhere": lambda path: path.symlink_to("/nowhere/at/all"),
    }.items():
        prepare = lambda folder, make=make: (gone(folder), make(folder / "cache"))
        yield Try(f"the cache is {name}", prepare, GO_ON, (143,), STOPPED | PLAIN, changes=("cache*",))


@faults
def test_a_largest_file(bench):
    "No file may grow beyond so many bytes, as on a full disk: for a run that begins or goes on, and for results."
    for size in (1000, 20_000, 150_000, 400_000):
        how = {"file_size": size}
        again = lambda folder, result: bench.goes_on(folder) if result.code else None
        yield Try(f"going on, files of {size}", nothing, GO_ON, GOES, STOPPED | how, changes=GO, after=again)
        yield Try(f"beginning, files of {size}", nothing, DATA, GOES, STOPPED | how, changes=NEW)
        yield Try(f"arrays, files of {size}", nothing, [*SAMPLE, "--npz", "s.npz", "--out", "s.png"], how=how)


# -- places that cannot be written or read -----------------------------------------------------------------------------


@faults
def test_permissions(bench):
    "Folders and files that this user may not read or write: said before the work."
    going = {**PLAIN, **STOPPED}

    def closed(name, mode=0o555):
        return lambda folder: (folder / name).chmod(mode)

    new = ["train", "--data", "photos", "--out", "locked/new", *TINY]
    yield from (
        Try("train --out locked", lambda folder: (folder / "locked").mkdir(0o555), new, (2,), going, "locked"),
        Try("sample in a locked run", closed("run"), SAMPLE, (2,), {**PLAIN, "code": NO_WORK}, "run"),
        Try("train in a locked run", closed("run"), GO_ON, (2,), going, "run"),
        Try("checkpoints locked", closed("run/checkpoints"), GO_ON, (2,), going, "checkpoints", GO),
        Try("photos locked", closed("photos", 0), DATA, (2,), PLAIN, "photos"),
    )
    for name in (f"{NEWEST}/ema.safetensors", f"{NEWEST}/meta.json", NEWEST, "run/checkpoints", "run/config.json"):
        yield Try(f"{name} of another user", closed(name, 0), SAMPLE, (2,), PLAIN, "ermission")


@faults
def test_a_strangers_run_with_links(bench):
    "Where a run writes for itself lie links to a photo of mine."
    for name in (".lock", "metrics.jsonl.new", "config.json.new", "checkpoints/.writing", "checkpoints/.dropped"):

        def hung(folder, name=name):
            (folder / "run" / name).unlink(missing_ok=True)
            (folder / "run" / name).symlink_to(folder / "photos/cats/00.png")

        yield Try(f"a run's {name} is a link to a photo", hung, GO_ON, GOES, STOPPED, changes=("run/*",))


@faults
def test_results_that_are_gone(bench):
    "A finished run whose pictures are empty or gone makes them again; one of no steps more is left alone."
    words = [*TRAIN, 4]
    yield Try("finished", nothing, words, (0,))
    for name, change in (("loss.png", b""), ("samples.png", b""), ("loss.png", Path.unlink)):
        made = lambda folder, result, name=name: None if (folder / "run" / name).stat().st_size else "not made again"
        yield Try(f"{name} {change!r:.9}", write(f"run/{name}", change), words, (0,), after=made)
    yield Try("finished, and no log", write("run/metrics.jsonl", Path.unlink), words)


# -- words -------------------------------------------------------------------------------------------------------------

NUMBERS = ("-1", "0", "1e30", "99999999999999999999999999", "nan", "inf", "", "x", "٣", "1_0", "1.5")
FLAGS = (
    "size image-channels T channels blocks dropout groups steps batch lr warmup weight-decay clip ema label-drop "
    "seed accumulate threads log-every save-every grid-every keep multipliers attention"
).split()


@faults
def test_absurd_numbers(bench):
    "Each flag that takes a number, with numbers that make no sense: a sentence, or the command does what it says."
    draws = random.Random(0)
    for flag in FLAGS:
        for value in draws.sample(NUMBERS, 2):
            yield Try(f"train --{flag} {value}", nothing, [*DATA, f"--{flag}={value}"], (0, *GOES), STOPPED, "", NEW)
    for flag in ("steps", "guidance", "eta", "seed", "n", "strength", "rounds", "to-seed"):
        for value in draws.sample(NUMBERS, 3):
            yield Try(f"sample --{flag} {value}", nothing, [*SAMPLE, f"--{flag}={value}"])
    for value in ("-1", "0", "x", "1.5"):
        yield Try(f"--nproc {value}", nothing, [*SAMPLE, f"--nproc={value}"], (2,))


SENTENCES = [  # words, what is said; each ends with code 2 before any work
    ("train --preset cifar10 --data photos --out new --size 48", "attention"),
    ("test run --sampler foo", "sampler"),
    ("sample run --n 10000000000", ""),
    ("train --data photos --out new --blocks 1000000", "blocks"),
    ("train --data photos --out new --threads 20000", "threads"),
    ("train --data photos --out new --multipliers 1,99999999999", "multipliers"),
    ("train --data photos --out new --batch 2 --accumulate 9", "batch of 2"),
    ("sample ''", "empty"),
    ("train --data '' --out new", "empty"),
    ("sample run --out ''", "empty"),
    ("train --data photos --out run/config.json", "config.json"),
    ("train --data photos --out photos", "photos"),
    ("train --data run --out new", "run"),
    ("sample nowhere/at/all", "nowhere"),
    ("sample /dev/null", "/dev/null"),
    ("sample run --plugin nothing.py", "nothing.py"),
    ("sample run --from run/config.json", "config.json"),
    ("sample run --from /dev/zero", "/dev/zero"),
    ("sample run --device gpu", "gpu"),
    ("bogus", "bogus"),
]


@faults
def test_words_that_are_refused(bench):
    for words, said in SENTENCES:
        yield Try(words, nothing, shlex.split(words), (2,), {"code": NO_WORK}, said)


NAN_LOSS = """
from ddpm_course import Simple
honest = Simple.losses
Simple.losses = lambda *args: {name: value * float('nan') for name, value in honest(*args).items()}
"""
NO_MEMORY = """
import torch
def full(*args, **kwargs):
    raise torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of ...')
torch.nn.Conv2d.forward = full
"""


@faults
def test_a_refused_start_leaves_the_folder_free(bench):
    "A start that is refused, or diverges at once, and then the corrected one in the same folder."

    def corrected(folder, result):
        more = bench.run(DATA, folder, code=STOP)
        return None if more.code == 143 else more.err

    for name, words, how in (
        ("accumulate 9", ["--accumulate", 9], {}),
        ("a very wide network", ["--channels", 8192, "--multipliers", "64,64"], {}),
        ("unknown schedule", ["--schedule", "foo"], {}),
        ("too much memory", [], {"code": NO_MEMORY}),
        ("a loss that is no number", [], {"code": NAN_LOSS}),
    ):
        yield Try(f"refused: {name}", nothing, [*DATA, *words], (2,), how, changes=NEW, after=corrected)


@faults
def test_runs_that_cannot_go_on(bench):
    "Losses that are no numbers, memory that runs out: said, and the last checkpoint is intact."
    at = """
import torch
honest, calls = torch.Tensor.backward, [0]
def backward(self, *args, **kwargs):
    calls[0] += 1
    if calls[0] >= {k}:
        self.register_hook(lambda g: g * float('nan'))
    return honest(self, *args, **kwargs)
torch.Tensor.backward = backward
"""
    for name, code, said in (
        ("a NaN loss", NAN_LOSS, "smaller"),
        ("a NaN gradient", at.format(k=1), ""),
        ("a NaN gradient from step 3", at.format(k=3), ""),
        ("no memory", NO_MEMORY, "accumulate"),
    ):
        yield Try(name, nothing, GO_ON, (2,), {"code": code}, said, GO, after=bench.goes_on)
    yield Try("no memory for samples", nothing, SAMPLE, (2,), {"code": NO_MEMORY})
    yield Try("--lr 1e6", nothing, [*DATA[:-1], 20, "--lr", "1e6", "--clip", "1e12"], changes=NEW)


# -- signals -----------------------------------------------------------------------------------------------------------


@faults
def test_signals(bench):
    "Ctrl-C, SIGTERM and a closing terminal: saved, said how to go on; other ends leave the last checkpoint intact."

    def saved(folder, result):
        step = newest_checkpoint(folder / "run").name
        return bench.goes_on(folder) if step == "step_00000005" else f"{step} is the last that was saved"

    for kind in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        once = f"os.kill(os.getpid(), {int(kind)})"
        code = at_step(1, once)
        yield Try(f"{kind.name} in a step", nothing, GO_ON, (128 + kind,), {"code": code}, after=saved)
    gone = {"code": at_step(1, "os.kill(os.getpid(), 1)"), "stdout": "gone", "stderr": "gone"}
    yield Try("a terminal that closes", nothing, GO_ON, (129,), gone, after=saved)
    for kind in (signal.SIGKILL, signal.SIGQUIT, signal.SIGSEGV):
        code = at_step(1, f"os.kill(os.getpid(), {int(kind)})")
        yield Try(f"{kind.name} in a step", nothing, GO_ON, (-kind,), {"code": code}, "", GO, bench.goes_on)
    code = "import signal\nsignal.signal(signal.SIGHUP, signal.SIG_IGN)\n" + gone["code"]
    yield Try("SIGHUP under nohup", nothing, [*TRAIN, 6], (0,), {"code": code})
    code = NO_WORK.replace("raise AssertionError", "import os; os.kill(os.getpid(), 2) #")
    yield Try("SIGINT while sampling", nothing, SAMPLE, (130,), {"code": code})


@faults
def test_two_runs_in_one_folder(bench):
    "The second is refused, the first goes on; a lock that the disk refuses keeps nobody out."
    second = f"""
def start_second():
    import sys
    pid = os.fork()
    if pid == 0:
        from ddpm_course.cli import main as cli
        try:
            cli.main({[str(word) for word in GO_ON]!r})
        except SystemExit as end:
            sys.stderr.flush()
            os._exit(end.code)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 2
    os.kill(os.getpid(), 15)
"""
    said = lambda folder, result: None if "another process" in result.err else result.err
    how = {"code": second + at_step(1, "start_second()")}
    yield Try("a second start", nothing, GO_ON, (143,), how, after=said)
    refused = "import fcntl\ndef flock(*args):\n    raise OSError(37, 'no locks')\nfcntl.flock = flock\n"
    yield Try("locks refused", nothing, GO_ON, (143,), {"code": STOP + refused})


# -- streams, languages, environments ----------------------------------------------------------------------------------


@faults
def test_surroundings(bench):
    "Streams that take nothing, no home, any language: the work is done and kept, whoever listens."
    words, sixth = [*TRAIN, 6], "step_00000006"
    finished = lambda folder, result: None if newest_checkpoint(folder / "run").name == sixth else "not finished"
    for how in ({"stdout": "closed"}, {"stderr": "full"}):
        yield Try(f"train, {how}", nothing, words, (0,), how, after=finished)
    for env in (
        {"HOME": None, "DDPM_CACHE": None},
        {"LANG": "C", "LC_ALL": "C"},
        {"TERM": None, "COLUMNS": "-5", "LINES": "x"},
        {"TMPDIR": "/nowhere"},
        {"MPLBACKEND": "nonsense"},
    ):
        yield Try(f"train, {env}", nothing, words, (0,), {"env": env}, after=finished)

    def modes(folder, result):
        found = {path.stat().st_mode & 0o777 for path in (folder / f"run/checkpoints/{sixth}").iterdir()}
        return None if found == {0o600} else f"modes {found}"

    yield Try("umask 077", nothing, words, (0,), {"umask": 0o077}, after=modes)


@faults
def test_names_of_any_kind(bench):
    "Runs and results in folders whose names are of any language, or of none."
    for name in ("a b", "猫/🐱", "-x", "a'b", "a\nb", "\udcff\udcfe", "x" * 250, "x" * 300):

        def sampled(folder, result, name=name):
            more = bench.run(["sample", "--n", "1", "--steps", "1", "--", name], folder)
            return None if result.code == 2 or more.code == 0 else more.err

        words = [*DATA, f"--out={name}"]
        codes = (2,) if len(name) == 300 else (143,)
        yield Try(f"--out {name!r:.20} ({len(name)})", nothing, words, codes, STOPPED, changes=NEW, after=sampled)


@faults
def test_environments_of_clusters(bench):
    "A process that believes to be one of several, and whose variables cannot be true: a sentence, at once."
    full = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
    for name, value in (("RANK", "x"), ("RANK", "5"), ("WORLD_SIZE", "0"), ("WORLD_SIZE", ""), ("LOCAL_RANK", "-1")):
        yield Try(f"{name} = {value}", nothing, SAMPLE, (2,), {"env": full | {name: value}})
    yield Try("srun", nothing, SAMPLE, (2,), {"env": {"SLURM_STEP_NUM_TASKS": "4"}}, "srun")


def test_zz_what_was_tried(bench):
    "The count of this file, shown at the end of the tests."
    seconds, name = bench.slowest
    helpers.PROMISES.append(f"{bench.tried} of {bench.known} faults tried; the longest took {seconds} s ({name})")
