"""A training in sixty lines: a loop of one's own, of the package's pieces, that learns digits and draws a grid of them.

    python examples/training.py --steps 650

`ddpm train` makes the same steps. What it has beside them: checkpoints that survive a kill, many GPUs, 16-bit numbers,
a log, held-out losses. What you want to change in the method itself is easier to change here.
"""

import argparse
import copy
import math

import torch
from torch.nn import functional as F

from ddpm_course import OBJECTIVES, SCHEDULES, Model, SamplingConfig, grid_image, load_digits, sample
from ddpm_course.data.sets import to_float
from ddpm_course.embeddings import drop_labels
from ddpm_course.forward import q_sample
from ddpm_course.unet import UNet

SIZE, BATCH, LR, WARMUP = 16, 64, 2e-3, 50
DROP = 0.1  # share of labels that become "no class", for guidance


def train(steps: int) -> Model:
    "Algorithm 1 on the bundled digits, with classes, v-prediction and an average of the weights."
    torch.manual_seed(0)
    digits = load_digits("train", SIZE)
    images, labels = to_float(digits.pixels), torch.from_numpy(digits.labels)
    schedule, objective, classes = SCHEDULES["cosine"](1000), OBJECTIVES["v"], len(digits.classes)
    network = UNet(1, SIZE, 16, (1, 2, 4), blocks=1, attention=(8,), dropout=0.0, num_classes=classes)
    average = copy.deepcopy(network).eval()
    optimizer = torch.optim.AdamW(network.parameters(), LR)
    for step in range(steps):
        rate = min(1, (step + 1) / WARMUP) * (1 + math.cos(math.pi * step / steps)) / 2
        optimizer.param_groups[0]["lr"] = LR * rate
        rows = torch.randint(len(images), (BATCH,))
        x0, y = images[rows], drop_labels(labels[rows], torch.rand(BATCH) < DROP, classes)
        t, eps = torch.randint(schedule.T, (BATCH,)), torch.randn_like(x0)
        target = objective.target(x0, eps, *schedule.scales(t, like=x0))
        loss = F.mse_loss(network(q_sample(x0, t, eps, schedule), t, y), target)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        decay = min(0.99, (1 + step) / (10 + step))
        with torch.no_grad():
            for mean, weight in zip(average.parameters(), network.parameters()):
                mean.lerp_(weight, 1 - decay)
        if (step + 1) % 50 == 0:
            print(f"step {step + 1}: loss {loss.item():.3f}")
    return Model(average, schedule, objective, (1, SIZE, SIZE), classes=digits.classes, can_guide=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=650)
    parser.add_argument("--out", default="digits.png")
    args = parser.parse_args()
    model = train(args.steps)
    drawn = sample(model, n=4, how=SamplingConfig(guidance=2))
    grid_image(drawn, 10, titles=model.classes).save(args.out)
    print(f"wrote {args.out}")
