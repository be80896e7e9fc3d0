"""What the processes of these tests run, and how most are started: forked from one that has done the imports.

How processes are started in earnest is tested with torchrun; here is what they do once they are there.
"""

import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from functools import cache, partial
from multiprocessing import forkserver
from unittest import mock

import pytest
import torch
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from ddpm_course.base.group import Group
from ddpm_course.cli import train as command  # noqa: F401  which takes seconds to import
from ddpm_course.cli.main import exit_code, main
from ddpm_course.config import PRESETS, override
from ddpm_course.data.sets import load_digits
from ddpm_course.data.sources import load_data
from ddpm_course.run import checkpoints, launch, training
from ddpm_course.run.checkpoints import newest_checkpoint, read_metrics, read_window
from ddpm_course.run.distributed import DDPGroup
from ddpm_course.run.launch import end, join, meeting
from ddpm_course.run.runs import Run
from ddpm_course.run.stopping import Drifted
from ddpm_course.run.training import fit, new_state
from helpers import free_port, train

torch.optim.AdamW([torch.zeros(1)])  # the compiler comes with the first optimizer
load_digits("train", 16)


@cache
def forks():
    "The way to start processes; the one that they are forked from has no threads, and ends with this one."
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["process_workers"])
    with mock.patch.dict(os.environ, PYTHONPATH=os.pathsep.join(filter(None, sys.path)), TORCH_CPP_LOG_LEVEL="ERROR"):
        forkserver.ensure_running()
    return context


def rank_of(rank, world, port, work, args):
    "One of several processes, as torchrun would start it."
    place = {"RANK": rank, "WORLD_SIZE": world, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    with mock.patch.dict(os.environ, {name: str(value) for name, value in place.items()}), join("cpu") as group:
        return work(group, *args)


def together(work, world, *args):
    "What `work(group, *args)` returns to each of so many processes."
    with ProcessPoolExecutor(world, forks()) as pool:  # as many processes as tasks: each waits for all, and takes one
        return list(pool.map(partial(rank_of, world=world, port=free_port(), work=work, args=args), range(world)))


def run(group: DDPGroup | Group, config, threads: int, double: bool) -> tuple[list[float], torch.Tensor]:
    "Losses of each step, and the weights at the end as one vector; all of it in float64, where that is asked for."
    torch.set_num_threads(threads)
    if double:
        group.wrap = lambda network, wrap=group.wrap: wrap(network.double())
    state = new_state(config, group=group)
    if double:
        state.ema.network.double()
    steps = fit(state, load_digits("train", config.data.size), config, group=group)
    losses = [read_window(state, group)["loss"] for _ in steps]
    return losses, torch.cat([p.detach().flatten() for p in state.network.parameters()])


def squares(group: DDPGroup | Group, n: int, to_all: bool) -> torch.Tensor:
    "A row (k, k^2) for each of n, three at a time; nobody asks for none."
    return group.map(lambda i: torch.tensor([[k, k * k] for k in i], dtype=torch.float64), n, 3, to_all)


def late(group: DDPGroup, seconds: float) -> int:
    "The last rank comes to the barrier so much later than the others."
    time.sleep(seconds * (group.rank + 1 == group.world))
    group.barrier()
    return group.rank


class Choosy(torch.nn.Module):
    "A network that never uses some of its parameters, and others in every third step only."

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.always, self.sometimes, self.never = (torch.nn.Linear(300, 300) for _ in range(3))
        self.step = 0

    def forward(self, x):
        return self.sometimes(self.always(x)) if self.step % 3 == 2 else self.always(x)


def choosy_gradients(group: DDPGroup | Group) -> list[torch.Tensor]:
    "The gradient of each of four steps, of two slices each: only the second has anything to say to others."
    network, found = Choosy(), []
    wrapped = group.wrap(network)
    x = torch.randn(4, group.world, 2, 3, 300, generator=torch.Generator().manual_seed(1))
    for network.step, parts in enumerate(x[:, group.rank]):
        network.zero_grad()
        for k, part in enumerate(parts):
            with wrapped.no_sync() if k == 0 and wrapped is not network else nullcontext():
                wrapped(part).square().mean().backward()
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in network.parameters()]
        found.append(torch.cat([grad.flatten() for grad in grads]))
    return found


