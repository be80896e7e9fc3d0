"Equal to diffusers, an independent implementation, in float64 and with our tables put into its schedulers."

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, UNet2DModel

from ddpm_course.config import PRESETS
from ddpm_course.forward import q_posterior
from ddpm_course.sampling import reverse_process
from ddpm_course.schedules import cosine, linear
from ddpm_course.training import build_network
from ddpm_course.unet import Stage, UNet

SCHEDULES = {"linear": linear, "squaredcos_cap_v2": cosine}
PREDICTIONS = {"eps": "epsilon", "x0": "sample", "v": "v_prediction"}
SPACINGS = {"trailing": "trailing", "uniform": "leading"}
SHAPE = (4, 3, 8, 8)


def with_our_tables(scheduler, schedule):
    "Put our float64 tables into a scheduler: its own are float32, which alone costs 2e-4 and more in a step."
    scheduler.betas, scheduler.alphas, scheduler.alphas_cumprod = schedule.betas, schedule.alphas, schedule.alpha_bars
    scheduler.one = scheduler.final_alpha_cumprod = torch.tensor(1.0, dtype=torch.float64)
    return scheduler


def generator(t):
    return torch.Generator().manual_seed(t + 1)


def noise(t):
    return torch.randn(SHAPE, generator=generator(t), dtype=torch.float64)


def network(x, t, y):
    "Any smooth function of image and time will do."
    return torch.sin(2 * x + t.view(-1, 1, 1, 1) / 300)


def worst(mine, theirs):
    return (mine - theirs).abs().max().item()


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("T", [1000, 100])
def test_schedule(name, T):
    ours = SCHEDULES[name](T)
    ends = {"beta_start": 0.1 / T, "beta_end": 20 / T} if name == "linear" else {}
    theirs = DDPMScheduler(T, beta_schedule=name, **ends)
    assert worst(ours.betas, theirs.betas) < 1e-6 and worst(ours.alpha_bars, theirs.alphas_cumprod) < 1e-6


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("t", [0, 1, 250, 999])
def test_posterior(name, t):
    schedule, x0, xt = SCHEDULES[name](), noise(5000), noise(6000)
    theirs = with_our_tables(DDPMScheduler(clip_sample=False, variance_type="fixed_small", prediction_type="sample"), schedule)
    mean, variance = q_posterior(x0, xt, t, schedule)
    expected = theirs.step(x0, t, xt, generator=generator(t)).prev_sample
    assert worst(mean + variance.sqrt() * noise(t), expected) < 1e-9


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("objective", PREDICTIONS)
@pytest.mark.parametrize("clip", [True, False])
@pytest.mark.parametrize("variance, steps, spacing", [("large", 1000, "trailing"), ("small", 1000, "trailing"), ("large", 50, "uniform"),
                                                      ("small", 50, "uniform"), ("small", 20, "trailing")])
def test_ancestral_steps(name, objective, clip, variance, steps, spacing):
    "Every step of a walk, each started from our own point, so that rounding does not grow along the way."
    schedule = SCHEDULES[name]()
    theirs = DDPMScheduler(variance_type=f"fixed_{variance}", clip_sample=clip, prediction_type=PREDICTIONS[objective],
                           timestep_spacing=SPACINGS[spacing])
    theirs.set_timesteps(steps)
    walk(with_our_tables(theirs, schedule), schedule, objective, steps, spacing, lambda out, t, x: theirs.step(out, t, x, generator=generator(t)),
         sampler="ddpm", variance=variance, clip=clip)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("objective", ["eps", "v"])
@pytest.mark.parametrize("clip", [True, False])
@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize("spacing", SPACINGS)
def test_ddim_steps(name, objective, clip, eta, spacing):
    schedule = SCHEDULES[name]()
    theirs = DDIMScheduler(clip_sample=clip, prediction_type=PREDICTIONS[objective], timestep_spacing=SPACINGS[spacing])
    theirs.set_timesteps(50)

    def step(out, t, x):
        return theirs.step(out, t, x, eta=eta, use_clipped_model_output=True, variance_noise=noise(t))
    walk(with_our_tables(theirs, schedule), schedule, objective, 50, spacing, step, sampler="ddim", eta=eta, clip=clip)


