"""Faults that are really tried: damaged files, full disks, signals, strangers' folders.

Whatever happens: the work is done, or ends with one sentence; what was saved before is still there byte for byte, and
the next good start works. Damage is tried in this process, by what reads the file; what a process alone can show (its
end at each moment, its limits) is tried through the command: one of each kind by default, all in the second tier.
"""

import json
import os
import pickle
import random
import shutil
import signal
import subprocess
import zlib

import pytest
import torch
from bench import DATA, GO_ON, NEWEST, SAMPLE, STOP, TRAIN, Bench, Try, at_step, faults, photos, said
from safetensors.torch import load_file, save_file

from ddpm_course import load_model
from ddpm_course.cli.flags import read as parsed
from ddpm_course.cli.main import make_parser, module_of
from ddpm_course.config import from_json, to_json
from ddpm_course.data.sources import load_data
from ddpm_course.run.checkpoints import checksum, newest_checkpoint, read_log
from ddpm_course.share.published import load_published

STOPPED = {"code": STOP}
GOES = (143, 2)  # stopped after a step, or refused
NEW = ("new*", "cache*")
GO = ("run/config.json*", "run/metrics.jsonl*", "run/checkpoints/.*")  # what a start that is refused may have begun
PLAIN = {"plain": True}


@pytest.fixture(scope="module")
def bench():
    with Bench() as bench:
        yield bench


# -- damage, in this process -------------------------------------------------------------------------------------------

READERS = {  # a file, and what reads it in the folder of the tiny run
    "run/config.json": lambda folder: load_model(folder / "run"),
    f"{NEWEST}/meta.json": lambda folder: load_model(folder / "run"),
    f"{NEWEST}/ema.safetensors": lambda folder: load_model(folder / "run"),
    "run/metrics.jsonl": lambda folder: read_log(folder / "run"),
    "published/unet/config.json": lambda folder: load_published(str(folder / "published")),
    "published/scheduler/scheduler_config.json": lambda folder: load_published(str(folder / "published")),
    "published/unet/diffusion_pytorch_model.safetensors": lambda folder: load_published(str(folder / "published")),
    "photos/cats/00.png": lambda folder: load_data(folder / "photos", 8),
}
FOREIGN = {
    "nothing": b"",
    "text": b"hello\n",
    "pickle": pickle.dumps({"step": 4}, 2),
    "zip": b"PK\x03\x04" + bytes(60),
    "list": b"[]",
    "object": b"{}",
    "5,000 digits": b"1" * 5000,
    "deep list": b"[" * 100_000,
    "surrogate": b'"\xed\xa0\x80"',
    "utf-16": '{"step": 4}'.encode("utf-16"),
}


