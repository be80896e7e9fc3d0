"The folders that play machines on page 25, and the shell scripts that play Slurm."

import shutil

import pytest
from notebooks import ROOT, cells

from ddpm_course.lesson.cluster import Cluster, below, kill, listed


@pytest.fixture(scope="module")
def cluster():
    return Cluster()


FAILS = "bash -c 'case $PWD in *2) touch $MACHINES/failed; exit 3;; *) %s; echo first;; esac'"
WAITS = "until [ -e $MACHINES/failed ]; do :; done"


def test_machines_have_their_own_disk_and_share_runs(cluster):
    cluster.run("touch data/mine runs/ours", machine=2)
    assert not (cluster.folder / "machine1/data/mine").exists() and (cluster.folder / "machine1/runs/ours").exists()
    assert cluster.run("ddpm --version").startswith("ddpm ")


def test_one_task_fails(cluster):
    "The others go on, unless `srun` is to kill them; its code is the highest."
    job = cluster.start("srun --cpus-per-task=1 " + FAILS % WAITS)
    assert cluster.printed(job) == "first\n" and job.returncode == 3
    job = cluster.start("srun --kill-on-bad-exit=1 " + FAILS % "sleep infinity & wait")
    assert "first\n" not in cluster.printed(job) and job.returncode > 128


def test_a_killed_job_leaves_nothing(cluster):
    job = cluster.start("srun bash -c 'sleep infinity & echo; wait'")
    job.stdout.readline(), job.stdout.readline()
    left = below(job.pid)
    kill(job.pid)
    job.wait()
    running = {pid for pid, state in listed("stat").items() if not state.startswith("Z")}
    assert len(left) >= 4 and not running & set(left)


BATCH = next(text for text in cells(ROOT / "nbs/25_cluster.ipynb") if "#SBATCH --nodes" in text)
ENDS = {  # of a job of two machines: what the second does, the environment, and whether the job is queued again
    "done": ("exit 0", "", False),
    "a refusal": ("fail ValueError; exit 1", "", False),
    "no data": ("fail FileNotFoundError; exit 1", "", False),
    "NaN, to the end": ("fail NotFinite; exit 1", "", False),
    "a full disk": ("fail OSError; exit 1", "", True),
    "a lost connection": ("fail RuntimeError; exit 1", "", True),
    "killed": ("kill -9 $$", "", True),
    "killed again and again": ("kill -9 $$", "SLURM_RESTART_COUNT=5", False),
}


@pytest.mark.parametrize("end", ENDS)
def test_which_jobs_are_queued_again(cluster, end):
    "By the batch file of page 25, where this plays torchrun."
    deed, env, again = ENDS[end]
    batch = cluster.folder / "machine1/train.sbatch"
    batch.write_text(BATCH.partition("\n")[2])
    tell = '{\\"message\\": {\\"message\\": \\"$1: why\\", \\"extraInfo\\": {\\"py_callstack\\": \\"\\"}}}'
    (cluster.folder / "bin/torchrun").write_text(
        "#!/bin/bash\nfor word; do case $word in --log-dir=*) logs=${word#*=}/a/attempt_0/0;; esac; done\n"
        f'fail() {{ mkdir -p $logs; echo "{tell}" > $logs/error.json; }}\n'
        f"case $PWD in *2) {deed};; esac\n"
    )
    job = cluster.start(f"env {env} bash train.sbatch")
    said = cluster.printed(job)
    assert ("requeued" in said) == again and (job.returncode == 0) == (end == "done"), said
    assert ("ddpm: why" in said) == ("fail" in deed)
    for logs in (cluster.folder / "machine1").glob("ddpm-*"):
        shutil.rmtree(logs)
