"No DDP: gradients in one vector, averaged by hand; MAX of the wishes; plain SGD on a network of three layers."

import copy
import io
import json
import os
import signal
import sys

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from ddpm_course.data.sets import load_digits, to_float
from ddpm_course.schedules import cosine

flag = torch.zeros(1)
signal.signal(signal.SIGTERM, lambda *_: flag.fill_(1))
dist.init_process_group("gloo")
rank, world = dist.get_rank(), dist.get_world_size()
until, file = int(sys.argv[1]), sys.argv[2]

torch.manual_seed(rank)  # others on purpose: rank 0 gives its own to all
net = nn.Sequential(nn.Flatten(), nn.Linear(256, 64), nn.SiLU(), nn.Linear(64, 256), nn.Unflatten(1, (1, 16, 16)))
ema, start = copy.deepcopy(net), 0
optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
if os.path.exists(file):
    saved = torch.load(file)
    start = saved["start"]
    net.load_state_dict(saved["network"])
    ema.load_state_dict(saved["average"])
    optimizer.load_state_dict(saved["optimizer"])
for tensor in [*net.state_dict().values(), *ema.state_dict().values()]:
    dist.broadcast(tensor, 0)

images, abar = to_float(load_digits("train", 16).pixels), cosine(1000).alpha_bars.float()
code = 0
for step in range(start, until):
    draws = torch.Generator().manual_seed(7 * step)
    rows = torch.randint(len(images), (32,), generator=draws)[rank::world]
    a = abar[torch.randint(1000, (32,), generator=draws)][rank::world].view(-1, 1, 1, 1)
    noise = torch.randn(32, 1, 16, 16, generator=draws)[rank::world]
    loss = (net(a.sqrt() * images[rows] + (1 - a).sqrt() * noise) - noise).square().mean((1, 2, 3)).sum() / 32
    gradient = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(net.parameters()))])
    both = torch.cat([gradient, loss.detach().view(1)])
    dist.all_reduce(both)
    at = 0
    for p in net.parameters():
        p.grad = both[at : at + p.numel()].view_as(p).clone()
        at += p.numel()
    optimizer.step()
    with torch.no_grad():
        mixed = 0.95 * parameters_to_vector(ema.parameters()) + 0.05 * parameters_to_vector(net.parameters())
        vector_to_parameters(mixed, ema.parameters())
    wish = flag.clone()
    dist.all_reduce(wish, op=dist.ReduceOp.MAX)
    code = 143 if wish.item() else 0
    if rank == world - 1:  # any one of them may print
        print(json.dumps({"loss": both[-1].item()}), flush=True)
    if rank == 0 and (code or step + 1 == until or step % 10 == 9):
        states = {"network": net.state_dict(), "average": ema.state_dict(), "optimizer": optimizer.state_dict()}
        buffer = io.BytesIO()
        torch.save({**states, "start": step + 1}, buffer)
        with open(f"{file}.part", "wb") as new:
            new.write(buffer.getvalue())
        os.replace(f"{file}.part", file)
    if code:
        break
dist.barrier()
sys.exit(code)