def damages(good):
    "Damaged versions of a file's bytes by name: cut, flipped, foreign."
    draws = random.Random(0)
    found = {f"cut at {k}/4": good[: len(good) * k // 4] for k in range(1, 4)}
    for bit in [draws.randrange(8 * len(good)) for _ in range(20)]:
        byte = bytes([good[bit // 8] ^ 1 << bit % 8])
        found[f"bit {bit} flipped"] = good[: bit // 8] + byte + good[bit // 8 + 1 :]
    return found | FOREIGN | {"last byte cut": good[:-1], "doubled": good + good, "zeros": bytes(len(good))}


@pytest.fixture
def cached(tmp_path, monkeypatch):
    monkeypatch.setenv("DDPM_CACHE", str(tmp_path))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", READERS)
def test_damaged_files(bench, cached, name):
    path = bench.good / name
    good = path.read_bytes()
    try:
        refused = {}
        for kind, content in damages(good).items():
            path.write_bytes(content)
            refused[kind] = said(kind, READERS[name], bench.good)
        path.unlink()
        refused["missing"] = said("missing", READERS[name], bench.good)
        path.mkdir()
        refused["folder"] = said("a folder", READERS[name], bench.good)
    finally:
        path.rmdir() if path.is_dir() else None
        path.write_bytes(good)
    assert said("", READERS[name], bench.good) is None
    assert name.startswith("photos") or sum(map(bool, refused.values())) > 9  # an image that is none is left out


def places(value, path=()):
    "The places of a JSON value, outermost first."
    for key, below in value.items() if isinstance(value, dict) else ():
        yield *path, key
        yield from places(below, (*path, key))


@pytest.mark.parametrize("name", ["run/config.json", f"{NEWEST}/meta.json"])
def test_wrong_types(bench, name):
    "Each setting of a run, and each fact of a checkpoint, in turn missing or of another type."
    path = bench.good / name
    good, refused = path.read_text(), 0
    try:
        for *outer, last in places(json.loads(good)):
            for value in ("missing", None, "x", -1, 10**30, True, [], {}, [[1]], float("nan")):
                content = json.loads(good)
                inner = content
                for key in outer:
                    inner = inner[key]
                inner[last] = value
                if value == "missing":
                    del inner[last]
                path.write_text(json.dumps(content))
                refused += said(f"{last} {value}", READERS[name], bench.good) is not None
    finally:
        path.write_text(good)
    assert refused > 50


def weights(change):
    "What makes a safetensors file from the one that is there."

    def make(path):
        kept = load_file(path)
        change(kept, next(iter(kept)))
        save_file(kept, path)

    return make


SAFETENSORS = {
    "header of a terabyte": lambda path: path.write_bytes((1 << 40).to_bytes(8, "little") + b"{}"),
    "empty header": lambda path: path.write_bytes((2).to_bytes(8, "little") + b"{}"),
    "half the names": weights(lambda kept, one: [kept.pop(name) for name in list(kept)[::2]]),
    "a name too many": weights(lambda kept, one: kept.update(extra=torch.zeros(3))),
    "another shape": weights(lambda kept, one: kept.update({one: torch.zeros(3)})),
    "complex": weights(lambda kept, one: kept.update({one: torch.zeros(3, dtype=torch.complex64)})),
    "NaN": weights(lambda kept, one: kept[one].fill_(float("nan"))),
    "infinite": weights(lambda kept, one: kept[one].fill_(float("inf"))),
}


@pytest.mark.parametrize("kind", SAFETENSORS)
def test_strangers_weights(bench, tmp_path, kind):
    "Weights whose sums are right, and that are none."
    folder = shutil.copytree(bench.good / "run", tmp_path / "run") / "checkpoints/step_00000004"
    SAFETENSORS[kind](folder / "ema.safetensors")
    meta = json.loads((folder / "meta.json").read_text())
    meta["files"]["ema.safetensors"] = checksum((folder / "ema.safetensors").read_bytes())
    (folder / "meta.json").write_text(json.dumps(meta))
    assert said(kind, load_model, tmp_path / "run")


NUMBERS = ("-1", "0", "1e30", "99999999999999999999999999", "nan", "inf", "", "x", "٣", "1_0", "1.5")
FLAGS = (
    "size image-channels T channels blocks dropout groups steps batch lr warmup weight-decay clip ema label-drop "
    "seed accumulate threads log-every save-every grid-every keep multipliers attention"
).split()


@pytest.mark.parametrize("command, flags", [("train", FLAGS), ("sample", "steps guidance eta seed n rounds".split())])
def test_absurd_numbers(command, flags):
    "Each flag that takes a number, with numbers that make no sense: a sentence, or settings that can be kept."

    def read(value):
        args = make_parser(command).parse_args(
            [command, *["--data=photos"] * (command == "train"), f"--{flag}={value}"]
        )
        request = parsed(args, module_of(command).Request)
        assert command != "train" or from_json(to_json(request.config)) == request.config

    for flag in flags:
        refused = [value for value in NUMBERS if said(f"--{flag} {value}", read, value)]
        assert "x" in refused and ("nan" in refused or flag == "clip"), (flag, refused)


# -- something else at a file's place ----------------------------------------------------------------------------------


def instead(make):
    "What puts something else at a file's place."
    return lambda path: (path.unlink(), make(path))


def huge(path):
    with open(path, "r+b") as file:
        file.truncate(1 << 40)


def png_bomb(path):
    "A file of 60 KB that says it holds 60,000 x 60,000 pixels."
    size = (60_000).to_bytes(4, "big")
    parts = (b"IHDR", size + size + b"\x08\0\0\0\0"), (b"IDAT", zlib.compress(bytes(60_000_000), 9)), (b"IEND", b"")
    content = b"".join(
        len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big") for kind, data in parts
    )
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + content)


PLACES = {
    "a fifo": instead(os.mkfifo),
    "link to /dev/zero": instead(lambda path: path.symlink_to("/dev/zero")),
    "link to itself": instead(lambda path: path.symlink_to(path.name)),
    "unreadable": lambda path: path.chmod(0),
    "a terabyte": huge,
}


@faults
def test_places(bench):
    for name, words, codes in (
        ("run/config.json", SAMPLE, (2,)),
        (f"{NEWEST}/ema.safetensors", SAMPLE, (2,)),
        ("photos/cats/00.png", DATA, GOES),
    ):
        how = STOPPED if words == DATA else {}
        for what, make in PLACES.items():
            prepare = lambda folder, name=name, make=make: make(folder / name)
            yield Try(f"{name}: {what}", prepare, words, codes, how | PLAIN, changes=NEW)
    yield Try("a bomb", lambda folder: png_bomb(folder / name), DATA, GOES, STOPPED, changes=NEW)
    circle = lambda folder: (folder / "photos/cats/more").symlink_to("..")
    yield Try("folders in a circle", circle, DATA, GOES, STOPPED, changes=NEW)


@faults
def test_class_folders_of_any_name(bench):
    "A run on classes of odd names: it trains, its `next:` line works, nothing lies elsewhere."

    def next_line(folder, result):
        run = 'ddpm() { printf "%s\\0" "$@"; }; ' + result.out.split("next:  ")[1].split("      ")[0]
        said = subprocess.run(["bash", "-c", run], capture_output=True, cwd=folder).stdout.decode().split("\0")[:-1]
        done = bench.run([*said, "--n", "1", "--steps", "1"], folder)
        return f"{said}: {done.err}" if done.code else None

    for name in ("..cats", "a,b", "$HOME `id`", "a\nb"):
        prepare = lambda folder, name=name: photos(folder / "photos", [f"{name}{k}" for k in range(6)], 10)
        yield Try(f"a class {name!r}", prepare, [*DATA[:-1], 1], (0,), changes=NEW, after=next_line)


@faults
def test_class_names_of_strangers_reach_nowhere(bench):
    "Names in config.json that lead out of the folder of --images, or are none."

    def stays(folder, result):
        beside = [path.name for path in (folder / "im").glob("*") if path.name != "inner"]
        return f"written beside: {beside}" if beside else None

    for classes in (["../../x", "b"], ["/tmp/x", "b"], ["a\0b", "b"], ["\x1b[2J", "b"], ["a"] * 100_000):

        def rename(folder, classes=classes):
            config = json.loads((folder / "run/config.json").read_text())
            config["data"]["classes"] = classes
            (folder / "run/config.json").write_text(json.dumps(config))

        words = [*SAMPLE, "--images", "im/inner"]
        yield Try(f"classes {classes!r:.30}", rename, words, changes=("im*",), after=stays)


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


@faults
def test_end_at_changes_of_a_folder(bench):
    "A start that ends at its k-th change of the run or the cache: what was saved is there, and the next start goes on."
    gone = lambda folder: shutil.rmtree(folder / "cache")
    for what, act, code in (("is killed", KILL, -9), ("has no space", FULL, 2)):
        for k in range(2, 26, 2 if act == KILL else 6):
            how = {"code": STOP + AT.format(k=k, inside="run/", act=act)}
            yield Try(f"{what} at change {k}", words=GO_ON, codes=(code, 143), how=how, changes=GO, after=bench.goes_on)
        for k in (3, 7):
            how = {"code": STOP + AT.format(k=k, inside="cache", act=act)}
            yield Try(f"{what} at change {k} of a cache", gone, GO_ON, (-9, 143), how, after=bench.goes_on)


@faults
def test_a_largest_file(bench):
    "No file may grow beyond so many bytes, as on a full disk."
    again = lambda folder, result: bench.goes_on(folder) if result.code else None
    for size in (20_000, 150_000):
        how = STOPPED | {"file_size": size}
        yield Try(f"going on, files of {size}", words=GO_ON, codes=GOES, how=how, changes=GO, after=again)
    yield Try("beginning", words=DATA, codes=GOES, how=how, changes=NEW)
    yield Try("arrays", words=[*SAMPLE, "--npz", "s.npz", "--out", "s.png"], how={"file_size": 1000})


# -- places that cannot be written or read -----------------------------------------------------------------------------


@faults
def test_permissions(bench):
    "Folders and files that this user may not read or write: said before the work."
    closed = lambda name, mode=0o555: lambda folder: (folder / name).chmod(mode)
    going = PLAIN | STOPPED
    yield from (
        Try("train in a locked folder", closed("."), DATA, (2,), going, "new"),
        Try("checkpoints locked", closed("run/checkpoints"), GO_ON, (2,), going, "checkpoints", GO),
        Try("a class locked", closed("photos/cats", 0), DATA, (2,), PLAIN, "cats"),
    )


# -- losses that are none, signals, other processes, surroundings ------------------------------------------------------

NAN_GRADIENT = """
import torch
honest, calls = torch.Tensor.backward, [0]
def backward(self, *args, **kwargs):
    calls[0] += 1
    if calls[0] >= 3:
        self.register_hook(lambda g: g * float('nan'))
    return honest(self, *args, **kwargs)
torch.Tensor.backward = backward
"""
NO_MEMORY = """
import torch
def full(*args, **kwargs):
    raise torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of ...')
torch.nn.Conv2d.forward = full
"""


@faults
def test_runs_that_cannot_go_on(bench):
    "Losses that are no numbers, memory that runs out: said, and the last checkpoint is intact."
    for name, code, words in (("a NaN gradient from step 3", NAN_GRADIENT, ""), ("no memory", NO_MEMORY, "accumulate")):
        yield Try(name, words=GO_ON, codes=(2,), how={"code": code}, says=words, changes=GO, after=bench.goes_on)


@faults
def test_signals(bench):
    "Ctrl-C, SIGTERM and a closing terminal: saved, said how to go on; other ends leave the last checkpoint intact."

    def saved(folder, result):
        step = newest_checkpoint(folder / "run").name
        return bench.goes_on(folder) if step == "step_00000005" else f"{step} is the last that was saved"

    sent = lambda kind, **streams: {"code": at_step(1, f"os.kill(os.getpid(), {int(kind)})"), **streams}
    for kind in (signal.SIGINT, signal.SIGTERM):
        yield Try(f"{kind.name} in a step", words=GO_ON, codes=(128 + kind,), how=sent(kind), after=saved)
    gone = sent(signal.SIGHUP, stdout="gone", stderr="gone")
    yield Try("a terminal that closes", words=GO_ON, codes=(129,), how=gone, after=saved)
    for kind in (signal.SIGKILL, signal.SIGSEGV):
        how = {"codes": (-kind,), "how": sent(kind), "changes": GO, "after": bench.goes_on}
        yield Try(f"{kind.name} in a step", words=GO_ON, **how)
    code = "import signal\nsignal.signal(signal.SIGHUP, signal.SIG_IGN)\n" + gone["code"]
    yield Try("SIGHUP under nohup", words=[*TRAIN, 6], codes=(0,), how={"code": code})
    code = "import os\nfrom ddpm_course.model import Model\nModel.answer = lambda *args, **how: os.kill(os.getpid(), 2)"
    yield Try("SIGINT while sampling", codes=(130,), how={"code": code})


SECOND = f"""
def start_second():
    if (pid := os.fork()) == 0:
        import sys
        from ddpm_course.cli import main as cli
        try:
            cli.main({[str(word) for word in GO_ON]!r})
        finally:
            sys.stderr.flush()
            os._exit(sys.exc_info()[1].code if sys.exc_info()[1] else 0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 2
    os.kill(os.getpid(), 15)
"""


@faults
def test_two_runs_in_one_folder(bench):
    "The second is refused, the first goes on."
    told = lambda folder, result: None if "another process" in result.err else result.err
    how = {"code": SECOND + at_step(1, "start_second()")}
    yield Try("a second start", words=GO_ON, codes=(143,), how=how, after=told)


@faults
def test_surroundings(bench):
    "No home, no place for temporary files; folders of any name; a process that believes to be one of several."
    done = lambda folder, result: None if newest_checkpoint(folder / "run").name[-1] == "6" else "not finished"
    for env in ({"HOME": None, "DDPM_CACHE": None, "LC_ALL": "C"}, {"TMPDIR": "/nowhere", "COLUMNS": "-5"}):
        yield Try(f"train, {env}", words=[*TRAIN, 6], codes=(0,), how={"env": env}, after=done)
    for name in ("猫/🐱", "-x", "a\nb", "\udcff\udcfe", "x" * 300):
        codes = (2,) if len(name) == 300 else (143,)
        yield Try(f"--out {name!r:.20}", words=[*DATA, f"--out={name}"], codes=codes, how=STOPPED, changes=NEW)
    full = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
    for name, value in (("RANK", "x"), ("WORLD_SIZE", "0"), ("LOCAL_RANK", "-1")):
        yield Try(f"{name} = {value}", codes=(2,), how={"env": full | {name: value}})
