"Weights in parts, one a process: the same run as with whole ones, saved and resumed on any number of processes."

import pytest
import torch
from safetensors.torch import load_file

import process_workers
from ddpm_course.base.group import Group
from ddpm_course.config import PRESETS, override
from ddpm_course.run.training import new_state
from process_workers import together

CLASSES = tuple("0123456789")
CONFIG = override(
    PRESETS["mnist16"], classes=CLASSES, optimizer="adamw", lr=1e-3, channels=8, batch=8, steps=8, decay="constant"
)
CONFIG = override(CONFIG, precision="fp32", threads=1, log_every=2, save_every=4, dropout=0.0)
SHARDED = override(CONFIG, shard=True)


def trained(folder, *stages):
    "The files of the last checkpoint, after stages of (processes, steps, config)."
    for world, steps, config in stages:
        config = override(config, steps=steps)
        if world == 1:
            process_workers.train_run(Group("cpu"), folder, config)
        else:
            together(process_workers.train_run, world, folder, config)
    newest = folder / "checkpoints" / f"step_{stages[-1][1]:08d}"
    memory = torch.load(newest / "optimizer.pt")["optimizer"]["state"]
    found = {f"{k} {name}": x for k, of in memory.items() for name, x in of.items()}
    for name in ("model", "ema"):
        found |= {f"{name} {k}": x for k, x in load_file(newest / f"{name}.safetensors").items()}
    return found


def apart(a, b):
    assert a.keys() == b.keys() and all(type(x) is torch.Tensor for x in a.values())
    return max((a[name] - b[name]).abs().max().item() for name in a)


@pytest.mark.thorough
def test_in_parts_on_two_is_whole_on_one(tmp_path):
    "To 1e-6, as the sums are others; saved on 2 and resumed on 1, and the other way; and to the bit on 2 again."
    whole = trained(tmp_path / "whole", (1, 8, CONFIG))
    parts = trained(tmp_path / "parts", (2, 8, SHARDED))
    assert apart(whole, parts) < 1e-6
    assert apart(whole, trained(tmp_path / "2 1", (2, 4, SHARDED), (1, 8, CONFIG))) < 1e-6
    assert apart(whole, trained(tmp_path / "1 2", (1, 4, CONFIG), (2, 8, SHARDED))) < 1e-6
    assert apart(parts, trained(tmp_path / "2 2", (2, 4, SHARDED), (2, 8, SHARDED))) == 0


def test_each_process_holds_half_of_the_weights_and_of_the_memory():
    alone, held = sum(p.numel() for p in new_state(CONFIG).network.parameters()), 0
    for mine in together(process_workers.held, 2, SHARDED):
        assert 0.45 * alone < mine["weights"] < 0.55 * alone and mine["memory"] == 2 * mine["weights"]
        assert mine["average"] == alone
        held += mine["weights"]
    assert held == alone


def test_muon_wants_whole_matrices():
    with pytest.raises(ValueError, match="muon needs whole matrices: with --shard take --optimizer adamw"):
        new_state(override(PRESETS["mnist16"], shard=True))
