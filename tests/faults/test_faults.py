"""Faults that are really tried, each in a process of its own: damaged files, full disks, signals, strangers' folders.

Whatever happens: the command ends, well or with code 2 and one sentence; what was saved before is still there byte for
byte, and the next good start works. A few of each kind are tried by default, all of them by `-m thorough`.
"""

import hashlib
import io
import json
import os
import pickle
import random
import shutil
import signal
import subprocess
import zipfile
import zlib

import pytest
import torch
from bench import GO_ON, NEWEST, SAMPLE, STOP, TINY, TRAIN, Bench, Try, at_step, faults, photos
from PIL import Image
from safetensors.torch import load_file, save_file

from ddpm_course.run.checkpoints import newest_checkpoint

DATA = ["train", "--data", "photos", "--out", "new", *TINY, "--steps", 2]
STOPPED = {"code": STOP}
GOES = (143, 2)  # stopped after a step, or refused
NEW = ("new*", "cache*")
GO = ("run/config.json*", "run/metrics.jsonl*", "run/checkpoints/.*")  # what a start that is refused may have begun
PLAIN = {"plain": True}


@pytest.fixture(scope="module")
def bench():
    with Bench() as bench:
        yield bench


# -- files of a run ----------------------------------------------------------------------------------------------------


def instead(make):
    "What puts something else at a file's place."
    return lambda path: (path.unlink(), make(path))


def huge(path):
    with open(path, "r+b") as file:
        file.truncate(1 << 40)


PLACES = {  # something else at the file's place
    "missing": lambda path: path.unlink(),
    "a folder": instead(lambda path: path.mkdir()),
    "a fifo": instead(os.mkfifo),
    "link to /dev/zero": instead(lambda path: path.symlink_to("/dev/zero")),
    "link to nowhere": instead(lambda path: path.symlink_to("nowhere")),
    "link to itself": instead(lambda path: path.symlink_to(path.name)),
    "unreadable": lambda path: path.chmod(0),
    "a terabyte": huge,
}
FOREIGN = {"nothing": b"", "text": b"hello\n", "pickle": pickle.dumps({"step": 4}, 2), "zip": b"PK\x03\x04" + bytes(60)}
JSON = {
    "list": "[]",
    "object": "{}",
    "NaN": "NaN",
    "5,000 digits": "1" * 5000,
    "deep list": "[" * 100_000,
    "two documents": "{}{}",
    "surrogate": '"\ud800"'.encode("utf-8", "surrogatepass"),
    "utf-16": '{"step": 4}'.encode("utf-16"),
}


