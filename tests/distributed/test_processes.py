"Several processes make the same run, the same samples and the same numbers as one; and what happens when one is lost."

import json
import os
import random
import runpy
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

import process_workers
from ddpm_course.base.group import Group
from ddpm_course.config import PRESETS, override
from ddpm_course.run import launch
from ddpm_course.run.checkpoints import newest_checkpoint, read_log, read_metrics
from ddpm_course.run.launch import join
from ddpm_course.run.stopping import NotFinite
from helpers import ddpm, environment, free_port, one_sentence, same_bits, wait_for
from process_workers import together

COMMAND = [sys.executable, "-m", "ddpm_course"]
TORCHRUN = str(Path(sys.executable).parent / "torchrun")
CLASSES = tuple("0123456789")
SMALL = "--batch 8 --channels 8 --T 8 --log-every 2 --save-every 4 --grid-every 0 --precision fp32".split()

MNIST16 = PRESETS["mnist16"]
HALF = override(MNIST16, channels=8)  # where many runs are compared

needs_proc = pytest.mark.skipif(not Path("/proc").exists(), reason="finds workers in /proc")
thorough = pytest.mark.thorough


@contextmanager
def running(command, **how):
    "A process in a group of its own; when the block ends, whatever is left of the group is killed."
    process = subprocess.Popen(list(map(str, command)), text=True, start_new_session=True, **how)
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def children(cwd):
    "Process numbers of Python workers whose working folder is `cwd`, where there is /proc."
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            command = (entry / "cmdline").read_bytes()
            ours = b"ddpm_course" in command and b"torchrun" not in command
            if ours and os.readlink(entry / "cwd") == str(cwd):
                found.append(int(entry.name))
    return found


@pytest.fixture(autouse=True)
def nobody_is_left(tmp_path):
    yield
    for pid in children(tmp_path):
        os.kill(pid, signal.SIGKILL)


# -- the same run -----------------------------------------------------------------------------------------------------


def alone(work, *args):
    "What `work` returns to a group of one, in this process; it may set other threads."
    threads = torch.get_num_threads()
    try:
        return work(Group("cpu"), *args)
    finally:
        torch.set_num_threads(threads)


def runs(config, worlds, double):
    """A run on one process, and the same one on several, and in slices.

    By name of the others, the worst relative difference of a loss, and that of the weights.
    """
    config = override(config, classes=CLASSES, precision="fp32")
    plans = {f"{n} processes": (n, config) for n in worlds}
    plans["4 slices"] = 1, override(config, accumulate=4)
    plans["2 processes, 2 slices each"] = 2, override(config, accumulate=2)
    results = {"2 threads": alone(process_workers.run, config, 2, double)}
    for name, (n, c) in plans.items():
        found = together(process_workers.run, n, c, 1, double) if n > 1 else [alone(process_workers.run, c, 1, double)]
        assert len(found) == n and all(losses == found[0][0] for losses, _ in found)
        assert all(torch.equal(weights, found[0][1]) for _, weights in found)
        results[name] = found[0]
    losses, weights = alone(process_workers.run, config, 1, double)
    return {
        name: (max(abs(a / b - 1) for a, b in zip(other, losses, strict=True)), ((w - weights).norm() / weights.norm()))
        for name, (other, w) in results.items()
    }


@pytest.mark.parametrize("steps, worlds, double", [(6, (2,), False), pytest.param(20, (2, 3, 4), True, marks=thorough)])
def test_same_run_on_any_number_of_processes(steps, worlds, double):
    "In float32, and strictly in float64; 10 images are 4, 3 and 3 on three processes."
    found = runs(override(HALF, steps=steps, batch=10, warmup=0 if double else 50), worlds, double)
    for name, pair in found.items():  # 5e-5, or three times what another thread count alone does
        limits = [1e-9 if double else min(1e-3, max(5e-5, 3 * floor)) for floor in found["2 threads"]]
        assert all(d < limit for d, limit in zip(pair, limits)), name


