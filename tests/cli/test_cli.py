"The command as a person runs it: in fresh processes, from an empty folder."

import json
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ddpm_course.criteria import build_criterion
from ddpm_course.data.sets import ASSETS, load_digits
from ddpm_course.heldout import heldout_loss
from ddpm_course.run.runs import load_model, load_run
from helpers import contents, ddpm, fresh, one_sentence, promise

TINY = "--steps 6 --batch 8 --channels 8 --log-every 2 --save-every 3 --grid-every 4 --T 8 --threads 1".split()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    "A short run on the bundled digits, and what was printed."
    folder = tmp_path_factory.mktemp("run")
    return folder / "runs/mnist16", fresh("train", *TINY, cwd=folder)[0]


def test_train_leaves_a_whole_run(run):
    folder, printed = run
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    parts = ("model.safetensors", "ema.safetensors", "optimizer.pt", "meta.json")
    pictures = "samples.png loss.png denoising.gif denoising_strip.png samples/step_00000004.png"
    assert files - {".lock"} == {
        *(f"checkpoints/step_0000000{k}/{name}" for k in (3, 6) for name in parts),
        *("config.json", "metrics.jsonl", *pictures.split()),
    }
    assert "4,500 images of 16x16, 10 classes" in printed and "test v loss" in printed
    assert "next:  ddpm sample runs/mnist16 --classes 3,7      ddpm test runs/mnist16 --bpd" in printed
    assert {"torch", "python", "ddpm_course"} <= set(json.loads((folder / "config.json").read_text())["versions"])
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4, 6]
    assert {"loss", "eps_mse_quarters", "x0_mse", "lr", "grad_norm", "images_per_s"} <= set(lines[0])


def test_second_start_continues_or_refuses(run, refuses):
    folder, _ = run
    top = folder.parent.parent
    assert "is finished; nothing to do" in ddpm("train", *TINY, cwd=top)[0]
    before = contents(folder)
    refuses("train", *TINY, "--lr", "0.5", cwd=top, sentence="lr 0.008 there and 0.5 here")
    refuses("train", *TINY, "--preset", "mnist32", "--out", "runs/mnist16", cwd=top, sentence="holds another run")
    assert contents(folder) == before


BAD = [  # words, and what the one line says; of what argparse refuses, which flag or word that is
    ("--bogus", "COMMAND"),
    ("bogus", "bogus"),
    ("train --stpes 3", "--stpes 3"),
    ("train -- x", "x"),
    ("train --steps many", "--steps: "),
    ("train --attention 8,a", "--attention: "),
    ("topology --data mnist5k", "--data"),
    # numbers out of their limits
    ("train --T 0", "T must be between 2 and 100000, not 0"),
    ("train --T 20 --schedule linear", "T = 20 is too short (at least 21)"),
    ("train --lr nan", "lr must be between 0 and 1000000.0, not nan"),
    ("train --size 18", "4, not 18"),
    ("train --batch 2 --accumulate 9", "batch of 2"),
    ("sample --n 10000000000", "n must be between 1 and 100000, not 10000000000"),
    ("sample --nproc ²", "--nproc: "),
    ("sample --to-seed 18446744073709551616", "to_seed must be between 0 and"),
    ("sample --seed -1", "seed must be between 0 and 18446744073709551615, not -1"),
    ("sample --steps 1001", "sampling steps must be between 1 and 1000, not 1001"),
    ("test --fid 2", "n = 2 against 4500 training images is too few"),
    # names of nothing
    ("train --preset mnist64", "no preset is called 'mnist64': expected one of mnist16"),
    ("train --device tpu", "no device 'tpu'"),
    ("train --log mlflow", "no tracker is called 'mlflow'"),
    ("sample --sampler euler", "no sampler is called 'euler': expected one of ddpm, ddim, dpm"),
    ("train --data minst", "no data set or folder is called 'minst': expected mnist5k"),
    ("sample --precision half", "precision must be one of auto, fp32, bf16, fp16, not 'half'"),
    ("sample nowhere", "nowhere holds no run"),
    ("sample full/thesis.txt", "thesis.txt"),
    ("sample --plugin nothing.py", "there is no plugin nothing.py"),
    ("sample --classes 3,12", "no class is called 12: expected some of 0,1,2"),
    ("topology --attention 7", "attention at 7 is not among the resolutions 16, 8, 4"),
    ("doctor nowhere", "nowhere is no folder and could not be fetched"),
    ("doctor --n 2", "n must be between 20 and 10000, not 2"),
    # things that do not go together, or not there
    ("train --data empty", "empty holds no image: expected train/<class>/*"),
    ("train --data hollow", "holds no image"),
    ("train --out full", "full is not empty and holds no run"),
    ("test --steps 5", "--steps is for samples: ddpm test draws them for --fid N"),
    ("test --inception x.pth", "--inception is for samples: ddpm test draws them for --fid N"),
    ("test --fid 1000 --inception x.pth", "these images are grey digits"),
    ("sample somewhere --weights elsewhere", "--weights: "),
    ("sample --weights empty", "empty is no diffusers pipeline"),
    ("sample --to-seed 4 --n 1", "it takes at least 2 rows, not 1"),
    ("sample --to-seed 4 --sampler ddpm", "the flow has no noise"),
    # results
    ("sample --out grid.txt", "out must be the name of a .png file, not 'grid.txt'"),
    ("test --out config.json", "config.json may not be written: name another file"),
    ("sample --out ''", "out is empty: is a variable of the shell not set?"),
]


