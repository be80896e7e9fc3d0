"Several processes make the same run, the same samples and the same numbers as one; and what happens when one is lost."

import json
import os
import random
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import process_workers
from ddpm_course.checkpoints import newest_checkpoint, read_metrics
from ddpm_course.config import PRESETS, override
from ddpm_course.data import load_digits
from ddpm_course.distributed import Place, joined
from ddpm_course.processes import launch
from ddpm_course.runs import Stop
from helpers import ddpm, environment, free_port, refused, same_bits

TORCHRUN = str(Path(sys.executable).parent / "torchrun")
CLASSES = tuple("0123456789")
SMALL = "--batch 16 --channels 16 --T 100 --log-every 2 --save-every 4 --grid-every 0 --precision fp32".split()


# -- the same run -----------------------------------------------------------------------------------------------------


def differences(base, results):
    "Worst relative difference of a loss, and relative difference of the weights."
    losses, weights = base
    return {
        name: (max(abs(a / b - 1) for a, b in zip(other, losses)), ((w - weights).norm() / weights.norm()).item())
        for name, (other, w) in results.items()
    }


def runs(config, worlds, accumulate, double=False):
    config = override(config, classes=CLASSES, precision="fp32")
    results = {f"{n} processes": launch(process_workers.run, n, config, 1, double)[0] for n in worlds}
    results[f"{accumulate} slices"] = launch(
        process_workers.run, 1, override(config, accumulate=accumulate), 1, double
    )[0]
    if 3 in worlds:
        results["2 processes, 2 slices each"] = launch(
            process_workers.run, 2, override(config, accumulate=2), 1, double
        )[0]
    base = launch(process_workers.run, 1, config, 1, double)[0]
    return config, base, results


@pytest.mark.parametrize(
    "steps, batch, worlds", [(12, 20, (2, 3, 4)), pytest.param(50, 64, (2, 4), marks=pytest.mark.slow)]
)
def test_same_run_on_any_number_of_processes(steps, batch, worlds):
    "mnist16 in float32. 20 images are 7, 7 and 6 on three processes. Fifty steps are judged more strictly, in stretches, below."
    config, base, results = runs(override(PRESETS["mnist16"], steps=steps, batch=batch), worlds, 4)
    results["2 threads"] = launch(process_workers.run, 1, config, 2, False)[0]
    found = differences(base, results)
    print({name: [f"{d:.1e}" for d in pair] for name, pair in found.items()})
    assert max(max(pair) for pair in found.values()) > 0
    for name, pair in found.items():  # 5e-5, or three times what another thread count alone does
        assert all(d < min(1e-3, max(5e-5, 3 * floor)) for d, floor in zip(pair, found["2 threads"])), name


@pytest.mark.parametrize("steps, length", [(6, 3), pytest.param(50, 10, marks=pytest.mark.slow)])
def test_each_stretch_of_a_run(tmp_path, steps, length):
    """mnist16 in float32, to 5e-5 at every step: the chain begins anew from each checkpoint of one process.

    Over a whole run rounding grows tenfold in ten steps, whoever computes it, and hides what is compared.
    """
    config = override(
        PRESETS["mnist16"],
        classes=CLASSES,
        precision="fp32",
        steps=steps,
        threads=1,
        log_every=1,
        save_every=length,
        keep=steps,
    )
    log = [line["loss"] for line in launch(process_workers.train_run, 1, tmp_path, config)[0]]
    ends = [
        torch.cat([p.flatten() for p in load_file(tmp_path / f"checkpoints/step_{k:08d}/model.safetensors").values()])
        .double()
        .norm()
        .item()
        for k in range(length, steps + 1, length)
    ]
    plans = {f"{n} processes": (n, config) for n in (2, 3, 4)} | {
        "4 slices": (1, override(config, accumulate=4)),
        "2 x 2": (2, override(config, accumulate=2)),
    }
    base, worst = launch(process_workers.stretches, 1, config, tmp_path, length)[0], {}
    assert [loss for losses, _ in base for loss in losses] == log and [
        w.double().norm().item() for _, w in base
    ] == pytest.approx(ends, rel=1e-12)
    for name, (world, plan) in plans.items():
        found = [
            (losses, (w - mine).norm() / mine.norm())
            for (losses, w), (_, mine) in zip(launch(process_workers.stretches, world, plan, tmp_path, length)[0], base)
        ]
        apart = [abs(a / b - 1) for a, b in zip((loss for losses, _ in found for loss in losses), log)]
        worst[name] = max(apart), max(w.item() for _, w in found)
        assert len(apart) == steps and max(worst[name]) < 5e-5, (name, worst[name])
    print({name: [f"{d:.1e}" for d in pair] for name, pair in worst.items()})
    assert max(max(pair) for pair in worst.values()) > 0