def test_exact_resume_with_dropout(tmp_path, world=3):
    """Stopped and continued on as many processes, with dropout and importance sampling: the same bits.

    Three addends have an order, which DDP's buckets decide.
    """
    plan = override(MNIST16, steps=9, batch=16, channels=16, dropout=0.1, log_every=2, save_every=4)
    plan = override(plan, threads=2, loss="vlb", variance="learned", T=4)
    asked = override(plan, eval_every=3)  # held-out losses on the way change no bit
    together(process_workers.train_run, world, tmp_path / "calm", asked)
    assert [line["step"] for line in read_log(tmp_path / "calm") if "heldout" in line] == [3, 6, 9]
    together(process_workers.stop_after, world, tmp_path / "broken", plan, 6)
    assert newest_checkpoint(tmp_path / "broken").name == "step_00000006"
    together(process_workers.train_run, world, tmp_path / "broken", plan)
    same_bits(tmp_path / "calm", tmp_path / "broken")


def test_unused_parameters(world=2):
    "Gradients of a network that does not use all its parameters, or not always: the mean over the processes."
    ranks = together(process_workers.choosy_gradients, world)
    parts = []
    for rank in range(world):
        member = Group("cpu")
        member.rank, member.world = rank, world
        parts.append(process_workers.choosy_gradients(member))
    for k, step in enumerate(zip(*parts, strict=True)):
        assert (step[0] == 0).any() and not all(map(torch.equal, step, step[1:]))
        for found in ranks:
            assert torch.equal(found[k], ranks[0][k])
            assert torch.allclose(found[k], torch.stack(step).mean(0), rtol=1e-5, atol=1e-8), k


@thorough
def test_run_goes_on_with_another_number(tmp_path):
    run, plan = tmp_path / "run", override(MNIST16, steps=8, batch=16, channels=16, log_every=2)
    plan = override(plan, save_every=4, threads=2, precision="fp32")
    before = together(process_workers.train_run, 2, run, plan)[0]
    shutil.rmtree(newest_checkpoint(run))  # back to step 4, as if killed there
    after = together(process_workers.train_run, 3, run, plan)[0]
    assert [line["loss"] for line in before[:2]] == [line["loss"] for line in after[:2]] and len(after) == 4
    assert all(abs(a["loss"] / b["loss"] - 1) < 1e-3 for a, b in zip(before, after))
    assert alone(process_workers.train_run, run, plan) == after  # nothing was left to do


OWN = """
from ddpm_course import PRESETS, Run, join, load_digits, override
with join("cpu") as group:
    plan = override(PRESETS["mnist16"], steps=2, batch=8, channels=8, T=8, log_every=1, precision="fp32", threads=1)
    with Run.open(f"run{group.world}", plan, load_digits("train", 16), group) as run:
        list(run)
"""


@thorough
def test_a_script_of_ones_own(tmp_path, monkeypatch):
    "One file, alone and under torchrun on two processes: the same losses."
    (tmp_path / "mine.py").write_text(OWN)
    words = [TORCHRUN, "--standalone", "--nproc-per-node=2", "mine.py"]
    subprocess.run(words, cwd=tmp_path, env=environment(), check=True)
    monkeypatch.chdir(tmp_path)
    runpy.run_path("mine.py")
    one, two = ([line["loss"] for line in read_metrics(tmp_path / f"run{n}")] for n in (1, 2))
    assert len(one) == 2 and two == pytest.approx(one, rel=1e-4)


