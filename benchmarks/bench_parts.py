"""What the parts of chapter 08's U-Net are worth: skips, attention, depth, each changed alone in short runs.

    python benchmarks/bench_parts.py [--seeds 5] [--steps 300] [--folder build/parts] [--out parts]

The variants race (`judge.lab`): for each seed the same steps, batches, t and noise, in batches of 32; under half a
minute of one core a run. What is there already is kept. OUT.json: for each variant its parameters, and for the indices
below 500 and from 500 on, that is, for weak and for strong noise, the loss in v of each seed on the 500 held-out
digits, sixteen draws each, and of what it has more than the whole network the mean, its standard error (which counts
seeds and digits), and n, the seeds.
"""

from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from common import arguments, keep
from torch import Tensor, nn

from ddpm_course.config import PRESETS, RunConfig, override
from ddpm_course.data.sets import ImageSet, load_digits
from ddpm_course.heldout import heldout_draws
from ddpm_course.judge.lab import paired, race
from ddpm_course.model import NETWORKS, build_network, unet
from ddpm_course.run.runs import load_run
from ddpm_course.simple import Simple
from ddpm_course.unet import Stage, UNet

VARIANTS = {  # name -> what is changed
    "the whole network": {},
    "no skips": {"network": "no skips"},
    "no attention": {"network": "no attention"},
    "attention at 8x8, too": {"attention": (8,)},
    "attention at 16x16, too": {"attention": (16,)},
    "two levels for three": {"multipliers": (1, 2)},
    "two stages a level for one": {"blocks": 2},
}


class NoSkips(nn.Module):
    "A U-Net whose way up finds zeros in place of what the way down handed over."

    def __init__(self, whole: UNet):
        super().__init__()
        self.whole = whole

    def forward(self, xt: Tensor, t: Tensor, y: Tensor) -> Tensor:
        net, emb = self.whole, self.whole.time(t) + self.whole.classes(y, xt.shape[0])
        skips = [net.conv_in(xt)]
        for part in net.down:
            skips.append(part(skips[-1], emb))
        h = skips[-1]
        for part in net.middle:
            h = part(h, emb)
        for part in net.up:
            if isinstance(part, Stage):
                h = torch.cat([h, torch.zeros_like(skips.pop())], dim=1)
            h = part(h, emb)
        return net.out(h)


def no_attention(config: RunConfig) -> UNet:
    network = unet(config)
    network.middle[0].attention = None
    return network


def by_half(run: Path, held_out: ImageSet) -> np.ndarray:
    "(2, N): the loss of each image where noise is weak, and where it is strong."
    draws = heldout_draws(load_run(run)[0], held_out, Simple(), repeats=16)
    strong = draws["t"] >= 500
    return np.stack([np.nanmean(draws["loss"].masked_fill(out, np.nan).numpy(), 0) for out in (strong, ~strong)])


def main() -> None:
    args = arguments(__doc__, seeds=5, steps=300, folder="build/parts", out="")
    NETWORKS.update({"no skips": lambda config: NoSkips(unet(config)), "no attention": no_attention})
    base = override(PRESETS["mnist16"], steps=args.steps, batch=32)
    data = load_digits("train", 16), load_digits("test", 16)
    race(args.folder, VARIANTS, base, data, range(args.seeds))
    losses = {
        name: np.stack([by_half(Path(args.folder, name, str(seed)), data[1]) for seed in range(args.seeds)], 1)
        for name in VARIANTS
    }
    found = []
    for name, changes in VARIANTS.items():
        plan = override(base, classes=data[0].classes, image_channels=1, **changes)
        line = {"name": name, "parameters": sum(p.numel() for p in build_network(plan).parameters())}
        for half, mine, whole in zip(("weak", "strong"), losses[name], losses["the whole network"]):
            line[half] = [round(loss, 5) for loss in mine.mean(1).tolist()]
            if changes:
                line[f"{half}, more"] = asdict(paired(mine, whole))
        found.append(line)
        print(line)
    if args.out:
        keep(found, Path(f"{args.out}.json"), "torch")


if __name__ == "__main__":
    main()
