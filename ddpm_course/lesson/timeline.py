"When gradients are ready and when they are sent, in two processes: for the timelines of page 24."

import json
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.nn  # noqa: F401  before any group: its defaults would keep one alive
from torch import Tensor, nn
from torch.futures import Future
from torch.nn.parallel import DistributedDataParallel

from ..unet import UNet

WAYS = ('one by one', 'in one vector', 'DDP')
Sent = list[tuple[float, float, int]]           # begin, end, bytes
clock = time.perf_counter                       # one for all processes of a machine


def send(vectors: list[Tensor], sent: Sent) -> None:
    "All-reduce vectors one after the other, and note each."
    for vector in vectors:
        begun = clock()
        dist.all_reduce(vector)
        sent.append((begun, clock(), vector.nbytes))


def wrapped(network: nn.Module, sent: Sent) -> DistributedDataParallel:
    "DDP with small buckets, which notes what it sends."
    ddp = DistributedDataParallel(network, bucket_cap_mb=0.8)

    def hook(_: object, bucket: dist.GradBucket) -> Future[Tensor]:
        begun = clock()

        def done(future: Future[list[Tensor]]) -> Tensor:
            sent.append((begun, clock(), bucket.buffer().nbytes))
            return future.value()[0] / dist.get_world_size()
        return dist.all_reduce(bucket.buffer(), async_op=True).get_future().then(done)
    ddp.register_comm_hook(None, hook)
    return ddp


def prepared(way: str) -> Callable[[], dict[str, Any]]:
    "A function that takes a step: when were gradients ready, and what was sent when?"
    ready: list[float] = []
    sent: Sent = []
    own = UNet(1, 16, channels=32, multipliers=(1, 2, 2), blocks=1, attention=(8,))
    parameters = list(own.parameters())
    for p in parameters:
        p.register_post_accumulate_grad_hook(lambda _: ready.append(clock()))
    network = wrapped(own, sent) if way == 'DDP' else own
    x, t = torch.randn(32, 1, 16, 16), torch.arange(32)

    def step() -> dict[str, Any]:
        ready.clear()
        sent.clear()
        own.zero_grad()
        dist.all_reduce(torch.zeros(1))                 # begin together
        loss = (network(x, t) - x).square().mean()
        begun = clock()
        loss.backward()
        grads = [p.grad for p in parameters if p.grad is not None]
        if way == 'one by one':
            send(grads, sent)
        elif way == 'in one vector':
            send([torch.cat([g.flatten() for g in grads])], sent)
        end = clock()
        return {'begun': begun, 'after': end - max(ready), 'ready': list(ready),
                'sent': sorted(sent)}
    return step


def median(mine: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> dict[str, Any]:
    """Of several steps in two processes the one with the median time after `backward`, in seconds
    since the first process began it. A message: (begin, both there, end, bytes)."""
    order = sorted(range(len(mine)), key=lambda k: mine[k]['after'])
    a, b = (steps[order[len(order) // 2]] for steps in (mine, theirs))
    start = a['begun']
    return {'ready': [t - start for t in a['ready']],
            'sent': [(begin - start, max(begin, other) - start, end - start, n)
                     for (begin, end, n), (other, _, _) in zip(a['sent'], b['sent'], strict=True)]}


def main() -> None:
    "Several steps in each way, in turn; rank 0 prints one of each."
    dist.init_process_group('gloo')
    steps = {way: prepared(way) for way in WAYS}
    rounds = [{way: step() for way, step in steps.items()} for _ in range(4)][1:]
    every: list[Any] = [None, None]
    dist.all_gather_object(every, rounds)
    if dist.get_rank() == 0:
        print(json.dumps({way: median(*([found[way] for found in own] for own in every))
                          for way in WAYS}))
    steps.clear()                               # no DDP may outlive the group
    dist.destroy_process_group()


if __name__ == '__main__':
    main()
