"A run killed with SIGKILL, again and again, and continued ends with the bits of the run that nobody disturbed."

import signal

import pytest
import torch

import process_workers
from ddpm_course.run.checkpoints import newest_checkpoint
from helpers import same_bits, timeless

# Before a step; or in the middle of a checkpoint, of which each has five files with its folder: of the first, of the
# second, with all its files. A start goes on from the last checkpoint, four steps behind at most.
MANY = (("step", 1), ("file", 2), ("file", 8), ("step", 7), ("file", 5), ("step", 10), ("file", 21), ("step", 13))
thorough = pytest.mark.thorough


def start(run, kind, *kill):
    "A start of a run whose imports are done; its exit code (negative: the signal that ended it)."
    process = process_workers.forks().Process(target=process_workers.disturbed, args=(run, kind, *kill))
    process.start()
    process.join()
    return process.exitcode


def step_of(run):
    "The step of the newest checkpoint, 0 where there is none."
    newest = newest_checkpoint(run)
    return int(newest.name[5:]) if newest else 0


@pytest.mark.parametrize(
    "loss, kills",
    [
        ("simple", (("step", 1), ("file", 2), ("step", 22))),
        *(pytest.param(loss, MANY, marks=thorough) for loss in ("vlb", "slow disk")),
    ],
)
def test_killed_run_ends_with_the_same_bits(tmp_path, loss, kills):
    calm, disturbed = tmp_path / "calm", tmp_path / "disturbed"
    assert start(calm, loss) == 0
    reached = [0]
    for what, count in kills:
        assert start(disturbed, loss, what, count) == -signal.SIGKILL
        assert (disturbed / "config.json").exists()
        assert what == "step" or (disturbed / "checkpoints/.writing").exists()
        reached.append(step_of(disturbed))
    assert sorted(reached) == reached and reached[-1] >= 16
    assert start(disturbed, loss) == 0
    assert step_of(calm) == step_of(disturbed) == 60
    same_bits(calm, disturbed)
    memory = torch.load(newest_checkpoint(disturbed) / "optimizer.pt", weights_only=True)["criterion"].get("memory")
    assert loss != "vlb" or not memory.isnan().any()
    assert [line["step"] for line in timeless(calm)] == list(range(3, 61, 3))
