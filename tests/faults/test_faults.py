"""Faults that are really tried: damaged files, full disks, signals, strangers' folders.

Whatever happens: the work is done, or ends with one sentence; what was saved before is still there byte for byte, and
the next good start works. Damage is tried in this process, by what reads the file; what a process alone can show (its
end at each moment, its limits) is tried through the command: some by default, all in the second tier.
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
from bench import DATA, GO_ON, NEWEST, SAMPLE, STOP, TRAIN, Try, at_step, attempt, photos, run, said
from safetensors.torch import load_file, save_file

from ddpm_course import load_model
from ddpm_course.data.sources import load_data
from ddpm_course.run.checkpoints import checksum, newest_checkpoint, read_log
from ddpm_course.share.pipelines import load_published


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    "A folder with photos, a run on them, and its weights as they are published."
    folder = tmp_path_factory.mktemp("good") / "here"
    photos(folder / "photos")
    for words in ([*TRAIN, 4], ["export", "run", "published"]):
        made = run(words, folder)
        assert made.code == 0, made
    return folder


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


def damages(whole):
    "Damaged versions of a file's bytes by name: cut, flipped, foreign."
    draws = random.Random(0)
    found = {f"cut at {k}/4": whole[: len(whole) * k // 4] for k in range(1, 4)}
    for bit in [draws.randrange(8 * len(whole)) for _ in range(20)]:
        byte = bytes([whole[bit // 8] ^ 1 << bit % 8])
        found[f"bit {bit} flipped"] = whole[: bit // 8] + byte + whole[bit // 8 + 1 :]
    return found | FOREIGN | {"last byte cut": whole[:-1], "doubled": whole + whole, "zeros": bytes(len(whole))}


@pytest.fixture
def cached(tmp_path, monkeypatch):
    monkeypatch.setenv("DDPM_CACHE", str(tmp_path))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", READERS)
def test_damaged_files(good, cached, name):
    path = good / name
    whole = path.read_bytes()
    try:
        refused = {}
        for kind, content in damages(whole).items():
            path.write_bytes(content)
            refused[kind] = said(kind, READERS[name], good)
        path.unlink()
        refused["missing"] = said("missing", READERS[name], good)
        path.mkdir()
        refused["folder"] = said("a folder", READERS[name], good)
    finally:
        path.rmdir() if path.is_dir() else None
        path.write_bytes(whole)
    assert said("", READERS[name], good) is None
    assert name.startswith("photos") or sum(map(bool, refused.values())) > 9  # an image that is none is left out


def places(value, path=()):
    "The places of a JSON value, outermost first."
    for key, below in value.items() if isinstance(value, dict) else ():
        yield *path, key
        yield from places(below, (*path, key))


@pytest.mark.parametrize("name", ["run/config.json", f"{NEWEST}/meta.json"])
def test_wrong_types(good, name):
    "Each setting of a run, and each fact of a checkpoint, in turn missing or of another type."
    path = good / name
    before, refused = path.read_text(), 0
    try:
        for *outer, last in places(json.loads(before)):
            for value in ("missing", None, "x", -1, 10**30, True, [], {}, [[1]], float("nan")):
                content = json.loads(before)
                inner = content
                for key in outer:
                    inner = inner[key]
                inner[last] = value
                if value == "missing":
                    del inner[last]
                path.write_text(json.dumps(content))
                refused += said(f"{last} {value}", READERS[name], good) is not None
    finally:
        path.write_text(before)
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
def test_strangers_weights(good, tmp_path, kind):
    "Weights whose sums are right, and that are none."
    folder = shutil.copytree(good / "run", tmp_path / "run") / "checkpoints/step_00000004"
    SAFETENSORS[kind](folder / "ema.safetensors")
    meta = json.loads((folder / "meta.json").read_text())
    meta["files"]["ema.safetensors"] = checksum((folder / "ema.safetensors").read_bytes())
    (folder / "meta.json").write_text(json.dumps(meta))
    assert said(kind, load_model, tmp_path / "run")


# -- something else at a file's place ----------------------------------------------------------------------------------


def huge(path):
    with open(path, "wb") as file:
        file.truncate(1 << 41)


def png_bomb(path):
    "A file of 60 KB that says it holds 60,000 x 60,000 pixels."
    size = (60_000).to_bytes(4, "big")
    parts = (b"IHDR", size + size + b"\x08\0\0\0\0"), (b"IDAT", zlib.compress(bytes(60_000_000), 9)), (b"IEND", b"")
    content = b"".join(
        len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big") for kind, data in parts
    )
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + content)


INSTEAD = {
    "a fifo": os.mkfifo,
    "link to /dev/zero": lambda path: path.symlink_to("/dev/zero"),
    "link to itself": lambda path: path.symlink_to(path.name),
    "two terabytes": huge,
    "a bomb": png_bomb,
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("what", INSTEAD)
def test_something_else_at_its_place(good, cached, tmp_path, what):
    "Nothing waits for it, and nothing reads it to its end."
    for name in ("run/config.json", f"{NEWEST}/ema.safetensors", "photos/cats/00.png"):
        folder = shutil.copytree(good, tmp_path / name.replace("/", "_"))
        (folder / name).unlink()
        INSTEAD[what](folder / name)
        assert said(what, READERS[name], folder) or name.startswith("photos")  # what is no image is left out


def test_folders_in_a_circle(good, cached, tmp_path):
    shutil.copytree(good / "photos", tmp_path / "photos")
    (tmp_path / "photos/cats/more").symlink_to("..")
    with pytest.warns(UserWarning, match="that are no images are ignored, such as cats/more"):
        assert len(load_data(tmp_path / "photos", 8)[0]) == 22


@pytest.mark.parametrize("name", ["a,b", "$HOME `id`", "a\nb"])
def test_class_folders_of_any_name(tmp_path, name):
    "A run on classes of odd names: it trains, and its `next:` line works."
    photos(tmp_path / "photos", [f"{name}{k}" for k in range(6)], 10)
    trained = run([*DATA[:-1], 1], tmp_path)
    line = 'ddpm() { printf "%s\\0" "$@"; }; ' + trained.out.split("next:  ")[1].split("      ")[0]
    words = subprocess.run(["bash", "-c", line], capture_output=True, cwd=tmp_path).stdout.decode().split("\0")[:-1]
    drawn = run([*words, "--n", "1", "--steps", "1"], tmp_path)
    assert drawn.code == 0 and {path.name for path in tmp_path.iterdir()} == {"photos", "new", "cache"}, drawn


@pytest.mark.parametrize("classes", [["../../x", "b"], ["/tmp/x", "b"], ["a\0b", "b"], ["\x1b[2J", "b"]], ids=repr)
def test_class_names_of_strangers_reach_nowhere(good, tmp_path, classes):
    "Names in config.json that lead out of the folder of --images, or are none."
    shutil.copytree(good / "run", tmp_path / "here/run")
    config = json.loads((tmp_path / "here/run/config.json").read_text())
    config["data"]["classes"] = classes
    (tmp_path / "here/run/config.json").write_text(json.dumps(config))
    result = run([*SAMPLE, "--images", "im/inner"], tmp_path / "here")
    assert result.code in (0, 2) and "Traceback" not in result.err, result
    beside = [path.name for folder in (".", "here", "here/im") for path in (tmp_path / folder).glob("*")]
    assert set(beside) <= {"here", "run", "im", "inner", "cache"}


# -- what a process alone can show -------------------------------------------------------------------------------------

AT = """
import os, sys, signal
left_changes = [{k}]
def hook(event, args):
    changes = event in ("os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.link", "os.truncate", "os.chmod")
    if event == "open":
        changes = isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    path = str(args[0]) if args and isinstance(args[0], (str, os.PathLike)) else ""
    if changes and "run/" in path:
        left_changes[0] -= 1
        if left_changes[0] == 0:
            {act}