def train_run(group: DDPGroup, run, config) -> list[dict]:
    "Begin or continue a run on the data that its configuration names; the lines of its log."
    images, held_out = load_data(config.data.data, config.data.size, config.data.image_channels or None)
    train(run, config, images, group, held_out=held_out)
    return read_metrics(run)


def stop_after(group: DDPGroup, run, config, step: int) -> None:
    "`train_run`, stopped after a step, as by SIGTERM."
    train(run, config, load_digits("train", config.data.size), group, stop_after=step)


def held(group: DDPGroup, config) -> dict[str, int]:
    "How many numbers this process holds after a step: weights, the optimizer's memory of them, and their average."
    state = new_state(config, "cpu", group)
    next(fit(state, load_digits("train", 16), config, group))
    memory = [x.to_local() for of in state.optimizer.state.values() for name, x in of.items() if name != "step"]
    weights = [p.to_local() for p in state.network.parameters()]
    many = {"weights": weights, "memory": memory, "average": state.ema.network.parameters()}
    return {name: sum(x.numel() for x in some) for name, some in many.items()}


def drifting(group: DDPGroup, run, config, odd: int) -> tuple[str, str]:
    "What is said, and what was saved, where one weight of a rank changes by its last bit after step 5."
    with pytest.raises(Drifted) as said, Run.open(run, config, load_digits("train", config.data.size), group) as run:
        for record in run:
            if record["step"] == 5 and group.rank == odd:
                next(run.state.network.parameters()).data.view(torch.int32).flatten()[0] += 1
    return str(said.value), newest_checkpoint(run.folder).name


def failing(rank, world, port, folder, odd: int, where: str, error: Exception) -> None:
    "One of them fails somewhere; what each says is left in a file, and its code is that of `ddpm`."
    place = {"RANK": rank, "WORLD_SIZE": world, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ |= {name: str(value) for name, value in place.items()} | {"SLURMD_NODENAME": f"machine{rank + 1}"}

    def fail(here):
        if rank == odd and here == where:
            (folder / "failed").touch()
            if error is None:
                os.kill(os.getpid(), signal.SIGKILL)
            raise error

    def work():
        with meeting() as word:
            fail("before the group")
            with join("cpu", word) as group:
                fail("before the others")
                group.barrier()
                fail("in a step")
                group.all_reduce(torch.zeros(1))
                fail("lost")
                if where == "lost" or rank and where == "alone":
                    signal.pause()  # at something else, until it is ended
                fail("alone")
                group.broadcast(rank)

    if where == "lost":
        launch.SILENT = 10
    with open(folder / f"said{rank}", "w") as sys.stderr:
        end(exit_code(work))


# -- machines that one job runs on ------------------------------------------------------------------------------------


def agent(folder, machine: int, port: int, job: str, words: list[str], fault: str, restarts: int) -> None:
    "What torchrun does on one of four machines, with a worker forked from the process that has done the imports."
    os.chdir(folder / f"machine{machine}")
    with open(folder / f"{job}{machine}.log", "a", 1) as log:
        for stream in (1, 2):
            os.dup2(log.fileno(), stream)
    rdzv = {"is_host": machine == 1, "last_call_timeout": 1, "keep_alive_interval": 1}
    os.environ |= {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1", "OMP_NUM_THREADS": "1"}
    tempfile.tempdir = str(folder)  # where the logs of its workers are left
    config = LaunchConfig(
        min_nodes=4, max_nodes=4, nproc_per_node=1, run_id=job, max_restarts=restarts, rdzv_backend="c10d",
        rdzv_endpoint=f"127.0.0.1:{port}", rdzv_configs=rdzv, local_addr="127.0.0.1", start_method="fork",
        logs_specs=DefaultLogsSpecs(str(folder / f"{job}.logs")), signals_to_handle="SIGTERM",
    )  # fmt: skip
    try:
        elastic_launch(config, worker)(folder, machine, job, words, fault)
    except (ChildFailedError, SignalException):
        end(1)


def worker(folder, machine: int, job: str, words: list[str], fault: str) -> None:
    "One process of `ddpm`, on a machine with a folder, a name and an environment of its own."
    (folder / f"{job}{machine}.pid").write_text(str(os.getpid()))
    os.chdir(folder / f"machine{machine}")
    os.environ |= {"SLURMD_NODENAME": f"machine{machine}", "DDPM_CACHE": str(folder / f"machine{machine}/cache")}
    launch.end = lambda code: sys.exit(0) if code == 0 else end(code)  # so that the agent sees its return
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])  # it wakes who waits for it, also where it comes before
    honest, past = training.train_step, folder / f"{job}{machine}.past"

    def full(path):
        raise OSError(28, "No space left on device", str(path))

    def step(state, batches, *how):
        if state.step == 6 and not past.exists():
            past.touch()
            if fault == f"nan on {machine}":
                batches[0].weight.fill_(torch.nan)
            if fault == f"full disk on {machine}":  # the next attempt finds space
                checkpoints.flush = full
            if fault == f"slow on {machine}":
                signal.sigwait([signal.SIGUSR1])
        return honest(state, batches, *how)

    training.train_step = step
    main(words)


