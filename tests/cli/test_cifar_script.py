"The script of page 22b, from its first command to its last, on a set of CIFAR-10's shape that is made on the spot."

import ast
import hashlib
import json
import os
import subprocess

import numpy as np
import pytest
import torch
from PIL import Image

from ddpm_course.config import PRESETS, override
from ddpm_course.data.sources import load_data
from helpers import ROOT, cells, environment, fresh, script, train

SMALL = (
    "--device cpu --channels 8 --blocks 1 --T 40 --steps 12 --batch 16 --warmup 4 --log-every 2 --save-every 6 "
    "--grid-every 0"
).split()


def chapters_script() -> str:
    "The string that a cell of page 22b calls `script`."
    (cell,) = (cell for cell in cells(ROOT / "nbs/22b_cifar10.ipynb") if cell.startswith("script = "))
    return ast.literal_eval(ast.parse(cell).body[0].value)


# a plugin that puts a network of twelve features in the place of torch-fidelity's, whose weights are no part of the
# tests; its own it reads from a file. What two sets of features are measured by is kept beside it
STAND_IN = """
import os, sys, types
from pathlib import Path
import numpy as np, torch
from ddpm_course.judge import scores

class Net(torch.nn.Module):
    def __init__(self, name, features, path):
        super().__init__()
        self.conv, self.head = torch.nn.Conv2d(3, 12, 5, stride=3), torch.nn.Linear(12, 5)
        self.load_state_dict(torch.load(path, weights_only=True))

    def forward(self, images):
        features = self.conv(images.float() / 255).relu().mean((2, 3))
        return features, self.head(features)

scores.WEIGHTS, scores.Inception.num_features = 'weights-{sha}.pth', 12
name = 'torch_fidelity.feature_extractor_inceptionv3'
sys.modules['torch_fidelity'], sys.modules[name] = types.ModuleType('torch_fidelity'), types.ModuleType(name)
sys.modules[name].FeatureExtractorInceptionV3 = Net
measure = scores.distances

def distances(features, real, *more):
    sets = dict(drawn=features.numpy(), real=real.numpy())
    np.savez(Path(__file__).with_name('moments.npz'), world=int(os.environ.get('WORLD_SIZE', 1)), **{
        f'{name} {kind}': of for name, x in sets.items() for kind, of in (('mean', x.mean(0)), ('cov', np.cov(x.T)))})
    return measure(features, real, *more)
scores.distances = distances
"""


@pytest.fixture
def weights(tmp_path):
    "A file of random weights for the network in Inception's place, and the plugin `eyes.py` beside it."
    torch.manual_seed(0)
    layers = {"conv": torch.nn.Conv2d(3, 12, 5), "head": torch.nn.Linear(12, 5)}
    file = tmp_path / "inception.pth"
    torch.save({f"{name}.{k}": v for name, layer in layers.items() for k, v in layer.state_dict().items()}, file)
    sha = hashlib.sha256(file.read_bytes()).hexdigest()[:8]
    (tmp_path / "eyes.py").write_text(STAND_IN.replace("{sha}", sha))
    return file


@pytest.fixture
def pictures(tmp_path):
    "A folder of 200 pictures of noise in ten classes."
    dice = np.random.default_rng(0)
    for k in range(200):
        place = tmp_path / "made" / f"class{k % 10}"
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(dice.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(place / f"{k:03}.png")
    return tmp_path / "made"


@pytest.mark.parametrize(
    "processes", [pytest.param(1, marks=pytest.mark.thorough), pytest.param(2, marks=pytest.mark.nightly)]
)
def test_script_runs_from_end_to_end(processes, tmp_path, weights, pictures):
    (tmp_path / "cifar10.sh").write_text(chapters_script())
    there = tmp_path / "bin"
    there.mkdir()
    judged = f'[ "$1" != test ] || set -- "$@" --plugin eyes.py --nproc {processes} --device cpu'
    (there / "ddpm").write_text(f'#!/bin/sh\n{judged}\nexec {script("ddpm")} "$@"\n')
    (there / "ddpm").chmod(0o755)
    more = {"FID": "70", "WALK": "4", "INCEPTION": weights.name, "DDPM_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(
        ["sh", "cifar10.sh", *SMALL, "--nproc", str(processes)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env=environment(DATA="made", RUN="run", PATH=os.pathsep.join([str(there), os.environ["PATH"]]), **more),
    )
    assert done.returncode == 0, done.stderr
    assert "180 images of 32x32, 10 classes" in done.stdout and "checks, " in done.stdout
    assert ("in 2 processes" in done.stdout) == (processes == 2)
    run = tmp_path / "run"
    assert json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["step"] == 12
    tested = json.loads((run / "test.json").read_text())
    assert tested["bits_per_dim"] and tested["samples"]["n"] == 70 and tested["samples"]["how"][:14] == "ddpm, 4 steps,"
    assert f"FID (Inception-v3, 12 features) {tested['samples']['distance']:.2f}, n = 70 against 180" in done.stdout
    assert Image.open(run / "drawn.png").size[0] > 10 * 32  # ten columns
    for name in ("denoising.gif", "denoising_strip.png", "topology/diagram.svg", "pipeline"):
        assert (run / name).exists(), name


@pytest.mark.thorough
def test_fid_of_two_processes_is_that_of_one(tmp_path, weights, pictures):
    "The same statistics, of samples and of real pictures: pixels are bytes, and the features are gathered in order."
    config = override(PRESETS["cifar10-class"], data=str(pictures), channels=8, blocks=1, T=40, steps=4, batch=16)
    images, held_out = load_data(pictures, 32, 3)
    run = train(tmp_path / "run", config, images, held_out=held_out).folder
    found = []
    for processes in (1, 2):
        given = ["--fid", 70, "--sampler", "ddpm", "--steps", 10, "--inception", weights]
        where = ["--plugin", tmp_path / "eyes.py", "--device", "cpu", "--nproc", processes, "--out", "test.json"]
        fresh("test", run, *given, *where, cwd=tmp_path)
        with np.load(tmp_path / "moments.npz") as kept:
            found.append(dict(kept) | {"FID": json.loads((tmp_path / "test.json").read_text())["samples"]["distance"]})
        (tmp_path / "moments.npz").unlink()
    one, two = found
    assert (one.pop("world"), two.pop("world")) == (1, 2)
    assert set(one) == {"drawn mean", "drawn cov", "real mean", "real cov", "FID"} and one["FID"] > 0
    for name, value in one.items():
        assert np.linalg.norm(two[name] - value) <= 1e-6 * np.linalg.norm(value), name
