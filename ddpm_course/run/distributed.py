"Several processes that work as one: a group, and DDP as it is used here."
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.nn  # noqa: F401  before any group: its defaults would keep one alive
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ..base.group import Group


class SettledDDP(DistributedDataParallel):
    "DDP that has its final buckets before the first gradients that count: see `settle`."
    settled = False

    def forward(self, *inputs: Tensor) -> Tensor:
        if torch.is_grad_enabled() and not self.settled:
            self.settle(*inputs)
        return super().forward(*inputs)

    def settle(self, *inputs: Tensor) -> None:
        "A pass whose gradients are thrown away: DDP learns their order, and which never come."
        send, self.require_backward_grad_sync = self.require_backward_grad_sync, True
        buffers = [buffer.clone() for buffer in self.module.buffers()]
        with torch.random.fork_rng(self.device_ids or []):          # dropout's masks come again
            super().forward(*inputs).sum().backward()
        for buffer, before in zip(self.module.buffers(), buffers):
            buffer.copy_(before)
        if any(p.grad is None for p in self.module.parameters() if p.requires_grad):
            super().__init__(self.module, self.device_ids or None, gradient_as_bucket_view=True,
                             find_unused_parameters=True)       # a walk over the graph each step
        self.zero_grad()
        self.settled, self.require_backward_grad_sync = True, send


class DDPGroup(Group):
    "Several processes, which `join` has brought together."

    def __init__(self, local_world: int = 1, device: torch.device = torch.device('cpu')):
        super().__init__(device)
        self.rank, self.world = dist.get_rank(), dist.get_world_size()
        self.local_world = local_world
        self.patient = dist.new_group(backend='gloo', timeout=timedelta(days=1))

    def all_reduce(self, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    def broadcast(self, value: Any) -> Any:
        told = [value]
        dist.broadcast_object_list(told, src=0)
        return told[0]

    def gather(self, part: Tensor, n: int, to_all: bool = True) -> Tensor:
        shape, kind, where = self.broadcast((part.shape[1:], part.dtype, part.device.type))
        shares = [len(self.share(n, rank)) for rank in range(self.world)]  # rank 0's: most
        padded = torch.zeros(shares[0], *shape, dtype=kind, device=where)
        padded[:shares[self.rank]] = part if len(part) else 0
        every = [torch.empty_like(padded) for _ in shares] if to_all or not self.rank else None
        if to_all:
            dist.all_gather(every, padded)
        else:
            dist.gather(padded, every)
        rows = [some[:share] for some, share in zip(every or (), shares)]
        return torch.cat(rows) if rows else part[:0]

    def barrier(self) -> None:
        dist.barrier(self.patient)

    def check_same(self, what: str, value: str, error: type[Exception] = ValueError) -> None:
        every = [''] * self.world
        dist.all_gather_object(every, value)
        usual = max(every, key=every.count)                 # of as many the first
        for rank, other in enumerate(every):
            if other != usual:
                mine, theirs = lines_apart(usual, other), lines_apart(other, usual)
                raise error(f'the processes disagree on {what}: {mine} on rank '
                            f'{every.index(usual)}, {theirs} on rank {rank}')

    def wrap(self, network: nn.Module) -> nn.Module:
        "The network with gradients that DDP averages over all processes, within `backward`."
        ids = [self.device] if self.device and self.device.type == 'cuda' else None
        return SettledDDP(network, ids, gradient_as_bucket_view=True)


def lines_apart(a: str, b: str) -> str:
    "The lines of `a` that are not in `b`, in one line."
    return ' '.join(line.strip(' ,') for line in a.splitlines() if line not in b.splitlines())
