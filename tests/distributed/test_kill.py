"A run killed with SIGKILL at random moments and continued ends with the bits of the run that nobody disturbed."

import random
import signal
import time

import pytest
import torch

import process_workers
from ddpm_course.run.checkpoints import newest_checkpoint
from helpers import GUARD, same_bits, timeless, wait_for

MANY = (0, 0, 0, 8, 20, 32)
thorough = pytest.mark.thorough


def start(run, kind):
    "A run whose imports are done."
    process = process_workers.forks().Process(target=process_workers.disturbed, args=(run, kind))
    process.start()
    return process


def ended(process):
    "Its exit code; negative: the signal that ended it."
    process.join(GUARD)
    return process.exitcode


def step_of(run):
    "The step of the newest checkpoint, 0 where there is none."
    newest = newest_checkpoint(run)
    return int(newest.name[5:]) if newest else 0


@pytest.mark.parametrize(
    "loss, aims",
    [
        ("simple", (0, 20)),  # at once when the run has begun, and a moment after a checkpoint
        *(pytest.param(loss, MANY, marks=thorough) for loss in ("vlb", "slow disk")),
    ],
)
def test_killed_run_ends_with_the_same_bits(tmp_path, loss, aims):
    calm, disturbed = tmp_path / "calm", tmp_path / "disturbed"
    assert ended(start(calm, loss)) == 0
    begun, writing = disturbed / "config.json", disturbed / "checkpoints/.writing"
    moments, killed, halves, reached = random.Random(len(aims)), 0, 0, []
    for aim in aims:
        process = start(disturbed, loss)
        over = lambda process=process: process.exitcode is not None  # ended by itself, which is judged below
        wait_for(lambda over=over, aim=aim: over() or (begun.exists() and step_of(disturbed) >= aim))
        time.sleep(moments.uniform(0.0, 0.3))
        if loss == "slow disk" and aim:  # in the middle of the next checkpoint, which takes .3 s at least
            wait_for(lambda over=over: over() or writing.exists())
            time.sleep(moments.uniform(0.0, 0.1))
        process.kill()
        killed += ended(process) == -signal.SIGKILL
        halves += writing.exists()
        reached.append(step_of(disturbed))
    assert ended(start(disturbed, loss)) == 0
    print(f"killed {killed} times, {halves} of them in the middle of a checkpoint, with those of steps {reached}")
    assert halves >= 1 or loss != "slow disk"
    assert killed >= len(aims) // 2 and max(reached) >= 8 and sum(0 < step < 60 for step in reached) >= len(aims) // 3

    assert step_of(calm) == step_of(disturbed) == 60
    same_bits(calm, disturbed)
    memory = torch.load(newest_checkpoint(disturbed) / "optimizer.pt", weights_only=True)["criterion"].get("memory")
    assert loss != "vlb" or not memory.isnan().any()
    assert [line["step"] for line in timeless(calm)] == list(range(3, 61, 3))
