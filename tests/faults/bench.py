"What the tries work on: a tiny run with its data, damages of its files, and how the outcome of a try is judged."

import gzip
import io
import json
import os
import pickle
import random
import re
import shutil
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from queue import SimpleQueue

import numpy as np
from PIL import Image

from warm import Warm

TINY = (
    "--size 8 --multipliers 1,2 --channels 8 --T 20 --batch 4 --warmup 0 --threads 1 --precision fp32 "
    "--log-every 1 --save-every 2 --grid-every 0 --keep 9"
).split()
TRAIN = ["train", "--data", "photos", "--out", "run", *TINY, "--steps"]
SAMPLE = "sample run --n 1 --steps 1".split()
NEWEST = "run/checkpoints/step_00000004"
STOP = """
from ddpm_course.cli import train as train_command
def after_one(interrupt, group):
    interrupt.signal = 15
    return True
train_command.must_stop = after_one
"""  # a run that is stopped after its first step, as by SIGTERM
RESULTS = ("run/.lock", "*.lock", "run/samples.png", "run/test.json", "run/loss.png", "run/denoising*", "run/bits.png")
MEMORY = 4 << 30  # bytes that a command may take beyond what it begins with
SHARE = int(os.environ.get("FAULT_SHARE", 6))  # where a test has many tries, every sixth; 1: all, which take minutes
GROWS = ("run/metrics.jsonl", "run/config.json")  # rewritten where a run goes on


def nothing(folder):
    "Leave the folder as it is."


@dataclass
class Try:
    "One fault: what is done to the folder, the command that meets it, and what must come of it."

    name: str
    words: list = field(default_factory=lambda: list(SAMPLE))
    prepare: Callable[[Path], object] = nothing
    codes: tuple = (0, 2)
    says: str = ""  # in the sentence of a refusal
    how: dict = field(default_factory=dict)  # of Warm.run
    changes: tuple = ()  # patterns of files that the command may change, beside RESULTS
    after: Callable[[Path, object], object] = lambda folder, result: None  # more that must hold: a complaint, or None
    warns: bool = False  # whether warnings may come before the sentence
    again: bool = False  # whether the run, mended, is sampled from afterwards


def picture(path, draws, size=8, channels=1):
    shape = (size, size) if channels == 1 else (size, size, 3)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(draws.integers(0, 255, shape, dtype=np.uint8)).save(path)


def photos(folder, classes=("cats", "dogs"), each=12):
    draws = np.random.default_rng(0)
    for name in classes:
        for k in range(each):
            picture(folder / name / f"{k:02d}.png", draws)


def everything(folder):
    "All below a folder as it is: files with their bytes, links with their target, others with their kind."
    found = {}
    for path in folder.rglob("*"):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = "link to " + os.readlink(path)
        elif path.is_file() and path.stat().st_size < 1 << 30 and os.access(path, os.R_OK):
            found[name] = path.read_bytes()
        else:
            found[name] = "folder" if path.is_dir() else f"{path.stat().st_mode:o}"
    return found


