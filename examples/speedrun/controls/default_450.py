"A control: the default run, with as many steps of training and of drawing as the record of flow matching."

import runpy
from pathlib import Path

from ddpm_course import SamplingConfig

DEFAULT = runpy.run_path(str(Path(__file__).parents[1] / "1_default.py"))


def train(seed: int):
    return DEFAULT["train"](seed, steps=450)


def sample(net, y):
    return DEFAULT["sample"](net, y, SamplingConfig(steps=12))
