"float16 with a scaled loss, and compiled networks: what only some machines use, tested on any."

import pytest
import torch
from safetensors.torch import load_file

from ddpm_course.config import PRESETS, override
from ddpm_course.data.sets import load_digits
from ddpm_course.run.checkpoints import newest_checkpoint, read_window
from ddpm_course.run.training import fit, make_batch, new_state, train_step
from helpers import same_bits, train

PLAN = override(
    PRESETS["mnist16"],
    steps=8,
    batch=16,
    channels=8,
    T=50,
    log_every=1,
    save_every=100,
    threads=1,
    classes=tuple("0123456789"),
)


def losses(config):
    state = new_state(config)
    return [read_window(state)["loss"] for _ in fit(state, load_digits("train", 16), config)]


def test_float16_trains_like_float32():
    half, single = losses(override(PLAN, precision="fp16")), losses(override(PLAN, precision="fp32"))
    assert half != single and all(abs(a / b - 1) < 0.02 for a, b in zip(half, single))


def test_step_that_overflows_is_left_out():
    config = override(PLAN, precision="fp16")
    state = new_state(config)
    state.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40)
    before = [p.clone() for p in state.network.parameters()]
    norm = train_step(state, [make_batch(load_digits("train", 16), config, 0)], config)
    assert not norm.isfinite() and all(torch.equal(a, b) for a, b in zip(before, state.network.parameters()))
    assert state.scaler.get_scale() == 2.0**39 and state.step == 1


def test_exact_resume_in_float16(tmp_path):
    "The scale, and how long it has been fine, are part of the checkpoint."
    config, digits = override(PLAN, precision="fp16"), load_digits("train", 16)

    train(tmp_path / "calm", config, digits)
    train(tmp_path / "broken", config, digits, stop_after=5)
    kept = torch.load(newest_checkpoint(tmp_path / "broken") / "optimizer.pt", weights_only=True)["scaler"]
    assert 0 < kept["_growth_tracker"] <= 5 and kept["scale"] > 1
    train(tmp_path / "broken", config, digits)
    same_bits(tmp_path / "calm", tmp_path / "broken")


@pytest.mark.nightly
def test_compiled_network(tmp_path):
    "The same losses, and a checkpoint that any network can load."
    plain, compiled = override(PLAN, precision="fp32"), override(PLAN, precision="fp32", compile=True)
    assert all(abs(a / b - 1) < 1e-4 for a, b in zip(losses(plain), losses(compiled)))
    train(tmp_path / "run", compiled, load_digits("train", 16))
    names = load_file(newest_checkpoint(tmp_path / "run") / "model.safetensors").keys()
    assert names == new_state(plain).network.state_dict().keys() and not any("_orig_mod" in name for name in names)