class Bench:
    "Two warm processes, a tiny run to copy, and the count of what was tried."

    def __init__(self):
        self.known = self.tried = self.survived = 0
        self.failures, self.slowest = [], []

    def __enter__(self):
        self.servers, self.free = [Warm().__enter__() for _ in range(2)], SimpleQueue()
        for server in self.servers:
            self.free.put(server)
        self.place = tempfile.TemporaryDirectory()
        self.good = Path(self.place.name, "good")
        photos(self.good / "photos")
        made = self.run([*TRAIN, 4], self.good)
        assert made.code == 0, made
        return self

    def __exit__(self, *error):
        for server in self.servers:
            server.__exit__(*error)
        self.place.cleanup()

    def run(self, words, cwd, **how):
        server = self.free.get()
        try:
            env = {"DDPM_CACHE": str(Path(cwd, "cache")), **how.pop("env", {})}
            return server.run(words, cwd, env=env, memory=MEMORY, **how)
        finally:
            self.free.put(server)

    def folder(self):
        "A copy of the tiny run and its data, below a folder of its own: what is written beside it is noticed."
        folder = Path(tempfile.mkdtemp(dir=self.place.name), "here")
        shutil.copytree(self.good, folder)
        return folder

    def complaints(self, one, folder):
        "Do it; all that is wrong with the outcome."
        one.prepare(folder)
        before = everything(folder.parent)
        result = self.run(one.words, folder, **one.how)
        self.slowest.append((result.seconds, one.name))
        found, now = list(judged(one, result)), everything(folder.parent)
        allowed = (*RESULTS, *one.changes, *(GROWS if "train" in one.words and result.code != 2 else ()))
        for name, content in before.items():
            free = any(fnmatch(name, f"here/{pattern}") for pattern in allowed)
            if now.get(name) != content and not free:
                found.append(f"{name} was lost or changed")
        if outside := [name for name in now if name not in before and not name.startswith("here/")]:
            found.append(f"written outside: {outside}")
        if more := one.after(folder, result):
            found.append(more)
        if one.again and not found:
            shutil.rmtree(folder / "run")
            shutil.copytree(self.good / "run", folder / "run")
            next_one = self.run(SAMPLE, folder)
            if next_one.code:
                found.append(f"the next good start: {next_one.err}")
        return [f"{one.name}: {what}" for what in found], result

    def attempt(self, one):
        folder = self.folder()
        try:
            found, result = self.complaints(one, folder)
            return [f"{what}\n    code {result.code}: {result.err[-700:]}" for what in found]
        finally:
            shutil.rmtree(folder.parent, ignore_errors=True)

    def attempt_all(self, tries):
        "Do them all, of many every SHARE-th, two at a time; count them, and fail with all complaints."
        tries = list(tries)
        self.known += len(tries)
        names = [one.name for one in tries]
        assert len(set(names)) == len(names), [name for name in names if names.count(name) > 1]
        tries = tries[::SHARE] if len(tries) > 12 else tries
        with ThreadPoolExecutor(len(self.servers)) as pool:
            outcomes = list(pool.map(self.attempt, tries))
        self.tried += len(tries)
        self.survived += sum(not found for found in outcomes)
        wrong = [what for found in outcomes for what in found]
        self.failures += wrong
        print(*wrong, sep="\n", flush=True)
        assert not wrong, f"{sum(map(bool, outcomes))} of {len(tries)} tries:\n" + "\n".join(wrong)


def judged(one, result):
    "What is wrong with how a command ended."
    if not result.ended:
        yield "no end"
        return
    if result.code not in one.codes:
        yield f"code {result.code}, expected {one.codes}"
    if found := re.search(r"Traceback|Exception ignored|[a-z]Error\b", result.err + result.out):
        yield f"{found[0]!r} was printed"
    lines = result.err.splitlines()
    sentences = [line for line in lines if "ddpm: " in line]
    if result.code == 2 and one.how.get("stderr") is None:
        several = len(sentences) != 1 and not (one.warns and sentences)
        if several or lines[-1] != sentences[-1] or not sentences[-1].startswith("ddpm: "):
            yield f"{len(sentences)} sentences, or something beside them"
        if len(sentences[-1:]) and len(sentences[-1]) > 700:
            yield "a very long sentence"
        if one.says not in result.err:
            yield f"{one.says!r} is not said"
    for word in ("remove ", "delete ", "rm "):
        if any(f" {word}" in line for line in sentences):
            yield f"advises to {word}"


# -- damages -----------------------------------------------------------------------------------------------------------

DEEP = 100_000


def link(target):
    def make(path):
        path.unlink()
        path.symlink_to(target)

    return make


def fifo(path):
    path.unlink()
    os.mkfifo(path)


