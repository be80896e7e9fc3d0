"Models that leave, by diffusers and onnxruntime."

import numpy as np
import pytest
import torch
from torch import nn

from ddpm_course.config import PRESETS, SamplingConfig, override
from ddpm_course.model import build_model
from ddpm_course.sampling import sample
from ddpm_course.share.export import save_onnx, save_pipeline
from ddpm_course.share.published import load_published


def awake(config):
    "An untrained model whose weights are nowhere all zero."
    model = build_model(config).eval()
    torch.manual_seed(0)
    for weight in model.network.parameters():
        if not weight.any():
            nn.init.normal_(weight, std=0.05)
    return model


COLOUR = override(
    PRESETS["cifar10-hybrid"],
    size=16,
    channels=8,
    T=60,
    attention=(8,),
    dropout=0.0,
    conditional=True,
    label_drop=0.2,
    classes=("cat", "dog, or ünlike"),
)
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
    how = SamplingConfig(steps=8, guidance=3 if model.can_guide else None)
    ours, theirs = sample(model, None, 2, how), sample(back, None, 2, how)
    assert ours.std() > 0.1 and (ours - theirs).abs().max() < 1e-5
    save_pipeline(model, config, tmp_path / "out")  # once more, into its own folder


@pytest.mark.parametrize("name", CONFIGS)
def test_onnx_agrees_for_two_batch_sizes(name, tmp_path, recwarn):
    onnxruntime = pytest.importorskip("onnxruntime")
    model = awake(CONFIGS[name])
    save_onnx(model, tmp_path / "a.onnx")
    assert not [w for w in recwarn if "onnx" in str(w.message).lower()], "no warning of a library reaches the user"
    session = onnxruntime.InferenceSession(tmp_path / "a.onnx", providers=["CPUExecutionProvider"])
    for batch in (1, 3):
        given = {"xt": np.random.default_rng(batch).standard_normal((batch, *model.shape), np.float32)}
        given["t"] = np.arange(batch) * 17
        if model.classes:
            given["y"] = np.arange(batch) % (len(model.classes) + 1)
        (found,) = session.run(None, given)
        with torch.no_grad():
            expected = model.network(*map(torch.from_numpy, given.values()))
        assert found.shape == expected.shape and abs(found - expected.numpy()).max() < 1e-5


def test_what_is_in_the_way_stays(tmp_path):
    config = CONFIGS["grey"]
    (tmp_path / "notes.txt").write_text("mine")
    for folder in (tmp_path, tmp_path / "notes.txt"):
        with pytest.raises(FileExistsError, match="holds something else"):
            save_pipeline(awake(config), config, folder)
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"] and (tmp_path / "notes.txt").read_text() == "mine"