@pytest.mark.parametrize("steps", [5, pytest.param(20, marks=pytest.mark.slow)])
def test_same_run_in_float64(steps):
    _, base, results = runs(override(PRESETS["mnist16"], steps=steps, batch=20, warmup=0), (2, 3), 4, double=True)
    found = differences(base, results)
    print({name: [f"{d:.1e}" for d in pair] for name, pair in found.items()})
    assert all(d < 1e-9 for pair in found.values() for d in pair)


@pytest.mark.parametrize("world", [2, 3])
def test_exact_resume_with_dropout(tmp_path, world):
    "Stopped and continued on as many processes, with dropout and importance sampling: the same bits."
    plan = override(
        PRESETS["mnist16"],
        steps=9,
        batch=16,
        channels=16,
        dropout=0.1,
        log_every=2,
        save_every=4,
        threads=2,
        loss="vlb",
        variance="learned",
        T=4,
    )
    launch(process_workers.train_run, world, tmp_path / "calm", plan)
    launch(process_workers.stop_after, world, tmp_path / "broken", plan, 6)
    assert newest_checkpoint(tmp_path / "broken").name == "step_00000006"
    launch(process_workers.train_run, world, tmp_path / "broken", plan)
    same_bits(tmp_path / "calm", tmp_path / "broken")


def test_run_goes_on_with_another_number(tmp_path):
    run, plan = (
        tmp_path / "run",
        override(
            PRESETS["mnist16"], steps=8, batch=16, channels=16, log_every=2, save_every=4, threads=2, precision="fp32"
        ),
    )
    before = launch(process_workers.train_run, 2, run, plan)[0]
    shutil.rmtree(newest_checkpoint(run))  # back to step 4, as if killed there
    after = launch(process_workers.train_run, 3, run, plan)[0]
    assert [line["loss"] for line in before[:2]] == [line["loss"] for line in after[:2]] and len(after) == 4
    assert all(abs(a["loss"] / b["loss"] - 1) < 1e-3 for a, b in zip(before, after))
    assert launch(process_workers.train_run, 1, run, plan)[0] == after  # nothing was left to do


# -- the same samples and numbers -------------------------------------------------------------------------------------


