"What the tries work on: a tiny run with its data, damages of its files, and how the outcome of a try is judged."

import gzip
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
import pytest
from PIL import Image

from ddpm_course.run.checkpoints import newest_checkpoint
from warm import Warm

TINY = (
    "--size 8 --multipliers 1,2 --channels 8 --T 20 --batch 4 --warmup 0 --threads 1 --precision fp32 "
    "--log-every 1 --save-every 2 --grid-every 0 --keep 9"
).split()
TRAIN = ["train", "--data", "photos", "--out", "run", *TINY, "--steps"]
GO_ON = [*TRAIN, 8]
DATA = ["train", "--data", "photos", "--out", "new", *TINY, "--steps", 2]
SAMPLE = "sample run --n 1 --steps 1".split()
NEWEST = "run/checkpoints/step_00000004"
RESULTS = ("run/.lock", "*.lock", "run/samples.png", "run/test.json", "run/loss.png", "run/denoising*", "run/bits.png")
GROWS = ("run/metrics.jsonl", "run/config.json")  # rewritten where a run goes on
MEMORY = 4 << 30  # bytes that a command may take beyond what it begins with


def at_step(k, act):
    "Lines for a command: they do something at the end of its k-th step of training."
    return f"""
import os, signal
from torch.optim.optimizer import register_optimizer_step_post_hook
left = [{k}]
def watch(*args):
    left[0] -= 1
    if left[0] == 0:
        {act}
register_optimizer_step_post_hook(watch)
"""


STOP = at_step(1, "os.kill(os.getpid(), signal.SIGTERM)")
STOPPED = {"code": STOP}
GOES = (143, 2)  # stopped after a step, or refused


def nothing(folder):
    "Leave the folder as it is."


@dataclass
class Try:
    "One fault: what is done to the folder, the command that meets it, and what must come of it."

    name: str
    prepare: Callable[[Path], object] = nothing
    words: list = field(default_factory=lambda: list(SAMPLE))
    codes: tuple = (0, 2)
    how: dict = field(default_factory=dict)  # of Warm.run
    says: str = ""  # in the sentence of a refusal
    changes: tuple = ()  # patterns of files that the command may change, beside RESULTS
    after: Callable[[Path, object], object] = lambda folder, result: None  # more that must hold: a complaint, or None


