"""What holds for any input, tried on many that hypothesis makes up.

The draws come from a fixed seed, so that a run that was green stays green; the number of tries is in `TRIES`.
"""

import argparse
import dataclasses
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from ddpm_course.cli.flags import read_settings
from ddpm_course.cli.main import COMMANDS, make_parser
from ddpm_course.config import PRESETS, RunConfig, flatten, from_json, to_json
from ddpm_course.data.decoding import open_image
from ddpm_course.data.sets import resize, to_float, to_uint8
from ddpm_course.flow import follow
from ddpm_course.losses import OBJECTIVES
from ddpm_course.model import Model
from ddpm_course.run.runs import load_model
from ddpm_course.samplers import SAMPLERS
from ddpm_course.sampling import SamplingConfig, plan, sample, walk
from ddpm_course.schedules import SCHEDULES, make_schedule
from ddpm_course.steps import SPACINGS, sampling_indices

TRIES = 60
PARSER = make_parser(*COMMANDS)
tries = settings(
    max_examples=TRIES, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
names = st.sampled_from(sorted(SCHEDULES))
lengths = st.integers(2, 5000)


@tries
@given(names, lengths)
def test_schedule_of_any_length(name, T):
    "alpha-bar falls from nearly one to nearly nothing, its tables agree; or one sentence says that T is too short."
    try:
        schedule = make_schedule(name, T)
    except ValueError as error:
        assert name == "linear" and T < 21 and "too short" in str(error)
        return
    abar = schedule.alpha_bars
    assert abar.shape == (T,) and abar.dtype == torch.float64 and (abar > 0).all() and (abar.diff() < 0).all()
    assert torch.allclose(abar.log(), torch.log1p(-schedule.betas).cumsum(0))
    assert schedule.snr[0] > 0.97 > 0.1 > schedule.snr[-1]  # two cosine steps: half the way in the first
    assert torch.allclose(schedule.snr, (schedule.roots[0] / schedule.roots[1]) ** 2)


@tries
@given(
    objective=st.sampled_from(sorted(OBJECTIVES)),
    name=names,
    T=st.integers(21, 2000),
    where=st.floats(0, 1),
    seed=st.integers(0, 99),
)
def test_objectives_come_back(objective, name, T, where, seed):
    "From image and noise to what the network is asked for, and back."
    schedule, draws = make_schedule(name, T), torch.Generator().manual_seed(seed)
    x0, eps = torch.randn(2, 3, 1, 4, 4, generator=draws, dtype=torch.float64)
    t = torch.full((3,), round(where * (T - 1)))
    signal, noise = schedule.scales(t, x0)
    xt = signal * x0 + noise * eps
    asked = OBJECTIVES[objective]
    found_x0, found_eps = asked.solve(asked.target(x0, eps, signal, noise), xt, signal, noise)
    lost = 1e-12 / min(signal.min().item(), noise.min().item())  # one of them is divided by
    assert (found_x0 - x0).abs().max() < lost and (found_eps - eps).abs().max() < lost


@tries
@given(spacing=st.sampled_from(sorted(SPACINGS)), T=st.integers(1, 5000), steps=st.integers(1, 5000))
def test_spacing(spacing, T, steps):
    "Indices inside 0..T-1, from high to low, none twice; all of them where there are as many steps."
    assume(steps <= T)
    indices = sampling_indices(T, steps, spacing)
    assert all(a > b for a, b in zip(indices, indices[1:])) and 0 <= indices[-1] <= indices[0] < T
    assert len(indices) == steps or spacing == "quadratic"
    if spacing != "quadratic" and steps == T:
        assert indices == list(range(T))[::-1]


class Exact(torch.nn.Module):
    "The best eps for standard normal data, whose x_t is standard normal at every t."

    def __init__(self, schedule):
        super().__init__()
        self.register_buffer("noise", schedule.roots[1].float())

    def forward(self, x, t, y=None):
        return self.noise[t].reshape(-1, 1, 1, 1) * x


@tries
@given(sampler=st.sampled_from(sorted(SAMPLERS)), name=names, T=st.integers(60, 400), steps=st.integers(2, 60))
def test_samplers_over_any_steps(sampler, name, T, steps):
    """A walk over any number of steps ends where data could be: finite, at about the data's scale.

    The exact denoiser of standard normal data halves nothing and doubles nothing on the way.
    """
    schedule = make_schedule(name, T)
    draws = torch.Generator().manual_seed(0)
    noise = lambda t: torch.randn(64, 1, 2, 2, generator=draws)
    how = SamplingConfig(sampler=sampler, steps=min(steps, T), clip=False)
    model = Model(Exact(schedule), schedule, OBJECTIVES["eps"], (1, 2, 2), "small")
    route = plan(how, model)
    path = list(walk(model, route, noise))
    assert [t - 1 for t, *_ in path] == list(route.indices) == [*sampling_indices(T, how.steps), -1]
    end = path[-1][1]
    assert end.isfinite().all() and 0.2 < end.std() < 3


@tries
@given(
    mode=st.sampled_from(["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "I;16", "I", "F", "La", "RGBa"]),
    width=st.integers(1, 70),
    height=st.integers(1, 70),
    size=st.integers(4, 40),
    ending=st.sampled_from([".png", ".jpg", ".webp", ".bmp", ".tif", ".gif"]),
)
def test_images_of_any_mode_and_size(tmp_path, mode, width, height, size, ending):
    "What Pillow can store is read as grey or colour bytes and scaled to a square."
    path = tmp_path / f"a{ending}"
    try:
        Image.new(mode, (width, height)).save(path)
    except (OSError, ValueError, KeyError):
        assume(False)  # this kind of file cannot hold this mode
    image = open_image(path)
    assert image.mode in ("L", "RGB") and image.size == (width, height)
    assert resize(image, size).size == (size, size)


@tries
@given(st.integers(1, 5), st.sampled_from([1, 3]), st.integers(1, 9), st.integers(0, 99))
def test_bytes_come_back(n, channels, size, seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (n, size, size, channels), dtype=np.uint8)
    images = to_float(pixels.transpose(0, 3, 1, 2))
    assert images.shape == (n, channels, size, size) and images.min() >= -1 and images.max() <= 1
    assert np.array_equal(to_uint8(images).permute(0, 2, 3, 1).numpy(), pixels)


FLAGS = sorted("--" + name.replace("_", "-") for name in flatten(RunConfig()) if name not in ("classes", "digest"))
SAMPLING = sorted(field.name for field in dataclasses.fields(SamplingConfig))
VALUES = "0 1 -1 2.5 1e400 nan inf , 4,2 16 99999999999999999999 cosine é".split() + [""]


def made(make, *given, **named):
    "What a function makes, or None where it refuses with one sentence."
    try:
        return make(*given, **named)
    except (ValueError, argparse.ArgumentTypeError) as error:
        assert str(error) and "\n" not in str(error)


@settings(tries, max_examples=3 * TRIES)
@given(
    preset=st.sampled_from([*PRESETS, "mnist", ""]),
    flags=st.lists(st.tuples(st.sampled_from(FLAGS), st.sampled_from(VALUES)), max_size=6),
)
def test_any_training_command_parses_or_gives_one_sentence(preset, flags):
    args = made(PARSER.parse_args, ["train", "--preset", preset, *map("=".join, flags)])
    if config := args and made(read_settings, args):
        assert from_json(to_json(config)) == config  # what is accepted can be written and read again
        assert all(math.isfinite(v) for v in flatten(config).values() if isinstance(v, float))


@tries
@given(st.lists(st.tuples(st.sampled_from(SAMPLING), st.sampled_from([*VALUES, *SAMPLERS, *SPACINGS])), max_size=5))
def test_any_sampling_command_parses_or_gives_one_sentence(flags):
    if args := made(PARSER.parse_args, ["sample", *(f"--{name}={value}" for name, value in flags)]):
        made(SamplingConfig, **{name: value for name in SAMPLING if (value := getattr(args, name)) is not None})


def test_a_guided_model_may_be_asked_without_a_class():
    "`follow` has y=None by default: then a model that was trained with classes answers as without."
    x = torch.randn(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    how = SamplingConfig(steps=2)
    shipped = load_model(precision="fp32")
    assert torch.equal(
        follow(shipped, x, how=how), follow(replace(shipped, classes=()), x, how=replace(how, guidance=1))
    )


def test_samples_that_are_not_finite_are_refused():
    "As bytes they would be black pictures."
    broken = replace(load_model(precision="fp32"), network=lambda x, t, y: x * torch.nan)
    with pytest.raises(ValueError, match="20 of 20 samples have values that are not finite"):
        sample(broken, n=2, how=SamplingConfig(steps=2))