@thorough
def test_a_script_of_ones_own_that_is_stopped(tmp_path):
    "By SIGTERM to torchrun, as a batch system does: both processes end after the same step, saved, and go on."
    for name in ("calm", "run"):
        (tmp_path / f"{name}.py").write_text(OWN.replace("steps=2", "steps=60").replace("run{group.world}", name))
    command = [TORCHRUN, "--standalone", "--nproc-per-node=2"]
    how = {"cwd": tmp_path, "env": environment(), "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with running([*command, "run.py"], **how) as agent:
        wait_for(logged(tmp_path / "run", 3), agent)
        agent.terminate()
        said, _ = agent.communicate()
    assert said.count("stopped and saved") == 1 and agent.returncode, said
    assert 3 <= int(newest_checkpoint(tmp_path / "run").name[5:]) < 60
    for name in ("run", "calm"):
        subprocess.run([*command, f"{name}.py"], cwd=tmp_path, env=environment(), check=True)
    same_bits(tmp_path / "calm", tmp_path / "run")


# -- the same samples and numbers -------------------------------------------------------------------------------------


@thorough
def test_same_samples_and_losses(tmp_path):
    "Seven samples are 3, 2 and 2 on three processes, the 500 test images 167, 167 and 166. All is printed once."
    pictures, tests = {}, {}
    for n in (1, 3):
        grid = f"sample --classes 4 --n 7 --steps 4 --sampler ddpm --npz {n}.npz --nproc {n}"
        numbers = f"test --out {n}.json --fid 66 --steps 1 --nproc {n}"
        printed = {words: ddpm(*words.split(), cwd=tmp_path)[0] for words in (grid, numbers)}
        assert printed[grid] == f"wrote samples.png {n}.npz\n" and printed[numbers].count("wrote") == 1
        with np.load(tmp_path / f"{n}.npz") as stored:
            pictures[n] = stored["images"].astype(int)
        tests[n] = json.loads((tmp_path / f"{n}.json").read_text())
    assert abs(pictures[1] - pictures[3]).max() <= 1
    for split in ("test", "train"):
        for name, found in tests[1]["losses"][split].items():
            assert abs(found["mean"] / tests[3]["losses"][split][name]["mean"] - 1) < 1e-6
    scores = [{k: v for k, v in tests[n]["samples"].items() if isinstance(v, float)} for n in (1, 3)]
    assert len(scores[0]) > 9 and scores[1] == pytest.approx(scores[0], rel=0.01)  # the first process has judged


@pytest.mark.parametrize("n", [2, 10])  # with two rows, the third process has none
def test_rows_of_all_processes_are_gathered(n):
    whole = [[k, k * k] for k in range(n)]
    assert process_workers.squares(Group(), n, True).tolist() == whole
    assert [rows.tolist() for rows in process_workers.together(process_workers.squares, 3, n, True)] == [whole] * 3
    first, *others = process_workers.together(process_workers.squares, 3, n, False)
    assert first.tolist() == whole and not any(map(len, others))


# -- what goes wrong --------------------------------------------------------------------------------------------------


def test_what_went_wrong_first(tmp_path, monkeypatch):
    "A sentence, though what others met in its wake was recorded before; who was killed; else what was met."
    found = lambda **codes: launch.failure(str(tmp_path), {int(rank[1:]): code for rank, code in codes.items()})
    assert found(r0=1) is None and found(r0=-15, r1=3) is None
    said = "rank 1 on {} was ended by {}".format
    assert all(said(HOST, signal.Signals(k).name) in str(found(r0=1, r1=-k)) for k in (9, 11))
    for rank, error in enumerate((RuntimeError("lost the connection"), FileNotFoundError("no such folder"))):
        monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / f"{rank}/error.json"))
        (tmp_path / f"{rank}").mkdir()
        launch.record(error)
        first = found(r0=1, r1=2)
        assert type(first) is (RuntimeError, FileNotFoundError)[rank] and str(first) == str(error)


PLUGIN = """
import os
from ddpm_course import {registry}
def entry(size, channels):
    "A library prints below Python, and rank 1 fails, or is killed; the others wait for it."
    os.write(2, b"a library: card " + os.environ["RANK"].encode() + b" has gone\\n")
    if os.environ.get("RANK") == "1":
        {deed}
    from ddpm_course import load_digits
    return load_digits("train", size), load_digits("test", size)
{registry}["mine"] = entry
"""
HOST = socket.gethostname()
DEEDS = {  # what rank 1 does; code, and what stderr says
    "sentence": ("raise ValueError('no such name')", 2, f"ddpm: no such name (said first by rank 1 on {HOST})"),
    "fault": ("raise KeyError('nothing of that name')", 1, "KeyError: 'nothing of that name'"),
}
KILL = "os.kill(os.getpid(), 9)"


