"One job on four machines: what happens when one of them fails, in a table. Agents of torchrun play the machines."

import os
import shutil
import signal
from contextlib import contextmanager, suppress

import numpy as np
import pytest
from PIL import Image

import process_workers
from ddpm_course.run import launch
from ddpm_course.run.checkpoints import newest_checkpoint, read_metrics
from helpers import free_port, same_bits, wait_for

pytestmark = pytest.mark.thorough
DATA = "/proc/self/cwd/data"  # the same name on all machines, and another place on each
WORDS = f"train --data {DATA} --batch 8 --channels 8 --T 4 --steps 12 --save-every 4 --log-every 2 --grid-every 0 "
WORDS = (WORDS + "--precision fp32 --threads 1 --device cpu").split()
TABLE = []


@pytest.fixture(scope="module", autouse=True)
def table():
    "Of the faults, and what came of them; printed when all is done."
    yield
    print(*("", "fault | codes of the agents | cause | final", *TABLE), sep="\n")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    "Four machines with a disk each, and one that they share, where a job ran that nobody disturbed."
    folder = tmp_path_factory.mktemp("cluster")
    draws = np.random.default_rng(0)
    for machine in range(1, 5):
        for k in range(20):
            image = folder / f"machine{machine}/data/{'ab'[k % 2]}/{k}.png"
            image.parent.mkdir(parents=True, exist_ok=True)
            if machine == 1:
                Image.fromarray(draws.integers(0, 255, (8, 8), np.uint8)).save(image)
            else:
                shutil.copy(folder / f"machine1/data/{'ab'[k % 2]}/{k}.png", image)
        (folder / "runs").mkdir(exist_ok=True)
        (folder / f"machine{machine}/runs").symlink_to(folder / "runs")
    with job(folder, "calm") as agents:
        assert codes(agents) == [0] * 4, said(folder, "calm")
    return folder


@contextmanager
def job(folder, name, run=None, fault="", restarts=1, more=()):
    "The agents of a job, begun; whatever is left of it at the end is killed."
    words, port = [*WORDS, *more, "--out", f"runs/{run or name}"], free_port()
    (folder / f"{name}.logs").mkdir()
    agents = [
        process_workers.forks().Process(
            target=process_workers.agent, args=(folder, k, port, name, words, fault, restarts)
        )
        for k in range(1, 5)
    ]
    for agent in agents:
        agent.start()
    try:
        yield agents
    finally:
        kill(folder, name, agents)


def kill(folder, name, agents, *machines):
    "Agents and workers, without a word."
    for k in machines or range(1, 5):
        agents[k - 1].kill()
        with suppress(OSError):
            os.kill(pid(folder, name, k), signal.SIGKILL)


def pid(folder, name, machine):
    return int((folder / f"{name}{machine}.pid").read_text())


def codes(agents):
    for agent in agents:
        agent.join()
    return [agent.exitcode for agent in agents]


def said(folder, name):
    "All that a job printed."
    return "\n".join(path.read_text() for path in sorted(folder.glob(f"{name}?.log")))


def row(folder, name, agents):
    "Codes, the sentence of the cause and whether it is final; for the table."
    ended = codes(agents)
    cause = launch.failure(str(folder / f"{name}.logs"))
    final = launch.why(str(folder / f"{name}.logs")) == 2
    TABLE.append(f"{name} | {ended} | {cause} | {'yes' if final else 'no'}")
    return ended, str(cause), final


def passed(folder, name, step):
    return lambda: len(read_metrics(folder / "runs" / name)) >= step // 2


def as_calm(folder, name):
    same_bits(folder / "runs/calm", folder / "runs" / name)


def test_a_machine_without_data(cluster):
    "Is named by all, who end, and it is final."
    shutil.move(cluster / "machine3/data", cluster / "machine3/lost")
    try:
        with job(cluster, "no_data") as agents:
            wait_for(lambda: list((cluster / "no_data.logs").rglob("error.json")))
            ended, cause, final = row(cluster, "no_data", agents)
    finally:
        shutil.move(cluster / "machine3/lost", cluster / "machine3/data")
    assert ended == [1] * 4 and final
    assert cause.startswith("no data set or folder is called") and cause.endswith(" on machine3)")
    assert said(cluster, "no_data").count(f"ddpm: {cause}") >= 4 and not (cluster / "runs/no_data").exists()


def test_a_bad_setting(cluster):
    "That all have: nothing is tried twice, and it is final."
    with job(cluster, "bad", more=("--batch", "2")) as agents:
        ended, cause, final = row(cluster, "bad", agents)
    assert ended == [1] * 4 and final
    assert cause.startswith("a batch of 2 cannot be cut into 4 slices") and not (cluster / "runs/bad").exists()


def test_a_disk_that_is_full_for_now(cluster):
    "The checkpoint of step 8 finds no space. The second attempt goes on from step 4, with the same bits."
    with job(cluster, "full", fault="full disk on 1") as agents:
        wait_for(lambda: list((cluster / "full.logs").rglob("error.json")))
        ended, cause, final = row(cluster, "full", agents)
    assert ended == [0] * 4 and not final
    assert "No space left on device" in cause and cause.endswith("(said first by rank 0 on machine1)")
    as_calm(cluster, "full")


def test_a_gradient_that_is_none_on_one_machine(cluster):
    with job(cluster, "nan", fault="nan on 3", restarts=0) as agents:
        ended, cause, final = row(cluster, "nan", agents)
    assert ended == [0] * 4 and "the gradient is nan at step 7: once more from step_00000004" in said(cluster, "nan")
    as_calm(cluster, "nan")


def test_a_straggler_and_a_second_job(cluster):
    "A slow machine is waited for. Meanwhile a second job for the same run is refused, not for good, and harms nothing."
    with job(cluster, "slow", fault="slow on 4", restarts=0) as agents:
        wait_for(lambda: (cluster / "slow4.past").exists() and passed(cluster, "slow", 6)())
        with job(cluster, "second", run="slow", restarts=0) as others:
            ended, cause, final = row(cluster, "second", others)
        assert ended == [1] * 4 and not final
        assert "another process is training in runs/slow (said first by rank 0 on machine" in cause
        assert all(agent.is_alive() for agent in agents)
        os.kill(pid(cluster, "slow", 4), signal.SIGUSR1)  # awake
        assert row(cluster, "slow", agents)[0] == [0] * 4
    as_calm(cluster, "slow")


@pytest.mark.parametrize("how", ["lost", "preempted"])
def test_a_job_that_is_queued_again(cluster, how):
    "One machine is lost, and Slurm ends the others; or all are told to go. The next start goes on, with the same bits."
    with job(cluster, how, fault="slow on 2") as agents:
        wait_for(lambda: (cluster / f"{how}2.past").exists() and passed(cluster, how, 6)())
        if how == "lost":
            kill(cluster, how, agents, 3)
        else:
            for agent in agents:
                agent.terminate()
        os.kill(pid(cluster, how, 2), signal.SIGUSR1)  # or those who wait for it may not notice that 3 is gone
        if how == "lost":
            wait_for(lambda: list((cluster / f"{how}.logs").rglob("error.json")))
            kill(cluster, how, agents)
        ended, cause, final = row(cluster, how, agents)
    assert 0 not in ended and not final
    step = int(newest_checkpoint(cluster / "runs" / how).name[5:])
    assert step == 4 if how == "lost" else step > 4
    with job(cluster, f"{how}_again", run=how) as agents:
        assert codes(agents) == [0] * 4
    as_calm(cluster, how)