def damages(good):
    "Damaged versions of a file's bytes by name: cut, flipped, foreign."
    draws = random.Random(0)
    found = {f"cut at {k}/4": good[: len(good) * k // 4] for k in range(1, 4)}
    for bit in [draws.randrange(8 * len(good)) for _ in range(6)]:
        byte = bytes([good[bit // 8] ^ 1 << bit % 8])
        found[f"bit {bit} flipped"] = good[: bit // 8] + byte + good[bit // 8 + 1 :]
    return found | FOREIGN | {"last byte cut": good[:-1], "doubled": good + good, "zeros": bytes(len(good))}


def write(name, content):
    "What prepares a try: a file with this content, or what a function makes of its path."

    def prepare(folder):
        if callable(content):
            content(folder / name)
        else:
            (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())

    return prepare


def edit(name, change):
    "What prepares a try: a JSON file that a function changes."

    def prepare(folder):
        content = json.loads((folder / name).read_text())
        change(content)
        (folder / name).write_text(json.dumps(content))

    return prepare


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
def test_damaged_published_weights(bench):
    for name in (UNET, "published/scheduler/scheduler_config.json", BLOB):
        yield from by_file(bench, name, PUBLISHED)


WRONG = (None, "x", "", -1, 10**30, 1e308, True, [], {}, [[1]], float("nan"))


@faults
def test_wrong_types(bench):
    "Each setting of a run, and each fact of a checkpoint, in turn missing or of another type."
    draws = random.Random(0)
    yield Try("settings are a list", edit(f"{NEWEST}/meta.json", lambda meta: meta.update(settings=[[1]])), codes=(2,))

    def places(value, path=()):
        for key, below in value.items() if isinstance(value, dict) else ():
            yield *path, key
            yield from places(below, (*path, key))

    for name in ("run/config.json", f"{NEWEST}/meta.json"):
        for *path, last in places(json.loads((bench.good / name).read_text())):
            for value in ("missing", draws.choice(WRONG)):

                def change(content, path=path, last=last, value=value):
                    for key in path:
                        content = content[key]
                    content[last] = value
                    if value == "missing":
                        del content[last]

                yield Try(f"{name}: {'.'.join([*path, last])} {value!r}", edit(name, change))


def stranger(name, file, content, words=SAMPLE, how=None, **more):
    "A run whose sums are right, with this content of one of a checkpoint's files."

    def prepare(folder):
        write(file, content)(folder / NEWEST)
        digest = hashlib.sha256((folder / NEWEST / file).read_bytes()).hexdigest()
        edit(f"{NEWEST}/meta.json", lambda meta: meta["files"].update({file: digest}))(folder)

    return Try(f"a stranger's {file}: {name}", prepare, words, (2,), how or {}, **more)


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
    "complex": weights(lambda kept, one: kept.update({one: torch.zeros(3, dtype=torch.complex64)})),
    "NaN": weights(lambda kept, one: kept[one].fill_(float("nan"))),
    "infinite": weights(lambda kept, one: kept[one].fill_(float("inf"))),
}


@faults
def test_strangers_weights(bench):
    for name, content in SAFETENSORS.items():
        yield stranger(name, "ema.safetensors", content)
        yield stranger(name, "model.safetensors", content, GO_ON, STOPPED)


# -- pickles that would run something ----------------------------------------------------------------------------------

PUBLISHED = "sample --weights published --n 1 --steps 1 --guidance 1".split()
UNET, BLOB = "published/unet/config.json", "published/unet/diffusion_pytorch_model.safetensors"


class Call:
    "Pickled as the call of a function."

    def __init__(self, function, *arguments):
        self.said = function, arguments

    def __reduce__(self):
        return self.said


MARKS = {  # each leaves a file `mark` behind, in the folder of the command, where it is run
    "os.system": Call(os.system, "touch mark"),
    "eval": Call(eval, "open('mark', 'w')"),
    "pickle.loads": Call(pickle.loads, pickle.dumps(Call(os.system, "touch mark"))),
    "torch.save": Call(torch.save, 1, "mark"),
}


def as_zip(content):
    "A pickle in the form that torch.save writes."
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in (("data.pkl", content), ("version", b"3\n"), ("byteorder", b"little")):
            archive.writestr(f"archive/{name}", data)
    return file.getvalue()


@faults
def test_pickles_of_strangers_run_nothing(bench):
    "In a run's optimizer.pt; as they are, and as torch.save packs them."
    nothing_ran = lambda folder, result: "it ran" if list(folder.parent.rglob("mark")) else None
    for name, call in MARKS.items():
        content = pickle.dumps(call)
        for form, data in (("", content), (" packed", as_zip(content))):
            yield stranger(name + form, "optimizer.pt", data, GO_ON, STOPPED, after=nothing_ran)


# -- data --------------------------------------------------------------------------------------------------------------


def png_bomb(path):
    "A file of 60 KB that says it holds 60,000 x 60,000 pixels."
    size = (60_000).to_bytes(4, "big")
    path.write_bytes(b"\x89PNG\r\n\x1a\n")
    with open(path, "ab") as file:
        for kind, data in (
            (b"IHDR", size + size + b"\x08\0\0\0\0"),
            (b"IDAT", zlib.compress(bytes(60_000_000), 9)),
            (b"IEND", b""),
        ):
            file.write(len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big"))


@faults
def test_images_that_are_none(bench):
    "One of 24 images is something else, or a folder leads in circles."
    name = "photos/cats/00.png"
    yield from by_file(bench, name, DATA, GOES, STOPPED, changes=NEW)
    wide = lambda path: Image.new("L", (65_000, 1)).save(path)
    for what, make in {"a bomb": png_bomb, "very wide": wide, "an svg": b"<svg/>"}.items():
        yield Try(f"an image: {what}", write(name, make), DATA, GOES, STOPPED, changes=NEW)
    for what, link in {"a circle": ("photos/cats/more", ".."), "itself": ("photos/all", "all")}.items():
        circle = lambda folder, link=link: (folder / link[0]).symlink_to(link[1])
        yield Try(f"a link to {what}", circle, DATA, GOES, STOPPED, changes=NEW)


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

    names = [[name, "b"] for name in ("..", "../../x", "/tmp/x", "", "a\0b", "x" * 300, "\x1b[2J")]
    for classes in (*names, ["a", "a"], ["a"], [], [1, 2], "ab", ["a"] * 100_000):
        change = lambda config, classes=classes: config["data"].update(classes=classes)
        yield Try(f"classes {classes!r:.30}", edit("run/config.json", change), words, changes=("im*",), after=stays)


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


@faults
def test_end_at_each_change_of_a_run(bench):
    "A start that ends at its k-th change of the folder: what was saved is there, and the next start goes on."
    for what, act, codes, moments in (
        ("is killed", KILL, (-9, 143), range(1, MOMENTS)),
        ("has no space", FULL, (2, 143), range(1, MOMENTS, 3)),
    ):
        for k in moments:
            how = {"code": STOP + AT.format(k=k, inside="run/", act=act)}
            yield Try(f"a run that {what} at change {k}", lambda folder: None, GO_ON, codes, how, "", GO, bench.goes_on)


@faults
def test_end_at_each_change_of_a_cache(bench):
    "The same while the images are decoded for the first time; without a cache they are decoded into memory."
    gone = lambda folder: shutil.rmtree(folder / "cache")
    for what, act, codes in (("is killed", KILL, (-9, 143)), ("has no space", FULL, (143,))):
        for k in range(1, 10, 2):
            how = {"code": STOP + AT.format(k=k, inside="cache", act=act)}
            yield Try(f"a cache whose maker {what} at change {k}", gone, GO_ON, codes, how, after=bench.goes_on)


@faults
def test_a_largest_file(bench):
    "No file may grow beyond so many bytes, as on a full disk: for a run that begins or goes on, and for results."
    again = lambda folder, result: bench.goes_on(folder) if result.code else None
    for size in (1000, 20_000, 150_000, 400_000):
        how = {"file_size": size}
        yield Try(f"going on, files of {size}", words=GO_ON, codes=GOES, how=STOPPED | how, changes=GO, after=again)
        yield Try(f"beginning, files of {size}", words=DATA, codes=GOES, how=STOPPED | how, changes=NEW)
        yield Try(f"arrays, files of {size}", words=[*SAMPLE, "--npz", "s.npz", "--out", "s.png"], how=how)


# -- places that cannot be written or read -----------------------------------------------------------------------------

NO_WORK = """
from ddpm_course.model import Model
def never(*args, **kwargs):
    raise AssertionError('the work began, and its result cannot be kept')
Model.answer = never
"""


@faults
def test_permissions(bench):
    "Folders and files that this user may not read or write: said before the work."
    going = {**PLAIN, **STOPPED}
    closed = lambda name, mode=0o555: lambda folder: (folder / name).chmod(mode)
    yield from (
        Try("sample in a locked run", closed("run"), SAMPLE, (2,), {**PLAIN, "code": NO_WORK}, "run"),
        Try("train in a locked folder", closed("."), DATA, (2,), going, "new"),
        Try("train in a locked run", closed("run"), GO_ON, (2,), going, "run"),
        Try("checkpoints locked", closed("run/checkpoints"), GO_ON, (2,), going, "checkpoints", GO),
        Try("photos locked", closed("photos", 0), DATA, (2,), PLAIN, "photos"),
        Try("a class locked", closed("photos/cats", 0), DATA, (2,), PLAIN, "cats"),
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


# -- numbers that make no sense, losses that are none ------------------------------------------------------------------

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
            words = [*DATA, f"--{flag}={value}"]
            yield Try(f"train --{flag} {value}", words=words, codes=(0, *GOES), how=STOPPED, changes=NEW)
    for flag in ("steps", "guidance", "eta", "seed", "n", "strength", "rounds", "to-seed", "nproc"):
        for value in draws.sample(NUMBERS, 3):
            yield Try(f"sample --{flag} {value}", words=[*SAMPLE, f"--{flag}={value}"])


NAN_LOSS = """
from ddpm_course import Simple
honest = Simple.losses
Simple.losses = lambda *args: {name: value * float('nan') for name, value in honest(*args).items()}
"""
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
def test_starts_that_come_to_nothing(bench):
    "A start that is refused, or diverges at once, and then the corrected one in the same folder."

    def corrected(folder, result):
        more = bench.run(DATA, folder, code=STOP)
        return None if more.code == 143 else more.err

    for name, words, how in (
        ("a very wide network", ["--channels", 8192, "--multipliers", "64,64"], {}),
        ("unknown schedule", ["--schedule", "foo"], {}),
        ("too much memory", [], {"code": NO_MEMORY}),
        ("a loss that is no number", [], {"code": NAN_LOSS}),
    ):
        yield Try(name, words=[*DATA, *words], codes=(2,), how=how, changes=NEW, after=corrected)


@faults
def test_runs_that_cannot_go_on(bench):
    "Losses that are no numbers, memory that runs out: said, and the last checkpoint is intact."
    for name, code, said in (
        ("a NaN loss", NAN_LOSS, "smaller"),
        ("a NaN gradient from step 3", NAN_GRADIENT, ""),
        ("no memory", NO_MEMORY, "accumulate"),
    ):
        yield Try(name, words=GO_ON, codes=(2,), how={"code": code}, says=said, changes=GO, after=bench.goes_on)
    yield Try("no memory for samples", codes=(2,), how={"code": NO_MEMORY})
    yield Try("--lr 1e6", words=[*DATA[:-1], 20, "--lr", "1e6", "--clip", "1e12"], changes=NEW)


# -- signals, other processes, surroundings ----------------------------------------------------------------------------


@faults
def test_signals(bench):
    "Ctrl-C, SIGTERM and a closing terminal: saved, said how to go on; other ends leave the last checkpoint intact."

    def saved(folder, result):
        step = newest_checkpoint(folder / "run").name
        return bench.goes_on(folder) if step == "step_00000005" else f"{step} is the last that was saved"

    sent = lambda kind, **streams: {"code": at_step(1, f"os.kill(os.getpid(), {int(kind)})"), **streams}
    for kind in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        yield Try(f"{kind.name} in a step", words=GO_ON, codes=(128 + kind,), how=sent(kind), after=saved)
    gone = sent(signal.SIGHUP, stdout="gone", stderr="gone")
    yield Try("a terminal that closes", words=GO_ON, codes=(129,), how=gone, after=saved)
    for kind in (signal.SIGKILL, signal.SIGQUIT, signal.SIGSEGV):
        how = {"codes": (-kind,), "how": sent(kind), "changes": GO, "after": bench.goes_on}
        yield Try(f"{kind.name} in a step", words=GO_ON, **how)
    code = "import signal\nsignal.signal(signal.SIGHUP, signal.SIG_IGN)\n" + gone["code"]
    yield Try("SIGHUP under nohup", words=[*TRAIN, 6], codes=(0,), how={"code": code})
    code = NO_WORK.replace("raise AssertionError", "import os; os.kill(os.getpid(), 2) #")
    yield Try("SIGINT while sampling", codes=(130,), how={"code": code})


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
    yield Try("a second start", words=GO_ON, codes=(143,), how=how, after=said)
    refused = "import fcntl\ndef flock(*args):\n    raise OSError(37, 'no locks')\nfcntl.flock = flock\n"
    yield Try("locks refused", words=GO_ON, codes=(143,), how={"code": STOP + refused})


@faults
def test_surroundings(bench):
    "No home, any language, no place for temporary files: the work is done and kept."
    done = lambda folder, result: None if newest_checkpoint(folder / "run").name[-1] == "6" else "not finished"
    for env in (
        {"HOME": None, "DDPM_CACHE": None},
        {"LANG": "C", "LC_ALL": "C"},
        {"TERM": None, "COLUMNS": "-5", "LINES": "x"},
        {"TMPDIR": "/nowhere"},
    ):
        yield Try(f"train, {env}", words=[*TRAIN, 6], codes=(0,), how={"env": env}, after=done)


@faults
def test_names_of_any_kind(bench):
    "Runs and results in folders whose names are of any language, or of none."
    for name in ("a b", "猫/🐱", "-x", "a'b", "a\nb", "\udcff\udcfe", "x" * 250, "x" * 300):

        def sampled(folder, result, name=name):
            more = bench.run(["sample", "--n", "1", "--steps", "1", "--", name], folder)
            return None if result.code == 2 or more.code == 0 else more.err

        how = {"codes": (2,) if len(name) == 300 else (143,), "how": STOPPED, "changes": NEW, "after": sampled}
        yield Try(f"--out {name!r:.20} ({len(name)})", words=[*DATA, f"--out={name}"], **how)


@faults
def test_environments_of_clusters(bench):
    "A process that believes to be one of several, and whose variables cannot be true: a sentence, at once."
    full = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
    for name, value in (("RANK", "x"), ("RANK", "5"), ("WORLD_SIZE", "0"), ("WORLD_SIZE", ""), ("LOCAL_RANK", "-1")):
        yield Try(f"{name} = {value}", codes=(2,), how={"env": full | {name: value}})
    yield Try("srun", codes=(2,), how={"env": {"SLURM_STEP_NUM_TASKS": "4"}}, says="srun")