@pytest.mark.parametrize("kind", ["sentence", pytest.param("fault", marks=thorough)])
def test_errors_of_a_worker_arrive_as_they_are(tmp_path, kind):
    "One sentence, nothing of torchrun's or of a library; a fault of the code is shown in full."
    deed, code, said = DEEDS[kind]
    (tmp_path / "mine.py").write_text(PLUGIN.format(registry="DATA", deed=deed))
    words = ["train", *SMALL, "--steps", 2, "--data", "mine", "--plugin", "mine.py", "--nproc", 2, "--out", "run"]
    out, err, _ = ddpm(*words, cwd=tmp_path, code=code)
    assert out == "" and said in err and "library" not in err
    assert not list(tmp_path.glob("run/checkpoints/*"))
    assert ("Traceback" in err and "in entry" in err) if kind == "fault" else err.count("\n") == 1, err


def lost_words(err):
    "Of two lines, one that says which process has ended, and one that names its log: the first, and the log's path."
    said, where = err.splitlines()
    assert said.startswith(f"ddpm: rank 1 on {HOST} ") and where.startswith("ddpm: what it printed last is in /"), err
    return said, Path(where.partition(" is in ")[2])


def test_a_killed_worker_is_named_with_its_log(tmp_path):
    "Two lines, and nothing before them that libraries print as they lose a connection: that is in the logs."
    (tmp_path / "mine.py").write_text(PLUGIN.format(registry="DATA", deed=KILL))
    words = ["train", *SMALL, "--steps", 2, "--data", "mine", "--plugin", "mine.py", "--nproc", 2, "--out", "run"]
    out, err, _ = ddpm(*words, cwd=tmp_path, code=2)
    said, log = lost_words(err)
    assert out == "" and "was ended by SIGKILL, as by the system where memory runs out" in said
    assert log.read_text() == "a library: card 1 has gone\n" and not list(tmp_path.glob("run/checkpoints/*"))
    shutil.rmtree(log.parent)


@needs_proc
@pytest.mark.parametrize("when", ["before the run", pytest.param("in a step", marks=thorough)])
def test_a_killed_worker_is_named_under_torchrun(tmp_path, when):
    "By the one that is left, though torchrun tells it to end: two lines, and in a step the run's own log."
    early = when == "before the run"
    text = PLUGIN.format(registry="DATA", deed=KILL) if early else BROKEN.replace("raise ValueError", KILL + " #")
    (tmp_path / "mine.py").write_text(text)
    words = ["train", *SMALL, "--steps", 20, *["--data", "mine"] * early, "--plugin", "mine.py", "--out", "run"]
    command = [TORCHRUN, "--standalone", "--nproc-per-node=2", "--log-dir=logs", "--redirects=3", "-m", "ddpm_course"]
    here = {"cwd": tmp_path, "env": environment(TMPDIR=str(tmp_path))}
    assert subprocess.run([*map(str, [*command, *words])], capture_output=True, **here).returncode != 0
    [err] = tmp_path.glob("logs/*/attempt_0/0/stderr.log")
    said, log = lost_words("".join(line for line in err.read_text().splitlines(True) if line.startswith("ddpm")))
    assert "library" not in err.read_text()
    assert "has ended without a word" in said and "a library: card 1 has gone\n" in log.read_text()
    assert early or log == tmp_path / "run/logs/rank1.txt"


BROKEN = """
import os, torch
honest, calls = torch.Tensor.backward, []
def backward(self, *args, **kwargs):
    calls.append(1)
    if os.environ.get("RANK") == "1" and len(calls) == 5:
        os.write(2, b"a library: card 1 has gone\\n")
        raise ValueError("card 1 has gone")
    return honest(self, *args, **kwargs)
torch.Tensor.backward = backward
"""