def of_two_minds(group: DDPGroup, run, config) -> str:
    "What is said where each rank was told a rate of its own."
    with pytest.raises(ValueError) as said:
        train_run(group, run, override(config, lr=0.5 + group.rank))
    return str(said.value)


def disturbed(run, kind: str, what: str = "", count: int = 0) -> None:
    """A run that ends; or that is killed before the `count`-th step of this start (`what` is "step"), or when it has
    written the `count`-th file of its checkpoints ("file", each has four, and its folder counts, too)."""
    config = override(PRESETS["mnist16"], steps=60, batch=8, channels=8, dropout=0.1, warmup=5, threads=1)
    config = override(config, log_every=3, save_every=4, precision="auto")
    if kind == "vlb":  # t drawn by importance, from what earlier steps saw; uniform until step 20 or so
        config = override(config, loss="vlb", variance="learned", T=20)
    seen, done, news = dict.fromkeys(("step", "file"), 0), [0], threading.Condition()
    step, flush, write = training.train_step, checkpoints.flush, checkpoints.write_checkpoint

    def passes(kind):
        seen[kind] += 1
        if (kind, seen[kind]) == (what, count):
            os.kill(os.getpid(), signal.SIGKILL)

    def counted_step(state, *given):
        passes("step")
        norm = step(state, *given)
        with news:
            done[0] = state.step
            news.notify()
        return norm

    def counted_flush(path):
        flush(path)
        if ".writing" in path.parts:
            passes("file")

    def slow_write(folder, at, *given, **facts):
        "On its way until the next checkpoint is due."
        with news:
            news.wait_for(lambda: done[0] >= min(at + 3, 60))
        return write(folder, at, *given, **facts)

    training.train_step, checkpoints.flush = counted_step, counted_flush
    if kind == "slow disk":
        checkpoints.write_checkpoint = slow_write
    train(run, config, load_digits("train", 16))


def settled(group: DDPGroup) -> tuple[int, str]:
    "Threads and precision of a run whose processes would each choose other ones."
    from ddpm_course.run import runs

    runs.cores = lambda: 3 + group.rank
    runs.pick_precision = lambda name, device: ("fp32", "bf16")[group.rank]
    found = runs.complete_config(PRESETS["mnist16"], None, load_digits("train", 16), group.device, group).training
    return found.threads, found.precision
