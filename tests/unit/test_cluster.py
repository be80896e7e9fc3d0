"The folders that play machines on page 25, and the shell scripts that play Slurm."

import pytest

from ddpm_course.lesson.cluster import Cluster, below, kill, listed


@pytest.fixture(scope="module")
def cluster():
    return Cluster()


FAILS = "bash -c 'case $PWD in *2) exit 3;; *) sleep %s & wait; echo first;; esac'"


def test_machines_have_their_own_disk_and_share_runs(cluster):
    cluster.run("touch data/mine runs/ours", machine=2)
    assert not (cluster.folder / "machine1/data/mine").exists() and (cluster.folder / "machine1/runs/ours").exists()
    assert cluster.run("ddpm --version").startswith("ddpm ")


def test_one_task_fails(cluster):
    "The others go on, unless `srun` is to kill them; its code is the highest."
    job = cluster.start("srun --cpus-per-task=1 " + FAILS % 1)
    assert cluster.printed(job) == "first\n" and job.returncode == 3
    job = cluster.start("srun --kill-on-bad-exit=1 " + FAILS % 600)
    assert "first\n" not in cluster.printed(job) and job.returncode > 128


def test_a_killed_job_leaves_nothing(cluster):
    job = cluster.start("srun bash -c 'sleep 600 & echo; wait'")
    job.stdout.readline(), job.stdout.readline()
    left = below(job.pid)
    kill(job.pid)
    job.wait()
    running = {pid for pid, state in listed("stat").items() if not state.startswith("Z")}
    assert len(left) >= 4 and not running & set(left)
