"What the tries work on: a tiny run with its data, and how the outcome of a try is judged."

import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
from PIL import Image

from ddpm_course.run.checkpoints import newest_checkpoint
from helpers import warm

TINY = (
    "--size 8 --multipliers 1,2 --channels 8 --T 20 --batch 4 --warmup 0 --threads 1 --precision fp32 "
    "--log-every 1 --save-every 2 --grid-every 0 --keep 9"
).split()
TRAIN = ["train", "--data", "photos", "--out", "run", *TINY, "--steps"]
GO_ON = [*TRAIN, 8]
DATA = ["train", "--data", "photos", "--out", "new", *TINY, "--steps", 2]
SAMPLE = "sample run --n 1 --steps 1".split()
NEWEST = "run/checkpoints/step_00000004"
RESULTS = ("run/.lock", "*.lock", "run/*.png", "run/test.json", "run/denoising.gif", "new*", "cache*")
GROWS = ("run/metrics.jsonl*", "run/config.json*", "run/checkpoints/.*")  # rewritten where a run goes on
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


def photos(folder, classes=("cats", "dogs"), each=12):
    draws = np.random.default_rng(0)
    for name in classes:
        (folder / name).mkdir(parents=True)
        for k in range(each):
            Image.fromarray(draws.integers(0, 255, (8, 8), dtype=np.uint8)).save(folder / name / f"{k:02d}.png")


def run(words, folder, env=None, **how):
    "The command in a folder that has its cache, too."
    return warm().run(words, folder, env={"DDPM_CACHE": str(folder / "cache"), **(env or {})}, memory=MEMORY, **how)


@dataclass
class Try:
    "One fault: what is done to the folder, the command that meets it, and what must come of it."

    words: list
    codes: tuple
    prepare: Callable[[Path], object] = lambda folder: None
    how: dict = field(default_factory=dict)  # of Warm.run
    says: str = ""  # on stderr
    next_start: bool = False  # the run must go on afterwards


def goes_on(folder):
    "The next start of the run goes on from a checkpoint that was there, or from a newer one."
    more = run(GO_ON, folder, code=STOP)
    assert more.code == 143 and newest_checkpoint(folder / "run").name > Path(NEWEST).name, more


def attempt(one, good, folder):
    "Do it in a copy of the tiny run and its data; nothing is lost, and nothing written that is no result."
    shutil.copytree(good, folder)
    one.prepare(folder)
    before = everything(folder)
    result = run(one.words, folder, **one.how)
    assert result.code in one.codes and one.says in result.err, result
    assert not re.search(r"Traceback|Exception ignored|[a-z]Error\b", result.err + result.out), result
    if result.code == 2:  # one sentence, and nothing behind it
        assert result.err.count("ddpm: ") == 1 and result.err.splitlines()[-1].startswith("ddpm: "), result
    allowed = (*RESULTS, *(GROWS if "train" in one.words else ()))
    now = everything(folder)
    changed = [name for name, content in before.items() if now.get(name) != content]
    assert [name for name in changed if not any(fnmatch(name, pattern) for pattern in allowed)] == [], result
    if one.next_start:
        goes_on(folder)
    return result


def everything(folder):
    "All below a folder as it is: files with their bytes, links with their target, others with their kind."
    found = {}
    for path in folder.rglob("*"):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = "link to " + os.readlink(path)
        elif path.is_file() and os.access(path, os.R_OK):
            found[name] = path.read_bytes()
        else:
            found[name] = "folder" if path.is_dir() else f"{path.stat().st_mode:o}"
    return found


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