def test_same_samples_and_losses(tmp_path):
    "--n 7 of one class is 7 samples: 3, 2 and 2 on three processes; 40 images are 14, 13 and 13. Everything is printed once."
    digits = load_digits("train", 16)
    for k, (image, label) in enumerate(zip(digits.pixels[::11], digits.labels[::11])):
        path = tmp_path / "data" / str(label) / f"{k:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[0]).save(path)
    pictures, films, tests = {}, {}, {}
    for n in (1, 2, 3):
        out = ddpm(
            "sample",
            "--classes",
            4,
            "--n",
            7,
            "--steps",
            4,
            "--sampler",
            "ddpm",
            "--npz",
            f"{n}.npz",
            "--nproc",
            n,
            cwd=tmp_path,
        )[0]
        assert out == f"wrote samples.png {n}.npz\n"
        pictures[n] = np.load(tmp_path / f"{n}.npz")["images"].astype(int)
        assert (
            ddpm("genseq", "--classes", 4, "--n", 2, "--steps", 4, "--out", f"{n}.gif", "--nproc", n, cwd=tmp_path)[
                0
            ].count("wrote")
            == 1
        )
        films[n] = (tmp_path / f"{n}.gif").stat().st_size
        assert (
            ddpm("test", "--data", "data", "--out", f"{n}.json", "--bpd", "--nproc", n, cwd=tmp_path)[0].count("wrote")
            == 1
        )
        tests[n] = json.loads((tmp_path / f"{n}.json").read_text())
    for n in (2, 3):
        assert abs(pictures[1] - pictures[n]).max() <= 1 and abs(films[1] - films[n]) < 0.02 * films[1]
        for split in ("test", "train"):
            for name, found in tests[1]["losses"][split].items():
                assert abs(found["mean"] / tests[n]["losses"][split][name]["mean"] - 1) < 1e-6
        assert abs(tests[1]["bits_per_dim"]["mean"] / tests[n]["bits_per_dim"]["mean"] - 1) < 1e-6


# -- what goes wrong --------------------------------------------------------------------------------------------------


def test_failed_rank_is_named_with_its_log(capfd):
    began = time.monotonic()
    with pytest.raises(RuntimeError) as caught:
        launch(process_workers.fail, 3, 1)
    text = str(caught.value)
    assert (
        text.startswith("rank 1 ended with code 1")
        and "rank 1 was here" in text
        and "KeyError: 'nothing of that name'" in text
    )
    assert "rank 0 was here" in capfd.readouterr().out and time.monotonic() - began < 60


def test_only_the_first_prints(capfd):
    assert launch(process_workers.chat, 3) == [0, 1, 2]
    assert capfd.readouterr().out == "rank 0 says hello\n"


def test_refusals(tmp_path):
    refused(
        "train",
        *SMALL,
        "--steps",
        2,
        "--batch",
        4,
        "--nproc",
        3,
        "--accumulate",
        2,
        cwd=tmp_path,
        sentence="a batch of 4 cannot be cut into 6 slices (3 processes, 2 each)",
    )
    refused("train", "--nproc", "many", cwd=tmp_path, sentence="--nproc must be auto or a number above 0, not 'many'")
    refused("sample", "nowhere", "--nproc", 2, cwd=tmp_path, sentence="nowhere holds no run")
    with pytest.raises(
        ValueError,
        match=f"2 processes need as many GPUs; this machine has {torch.cuda.device_count()}"
        if torch.cuda.device_count() < 2
        else "",
    ):
        launch(process_workers.chat, 2 + torch.cuda.device_count(), kind="cuda")


def test_torchrun_without_its_environment(tmp_path):
    for changes, words, sentence in [
        ({}, [], "has WORLD_SIZE, MASTER_ADDR, MASTER_PORT in its environment"),
        ({"WORLD_SIZE": "1"}, ["--nproc", "2"], "leave --nproc out"),
    ]:
        done = subprocess.run(
            [sys.executable, "-m", "ddpm_course", "sample", *words],
            cwd=tmp_path,
            env=environment(RANK="0", **changes),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 2 and done.stderr.count("\n") == 1 and sentence in done.stderr, done.stderr


def test_settings_that_the_first_decides(tmp_path):
    "What each machine would choose for itself, such as the number of threads, is the choice of the first."
    assert launch(process_workers.settled, 2) == [(3, "fp32"), (3, "fp32")]


def test_last_line_of_the_log_is_there_for_all(tmp_path):
    plan = override(PRESETS["mnist16"], steps=3, batch=8, channels=8, log_every=1, threads=2)
    logs = launch(process_workers.train_run, 2, tmp_path / "run", plan)
    assert logs[0] == logs[1] and logs[1][-1]["step"] == 3


def test_port_in_use_and_nobody_comes():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ValueError, match="the port of 127.0.0.1:.* is in use"):
            with joined(Place(0, 2, 0, 2, f"tcp://127.0.0.1:{taken.getsockname()[1]}"), timeout=3.0):
                pass
    with pytest.raises(ValueError, match="2 processes should meet at .*, but not all came within 1 s"):
        with joined(Place(0, 2, 0, 2, f"tcp://127.0.0.1:{free_port()}"), timeout=1.0):
            pass
    with pytest.raises(ValueError, match="2 processes could not meet at .*: .*MASTER_ADDR"):
        with joined(Place(0, 2, 0, 2, "env://"), timeout=1.0):
            pass


