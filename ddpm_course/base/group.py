from collections.abc import Callable
from typing import Any

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

    def check_same(self, what: str, value: str, error: type[Exception] = ValueError) -> None:
        "Raise an error that names a process whose value is not that of most."

    def wrap(self, network: nn.Module) -> nn.Module:
        "The network as training calls it."
        return network

    def share(self, n: int, rank: int | None = None) -> range:
        "The part of 0..n-1 that a process works on: this one, or that of a rank."
        rank = self.rank if rank is None else rank
        few, more = divmod(n, self.world)                   # the first `more` have one more
        first = rank * few + min(rank, more)
        return range(first, first + few + (rank < more))

    def gather(self, part: Tensor, n: int, to_all: bool = True) -> Tensor:
        """The rows of all processes, (n, ...), each of which gives those of its `share` of n; what
        the one without a row gives does not matter. Not `to_all`: on rank 0 only, elsewhere none.
        """
        return part

    def map(self, work: Callable[[range], Tensor], n: int, batch: int = 2**60,
            to_all: bool = True) -> Tensor:
        "`work` for 0..n-1, at most `batch` at a time, each process its part: see `gather`."
        mine = self.share(n)
        rows = [work(mine[k:k + batch]) for k in range(0, len(mine), batch)]
        return self.gather(torch.cat(rows) if rows else torch.empty(0), n, to_all)
