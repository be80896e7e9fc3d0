"The script of page 22, from its first command to its last, on a set of CIFAR-10's shape that is made on the spot."

import ast
import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers import ROOT, cells, environment, script

SMALL = (
    "--device cpu --channels 8 --blocks 1 --T 40 --steps 12 --batch 16 --warmup 4 --log-every 2 --save-every 6 "
    "--grid-every 0"
).split()


def chapters_script() -> str:
    "The string that a cell of page 22 calls `script`."
    (cell,) = (cell for cell in cells(ROOT / "nbs/22_colour.ipynb") if cell.startswith("script = "))
    return ast.literal_eval(ast.parse(cell).body[0].value)


@pytest.mark.parametrize(
    "processes", [pytest.param(1, marks=pytest.mark.thorough), pytest.param(2, marks=pytest.mark.nightly)]
)
def test_script_runs_from_end_to_end(processes, tmp_path):
    dice = np.random.default_rng(0)
    for k in range(200):
        place = tmp_path / "made" / f"class{k % 10}"
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(dice.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(place / f"{k:03}.png")
    (tmp_path / "cifar10.sh").write_text(chapters_script())
    there = os.pathsep.join([str(Path(script("ddpm")).parent), os.environ["PATH"]])
    done = subprocess.run(
        ["sh", "cifar10.sh", *SMALL, "--nproc", str(processes)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env=environment(DATA="made", RUN="run", PATH=there, DDPM_CACHE=str(tmp_path / "cache")),
    )
    assert done.returncode == 0, done.stderr
    assert "180 images of 32x32, 10 classes" in done.stdout and "checks, " in done.stdout
    assert ("in 2 processes" in done.stdout) == (processes == 2)
    run = tmp_path / "run"
    assert json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["step"] == 12
    assert json.loads((run / "test.json").read_text())["bits_per_dim"]
    assert Image.open(run / "drawn.png").size[0] > 10 * 32  # ten columns
    for name in ("denoising.gif", "denoising_strip.png", "topology/unet.svg", "pipeline"):
        assert (run / name).exists(), name