def started(rank, port, words, cwd, world=2):
    "A worker as torchrun or a cluster's own launcher starts it."
    env = environment(
        RANK=str(rank),
        WORLD_SIZE=str(world),
        LOCAL_RANK=str(rank),
        LOCAL_WORLD_SIZE=str(world),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
    )
    return subprocess.Popen(
        [sys.executable, "-m", "ddpm_course", *map(str, words)],
        cwd=cwd,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_ranks_that_disagree(tmp_path):
    port, words = free_port(), ["train", *SMALL, "--steps", 4, "--out", "run"]
    workers = [started(rank, port, [*words, "--lr", lr], tmp_path) for rank, lr in enumerate(("0.002", "0.001"))]
    for worker in workers:
        out, err = worker.communicate(timeout=90)
        assert worker.returncode == 2 and "Traceback" not in err
        assert 'the processes disagree on the configuration: "lr": 0.002 on rank 0, "lr": 0.001 on rank 1' in err
    assert newest_checkpoint(tmp_path / "run") is None


# -- lost processes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGINT])
def test_stopped_run_is_saved(tmp_path, kind):
    words = ["train", *SMALL, "--steps", "4000", "--save-every", "10000", "--out", "run", "--nproc", "2"]
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
    assert process.returncode == 128 + kind and "Traceback" not in err, err
    step = int(newest_checkpoint(tmp_path / "run").name[5:])
    assert 6 <= step < 4000 and out.count("stopped and saved") == 1 and f"ddpm {shlex.join(words)}" in out
    assert [line["step"] for line in read_metrics(tmp_path / "run")][-1] <= step


def test_children_leave_when_the_parent_is_killed(tmp_path):
    words = ["train", *SMALL, "--steps", "4000", "--out", "run", "--nproc", "2"]
    process = subprocess.Popen(
        [sys.executable, "-m", "ddpm_course", *words],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while not (tmp_path / "run/metrics.jsonl").exists() or len(read_metrics(tmp_path / "run")) < 2:
        assert process.poll() is None
        time.sleep(0.05)
    process.kill()
    process.wait()
    until = time.monotonic() + 30
    while children(tmp_path) and time.monotonic() < until:
        time.sleep(0.2)
    assert not children(tmp_path)


def children(cwd):
    "Process numbers of Python workers whose working folder is `cwd`."
    found = []
    for entry in Path("/proc").iterdir():
        try:
            command = (entry / "cmdline").read_bytes()
            if (
                entry.name.isdigit()
                and os.readlink(entry / "cwd") == str(cwd)
                and b"torchrun" not in command
                and b"ddpm_course" in command
            ):
                found.append(int(entry.name))
        except OSError:
            pass
    return found


def parent(pid):
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def keeps_addresses(port):
    "The process that listens on a port."
    inodes = {
        line.split()[9]
        for name in ("tcp", "tcp6")
        for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]
        if line.split()[1].endswith(f":{port:04X}") and line.split()[3] == "0A"
    }
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if any(os.readlink(link) in {f"socket:[{i}]" for i in inodes} for link in (entry / "fd").iterdir()):
                    return int(entry.name)
            except OSError:
                pass


def torchrun(words, cwd, nproc=2, **more):
    command = [
        TORCHRUN,
        *more.pop("agent", ["--standalone", "--max-restarts=3"]),
        f"--nproc_per_node={nproc}",
        "-m",
        "ddpm_course",
        *map(str, words),
    ]
    return subprocess.Popen(
        command,
        cwd=cwd,
        env=environment(**more),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finished(agents, seconds=240):
    "Outputs of agents that end by themselves."
    outputs = []
    try:
        outputs = [agent.communicate(timeout=seconds)[0] for agent in agents]
    finally:
        for agent in agents:
            if agent.poll() is None:
                os.killpg(agent.pid, signal.SIGKILL)
    return outputs


@pytest.mark.skipif(not Path("/proc").exists(), reason="finds workers in /proc")
def test_lost_workers_are_replaced(tmp_path):
    "One of two workers is killed three times; the run ends by itself, with the bits of the undisturbed one."
    words = ["train", *SMALL, "--steps", 120, "--threads", 2]
    ddpm(*words, "--out", "calm", "--nproc", 2, cwd=tmp_path)
    seed = int.from_bytes(os.urandom(4), "big")
    print(f"random moments from seed {seed}")
    moments, run, killed = random.Random(seed), tmp_path / "disturbed", []
    agent = torchrun([*words, "--out", "disturbed"], tmp_path)
    while len(killed) < 3:
        aim = moments.randrange(4, 40) + 40 * len(killed)
        while len(read_metrics(run)) == 0 or read_metrics(run)[-1]["step"] < aim or len(children(tmp_path)) < 2:
            assert agent.poll() is None, agent.communicate()[0]
            time.sleep(0.01)
        reached = read_metrics(run)[-1]["step"]
        victim = moments.choice(children(tmp_path))
        os.kill(victim, signal.SIGKILL)
        killed.append(reached)
        while victim in children(tmp_path):
            time.sleep(0.01)
        time.sleep(1.0)  # the log is cut back only when the new workers begin
    (output,) = finished([agent])
    print(f"killed at steps {killed}")
    assert agent.returncode == 0 and output.count("wrote disturbed") == 1, output
    same_bits(tmp_path / "calm", run)


def test_preempted_agent(tmp_path):
    "SIGTERM to torchrun reaches the workers, which save and leave."
    agent = torchrun(["train", *SMALL, "--steps", 4000, "--save-every", 10000, "--out", "run"], tmp_path)
    while len(read_metrics(tmp_path / "run")) < 3:
        assert agent.poll() is None, agent.communicate()[0]
        time.sleep(0.05)
    agent.send_signal(signal.SIGTERM)
    (output,) = finished([agent])
    assert agent.returncode != 0 and output.count("stopped and saved") == 1 and newest_checkpoint(tmp_path / "run"), (
        output
    )
    while children(tmp_path):
        time.sleep(0.05)


def test_torchrun_that_shares_its_store(tmp_path):
    "A restarted worker would wait for ever; it says so instead."
    env = {"TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": "1", "RANK": "0", "WORLD_SIZE": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "ddpm_course", "sample"],
        cwd=tmp_path,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
    )
    assert (
        done.returncode == 2
        and done.stderr.count("\n") == 1
        and "start torchrun with TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1" in done.stderr
    )


@pytest.mark.slow
def test_two_machines(tmp_path):
    "Two agents on loopback finish a run; a second run goes on when one agent is killed and comes back."

    def agents(out, port):
        return [torchrun([*words, "--out", out], tmp_path, 1, agent=machine(port)) for _ in range(2)]

    def machine(port):
        return [
            "--nnodes=2",
            "--max-restarts=6",
            "--rdzv-backend=c10d",
            f"--rdzv-endpoint=127.0.0.1:{port}",
            "--rdzv-id=test",
        ]

    words = ["train", *SMALL, "--steps", 200, "--threads", 1]  # two machines, in earnest, would not share two cores
    both = agents("calm", free_port())
    outputs = finished(both)
    assert [agent.returncode for agent in both] == [0, 0] and "".join(outputs).count("wrote calm") == 1, outputs
    port = free_port()
    first, second = agents("disturbed", port)
    while len(read_metrics(tmp_path / "disturbed")) < 10:
        assert first.poll() is None and second.poll() is None
        time.sleep(0.05)
    keeper = keeps_addresses(port)  # losing that one would lose the meeting place
    victim, survivor = (second, first) if keeper == first.pid else (first, second)
    os.killpg(victim.pid, signal.SIGKILL)  # the agent; its worker is a group of its own
    for pid in children(tmp_path):
        if parent(pid) not in (survivor.pid,):
            os.kill(pid, signal.SIGKILL)
    back = torchrun([*words, "--out", "disturbed"], tmp_path, 1, agent=machine(port))
    outputs = finished([survivor, back], 400)
    assert survivor.returncode == back.returncode == 0, outputs
    same_bits(tmp_path / "calm", tmp_path / "disturbed")


# -- from Python ------------------------------------------------------------------------------------------------------

SCRIPT = """
import json
from ddpm_course import ImageSet, PRESETS, Run, SamplingConfig, join, load_digits, override, sample

digits = load_digits("train", 16)                                      # stands for arrays of one's own
images = ImageSet.of(digits.pixels[:, 0], digits.labels, digits.classes)
losses = []
with join("cpu") as group:
    plan = override(PRESETS["mnist16"], steps=4, batch=8, channels=8, T=40, log_every=2, precision="fp32")
    with Run.open(FOLDER, plan, images, group) as run:
        for record in run:
            if "logged" in record:
                losses.append(record["logged"]["loss"])
    grid = sample(run.model, classes=[3, 7], n=2, how=SamplingConfig(guidance=2, steps=4), group=group)
    if group.rank == 0:
        print(json.dumps([losses, list(grid.shape), float(grid.abs().mean())]))
"""
FLAGS = "--steps 4 --batch 8 --channels 8 --T 40 --log-every 2 --grid-every 0 --precision fp32 --device cpu".split()


def test_own_script_three_ways(tmp_path):
    "One file under python, under torchrun on two processes, and cell by cell; its losses are those of `ddpm train`."
    from execnb.shell import CaptureShell

    printed = {}
    for way in ("python", "torchrun"):
        path = tmp_path / f"{way}.py"
        path.write_text(SCRIPT.replace("FOLDER", f"'runs/{way}'"))
        start = [sys.executable] if way == "python" else [TORCHRUN, "--standalone", "--nproc_per_node=2"]
        done = subprocess.run([*start, path], cwd=tmp_path, env=environment(), capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        printed[way] = json.loads(done.stdout.splitlines()[-1])
    shell, cells = CaptureShell(tmp_path / "mine.ipynb"), SCRIPT.replace("FOLDER", f"'{tmp_path}/runs/cells'").split("\n\n")
    outputs = [str(shell.run(cell)) for cell in cells]
    assert not shell.exc and "[2]" not in outputs[0], outputs
    ddpm("train", *FLAGS, "--out", "runs/command", cwd=tmp_path)
    command = [line["loss"] for line in read_metrics(tmp_path / "runs/command")]
    cells = [line["loss"] for line in read_metrics(tmp_path / "runs/cells")]
    assert printed["python"][0] == cells == command and len(command) == 2
    assert printed["torchrun"][0] == pytest.approx(command, rel=1e-4)
    assert printed["torchrun"][1:] == [[4, 1, 16, 16], pytest.approx(printed["python"][2], rel=1e-2)]


def test_stop_arrives_as_stop():
    "What a worker raises to end by choice comes out of `launch` as it was raised."
    with pytest.raises(Stop, match="enough, says rank"):
        launch(process_workers.stop, 2)
