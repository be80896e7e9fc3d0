"What the tries work on: a tiny run with its data, and how the outcome of a try is judged."

import os
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
RESULTS = ("run/.lock", "*.lock", "run/*.png", "run/test.json", "run/denoising.gif")
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


@dataclass
class Try:
    "One fault: what is done to the folder, the command that meets it, and what must come of it."

    name: str
    prepare: Callable[[Path], object] = lambda folder: None
    words: list = field(default_factory=lambda: SAMPLE)
    codes: tuple = (0, 2)
    how: dict = field(default_factory=dict)  # of Warm.run
    says: str = ""  # in the sentence of a refusal
    changes: tuple = ()  # patterns of files that the command may change, beside RESULTS
    after: Callable[[Path, object], object] = lambda folder, result: None  # more that must hold: a complaint, or None


def photos(folder, classes=("cats", "dogs"), each=12):
    draws = np.random.default_rng(0)
    for name in classes:
        (folder / name).mkdir(parents=True)
        for k in range(each):
            Image.fromarray(draws.integers(0, 255, (8, 8), dtype=np.uint8)).save(folder / name / f"{k:02d}.png")


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
    "Two warm processes, and a tiny run to copy."

    def __enter__(self):
        self.servers, self.free = [Warm().__enter__() for _ in range(2)], SimpleQueue()
        for server in self.servers:
            self.free.put(server)
        self.place = tempfile.TemporaryDirectory()
        self.good = Path(self.place.name, "good")
        photos(self.good / "photos")
        for words in ([*TRAIN, 4], ["export", "run", "published"]):
            made = self.run(words, self.good)
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

    def attempt(self, one):
        "Do it in a copy of the tiny run and its data, in a folder of its own; all that is wrong with the outcome."
        folder = Path(tempfile.mkdtemp(dir=self.place.name), "here")
        shutil.copytree(self.good, folder)
        one.prepare(folder)
        before = everything(folder.parent)
        result = self.run(one.words, folder, **one.how)
        found, now = list(judged(one, result)), everything(folder.parent)
        allowed = (*RESULTS, *one.changes, *(GROWS if "train" in one.words and result.code != 2 else ()))
        for name, content in before.items():
            if now.get(name) != content and not any(fnmatch(name, f"here/{pattern}") for pattern in allowed):
                found.append(f"{name} was lost or changed")
        found += [f"{name} was written outside" for name in now if name not in before and name[:5] != "here/"]
        found += filter(None, [one.after(folder, result)])
        shutil.rmtree(folder.parent, ignore_errors=True)
        return [f"{one.name}: {what}\n    code {result.code}: {result.err[-700:]}" for what in found]

    def attempt_all(self, tries):
        "Do them two at a time; fail with all complaints."
        with ThreadPoolExecutor(len(self.servers)) as pool:
            wrong = [what for found in pool.map(self.attempt, tries) for what in found]
        assert not wrong, f"of {len(tries)} tries:\n" + "\n".join(wrong)


def faults(make):
    "A test in each tier of a function that lists tries: of the first one, and of all."

    @pytest.mark.parametrize("last", [1, pytest.param(None, marks=pytest.mark.thorough)], ids=["one", "all"])
    def test(bench, last):
        bench.attempt_all(list(make(bench))[:last])

    test.__doc__ = make.__doc__
    return test


def said(what, work, *args):
    "The one sentence that a call ends with, None where the work is done; other errors fail, with what was tried."
    try:
        work(*args)
    except (ValueError, OSError) as error:
        assert "\n" not in str(error) and 0 < len(str(error)) < 600, (what, error)
        return str(error)
    except BaseException as error:
        error.add_note(f"after: {what}")
        raise


def judged(one, result):
    "What is wrong with how a command ended: its code, and more or less than one sentence."
    if not result.ended:
        yield "no end"
        return
    if result.code not in one.codes:
        yield f"code {result.code}, expected {one.codes}"
    if found := re.search(r"Traceback|Exception ignored|[a-z]Error\b", result.err + result.out):
        yield f"{found[0]!r} was printed"
    if result.code == 2:
        sentences = [line for line in result.err.splitlines() if "ddpm: " in line]
        if len(sentences) != 1 or not result.err.splitlines()[-1].startswith("ddpm: "):
            yield f"{len(sentences)} sentences, or something behind them"
        if one.says not in result.err:
            yield f"{one.says!r} is not said"
