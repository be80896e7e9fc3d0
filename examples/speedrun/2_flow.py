"Flow matching: straight lines and their velocity, in fewer steps of training and of Euler's walk."

import runpy
from pathlib import Path

from ddpm_course import SamplingConfig

runpy.run_path(str(Path(__file__).parents[1] / "flow_matching.py"))  # enters the schedule, the objective, the sampler
DEFAULT = runpy.run_path(str(Path(__file__).with_name("1_default.py")))


def train(seed: int, **changes):
    return DEFAULT["train"](seed, schedule="straight", objective="slope", **{"steps": 450, **changes})


def sample(net, y):
    return DEFAULT["sample"](net, y, SamplingConfig("euler", steps=12))
