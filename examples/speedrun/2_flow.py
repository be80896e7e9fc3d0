"Flow matching: straight lines and their velocity, in fewer steps of training and of Euler's walk."

import runpy
from pathlib import Path

from ddpm_course import SamplingConfig
from ddpm_course.run.runs import load_plugin

load_plugin(Path(__file__).parents[1] / "doors/flow_matching.py")
DEFAULT = runpy.run_path(str(Path(__file__).with_name("1_default.py")))


def train(seed: int, **changes):
    return DEFAULT["train"](seed, schedule="straight", objective="slope", **{"steps": 450, **changes})


def sample(net, y):
    return DEFAULT["sample"](net, y, SamplingConfig("euler", steps=12))
