"One sum for each weight, in a hook; a generator for each image; a small network and RMSprop."

import json
import os
import signal
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional as F

from ddpm_course.data.sets import load_digits, to_float
from ddpm_course.forward import q_sample
from ddpm_course.schedules import cosine

STOP = []


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(2, 24, 3, padding=1), nn.Conv2d(24, 1, 3, padding=1)

    def forward(self, x, t):
        return self.last(F.silu(self.first(torch.cat([x, (t / 1000).view(-1, 1, 1, 1).expand_as(x)], 1))))


def any_of(number: float) -> float:
    total = torch.tensor(number, dtype=torch.float64)
    dist.all_reduce(total)
    return total.item()


def train(steps: int, path: Path) -> int:
    rank, world = dist.get_rank(), dist.get_world_size()
    torch.manual_seed(0)
    net, average = Net(), Net()
    optimizer = torch.optim.RMSprop(net.parameters(), lr=1e-3)
    state = torch.load(path, weights_only=True) if path.exists() else None
    average.load_state_dict(state["average"] if state else net.state_dict())
    if state:
        net.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
    for weight in net.parameters():
        weight.register_post_accumulate_grad_hook(lambda w: dist.all_reduce(w.grad))
    step = state["step"] if state else 0
    images, schedule = to_float(load_digits("train", 16).pixels), cosine(1000)
    while step < steps:
        batch = []
        for k in range(rank, 32, world):  # each image with a generator of its own
            draws = torch.Generator().manual_seed(32 * step + k)
            batch.append(
                (
                    images[torch.randint(len(images), (), generator=draws)],
                    torch.randint(1000, (), generator=draws),
                    torch.randn(1, 16, 16, generator=draws),
                )
            )
        x0, t, noise = map(torch.stack, zip(*batch, strict=True))
        loss = F.mse_loss(net(q_sample(x0, t, noise, schedule), t), noise) * len(t) / 32
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        for name, value in average.state_dict().items():
            value.mul_(0.9).add_(net.state_dict()[name], alpha=0.1)
        step, total, wishes = step + 1, any_of(loss.item()), any_of(len(STOP))
        if rank == 0:
            print(json.dumps({"loss": total}), flush=True)
        if wishes or step % 10 == 0 or step == steps:
            if rank == 0:
                new = path.with_suffix(".tmp")
                torch.save(
                    {
                        "network": net.state_dict(),
                        "average": average.state_dict(),
                        "optimizer": optimizer.state_dict(),
                        "step": step,
                    },
                    new,
                )
                new.rename(path)
            dist.barrier()
        if wishes:
            return 143
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda number, frame: STOP.append(number))
    dist.init_process_group("gloo", rank=int(os.environ["RANK"]), world_size=int(os.environ["WORLD_SIZE"]))
    sys.exit(train(int(sys.argv[1]), Path(sys.argv[2])))