def picture(path, draws, size=8):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(draws.integers(0, 255, (size, size), dtype=np.uint8)).save(path)


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
        self.known, self.tried, self.slowest = 0, 0, (0, "")

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

    def goes_on(self, folder, result=None):
        "What is wrong with the next start of the run."
        more = self.run(GO_ON, folder, code=STOP)
        good = more.code == 143 and newest_checkpoint(folder / "run").name > Path(NEWEST).name
        return None if good else f"no next start: {more.err}"

    def complaints(self, one, folder):
        "Do it; all that is wrong with the outcome."
        one.prepare(folder)
        before = everything(folder.parent)
        result = self.run(one.words, folder, **one.how)
        self.slowest = max(self.slowest, (result.seconds, one.name))
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
        return [f"{one.name}: {what}\n    code {result.code}: {result.err[-700:]}" for what in found]

    def attempt(self, one):
        "In a copy of the tiny run and its data, below a folder of its own: what is written beside it is noticed."
        folder = Path(tempfile.mkdtemp(dir=self.place.name), "here")
        shutil.copytree(self.good, folder)
        try:
            return self.complaints(one, folder)
        finally:
            shutil.rmtree(folder.parent, ignore_errors=True)

    def attempt_all(self, tries, few):
        "Do them all, or the first and the middle one, two at a time; fail with all complaints."
        self.known += len(tries)
        names = [one.name for one in tries]
        assert len(set(names)) == len(names), [name for name in names if names.count(name) > 1]
        tries = tries[:: -(-len(tries) // 2)] if few else tries
        with ThreadPoolExecutor(len(self.servers)) as pool:
            outcomes = list(pool.map(self.attempt, tries))
        self.tried += len(tries)
        wrong = [what for found in outcomes for what in found]
        assert not wrong, f"{sum(map(bool, outcomes))} of {len(tries)} tries:\n" + "\n".join(wrong)


def faults(make):
    "A test in each tier of a function that lists tries: two of them, and all."

    @pytest.mark.parametrize("few", [True, pytest.param(False, marks=pytest.mark.thorough)], ids=["few", "all"])
    def test(bench, few):
        bench.attempt_all(list(make(bench)), few)

    test.__doc__ = make.__doc__
    return test


def judged(one, result):
    "What is wrong with how a command ended: its code, and more or less than one sentence."
    if not result.ended:
        yield "no end"
        return
    if result.code not in one.codes:
        yield f"code {result.code}, expected {one.codes}"
    if found := re.search(r"Traceback|Exception ignored|[a-z]Error\b", result.err + result.out):
        yield f"{found[0]!r} was printed"
    if result.code == 2 and "stderr" not in one.how:
        sentences = [line for line in result.err.splitlines() if "ddpm: " in line]
        if len(sentences) != 1 or not result.err.splitlines()[-1].startswith("ddpm: "):
            yield f"{len(sentences)} sentences, or something behind them"
        if one.says not in result.err:
            yield f"{one.says!r} is not said"


# -- damages -----------------------------------------------------------------------------------------------------------


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


PLACES = {  # something else at the file's place
    "missing": Path.unlink,
    "a folder": folder_instead,
    "a fifo": fifo,
    "link to /dev/zero": link("/dev/zero"),
    "link to nowhere": link("nowhere"),
    "link to itself": lambda path: link(path.name)(path),
    "unreadable": lambda path: path.chmod(0),
}
FOREIGN = {
    "nothing": b"",
    "text": b"hello\n",
    "png": b"\x89PNG\r\n\x1a\n" + bytes(100),
    "pickle": pickle.dumps({"step": 4}),
    "gzip": gzip.compress(b"{}"),
    "zip": b"PK\x03\x04" + bytes(60),
}
JSON = {
    "list": "[]",
    "object": "{}",
    "null": "null",
    "NaN": "NaN",
    "5,000 digits": "1" * 5000,
    "deep list": "[" * 100_000,
    "deep object": '{"step":' * 100_000,
    "two documents": "{}{}",
    "surrogate": '"\ud800"'.encode("utf-8", "surrogatepass"),
    "utf-16": '{"step": 4}'.encode("utf-16"),
    "a terabyte": huge,
}


def damages(good, cuts=3, flips=6):
    "Damaged versions of a file's bytes by name: cut, flipped, foreign."
    draws = random.Random(0)
    found = {f"cut at {k}/{cuts + 1}": good[: len(good) * k // (cuts + 1)] for k in range(1, cuts + 1)}
    for bit in [draws.randrange(8 * len(good)) for _ in range(flips)]:
        byte = bytes([good[bit // 8] ^ 1 << bit % 8])
        found[f"bit {bit} flipped"] = good[: bit // 8] + byte + good[bit // 8 + 1 :]
    return found | FOREIGN | {"last byte cut": good[:-1], "doubled": good + good, "zeros": bytes(len(good))}


def write(name, content):
    "What prepares a try: a file with this content, or what a function makes of its path."

    def prepare(folder):
        path = folder / name
        if callable(content):
            content(path)
        else:
            path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))

    return prepare


def edit(name, change):
    "What prepares a try: a JSON file that a function changes."

    def prepare(folder):
        content = json.loads((folder / name).read_text())
        change(content)
        (folder / name).write_text(json.dumps(content))

    return prepare


WRONG = (None, "x", "", -1, 10**30, 1e308, True, [], {}, [[1]], float("nan"))


def wrong_typed(good):
    "The JSON with each of its values in turn missing, or replaced by one of `WRONG`."
    content = json.loads(good)

    def places(value, path=()):
        for key, below in value.items() if isinstance(value, dict) else enumerate(value):
            yield *path, key
            if isinstance(below, dict | list):
                yield from places(below, (*path, key))

    draws = random.Random(0)
    for place in list(places(content)):
        for value in ("missing", draws.choice(WRONG)):
            changed = json.loads(good)
            inner = changed
            for key in place[:-1]:
                inner = inner[key]
            if value == "missing":
                del inner[place[-1]]
            else:
                inner[place[-1]] = value
            yield f"{'.'.join(map(str, place))} {value!r}", json.dumps(changed)