def folder_instead(path):
    path.unlink()
    path.mkdir()


def huge(path):
    with open(path, "r+b") as file:
        file.truncate(1 << 40)


def unreadable(path):
    path.chmod(0)


PLACES = {  # something else at the file's place
    "missing": Path.unlink,
    "a folder": folder_instead,
    "a fifo": fifo,
    "link to /dev/zero": link("/dev/zero"),
    "link to nowhere": link("nowhere"),
    "link to itself": lambda path: link(path.name)(path),
    "a terabyte": huge,
    "unreadable": unreadable,
}


def npy(array, **how):
    file = io.BytesIO()
    np.save(file, array, **how)
    return file.getvalue()


FOREIGN = {
    "nothing": b"",
    "a byte": b"\0",
    "text": b"hello\n",
    "png": b"\x89PNG\r\n\x1a\n" + bytes(100),
    "pickle": pickle.dumps({"step": 4}),
    "array": npy(np.zeros(9)),
    "objects": npy(np.array([{}], object), allow_pickle=True),
    "gzip": gzip.compress(b"{}"),
    "zip": b"PK\x03\x04" + bytes(60),
    "ones": b"\xff" * 300,
}
JSON = {
    "list": "[]",
    "object": "{}",
    "null": "null",
    "number": "3",
    "string": '"x"',
    "NaN": "NaN",
    "infinity": "1e999",
    "5,000 digits": "1" * 5000,
    "deep list": "[" * DEEP,
    "deep list, closed": "[" * DEEP + "]" * DEEP,
    "deep object": '{"step":' * DEEP,
    "two documents": "{}{}",
    "comment": "// no",
    "surrogate": '"\ud800"'.encode("utf-8", "surrogatepass"),
    "utf-16": '{"step": 4}'.encode("utf-16"),
    "mark": b"\xef\xbb\xbf{}",
}


def damages(good, cuts=8, flips=16, seed=0):
    "Damaged versions of a file's bytes by name: cut, flipped, foreign."
    draws = random.Random(seed)
    found = dict(FOREIGN)
    for k in range(1, cuts):
        found[f"cut at {k}/{cuts}"] = good[: len(good) * k // cuts]
    found |= {"last byte cut": good[:-1], "doubled": good + good, "zeros": bytes(len(good))}
    for _ in range(flips):
        bit = draws.randrange(8 * len(good))
        found[f"bit {bit} flipped"] = flipped(good, bit)
    middle = len(good) // 2
    return found | {"junk within": good[:middle] + draws.randbytes(50) + good[middle:]}


def flipped(good, bit):
    return good[: bit // 8] + bytes([good[bit // 8] ^ 1 << bit % 8]) + good[bit // 8 + 1 :]


def write(name, content):
    "What prepares a try: a file with this content, or what a function makes of its path."

    def prepare(folder):
        path = folder / name
        if callable(content):
            content(path)
        else:
            path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))

    return prepare


WRONG = (None, "x", "", -1, 10**30, 1e308, True, [], {}, [[1]], float("nan"))


def wrong_typed(good, few=3, seed=0):
    "The JSON with each of its values in turn missing, or replaced by a few of `WRONG`."
    content = json.loads(good)

    def places(value, path=()):
        for key, below in value.items() if isinstance(value, dict) else enumerate(value):
            yield *path, key
            if isinstance(below, dict | list):
                yield from places(below, (*path, key))

    draws = random.Random(seed)
    for place in list(places(content)):
        for k in (-1, *draws.sample(range(len(WRONG)), few)):
            changed = json.loads(good)
            inner = changed
            for key in place[:-1]:
                inner = inner[key]
            if k < 0:
                del inner[place[-1]]
            else:
                inner[place[-1]] = WRONG[k]
            what = "missing" if k < 0 else f"{WRONG[k]!r}"
            yield f"{'.'.join(map(str, place))} {what}", json.dumps(changed)
