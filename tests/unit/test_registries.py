"A schedule, an objective, a sampler, a loss and a data source of one's own: one function and one entry each."

import json

import numpy as np
import pytest
import torch

import ddpm_course as dc
from ddpm_course.cli.main import main

PLUGIN = """
import numpy as np
import torch
from ddpm_course import CRITERIA, DATA, OBJECTIVES, SAMPLERS, SCHEDULES, ImageSet, Objective, Schedule, Simple


def sigmoid(T):
    "Betas whose alpha-bar falls like a sigmoid (Jabri et al. 2022), clipped."
    times = torch.linspace(0, 1, T + 1, dtype=torch.float64)
    abar = torch.sigmoid(6 - 12 * times)
    return Schedule((1 - abar[1:] / abar[:-1]).clamp(1e-5, 0.999))


def minus_v():
    "v with the other sign."
    return Objective(lambda x0, eps, signal, sigma: sigma * x0 - signal * eps,
                     lambda u, xt, signal, sigma: (signal * xt + sigma * u, sigma * xt - signal * u))


def jump(step):
    "DDIM without noise, written by its end points."
    return step.abar_next**0.5 * step.now.x0 + (1 - step.abar_next) ** 0.5 * step.now.eps


class Cautious(Simple):
    "The absolute error of the answer in place of its square, for the gradient."

    def losses(self, model, batch):
        found = super().losses(model, batch)
        return found | {"loss": (found["loss"] + 1e-6).sqrt()}


def stripes(size, channels):
    "Two classes of stripes, 30 to train on and 4 held out."
    lines = np.arange(size) % 4 // 2 * 255
    pixels = np.stack([np.broadcast_to(lines[None] if k % 2 else lines[:, None], (size, size)) for k in range(34)])
    labels = np.arange(34) % 2
    whole = ImageSet.of(pixels.astype(np.uint8), labels, ("lying", "standing"))
    return tuple(ImageSet(whole.pixels[part], whole.labels[part], whole.classes) for part in (slice(30), slice(30, 34)))


SCHEDULES["sigmoid"] = sigmoid
OBJECTIVES["minus_v"] = minus_v()
SAMPLERS["jump"] = jump
CRITERIA["cautious"] = Cautious
DATA["stripes"] = stripes
"""
OWN = "--schedule sigmoid --objective minus_v --loss cautious --data stripes".split()
TINY = "--steps 4 --batch 8 --channels 8 --T 20 --log-every 2 --grid-every 0 --threads 1 --precision fp32".split()


REGISTRIES = (dc.SCHEDULES, dc.OBJECTIVES, dc.SAMPLERS, dc.CRITERIA, dc.DATA)


@pytest.fixture(autouse=True)
def registries_as_before():
    before = [dict(registry) for registry in REGISTRIES]
    yield
    for registry, kept in zip(REGISTRIES, before):
        registry.clear()
        registry.update(kept)


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(PLUGIN)
    return "mine.py"


def test_from_the_command_line(plugin, tmp_path, refuses, capsys):
    main(["train", "--plugin", plugin, *OWN, *TINY, "--out", "run"])
    config = json.loads((tmp_path / "run/config.json").read_text())
    assert config["diffusion"]["loss"] == "cautious" and config["plugins"][0].startswith("mine.py:")
    main(["sample", "run", "--plugin", plugin, "--sampler", "jump", "--steps", "5", "--n", "2", "--npz", "s.npz"])
    with np.load("s.npz") as stored:
        assert stored["images"].shape == (4, 16, 16, 1)
    main(["test", "run", "--plugin", plugin])
    refuses("sample", "run", sentence="run was made with the plugin mine.py: load it first, if you trust that file")
    capsys.readouterr()
    main(["train", "--plugin", plugin, *OWN, *TINY, "--out", "run"])
    assert capsys.readouterr().out.count("\n") == 1  # a finished run prints one line
    model = dc.load_model("run")
    drawn = dc.sample(model, [0, 1], 2, dc.SamplingConfig(sampler="jump", steps=5))
    usual = dc.sample(model, [0, 1], 2, dc.SamplingConfig(sampler="ddim", steps=5))
    assert torch.allclose(drawn, usual, atol=1e-5)  # two ways to write one step
