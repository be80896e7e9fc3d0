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

import process_workers
from ddpm_course.run.checkpoints import newest_checkpoint, read_metrics
from forks import forks
from helpers import GUARD, running, same_bits, timeless, wait_for


def start(run, kind):
    "A run whose imports are done."
    process = forks().Process(target=process_workers.disturbed, args=(run, kind))
    process.start()
    return process


def going(process):
    "True; a run that has ended by itself fails the test."
    assert process.exitcode is None, f"ended with code {process.exitcode}"
    return True


def ended(process):
    "Its exit code; negative: the signal that ended it."
    process.join(GUARD)
    return process.exitcode


def step_of(run):
    "The step of the newest checkpoint, 0 where there is none."
    newest = newest_checkpoint(run)
    return int(newest.name[5:]) if newest else 0


@pytest.mark.parametrize("loss", ["simple", "vlb", "slow disk"])
def test_killed_run_ends_with_the_same_bits(tmp_path, loss):
    calm, disturbed = tmp_path / "calm", tmp_path / "disturbed"
    assert ended(start(calm, loss)) == 0

    seed = int.from_bytes(os.urandom(4), "big")
    print(f"random moments from seed {seed}")
    moments = random.Random(seed)
    killed, halves, reached = 0, 0, []
    begun, writing = disturbed / "config.json", disturbed / "checkpoints/.writing"
    for aim in (0, 0, 0, 8, 20, 32):  # the first three once the run has begun; the others a moment after a checkpoint
        process = start(disturbed, loss)
        try:
            wait_for(lambda p=process, step=aim: going(p) and begun.exists() and step_of(disturbed) >= step)
            time.sleep(moments.uniform(0.0, 0.3))
            if loss == "slow disk" and aim:  # in the middle of the next checkpoint, which takes .3 s at least
                wait_for(lambda p=process: going(p) and writing.exists())
                time.sleep(moments.uniform(0.0, 0.1))
        finally:
            process.kill()
        killed += ended(process) == -signal.SIGKILL
        halves += writing.exists()
        reached.append(step_of(disturbed))
    assert ended(start(disturbed, loss)) == 0
    print(f"killed {killed} times, {halves} of them in the middle of a checkpoint, with those of steps {reached}")
    assert halves >= 1 or loss != "slow disk"
    assert killed >= 3 and max(reached) >= 8 and sum(0 < step < 60 for step in reached) >= 2

    assert step_of(calm) == step_of(disturbed) == 60
    same_bits(calm, disturbed)
    memory = torch.load(newest_checkpoint(disturbed) / "optimizer.pt", weights_only=True)["criterion"].get("memory")
    assert loss != "vlb" or not memory.isnan().any()
    assert [line["step"] for line in timeless(calm)] == list(range(3, 61, 3))


@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGINT])
def test_stopped_run_is_saved_and_says_how_to_go_on(tmp_path, kind):
    words = "train --steps 4000 --batch 8 --channels 8 --threads 1 --log-every 1 --save-every 10000".split()
    words, run = [*words, "--grid-every", "0", "--out", "run"], tmp_path / "run"
    command = [sys.executable, "-m", "ddpm_course", *words]
    with running(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        wait_for(lambda: len(read_metrics(run)) >= 3, process)
        process.send_signal(kind)
        out, err = process.communicate(timeout=GUARD)
    assert process.returncode == 128 + kind and "Traceback" not in err
    step = json.loads((newest_checkpoint(run) / "meta.json").read_text())["step"]
    assert 3 <= step < 4000 and f"ddpm {' '.join(words)}" in out
    assert [line["step"] for line in read_metrics(run)] == list(range(1, step + 1))
