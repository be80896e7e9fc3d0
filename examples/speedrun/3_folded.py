"Four pixels become four channels of one: the U-Net begins at 8x8, where a step costs half as much."

import runpy
from pathlib import Path

from torch import nn

from ddpm_course import NETWORKS
from ddpm_course.unet import UNet

FLOW = runpy.run_path(str(Path(__file__).with_name("2_flow.py")))
sample = FLOW["sample"]


class Folded(nn.Module):
    "A U-Net of two levels on images that are half as high and wide, with four channels."

    def __init__(self, config):
        super().__init__()
        n = config.network
        self.inner = UNet(
            4, 8, n.channels, n.multipliers, n.blocks, (), 0.0, config.num_classes, n.groups, config.training.seed, 4
        )

    def forward(self, x, t, y=None):
        return nn.functional.pixel_shuffle(self.inner(nn.functional.pixel_unshuffle(x, 2), t, y), 2)


NETWORKS["folded"] = Folded


def train(seed: int, **changes):
    folded = {"network": "folded", "channels": 24, "multipliers": (1, 2), "steps": 600}
    return FLOW["train"](seed, **folded | changes)