def test_logs_of_all_processes_are_kept_and_the_first_cause_is_said(tmp_path):
    "What each prints below Python, too, is in the run's folder; on the screen is one sentence, the cause."
    (tmp_path / "mine.py").write_text(BROKEN)
    words = ["train", *SMALL, "--steps", 20, "--plugin", "mine.py", "--nproc", 2, "--out", "run"]
    for starts in (1, 2):
        out, err, _ = ddpm(*words, cwd=tmp_path, code=2)
        one_sentence(err.splitlines(True)[-1], "card 1 has gone (said first by rank 1 on ")
        logs = {path.name: path.read_text() for path in (tmp_path / "run/logs").iterdir()}
        assert logs.keys() == {"rank0.txt", "rank1.txt"} and all(text.count("-- ") == starts for text in logs.values())
        assert logs["rank1.txt"].count("a library: card 1 has gone\n") == starts and "library" not in out + err


@pytest.mark.parametrize(
    "odd, where, error",
    [
        (2, "before the group", FileNotFoundError("there is no folder data")),
        (1, "before the others", ValueError("another torch")),
        (0, "before the others", BlockingIOError("another process is training in run")),
        (0, "in a step", KeyError("x")),
        (1, "in a step", NotFinite("the gradient is nan at step 3")),
        (0, "alone", OSError("no space")),  # the others stand where no failure of another one ends them
    ],
)
def test_what_one_refuses_all_say(tmp_path, odd, where, error):
    "By host and rank, and end, though the others wait in a barrier for up to a day, or in a collective."
    how = (3, free_port(), tmp_path, odd, where, error)
    each = [process_workers.forks().Process(target=process_workers.failing, args=(rank, *how)) for rank in range(3)]
    for process in each:
        process.start()
    for process in each:
        process.join()
    fault = isinstance(error, KeyError)
    assert [process.exitcode for process in each] == [1 if fault else 2] * 3
    said = [(tmp_path / f"said{rank}").read_text() for rank in range(3)]
    if fault:
        assert "Traceback" in said.pop(odd)
    sentence = ("KeyError: " if fault else "") + str(error)
    assert set(said) == {f"ddpm: {sentence} (said first by rank {odd} on machine{odd + 1})\n"}


@pytest.mark.parametrize("odd", [1, 2])
def test_a_lost_process_is_named(tmp_path, odd):
    "One is gone without a word, and no connection tells the others, who are at something else."
    how = (3, free_port(), tmp_path, odd, "lost", None)
    each = [process_workers.forks().Process(target=process_workers.failing, args=(rank, *how)) for rank in range(3)]
    for process in each:
        process.start()
    for process in each:
        process.join()
    assert [process.exitcode for process in each] == [-signal.SIGKILL if rank == odd else 2 for rank in range(3)]
    sentence = f"nothing has been heard of rank {odd} on machine{odd + 1} for 10 seconds"
    for rank in {0, 1, 2} - {odd}:
        said = (tmp_path / f"said{rank}").read_text()
        assert said == f"ddpm: {sentence} (said first by rank {odd - 1} on machine{odd})\n"


def test_processes_that_disagree(tmp_path):
    "On a setting that somebody changed on one machine: each says the same, and no run begins."
    said = together(process_workers.of_two_minds, 2, tmp_path / "run", MNIST16)
    assert said == ['the processes disagree on the configuration: "lr": 0.5 on rank 0, "lr": 1.5 on rank 1'] * 2
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("odd", [0, 2])
def test_a_process_with_other_weights_is_named(tmp_path, odd):
    "Where the next checkpoint is due; that is not saved. Of three the odd one is named, whichever it is."
    plan = override(MNIST16, steps=8, batch=8, channels=8, save_every=4, precision="fp32")
    (said, saved), *others = together(process_workers.drifting, 3, tmp_path / "run", plan, odd)
    assert (
        said.startswith("the processes disagree on step 8 (")
        and ": weights " in said
        and said.endswith(f" on rank {odd}")
    )
    assert saved == "step_00000004" and others == [(said, saved)] * 2


