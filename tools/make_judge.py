"""Make ddpm_course/assets/judge.safetensors, the classifier that judges digits, from the bundled training images.

    python tools/make_judge.py

About half a minute. The weights are kept in bfloat16; they belong to the seed, the machine and the number of threads.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from ddpm_course.data.sets import ASSETS, ImageSet, load_digits, to_float
from ddpm_course.draws import Purpose, generator
from ddpm_course.judge.evaluation import Judge, extract, load_judge

PATH = ASSETS / "judge.safetensors"


def wobble(x: Tensor, random: np.random.Generator) -> Tensor:
    "Each image (B, C, H, W) turned by up to 0.2 radians and moved by about a pixel; black comes in at the edges."
    angle = torch.from_numpy(random.uniform(-0.2, 0.2, len(x))).float()
    move = torch.from_numpy(random.uniform(-0.15, 0.15, (len(x), 2))).float()
    cos, sin = angle.cos(), angle.sin()
    rows = [torch.stack([cos, -sin, move[:, 0]], 1), torch.stack([sin, cos, move[:, 1]], 1)]
    grid = F.affine_grid(torch.stack(rows, 1), list(x.shape), align_corners=False)
    return F.grid_sample(x + 1, grid, align_corners=False) - 1


def teach(judge: Judge, loss: Callable[[], Tensor], steps: int) -> None:
    "AdamW with one cycle of the learning rate; each call of `loss` is another batch."
    optimizer = torch.optim.AdamW(judge.parameters(), lr=3e-3, weight_decay=1e-2)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, total_steps=steps)
    for _ in range(steps):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
        rate.step()
    judge.eval().requires_grad_(False)


def keep(judge: Judge, path: Path) -> None:
    "The weights in bfloat16."
    state = judge.state_dict()
    save_file({name: w.to(torch.bfloat16) if w.is_floating_point() else w for name, w in state.items()}, path)


def train_judge(images: ImageSet, steps: int = 540, seed: int = 0) -> Judge:
    "Teach a judge from labelled digits, 100 a step."
    random = generator(seed, Purpose.LESSON)
    torch.manual_seed(seed)  # weights and dropout
    judge = Judge()

    def loss() -> Tensor:
        i = random.integers(0, len(images), 100)
        _, logits = judge(wobble(to_float(images.pixels[i]), random))
        return F.cross_entropy(logits, torch.as_tensor(images.labels)[i])

    teach(judge, loss, steps)
    return judge


def main() -> None:
    judge, test = train_judge(load_digits("train", 16)), load_digits("test", 16)
    keep(judge, PATH)
    _, logits = extract(load_judge(), test.pixels)
    right = (logits.argmax(1).numpy() == test.labels).mean()
    print(f"{PATH.name}: {PATH.stat().st_size / 1e3:.0f} kB, {right:.3f} of the {len(test)} held-out digits right")


if __name__ == "__main__":
    main()
