"The default run of the package: what `ddpm train` trains and `ddpm sample` draws with."

import torch

from ddpm_course import PRESETS, SamplingConfig, load_digits, override
from ddpm_course.base.machine import pick_precision
from ddpm_course.run.training import fit, new_state
from ddpm_course.sampling import draw


def train(seed: int, **changes):
    digits = load_digits("train", 16)
    precision = pick_precision("auto", torch.device("cpu"))
    told = dict(classes=digits.classes, image_channels=1, precision=precision, seed=seed)
    config = override(PRESETS["mnist16"], **told, **changes)
    state = new_state(config)
    for _ in fit(state, digits, config):
        pass
    return state.ema


def sample(net, y, how=SamplingConfig()):
    keys = torch.randint(2**50, (len(y),)).tolist()
    return draw(net, keys, y, how)