@thorough
def test_settings_that_the_first_decides():
    "What each machine would choose for itself, such as the number of threads, is the choice of the first."
    assert together(process_workers.settled, 2) == [(3, "fp32"), (3, "fp32")]


def test_a_slow_process_is_waited_for(monkeypatch):
    "The others wait for a day where one decodes images, though every other collective gives up after a second."
    monkeypatch.setenv("DDPM_TIMEOUT", "1")
    assert together(process_workers.late, 2, 2.5) == [0, 1]


def test_port_in_use_and_nobody_comes(monkeypatch):
    def alone(**place):
        place = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "DDPM_START_TIMEOUT": "1", **place}
        monkeypatch.delenv("MASTER_PORT", raising=False)
        for name, value in place.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(ConnectionError) as caught, join("cpu"):
            pass
        assert "this process could not meet the others that it was told of" in str(caught.value)
        assert all(f"{name}={value}" in str(caught.value) for name, value in place.items())
        return str(caught.value)

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        alone(MASTER_PORT=str(taken.getsockname()[1]))
    alone(MASTER_PORT=str(free_port()))
    alone()


@pytest.mark.parametrize("text", ["x", "0", "-1", "nan", "inf", "1e9", "1.2.3"])
def test_time_limits(monkeypatch, text):
    "One for the start and one for each collective; what is no number of seconds is refused."
    monkeypatch.setenv("DDPM_START_TIMEOUT", "2.5")
    monkeypatch.delenv("DDPM_TIMEOUT", raising=False)
    assert [launch.seconds(name).total_seconds() for name in launch.TIMEOUTS] == [2.5, 600]
    monkeypatch.setenv("DDPM_TIMEOUT", text)
    with pytest.raises(ValueError, match=f"DDPM_TIMEOUT is '{text}': expected seconds, such as 600"):
        launch.seconds("DDPM_TIMEOUT")


# -- lost processes ---------------------------------------------------------------------------------------------------

LONG = ["train", *SMALL, "--steps", "4000", "--save-every", "10000", "--out", "run"]


def logged(run, lines):
    "A condition: the run has written so many lines of its log."
    return lambda: len(read_metrics(run)) >= lines


