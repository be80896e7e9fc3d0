"""This in your world: the loop of page 10 in plain DDP, in Accelerate and in Lightning, with ten lines that differ.

    torchrun --nproc_per_node=2 examples/elsewhere.py ddp
    accelerate launch --num_processes=2 --cpu examples/elsewhere.py accelerate      # pip install accelerate
    python examples/elsewhere.py lightning                                          # pip install lightning

The network, the data and the loss are the same three functions. What page 11 adds, an average of the weights, keyed
batches and files that survive a kill, is left out here; `ddpm train` has it on any number of processes.
"""

import argparse
from collections.abc import Iterator
from itertools import chain, islice, repeat

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from ddpm_course import OBJECTIVES, SCHEDULES, load_digits
from ddpm_course.data.sets import to_float
from ddpm_course.embeddings import drop_labels
from ddpm_course.forward import q_sample
from ddpm_course.unet import UNet

SCHEDULE, V, NULL, BATCH, LR = SCHEDULES["cosine"](1000), OBJECTIVES["v"], 10, 64, 2e-3


def digits() -> TensorDataset:
    "Images (1, 16, 16) in [-1, 1] and their classes."
    found = load_digits("train", 16)
    return TensorDataset(to_float(found.pixels), torch.from_numpy(found.labels))


def new_network() -> UNet:
    torch.manual_seed(0)
    return UNet(1, 16, 16, (1, 2, 4), blocks=1, attention=(), dropout=0.0, num_classes=NULL)


def loss(network: nn.Module, x0: Tensor, y: Tensor) -> Tensor:
    "Algorithm 1, lines 3 to 5, for one batch on any device."
    t, eps = torch.randint(SCHEDULE.T, (len(x0),), device=x0.device), torch.randn_like(x0)
    y = drop_labels(y, torch.rand(len(y), device=y.device) < 0.1, NULL)
    target = V.target(x0, eps, *SCHEDULE.scales(t, like=x0))
    return F.mse_loss(network(q_sample(x0, t, eps, SCHEDULE), t, y), target)


def batches(loader: DataLoader, steps: int) -> Iterator[list[Tensor]]:
    "So many batches, in as many epochs as that takes."
    return islice(chain.from_iterable(repeat(loader)), steps)


def in_ddp(steps: int) -> float:
    from torch import distributed as dist
    from torch.nn.parallel import DistributedDataParallel
    from torch.utils.data.distributed import DistributedSampler

    dist.init_process_group("gloo")  # "nccl" on GPUs, and .to(device) for network and batch
    network, data = DistributedDataParallel(new_network()), digits()
    torch.manual_seed(1 + dist.get_rank())  # other noise in each process
    loader = DataLoader(data, BATCH // dist.get_world_size(), sampler=DistributedSampler(data), drop_last=True)
    optimizer = torch.optim.AdamW(network.parameters(), LR)
    for x0, y in batches(loader, steps):
        optimizer.zero_grad()
        value = loss(network, x0, y)
        value.backward()  # DDP averages the gradients here
        optimizer.step()
    dist.destroy_process_group()
    return value.item()


def in_accelerate(steps: int) -> float:
    from accelerate import Accelerator
    from accelerate.utils import set_seed

    accelerator, network = Accelerator(), new_network()
    set_seed(1, device_specific=True)  # other noise in each process
    loader = DataLoader(digits(), BATCH // accelerator.num_processes, shuffle=True, drop_last=True)
    optimizer = torch.optim.AdamW(network.parameters(), LR)
    network, optimizer, loader = accelerator.prepare(network, optimizer, loader)
    for x0, y in batches(loader, steps):
        optimizer.zero_grad()
        value = loss(network, x0, y)
        accelerator.backward(value)
        optimizer.step()
    accelerator.end_training()
    return value.item()


def in_lightning(steps: int) -> float:
    import lightning

    class Digits(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.network = new_network()

        def training_step(self, batch: list[Tensor], _: int) -> Tensor:
            value = loss(self.network, *batch)
            self.log("loss", value)
            return value

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.AdamW(self.parameters(), LR)

    trainer = lightning.Trainer(max_steps=steps, logger=False, enable_checkpointing=False, enable_progress_bar=False)
    trainer.fit(Digits(), DataLoader(digits(), BATCH, shuffle=True, drop_last=True))
    return trainer.callback_metrics["loss"].item()


if __name__ == "__main__":
    loops = {"ddp": in_ddp, "accelerate": in_accelerate, "lightning": in_lightning}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("loop", choices=loops)
    parser.add_argument("--steps", type=int, default=200)
    args = parser.parse_args()
    print(f"loss after {args.steps} steps: {loops[args.loop](args.steps):.3f}")
