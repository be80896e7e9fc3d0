"A run killed with SIGKILL at random moments and continued ends with the bits of the run that nobody disturbed."

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest
import torch

from ddpm_course.checkpoints import newest_checkpoint, read_metrics
from helpers import same_bits, timeless

WORK = """
import sys
from pathlib import Path
from ddpm_course import PRESETS, Run, load_digits, override
config = override(PRESETS["mnist16"], steps=60, batch=16, channels=16, dropout=0.1, warmup=5, threads=1,
                  log_every=3, save_every=4, precision="auto")
if sys.argv[2] == "vlb":                # t drawn by importance, from what earlier steps saw; uniform until step 20 or so
    config = override(config, loss="vlb", variance="learned", T=20)
print("begun", flush=True)
with Run.open(Path(sys.argv[1]), config, load_digits("train", 16)) as run:
    for record in run:
        pass
"""


def start(run, loss):
    return subprocess.Popen([sys.executable, "-c", WORK, str(run), loss], stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("loss", ["simple", "vlb"])
def test_killed_run_ends_with_the_same_bits(tmp_path, loss):
    calm, disturbed = tmp_path / "calm", tmp_path / "disturbed"
    process = start(calm, loss)
    process.stdout.readline()
    began = time.perf_counter()
    assert process.wait(300) == 0
    whole = time.perf_counter() - began

    seed = int.from_bytes(os.urandom(4), "big")
    print(f"random moments from seed {seed}")
    moments, killed, reached = random.Random(seed), 0, []
    for _ in range(40):
        process = start(disturbed, loss)
        process.stdout.readline()  # imports are done: what follows is the run itself
        try:
            process.wait(moments.uniform(0.02, 0.5 * whole) if killed < 6 else 300)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
        if process.wait() == 0:
            break
        assert process.returncode == -signal.SIGKILL
        killed += 1
        newest = newest_checkpoint(disturbed)
        reached.append(int(newest.name[5:]) if newest else 0)
    print(f"killed {killed} times, with checkpoints of steps {reached}")
    assert killed >= 3 and max(reached) > 0 and process.returncode == 0

    a, b = newest_checkpoint(calm), newest_checkpoint(disturbed)
    assert a.name == b.name == "step_00000060"
    same_bits(calm, disturbed)
    memory = torch.load(b / "optimizer.pt", weights_only=True)["criterion"].get("memory")
    assert loss == "simple" or not memory.isnan().any()
    assert [line["step"] for line in timeless(calm)] == list(range(3, 61, 3))


@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGINT])
def test_stopped_run_is_saved_and_says_how_to_go_on(tmp_path, kind):
    words = "train --steps 400 --batch 8 --channels 8 --threads 1 --log-every 1 --save-every 1000 --grid-every 0 --out run".split()
    process = subprocess.Popen(
        [sys.executable, "-m", "ddpm_course", *words],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not (tmp_path / "run/metrics.jsonl").exists() or len(read_metrics(tmp_path / "run")) < 3:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    process.send_signal(kind)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + kind and "Traceback" not in err
    step = json.loads((newest_checkpoint(tmp_path / "run") / "meta.json").read_text())["step"]
    assert 3 <= step < 400 and f"ddpm {' '.join(words)}" in out
    assert [line["step"] for line in read_metrics(tmp_path / "run")] == list(range(1, step + 1))
