"A class; shares of neighbouring images; AveragedModel; wishes gathered; a temporary file, renamed."

import json
import os
import signal
import sys
import tempfile

import torch
import torch.distributed as dist
import torch.distributed.nn
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ddpm_course.data.sets import load_digits, to_float
from ddpm_course.forward import q_sample
from ddpm_course.schedules import cosine
from ddpm_course.unet import UNet


class Trainer:
    def __init__(self, steps: int, file: str):
        self.steps, self.file, self.step, self.asked = steps, file, 0, False
        signal.signal(signal.SIGTERM, self.hear)
        dist.init_process_group("gloo")
        self.rank, self.world = dist.get_rank(), dist.get_world_size()
        self.images, self.schedule = to_float(load_digits("train", 16).pixels), cosine(1000)
        self.network: nn.Module = UNet(
            image_channels=1, size=16, channels=16, multipliers=(1, 2), blocks=1, attention=(), dropout=0.0, seed=1
        )
        self.average = AveragedModel(self.network, multi_avg_fn=get_ema_multi_avg_fn(0.9))
        self.optimizer = torch.optim.AdamW(self.network.parameters(), lr=1e-3)
        if os.path.exists(file):
            self.restore(torch.load(file))
        self.ddp = DistributedDataParallel(self.network)

    def hear(self, *_):
        self.asked = True

    def restore(self, saved):
        self.step = saved["step"]
        self.network.load_state_dict(saved["network"])
        self.average.module.load_state_dict(saved["average"])
        self.average.n_averaged.fill_(saved["averaged"])
        self.optimizer.load_state_dict(saved["optimizer"])

    def save(self):
        state = {
            "network": self.network.state_dict(),
            "average": self.average.module.state_dict(),
            "averaged": self.average.n_averaged.item(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
        }
        with tempfile.NamedTemporaryFile(dir=os.path.dirname(self.file), delete=False) as new:
            torch.save(state, new)
        os.rename(new.name, self.file)

    def one_step(self) -> float:
        torch.manual_seed(100 + self.step)
        rows = torch.randperm(len(self.images))[:32]
        t, noise = torch.randint(1000, (32,)), torch.randn(32, 1, 16, 16)
        mine = torch.arange(32).tensor_split(self.world)[self.rank]
        noisy = q_sample(self.images[rows[mine]], t[mine], noise[mine], self.schedule)
        loss = (self.ddp(noisy, t[mine]) - noise[mine]).square().sum() / noise.numel()
        self.optimizer.zero_grad()
        (self.world * loss).backward()
        self.optimizer.step()
        self.average.update_parameters(self.network)
        self.step += 1
        return loss.item()

    def run(self) -> int:
        wish = False
        while self.step < self.steps and not wish:
            every = [None] * self.world
            dist.all_gather_object(every, (self.one_step(), self.asked))
            wish = any(asked for _, asked in every)
            if self.rank == 0:
                print(json.dumps({"step": self.step, "loss": sum(loss for loss, _ in every)}), flush=True)
                if wish or self.step % 10 == 0 or self.step == self.steps:
                    self.save()
        dist.barrier()
        dist.destroy_process_group()
        return 143 if wish else 0


if __name__ == "__main__":
    sys.exit(Trainer(int(sys.argv[1]), sys.argv[2]).run())
