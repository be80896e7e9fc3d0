"Equal to diffusers, an independent implementation, in float64 and with our tables put into its schedulers."

import json
import sys

import pytest
import torch
from safetensors.torch import save_file

from ddpm_course.config import PRESETS, RunConfig, SamplingConfig, override
from ddpm_course.forward import q_posterior
from ddpm_course.losses import OBJECTIVES
from ddpm_course.model import Model, build_network, unet
from ddpm_course.run.runs import start_from
from ddpm_course.run.training import new_state
from ddpm_course.sampling import plan
from ddpm_course.sampling import walk as our_walk
from ddpm_course.schedules import cosine, linear
from ddpm_course.share.pipelines import TheirUNet, from_diffusers, load_published, our_settings, to_diffusers
from ddpm_course.steps import sampling_indices
from ddpm_course.unet import UNet
from helpers import old_names

diffusers = pytest.importorskip("diffusers")
DDIMScheduler, DDPMScheduler = diffusers.DDIMScheduler, diffusers.DDPMScheduler
DPMSolverMultistepScheduler, UNet2DModel = diffusers.DPMSolverMultistepScheduler, diffusers.UNet2DModel

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


def our_steps(network, x, schedule, objective, **how):
    "Each step of our walk: the index it leaves, and where it arrives."
    model = Model(
        network, schedule, OBJECTIVES[objective], SHAPE[1:], "learned" if how.get("variance") == "learned" else "large"
    )
    states = list(our_walk(model, plan(SamplingConfig(**how), model), noise, None, x))
    return [(level - 1, after) for (level, _, _), (_, after, _) in zip(states, states[1:])]


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
    theirs = DDPMScheduler(clip_sample=False, variance_type="fixed_small", prediction_type="sample")
    theirs = with_our_tables(theirs, schedule)
    mean, variance = q_posterior(x0, xt, t, schedule)
    expected = theirs.step(x0, t, xt, generator=generator(t)).prev_sample
    assert worst(mean + variance.sqrt() * noise(t), expected) < 1e-9