@pytest.mark.parametrize("kind", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=thorough)])
def test_stopped_run_is_saved(tmp_path, kind):
    "By a signal to the process that has started the others."
    words, run = [*LONG, "--nproc", "2"], tmp_path / "run"
    with running([*COMMAND, *words], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        wait_for(logged(run, 3), process)
        process.send_signal(kind)
        out, err = process.communicate()
    assert process.returncode == 128 + kind and "Traceback" not in err, err
    step = int(newest_checkpoint(run).name[5:])
    assert 6 <= step < 4000 and out.count("stopped and saved") == 1 and f"ddpm {shlex.join(words)}" in out
    assert read_metrics(run)[-1]["step"] <= step


def torchrun(words, cwd, nproc=2, agent=("--standalone", "--max-restarts=3")):
    "torchrun with so many workers on this machine."
    command = [TORCHRUN, *agent, f"--nproc_per_node={nproc}", "-m", "ddpm_course", *words]
    return running(command, cwd=cwd, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


@thorough
@needs_proc
def test_a_lost_worker_is_replaced(tmp_path):
    "One of two workers is killed; the run ends by itself, with the bits of the undisturbed one."
    words, run = ["train", *SMALL, "--steps", 24, "--threads", 2], tmp_path / "disturbed"
    ddpm(*words, "--out", "calm", "--nproc", 2, cwd=tmp_path)
    with torchrun([*words, "--out", "disturbed"], tmp_path) as agent:
        wait_for(lambda: logged(run, 3)() and len(children(tmp_path)) >= 2, agent)
        victim = random.choice(children(tmp_path))
        os.kill(victim, signal.SIGKILL)
        output, _ = agent.communicate()
    assert agent.returncode == 0 and output.count("wrote disturbed") == 1, output
    same_bits(tmp_path / "calm", run)


REFUSING = """
from ddpm_course import join
with join("cpu") as group:
    with open("begun", "a") as file:
        print(group.rank, file=file)
    raise ValueError("no good will come of this")
"""


@thorough
def test_what_cannot_succeed_is_not_tried_again(tmp_path):
    "torchrun starts workers again whatever they failed of; after a ValueError they say so again, and do nothing."
    (tmp_path / "mine.py").write_text(REFUSING)
    words = [TORCHRUN, "--standalone", "--max-restarts=1", "--nproc-per-node=2", "mine.py"]
    done = subprocess.run(words, cwd=tmp_path, env=environment(), capture_output=True, text=True)
    assert done.returncode != 0 and "ValueError: no good will come of this" in done.stderr
    assert sorted((tmp_path / "begun").read_text().split()) == ["0", "1"], done.stderr


@pytest.mark.parametrize(
    "attempts, final",
    [
        ([ValueError("no such data")], "no such data"),
        ([BlockingIOError("another process is training in run")], None),  # the worker before, that has not ended yet
        ([NotFinite("the loss is nan at step 30")], None),  # a chip may have erred
        ([NotFinite("the loss is nan at step 30")] * 2, "the loss is nan at step 30"),
        ([RuntimeError("connection closed by peer")] * 3, None),
    ],
)
def test_what_is_final(tmp_path, monkeypatch, attempts, final):
    "What a worker that is started again does, by what those before it have recorded."
    for attempt, error in enumerate([*attempts, None]):
        for rank in (1, 0):
            path = tmp_path / f"attempt_{attempt}/{rank}/error.json"
            path.parent.mkdir(parents=True)
            monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(path))
            if error:
                launch.record(error)
    with pytest.raises(ValueError, match=final) if final else nullcontext():
        launch.check_restart()
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "3")
    with pytest.raises(ValueError, match="TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1"):
        launch.check_restart()


def machine(words, cwd, port, nodes, first=False):
    "An agent on loopback, with one worker: it plays a machine. The first keeps the meeting place."
    meeting = ["--rdzv-backend=c10d", f"--rdzv-endpoint=127.0.0.1:{port}", "--rdzv-id=test"]
    how = f"--rdzv-conf=is_host={int(first)},last_call_timeout=3"  # how long a group that could begin waits for more
    return torchrun(words, cwd, 1, [f"--nnodes={nodes}", "--max-restarts=6", *meeting, how])


def lose(agent, cwd):
    "Kill an agent and its worker."
    parent = lambda pid: int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    for pid in [agent.pid, *(pid for pid in children(cwd) if parent(pid) == agent.pid)]:
        os.kill(pid, signal.SIGKILL)


@pytest.mark.nightly
@needs_proc
def test_elastic(tmp_path):
    "With --nnodes=1:2 one agent is lost, the other goes on alone and takes a new one in: the same losses, to rounding."
    words = ["train", *SMALL, "--optimizer", "adamw", "--lr", "1e-4", "--steps", 800, "--threads", 1]
    ddpm(*words, "--out", "calm", "--nproc", 2, cwd=tmp_path)
    run, port = tmp_path / "elastic", free_port()
    begin = partial(machine, [*words, "--out", "elastic"], tmp_path, port, "1:2")
    with begin(first=True) as first, begin() as second:
        wait_for(logged(run, 20), first, second)
        lose(second, tmp_path)
        wait_for(logged(run, len(read_metrics(run)) + 5), first)
        with begin() as back:
            outputs = [each.communicate()[0] for each in (first, back)]
        assert first.returncode == back.returncode == 0, outputs
    changes = [line["changed"]["processes"] for line in read_log(run) if "processes" in line.get("changed", {})]
    assert changes == [[2, 1], [1, 2]]
    calm, moved = read_metrics(tmp_path / "calm"), read_metrics(run)
    assert [line["step"] for line in moved] == [line["step"] for line in calm]
    assert [line["loss"] for line in moved] == pytest.approx([line["loss"] for line in calm], rel=1e-3)
