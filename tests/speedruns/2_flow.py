"Flow matching: straight lines and their velocity, so that fewer steps of training and of Euler's walk will do."

from pathlib import Path

import torch

from ddpm_course import PRESETS, SamplingConfig, load_digits, override
from ddpm_course.base.machine import pick_precision
from ddpm_course.run.runs import load_plugin
from ddpm_course.run.training import fit, new_state
from ddpm_course.sampling import draw

load_plugin(Path(__file__).parents[1] / "doors/flow_matching.py")


def train(seed: int, **changes):
    digits = load_digits("train", 16)
    precision = pick_precision("auto", torch.device("cpu"))
    config = override(
        PRESETS["mnist16"], classes=digits.classes, image_channels=1, precision=precision, seed=seed,
        schedule="straight", objective="slope", **{"steps": 450, **changes},
    )  # fmt: skip
    state = new_state(config)
    for _ in fit(state, digits, config):
        pass
    return state.ema


def sample(net, y):
    keys = torch.randint(2**50, (len(y),)).tolist()
    return draw(net, keys, y, SamplingConfig("euler", steps=12))