def compare(theirs, step, schedule, objective, network=network, **how):
    "Each of our steps with theirs, up to 60 of a walk, from our own point, so that rounding does not grow on the way."
    theirs = with_our_tables(theirs, schedule)
    theirs.set_timesteps(how["steps"])
    x, visited = noise(-1), []
    for k, (t, ours) in enumerate(our_steps(network, x, schedule, objective, **how)):
        if k % max(1, how["steps"] // 60) == 0 or k == how["steps"] - 1:
            expected = step(network(x, torch.full((4,), t), None), t, x).prev_sample
            scale = expected.abs().max().clamp(min=1)  # without clipping x_0 grows without bound
            assert worst(ours / scale, expected / scale) < 1e-9, f"at index {t}"
        visited.append(t)
        x = ours
    assert visited == theirs.timesteps.tolist()


ANCESTRAL = [("large", 1000, "trailing", True), ("small", 1000, "trailing", False), ("large", 50, "uniform", False)]
ANCESTRAL += [("small", 20, "trailing", True), ("learned", 1000, "uniform", True), ("learned", 20, "uniform", False)]


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("objective", PREDICTIONS)
@pytest.mark.parametrize("variance, steps, spacing, clip", ANCESTRAL)
def test_ancestral_steps(name, objective, variance, steps, spacing, clip):
    kind = "learned_range" if variance == "learned" else f"fixed_{variance}"
    told = dict(prediction_type=PREDICTIONS[objective], timestep_spacing=SPACINGS[spacing])
    theirs = DDPMScheduler(variance_type=kind, clip_sample=clip, **told)
    two = lambda x, t, y: torch.cat([network(x, t, y), torch.cos(x)], dim=1)  # answers in two halves
    step = lambda out, t, x: theirs.step(out, t, x, generator=generator(t))
    how = dict(sampler="ddpm", steps=steps, spacing=spacing, variance=variance, clip=clip)
    compare(theirs, step, SCHEDULES[name](), objective, two if variance == "learned" else network, **how)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("objective", ["eps", "v"])
@pytest.mark.parametrize("clip, eta", [(True, 0.0), (False, 1.0)])
@pytest.mark.parametrize("spacing", SPACINGS)
def test_ddim_steps(name, objective, clip, eta, spacing):
    theirs = DDIMScheduler(clip_sample=clip, prediction_type=PREDICTIONS[objective], timestep_spacing=SPACINGS[spacing])
    more = dict(eta=eta, use_clipped_model_output=True)
    step = lambda out, t, x: theirs.step(out, t, x, variance_noise=noise(t), **more)
    how = dict(sampler="ddim", steps=50, spacing=spacing, eta=eta, clip=clip)
    compare(theirs, step, SCHEDULES[name](), objective, **how)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("objective", ["eps", "v"])
@pytest.mark.parametrize("steps", [10, 50])
@pytest.mark.parametrize("spacing", SPACINGS)
def test_dpm_walk(name, objective, steps, spacing):
    """The whole walk of DPM-Solver++(2M), which has a memory.

    Their `step` rounds everything to float32: 50 steps of it are right to 1e-5. The updates that it calls, fed with
    float64, agree with ours to 1e-9.
    """
    schedule = SCHEDULES[name]()
    told = dict(prediction_type=PREDICTIONS[objective], timestep_spacing=SPACINGS[spacing])
    theirs = DPMSolverMultistepScheduler(algorithm_type="dpmsolver++", solver_order=2, **told)
    theirs = with_our_tables(theirs, schedule)
    indices = sampling_indices(1000, steps, spacing)
    theirs.set_timesteps(timesteps=indices)
    if spacing == "trailing":  # (their "leading" takes one step more and drops the lowest)
        theirs.set_timesteps(steps)
        assert theirs.timesteps.tolist() == indices
    abar = schedule.alpha_bars[indices]
    theirs.sigmas = torch.cat([((1 - abar) / abar).sqrt(), torch.zeros(1, dtype=torch.float64)])
    rough = exact = noise(-1)
    answers = []
    how = dict(sampler="dpm", steps=steps, spacing=spacing, clip=False)
    for k, (t, ours) in enumerate(our_steps(network, exact, schedule, objective, **how)):
        rough = theirs.step(network(rough, torch.full((4,), t), None), t, rough).prev_sample.double()
        theirs._step_index = k  # `step` has moved it on
        answers.append(theirs.convert_model_output(network(exact, torch.full((4,), t), None), sample=exact))
        if k in (0, steps - 1):
            exact = theirs.dpm_solver_first_order_update(answers[-1], sample=exact)
        else:
            exact = theirs.multistep_dpm_solver_second_order_update(answers[-2:], sample=exact)
        theirs._step_index = k + 1
        scale = exact.abs().max().clamp(min=1)
        assert worst(ours / scale, exact / scale) < 1e-9, f"at index {t}"
        assert worst(ours / scale, rough / scale) < 1e-5, f"at index {t}"


def described(size, channels, widths, layers, groups, attention):
    "The words of a `UNet2DModel`, with attention at one level."
    down = ["Attn" * (level == attention) + "DownBlock2D" for level in range(len(widths))]
    found = dict(sample_size=size, in_channels=channels, out_channels=channels, block_out_channels=widths)
    found |= dict(layers_per_block=layers, norm_num_groups=groups, down_block_types=tuple(down))
    return found | dict(up_block_types=tuple(kind.replace("Down", "Up") for kind in reversed(down)))


SMALL = described(16, 3, (32, 64, 64), 2, 8, 1)
PAPER = described(32, 3, (128, 256, 256, 256), 2, 32, 1)
ONE_LEVEL = described(8, 1, (16,), 3, 4, 0)
MODELS = {
    "paper": PAPER,
    "classes": SMALL | dict(num_class_embeds=11),
    "learned variance": SMALL | dict(out_channels=6, layers_per_block=1, dropout=0.1),
    "one level": ONE_LEVEL,
}
NAMES = [pytest.param("paper", marks=pytest.mark.thorough), *list(MODELS)[1:]]
HO = dict(norm_eps=1e-6, downsample_padding=0, flip_sin_to_cos=False, freq_shift=1, attention_head_dim=None)


def awake(model, seed=0):
    "A model in which no weight is zero: it must not agree only because its last layer is silent."
    draws = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            if not weight.any():
                weight.copy_(0.05 * torch.randn(weight.shape, generator=draws))
    return model.double().eval()  # in float64, so that rounding is not what is compared


def their_model(**config):
    torch.manual_seed(0)
    return awake(UNet2DModel(**(HO | config)))


def closest(config):
    "The configuration of ours that comes closest."
    learned = dict(variance="learned", loss="hybrid") if config["out_channels"] > config["in_channels"] else {}
    return override(RunConfig(), **our_settings(config), **learned)


def batch_of(config):
    shape = 3, config["in_channels"], config["sample_size"], config["sample_size"]
    x = torch.randn(shape, generator=generator(0), dtype=torch.float64)
    return x, torch.tensor([0, 37, 999]), torch.tensor([0, 7, 10]) if "num_class_embeds" in config else None


def agree(ours, theirs, config):
    x, t, y = batch_of(config)
    with torch.no_grad():
        expected = theirs(x, t, class_labels=y).sample
        assert expected.std() > 0.01 and worst(ours.double().eval()(x, t, y), expected) < 1e-6


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("null_label", [True, False])
def test_their_weights_in_our_network(name, null_label):
    theirs = their_model(**MODELS[name])
    config = closest(MODELS[name])
    if null_label:
        config = override(config, classes=config.data.classes[:-1])
    ours = from_diffusers(dict(theirs.config), theirs.state_dict(), config)
    assert isinstance(ours, UNet)
    agree(ours, theirs, MODELS[name])
    assert ours.classes is None or ours.classes.num_classes == 11 - null_label


@pytest.mark.parametrize("name", NAMES)
def test_our_weights_in_their_network(name):
    config = closest(MODELS[name])
    ours = unet(override(config, classes=config.data.classes[:-1]))  # theirs has a row more, for "no class"
    words, state = to_diffusers(awake(ours), config.data.size)
    theirs = UNet2DModel(**words).double().eval()
    theirs.load_state_dict(state)  # strict: every name is known and none is missing
    agree(ours, theirs, MODELS[name])


def test_paper_network_size():
    assert sum(p.numel() for p in build_network(PRESETS["cifar10"]).parameters()) == 35_746_307


# -- networks that are not ours ---------------------------------------------------------------------------------------

OTHERS = [dict(norm_eps=1e-5), dict(downsample_padding=1), dict(freq_shift=0), dict(attention_head_dim=8)]
OTHERS += [dict(flip_sin_to_cos=True, num_class_embeds=11), dict(attn_norm_num_groups=4)]
OTHERS += [dict(resnet_time_scale_shift="scale_shift"), dict(block_out_channels=(32, 48, 64))]
OTHERS += [dict(up_block_types=("UpBlock2D", "UpBlock2D", "UpBlock2D"))]


@pytest.mark.parametrize("other", OTHERS, ids=str)
def test_other_networks_are_theirs(other):
    "Where a setting gives another function, diffusers computes it: nobody can overlook one, though all shapes agree."
    theirs = their_model(**(SMALL | other))
    ours = from_diffusers(dict(theirs.config), theirs.state_dict(), closest(SMALL | other))
    assert isinstance(ours, TheirUNet)
    agree(ours, theirs, SMALL | other)


def test_what_a_file_leaves_out_is_diffusers_default():
    left_out = ("layers_per_block", "norm_num_groups")
    config = {name: value for name, value in SMALL.items() if name not in left_out}
    torch.manual_seed(0)
    theirs = awake(UNet2DModel(**config))
    agree(from_diffusers(config, theirs.state_dict(), closest(config)), theirs, SMALL)


def test_without_diffusers(monkeypatch):
    "What is exactly our network needs it not; for the rest there is one sentence."
    state = UNet2DModel(**(HO | SMALL)).state_dict()
    monkeypatch.setitem(sys.modules, "diffusers", None)
    assert isinstance(from_diffusers(HO | SMALL, state, closest(SMALL)), UNet)
    with pytest.raises(ValueError, match="needs: pip install diffusers"):
        from_diffusers(SMALL, state, closest(SMALL))


def test_a_run_does_not_begin_with_another_function(tmp_path):
    model = publish(tmp_path, ONE_LEVEL | dict(freq_shift=0))
    with pytest.raises(ValueError, match="weights of another network"):
        start_from(new_state(PRESETS["mnist16"]), model)


# -- whole pipelines --------------------------------------------------------------------------------------------------


def publish(folder, config):
    "A folder as google/ddpm-cifar10-32 is laid out, all files beside each other; and the model that is read from it."
    theirs = their_model(**config).float()
    (folder / "config.json").write_text(json.dumps(dict(theirs.config)))
    (folder / "scheduler_config.json").write_text(json.dumps({"variance_type": "fixed_large"}))
    save_file(old_names(theirs.state_dict()), folder / "diffusion_pytorch_model.safetensors")
    return load_published(str(folder), precision="fp32")[0]


@pytest.mark.parametrize("other", [dict(norm_eps=1e-5, downsample_padding=1, attention_head_dim=8), {}], ids=str)
def test_a_published_model_draws_what_diffusers_draws(other, tmp_path):
    "The same walk through the same network, ours or theirs, with the same noise; in float64, as a walk amplifies."
    model = publish(tmp_path, SMALL | other)
    assert isinstance(model.network, TheirUNet if other else UNet) and model.variance == "large"
    scheduler = with_our_tables(DDPMScheduler(variance_type="fixed_large"), model.schedule)
    pipeline = diffusers.DDPMPipeline(their_model(**(SMALL | other)).float().double(), scheduler)
    pipeline.set_progress_bar_config(disable=True)
    theirs = pipeline(2, torch.Generator().manual_seed(0), 20, output_type="np").images
    model.network.double()
    draws = torch.Generator().manual_seed(0)
    noise = lambda t: torch.randn(2, 3, 16, 16, generator=draws, dtype=torch.float64)
    how = SamplingConfig(sampler="ddpm", steps=20, spacing="uniform", variance="large")
    with torch.no_grad():
        *_, (_, ours, _) = our_walk(model, plan(how, model), noise)
    ours = (ours.clamp(-1, 1) + 1).permute(0, 2, 3, 1) / 2
    assert ours.std() > 0.1 and abs(ours.numpy() - theirs).max() < 1e-5