def walk(theirs, schedule, objective, steps, spacing, step, **how):
    "Compare each of our steps with theirs, up to 60 of them spread over the walk."
    x, visited = noise(-1), []
    every = max(1, steps // 60)
    for k, (t, ours, _) in enumerate(reverse_process(network, x, noise, schedule, objective, steps=steps, spacing=spacing, **how)):
        if k % every == 0 or k == steps - 1:
            expected = step(network(x, torch.full((4,), t), None), t, x).prev_sample
            scale = expected.abs().max().clamp(min=1)             # without clipping x_0 grows without bound
            assert worst(ours / scale, expected / scale) < 1e-9, f"at index {t}"
        visited.append(t)
        x = ours
    assert visited == theirs.timesteps.tolist()


def key_of(ours, kinds):
    "The name in diffusers of one of our parameters; `kinds` maps our flat parts to places in their blocks."
    parts = {"embed": "time_emb_proj", "shortcut": "conv_shortcut", "query": "to_q", "key": "to_k", "value": "to_v", "out": "to_out.0",
             "norm": "group_norm"}
    fixed = {"time.layers.0": "time_embedding.linear_1", "time.layers.2": "time_embedding.linear_2", "classes.table": "class_embedding",
             "out.0": "conv_norm_out", "out.2": "conv_out", "conv_in": "conv_in"}
    place, kind = ours.rsplit(".", 1)
    if place in fixed:
        return f"{fixed[place]}.{kind}"
    way, index, *rest = place.split(".")
    block, j = kinds[way, int(index)]
    if rest == ["conv"]:
        return f"{block}.{'down' if way == 'down' else 'up'}samplers.0.conv.{kind}"
    group = {"residual": "resnets", "attention": "attentions"}[rest[0]]
    return f"{block}.{group}.{j}.{parts.get(rest[1], rest[1])}.{kind}"


def places(network, blocks):
    "Where each of our flat parts stands in their nested blocks."
    found = {("middle", 0): ("mid_block", 0), ("middle", 1): ("mid_block", 1)}
    for way, per_level in (("down", blocks), ("up", blocks + 1)):
        level, j = 0, 0
        for index, part in enumerate(getattr(network, way)):
            found[way, index] = (f"{way}_blocks.{level}", j)
            j += isinstance(part, Stage)
            if not isinstance(part, Stage):
                level, j = level + 1, 0
    return found


def test_network_same_output():
    "The same weights give the same output as diffusers' UNet2DModel."
    torch.manual_seed(0)
    theirs = UNet2DModel(
        sample_size=16, in_channels=3, out_channels=3, block_out_channels=(32, 64, 64), layers_per_block=2, norm_num_groups=8,
        down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        norm_eps=1e-6, downsample_padding=0, flip_sin_to_cos=False, freq_shift=1, attention_head_dim=None, num_class_embeds=11).eval()
    ours = UNet(3, 16, 32, (1, 2, 2), blocks=2, attention=(8,), dropout=0.0, num_classes=10).eval()
    state, where = theirs.state_dict(), places(ours, 2)
    assert {key_of(name, where) for name in ours.state_dict()} == set(state)
    ours.load_state_dict({name: state[key_of(name, where)] for name in ours.state_dict()})
    x, t, y = torch.randn(3, 3, 16, 16), torch.tensor([0, 37, 999]), torch.tensor([0, 7, 10])
    with torch.no_grad():
        assert worst(ours(x, t, y), theirs(x, t, class_labels=y).sample) < 1e-5


def test_paper_network_size():
    assert sum(p.numel() for p in build_network(PRESETS["cifar10"]).parameters()) == 35_746_307
