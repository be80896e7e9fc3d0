"What the processes of test_processes.py run: functions of a module that new processes can import."

from itertools import islice

import torch

from ddpm_course.data import load_digits
from ddpm_course.distributed import Group
from ddpm_course.training import Solo, fit, load_checkpoint, new_state, read_window


class Doubled(Solo):
    "A group whose network computes in float64."

    def __init__(self, group):
        self.group = group
        self.rank, self.world, self.device = group.rank, group.world, group.device

    def wrap(self, network):
        return self.group.wrap(network.double())

    def add(self, x):
        return self.group.add(x)

    def average(self, network):
        self.group.average(network)


def run(group: Group | Solo, config, threads: int, double: bool) -> tuple[list[float], torch.Tensor]:
    "Losses of each step, and the weights at the end as one vector."
    torch.set_num_threads(threads)
    group = Doubled(group) if double else group
    state = new_state(config, group=group)
    if double:
        state.ema.double()
    losses = [
        read_window(state)["loss"] for _ in fit(state, load_digits("train", config.data.size), config, group=group)
    ]
    return losses, torch.cat([p.detach().flatten() for p in state.network.parameters()])


def stretches(group: Group | Solo, config, run, length: int) -> list[tuple[list[float], torch.Tensor]]:
    "From each checkpoint of a run, and from its beginning: losses of the next steps, and the weights after them."
    torch.set_num_threads(1)
    found = []
    for start in range(0, config.training.steps, length):
        state = new_state(config, group=group)
        if start:
            load_checkpoint(run / f"checkpoints/step_{start:08d}", state)
        steps = islice(fit(state, load_digits("train", config.data.size), config, group=group), length)
        losses = [read_window(state)["loss"] for _ in steps]
        found.append((losses, torch.cat([p.detach().flatten() for p in state.network.parameters()])))
    return found


def fail(group: Group, rank: int) -> None:
    "One rank fails after it has printed; the others wait for it."
    print(f"rank {group.rank} was here", flush=True)
    if group.rank == rank:
        raise KeyError("nothing of that name")
    group.add(torch.zeros(1))


def chat(group: Group) -> int:
    print(f"rank {group.rank} says hello", flush=True)
    return group.rank


def stop_after(group: Group, run, config, step: int) -> None:
    "`distributed.train_run`, stopped after a step, as by SIGTERM."
    from ddpm_course.bound import criterion_for
    from ddpm_course.training import Stop, train

    def hook(state, record):
        if state.step == step:
            raise Stop

    try:
        train(run, config, load_digits("train", config.data.size), group.device, [hook], criterion_for(config), group)
    except Stop:
        pass


def settled(group: Group, run) -> tuple[int, str]:
    "Threads and precision of a run whose processes would each choose other ones."
    from ddpm_course import training
    from ddpm_course.config import PRESETS

    training.os.cpu_count = lambda: 3 + group.rank
    training.pick_precision = lambda name, device: ("fp32", "bf16")[group.rank]
    found = training.settle(PRESETS["mnist16"], run, load_digits("train", 16), group.device, group).training
    return found.threads, found.precision
