"""A U-Net that predicts the clean image, for the first figure of chapter 07.

    python benchmarks/bench_embeddings.py [--steps 500] [--out embeddings]

Its output is x_0 itself, so that the timestep enters the network and no formula. It is trained on the digits with Adam,
64 images a batch, a tenth of the labels dropped. OUT.safetensors has its weights, in half precision.

Two minutes of one core.
"""

from pathlib import Path

import torch
from common import arguments
from safetensors.torch import save_file
from torch.nn import functional as F

from ddpm_course.data.sets import load_digits, to_float
from ddpm_course.embeddings import drop_labels
from ddpm_course.forward import q_sample
from ddpm_course.schedules import cosine
from ddpm_course.unet import UNet


def train(net: UNet, steps: int, batch: int = 64, lr: float = 4e-3) -> None:
    "Line by line Algorithm 1, but for line 5, which asks for x_0; the rate rises for 50 steps, then falls to 0."
    digits = load_digits("train", 16)
    images, labels = to_float(digits.pixels), torch.as_tensor(digits.labels)
    random, optimizer = torch.Generator().manual_seed(0), torch.optim.Adam(net.parameters())
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = lr * min((step + 1) / 50, 1 - step / steps)
        rows = torch.randint(len(images), (batch,), generator=random)
        x0, t = images[rows], torch.randint(1000, (batch,), generator=random)
        y = drop_labels(labels[rows], torch.rand(batch, generator=random) < 0.1, 10)
        xt = q_sample(x0, t, torch.randn(x0.shape, generator=random), cosine(1000))
        optimizer.zero_grad()
        F.mse_loss(net(xt, t, y), x0).backward()
        optimizer.step()


def main() -> None:
    args = arguments(__doc__, steps=500, out="embeddings")
    torch.set_num_threads(1)
    net = UNet(1, 16, 16, (1, 2, 2), blocks=1, attention=(), dropout=0.0, num_classes=10)
    train(net, args.steps)
    path = Path(__file__).parent / "results" / f"{args.out}.safetensors"
    save_file({name: weight.half() for name, weight in net.state_dict().items()}, path)


if __name__ == "__main__":
    main()
