from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


class Group:
    "Who takes part: one process. `run.distributed.DDPGroup` is a group of several."
    rank, world = 0, 1              # this process, of so many
    local_world = 1                 # so many of them on this machine

    def __init__(self, device: torch.device | str | None = None):
        self.device = None if device is None else torch.device(device)      # None: to be chosen

    def all_reduce(self, x: Tensor) -> Tensor:
        "The sum of a tensor over all processes."
        return x

    def broadcast(self, value: Any) -> Any:
        "What the first process holds."
        return value

    def barrier(self) -> None:
        "Wait for all, for up to a day, where one may take far longer: to decode images, say."

    def check_same(self, what: str, value: str) -> None:
        "Raise ValueError where processes disagree on a value."

    def wrap(self, network: nn.Module) -> nn.Module:
        "The network as training calls it."
        return network

    def average(self, network: nn.Module) -> None:
        "Average the gradients over all processes, after `backward`, unless `wrap` sees to it."

    def share(self, n: int) -> range:
        "This process's part of 0..n-1."
        places = np.array_split(np.arange(n), self.world)[self.rank]
        return range(int(places[0]), int(places[-1]) + 1) if len(places) else range(0)

    def map(self, work: Callable[[range], Tensor], n: int, batch: int = 2**60) -> Tensor:
        "`work` for 0..n-1, at most `batch` at a time, each process its part: (n, ...) for all."
        mine = self.share(n)
        part = mine or range(1)                             # the shape must be known everywhere
        rows = [work(part[k:k + batch]) for k in range(0, len(part), batch)]
        done = torch.cat(rows)[:len(mine)]
        if self.world == 1:
            return done
        every = done.new_zeros((n, *done.shape[1:]))
        every[mine.start:mine.stop] = done
        return self.all_reduce(every)