sys.addaudithook(hook)
"""
KILL = "os.kill(os.getpid(), signal.SIGKILL)"
FULL = "raise OSError(28, 'No space left on device', path)"
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
WHILE_SAMPLING = """
import os
from ddpm_course.model import Model
Model.answer = lambda *args, **how: os.kill(os.getpid(), 2)
"""
NOHUP = "import signal\nsignal.signal(signal.SIGHUP, signal.SIG_IGN)\n"


def sent(kind):
    return at_step(1, f"os.kill(os.getpid(), {int(kind)})")


def closed(name):
    return lambda folder: (folder / name).chmod(0o555)


def changes(k, act, code):
    "A start of the run that ends at its k-th change of the folder."
    return Try(GO_ON, (code, 143), how={"code": STOP + AT.format(k=k, act=act)}, next_start=True)


GONE, PLAIN = {"stdout": "gone", "stderr": "gone"}, {"plain": True}
ONE_OF = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
TRIES = {
    **{f"killed at change {k}": changes(k, KILL, -9) for k in range(2, 26, 2)},
    **{f"no space at change {k}": changes(k, FULL, 2) for k in (2, 8, 14, 20)},
    "files of 20 kB": Try(GO_ON, (2,), how={"file_size": 20_000}, next_start=True),
    "a locked folder": Try(DATA, (2,), closed("."), PLAIN, "new"),
    "locked checkpoints": Try(GO_ON, (2,), closed("run/checkpoints"), PLAIN, "checkpoints"),
    "a NaN gradient": Try(GO_ON, (2,), how={"code": NAN_GRADIENT}, next_start=True),
    "no memory": Try(GO_ON, (2,), how={"code": NO_MEMORY}, says="accumulate", next_start=True),
    "Ctrl-C": Try(GO_ON, (130,), how={"code": sent(signal.SIGINT)}, next_start=True),
    "a terminal that closes": Try(GO_ON, (129,), how=GONE | {"code": sent(signal.SIGHUP)}, next_start=True),
    "Ctrl-C while sampling": Try(SAMPLE, (130,), how={"code": WHILE_SAMPLING}),
    "nohup": Try([*TRAIN, 6], (0,), how={"code": NOHUP + sent(signal.SIGHUP)}),
    "a second start": Try(GO_ON, (143,), how={"code": SECOND + at_step(1, "start_second()")}, says="another process"),
    "no home": Try([*TRAIN, 6], (0,), how={"env": {"HOME": None, "DDPM_CACHE": None, "LC_ALL": "C"}}),
    "no place for temporary files": Try([*TRAIN, 6], (0,), how={"env": {"TMPDIR": "/nowhere", "COLUMNS": "-5"}}),
    **{f"RANK = {rank}": Try(SAMPLE, (2,), how={"env": ONE_OF | {"RANK": rank}}) for rank in ("x", "-1")},
    **{f"a run called {name!r}": Try([*DATA, f"--out=new/{name}"], (0,)) for name in ("猫/🐱", "a\nb", "\udcff\udcfe")},
}
FIRST = "killed at change 8", "no space at change 8", "a NaN gradient", "Ctrl-C", "a second start", "locked checkpoints"


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.thorough] * (n not in FIRST)) for n in TRIES])
def test_a_try(good, tmp_path, name):
    attempt(TRIES[name], good, tmp_path / "here")
    if name in ("Ctrl-C", "a terminal that closes"):  # saved at once
        assert newest_checkpoint(tmp_path / "here/run").name >= "step_00000005"
