"What several test files use: the command, comparing runs, made-up images, what is promised, reading notebooks."

import ast
import atexit
import os
import shutil
import socket
import subprocess
import sys
import time
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from IPython.core.inputtransformer2 import TransformerManager
from notebooks import ROOT, cells, directives, notebooks
from PIL import Image
from safetensors.torch import load_file

from ddpm_course.run.checkpoints import newest_checkpoint, read_metrics
from ddpm_course.run.runs import Run
from warm import Warm

PACKAGE = ROOT / "ddpm_course"


# -- the command ------------------------------------------------------------------------------------------------------

BEGINS_WITH = dict(os.environ)


@cache
def started():
    server = Warm().__enter__()
    atexit.register(server.__exit__)
    return server


def warm():
    "A process that has imported the package and waits for commands; it ends with this one."
    if started().process.poll() is not None:
        started.cache_clear()
    return started()


def ddpm(*words, cwd, code=0, **how):
    "Run the command in a forked child of `warm()`; returns what it printed on both streams and the seconds it took."
    done = warm().run(words, cwd, env={**dict.fromkeys(BEGINS_WITH), **os.environ}, **how)
    assert done.code == code, done.out + done.err
    return done.out, done.err, done.seconds


def fresh(*words, cwd, code=0):
    "The same in a process of its own, which begins with its imports."
    began = time.perf_counter()
    command = [sys.executable, "-m", "ddpm_course", *map(str, words)]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout, done.stderr, time.perf_counter() - began


def one_sentence(err, sentence):
    "Assert that a refusal is one line on stderr, which holds these words."
    assert err.startswith("ddpm: ") and err.endswith("\n") and err.count("\n") == 1 and sentence in err, err


def refused(*words, cwd, sentence):
    "The command ends with code 2, one line and no traceback."
    _, err, _ = ddpm(*words, cwd=cwd, code=2)
    one_sentence(err, sentence)


def wait_for(condition, *processes):
    "Wait until `condition()` holds; fails when a process ends before."
    while not condition():
        for process in processes:
            if process.poll() is not None:
                pytest.fail(f"ended with code {process.returncode}: {process.communicate()}")
        time.sleep(0.05)


def script(name: str) -> str:
    "A console script of the environment that runs the tests."
    return shutil.which(name, path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])) or name


def environment(**more):
    "This process's, without what a torchrun or a pytest around it might have set."
    kept = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "OMP_NUM_THREADS")}
    path = os.pathsep.join(filter(None, sys.path))
    return {**kept, "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1", "PYTHONPATH": path, **more}


CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


# -- what is promised ------------------------------------------------------------------------------------------------

PROMISES: list[str] = []  # each shown at the end of the tests: see conftest.py


def promise(what, seconds, promised):
    "Keep what something took beside what is promised, to be read: no test fails by a clock."
    PROMISES.append(f"{what:45} {seconds:7.2f} s    promised: {promised:g} s")


# -- folders and runs -------------------------------------------------------------------------------------------------


def contents(folder):
    "Everything below a folder: files with their bytes, folders with None."
    paths = sorted(folder.rglob("*"))
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in paths}


def colour_folder(root, draws=None):
    "ROOT/train/<class>/*.png and ROOT/test/<class>/*.png, mixed sizes: 24 and 10 images of two classes."
    draws = draws or np.random.default_rng(0)
    for split, count in (("train", 12), ("test", 5)):
        for name in ("reds", "blues"):
            folder = root / split / name
            folder.mkdir(parents=True)
            for k in range(count):
                image = draws.integers(0, 60, (20 + k, 24, 3), dtype=np.uint8)
                image[..., 0 if name == "reds" else 2] += 150
                Image.fromarray(image).save(folder / f"{k}.png")


def train(folder, config, images, *group, stop_after=None, **more):
    "Train to the end, or save and stop after a step; the run."
    with Run.open(folder, config, images, *group, **more) as run:
        for _ in run:
            if run.state.step == stop_after:
                run.save()
                break
    return run


def timeless(run):
    "The log of a run without what depends on the machine's speed."
    return [{k: v for k, v in line.items() if k != "images_per_s"} for line in read_metrics(run)]


def same_bits(a, b):
    "Assert that two runs ended with the same weights, average, optimizer, draws and log."
    a_end, b_end = newest_checkpoint(a), newest_checkpoint(b)
    assert a_end.name == b_end.name and timeless(a) == timeless(b)
    for name in ("model.safetensors", "ema.safetensors"):
        mine, theirs = load_file(a_end / name), load_file(b_end / name)
        assert mine.keys() == theirs.keys() and all(torch.equal(mine[k], theirs[k]) for k in mine), name
    mine, theirs = (torch.load(end / "optimizer.pt", weights_only=True) for end in (a_end, b_end))
    assert mine["optimizer"]["param_groups"] == theirs["optimizer"]["param_groups"]
    for i, state in mine["optimizer"]["state"].items():
        assert all(torch.equal(value, theirs["optimizer"]["state"][i][k]) for k, value in state.items())
    kept = [{"window": end["window"], **end["criterion"]} for end in (mine, theirs)]
    assert kept[0].keys() == kept[1].keys()
    for name, value in kept[0].items():  # the memory of what was not drawn yet is NaN
        assert torch.allclose(value, kept[1][name], rtol=0, atol=0, equal_nan=True), name
    assert mine["scaler"] == theirs["scaler"]


def old_names(state):
    "Weights of a diffusers UNet2DModel, its attention's keys named as before 2023."
    for new, old in (("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn")):
        state = {name.replace(new, old): weight for name, weight in state.items()}
    return state


# -- the notebooks as files -------------------------------------------------------------------------------------------


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def parse(source: str) -> ast.Module:
    "The syntax tree of a code cell, magics and shell lines included."
    return ast.parse(TransformerManager().transform_cell(source))


def default_exp(path: Path) -> list[str]:
    "The modules that a notebook names as its own: one or none."
    return [value for value in (directives(s).get("default_exp") for s in cells(path)) if value]


def number(path: Path) -> str:
    "The chapter's number, its place in the order: lesson `05` < its deep dive `05a` < lesson `06`."
    return path.name.split("_")[0]


NOTEBOOKS = notebooks()
CHAPTERS = sorted((p for p in NOTEBOOKS if p.parent.name != "solutions" and p.name[0].isdigit()), key=number)
MINUTE = 60  # seconds that a notebook may take


def without(sentence: str):
    "What a test needs is not on this machine: it is skipped, or fails where DDPM_SKIP_NOTHING is set."
    (pytest.fail if os.environ.get("DDPM_SKIP_NOTHING") else pytest.skip)(sentence)


def each(paths: list[Path]):
    return pytest.mark.parametrize("path", paths, ids=lambda p: p.name)