def desk(folder):
    "What the bad input finds: folders without images, and one that holds other work."
    (folder / "empty").mkdir()
    for split in ("train", "test"):
        (folder / "hollow" / split / "cats").mkdir(parents=True)
    (folder / "full").mkdir()
    (folder / "full/thesis.txt").write_text("mine")


@pytest.mark.parametrize("words, sentence", BAD)
def test_bad_input_is_one_sentence(tmp_path, refuses, words, sentence):
    desk(tmp_path)
    before = contents(tmp_path)
    refuses(*shlex.split(words), sentence=sentence)
    assert contents(tmp_path) == before  # nothing was written, nothing lost


def test_bad_input_in_a_process(tmp_path):
    "The same in a fresh process."
    desk(tmp_path)
    _, err, _ = fresh("train", "--data", "empty", cwd=tmp_path, code=2)
    one_sentence(err, dict(BAD)["train --data empty"])


def test_debug_shows_the_traceback(tmp_path):
    _, err, _ = fresh("sample", "nowhere", "--debug", cwd=tmp_path, code=1)
    assert "Traceback" in err and "FileNotFoundError" in err


def test_help_is_quick(tmp_path):
    script = Path(sys.executable).parent / "ddpm"  # what pip installs
    assert subprocess.run([script, "--version"], capture_output=True, text=True, check=True).stdout.startswith("ddpm 0")
    for word in ("--help", "presets"):
        promise(f"ddpm {word}", min(fresh(word, cwd=tmp_path)[2] for _ in range(2)), 0.5)
    assert f"{637_169 / 1e6:.2f} M" in ddpm("presets", cwd=tmp_path)[0]


def test_sample_without_training(tmp_path):
    "The shipped model's grid, one column a class."
    out, _, seconds = fresh("sample", cwd=tmp_path)
    promise("ddpm sample", seconds, 15)
    assert out == "wrote samples.png\n"
    grid = np.asarray(Image.open(tmp_path / "samples.png"))
    assert grid.shape == (14 + 8 * 50 + 2, 10 * 50 + 2)
    first = grid[16:64, 2:50][::3, ::3]  # row 0, column 0: a zero is dark in the middle
    assert first[7:9, 7:9].mean() < first.max() / 2


@pytest.mark.nightly
def test_default_run(tmp_path):
    "The whole default run, as the README's first line starts it."
    out, _, seconds = fresh("train", cwd=tmp_path)
    print(out)
    promise("ddpm train", seconds, 300)
    lines = [json.loads(line) for line in (tmp_path / "runs/mnist16/metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["step"] == 650 and lines[-1]["loss"] < 0.13
    assert {"samples.png", "loss.png", "config.json"} <= {path.name for path in (tmp_path / "runs/mnist16").iterdir()}
    shipped, config = load_run(ASSETS / "mnist16")
    new = load_model(tmp_path / "runs/mnist16")
    quality = [
        heldout_loss(model, load_digits("test", 16), build_criterion(config))["loss"]["mean"]
        for model in (shipped, new)
    ]
    assert abs(quality[0] / quality[1] - 1) < 0.05  # the shipped model is such a run
