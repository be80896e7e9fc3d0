"Models that leave, by diffusers and onnxruntime."

from dataclasses import replace

import pytest
import torch
from torch import nn

from ddpm_course.config import PRESETS, SamplingConfig, override
from ddpm_course.model import build_model
from ddpm_course.sampling import plan, walk
from ddpm_course.share.pipelines import load_published, save_pipeline
from ddpm_course.share.to_onnx import save_onnx


def awake(config):
    "An untrained model whose weights are nowhere all zero."
    model = build_model(config).eval()
    torch.manual_seed(0)
    for weight in model.network.parameters():
        if not weight.any():
            nn.init.normal_(weight, std=0.05)
    return model


def question(model, batch=2):
    "Images, indices and, where there are any, classes: what the network is asked about."
    xt = torch.randn(batch, *model.shape, generator=torch.Generator().manual_seed(batch))
    t, y = torch.arange(batch) * 17 % len(model.schedule.betas), torch.arange(batch) % (len(model.classes) + 1)
    return (xt, t, y) if model.classes else (xt, t)


def apart(one, other):
    "The largest difference, relative to how much there is: a processor rounds as it likes."
    return ((one - other).abs().max() / other.abs().max()).item()


COLOUR = dict(size=16, channels=8, T=60, attention=(8,), dropout=0.0, conditional=True, label_drop=0.2)
COLOUR = override(PRESETS["cifar10-hybrid"], **COLOUR, classes=("cat", "dog, or ünlike"))
CONFIGS = {
    "grey": override(PRESETS["mnist16"], classes=tuple("0123456789"), image_channels=1, channels=8),
    "colour, learned variance": COLOUR,
    "few steps": override(COLOUR, T=8),
    "no class, eps, linear": override(COLOUR, conditional=False, schedule="linear", label_drop=0.0),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_model_comes_back_as_it_was(name, tmp_path):
    config = CONFIGS[name]
    model = awake(config)
    save_pipeline(model, config, tmp_path / "out")
    back, again = load_published(str(tmp_path / "out"))
    assert again == config and back.classes == model.classes and back.can_guide == model.can_guide
    weights, same = model.network.state_dict(), back.network.state_dict()
    assert weights.keys() == same.keys() and all(torch.equal(weights[name], same[name]) for name in weights)
    with torch.no_grad():  # one answer, not a walk: a walk through a random network amplifies the last digits
        ours, theirs = (m.network(*question(model)) for m in (model, back))
    assert ours.std() > 0.1 and apart(ours, theirs) < 1e-5
    save_pipeline(model, config, tmp_path / "out")  # once more, into its own folder


def test_diffusers_draws_the_same_from_what_is_exported(tmp_path):
    diffusers = pytest.importorskip("diffusers")
    config = override(CONFIGS["grey"], conditional=False, classes=(), T=20, precision="fp32")
    model = awake(config)
    save_pipeline(model, config, tmp_path)
    pipeline = diffusers.DDPMPipeline.from_pretrained(tmp_path, low_cpu_mem_usage=False)
    pipeline.set_progress_bar_config(disable=True)
    dice = torch.Generator().manual_seed(0)
    theirs = pipeline(batch_size=2, generator=dice, num_inference_steps=20, output_type="np").images
    dice = torch.Generator().manual_seed(0)
    route = plan(SamplingConfig(sampler="ddpm", steps=20), model)
    *_, (_, x, _) = walk(model, route, lambda t: torch.randn(2, 1, 16, 16, generator=dice))
    ours = (x[:, 0].clamp(-1, 1) + 1) / 2  # as they do it: 0 to 1
    assert abs(theirs[..., 0] - ours.numpy()).max() < 1e-3 < 0.05 < theirs.std()


def test_a_student_that_cannot_be_guided_comes_back_so(tmp_path):
    config = CONFIGS["colour, learned variance"]
    save_pipeline(replace(awake(config), can_guide=False), config, tmp_path)
    assert not load_published(str(tmp_path))[0].can_guide


@pytest.mark.parametrize(
    "name", [*list(CONFIGS)[:2], *(pytest.param(name, marks=pytest.mark.thorough) for name in list(CONFIGS)[2:])]
)
def test_onnx_agrees_for_two_batch_sizes(name, tmp_path, recwarn):
    onnxruntime = pytest.importorskip("onnxruntime")
    model = awake(CONFIGS[name])
    save_onnx(model, tmp_path / "a.onnx")
    assert not [w for w in recwarn if "onnx" in str(w.message).lower()], "no warning of a library reaches the user"
    session = onnxruntime.InferenceSession(tmp_path / "a.onnx", providers=["CPUExecutionProvider"])
    for batch in (1, 3):
        asked = question(model, batch)
        (found,) = session.run(None, {name: x.numpy() for name, x in zip(("xt", "t", "y"), asked)})
        with torch.no_grad():
            expected = model.network(*asked)
        assert found.shape == expected.shape and apart(torch.from_numpy(found), expected) < 1e-5
