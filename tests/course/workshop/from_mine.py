"The file of page 10, `mine.py`, with labels; the signal is read from a pipe, and rank 0 says what all do."

import copy
import json
import os
import signal
import sys

import torch
import torch.distributed as dist
import torch.distributed.nn
from mine import NULL, T, UNet, load_digits, q_sample, velocity
from torch.nn.parallel import DistributedDataParallel


def heard(pipe: int) -> bool:
    try:
        return bool(os.read(pipe, 1))
    except BlockingIOError:
        return False


def main(steps, file, batch=32):
    out, into = os.pipe()
    os.set_blocking(out, False)
    os.set_blocking(into, False)
    signal.set_wakeup_fd(into)
    signal.signal(signal.SIGTERM, lambda *_: None)
    dist.init_process_group("gloo")
    rank, world = dist.get_rank(), dist.get_world_size()
    torch.manual_seed(0)
    net = UNet(a=16, b=32, c=32)
    average = copy.deepcopy(net)
    optimizer = torch.optim.Adam(net.parameters(), lr=2e-3, betas=(0.9, 0.99))
    parts = {"network": net, "average": average, "optimizer": optimizer}
    saved = torch.load(file) if os.path.exists(file) else {"done": 0}
    for name in parts.keys() & saved.keys():
        parts[name].load_state_dict(saved[name])
    ddp = DistributedDataParallel(net)
    digits = load_digits("train", 16)
    images, labels = torch.tensor(digits.pixels) / 127.5 - 1, torch.tensor(digits.labels)
    for step in range(saved["done"], steps):
        draws = torch.Generator().manual_seed(step)
        rows = torch.randint(len(images), (batch,), generator=draws)
        t = torch.randint(T, (batch,), generator=draws)
        y = torch.where(torch.rand(batch, generator=draws) < 0.1, NULL, labels[rows])
        eps = torch.randn(batch, 1, 16, 16, generator=draws)
        x0, y, t, eps = (every[rank::world] for every in (images[rows], y, t, eps))
        each = (ddp(q_sample(x0, t, eps), t, y) - velocity(x0, t, eps)).square().mean((1, 2, 3))
        optimizer.zero_grad()
        (each.sum() * world / batch).backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        with torch.no_grad():
            for a, w in zip(average.parameters(), net.parameters(), strict=True):
                a.lerp_(w, 0.1)
        sums = torch.stack([each.detach().sum() / batch, torch.tensor(float(heard(out)))])
        dist.reduce(sums, 0)
        order = sums[1:]  # what rank 0 has counted
        dist.broadcast(order, 0)
        stop = bool(order)
        if rank == 0:
            print(json.dumps({"loss": sums[0].item()}), flush=True)
            if stop or (step + 1) % 10 == 0 or step + 1 == steps:
                states = {name: part.state_dict() for name, part in parts.items()}
                torch.save(states | {"done": step + 1}, file + "~")
                os.replace(file + "~", file)
        dist.barrier()
        if stop:
            dist.destroy_process_group()
            raise SystemExit(128 + signal.SIGTERM)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
