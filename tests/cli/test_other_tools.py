"A run seen from other tools: trackers, diffusers, ONNX, drawings; as commands, in fresh processes."

import json

import numpy as np
import pytest

from helpers import contents, ddpm, refused

RUN = (
    "train --steps 6 --batch 8 --channels 8 --T 8 --threads 1 --out run "
    "--log-every 2 --save-every 3 --eval-every 3 --grid-every 2"
)


@pytest.fixture(scope="module")
def followed(tmp_path_factory):
    "A small run with TensorBoard, stopped in the middle of nothing: begun with fewer steps, then made longer."
    folder = tmp_path_factory.mktemp("other_tools")
    ddpm(*RUN.replace("--steps 6", "--steps 3").split(), "--log", "tensorboard", cwd=folder)
    ddpm(*RUN.split(), "--log", "tensorboard", cwd=folder)
    return folder


def test_tensorboard_shows_losses_quarters_rate_and_grids(followed):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(followed / "run/tensorboard")).Reload()
    lines = [json.loads(line) for line in (followed / "run/metrics.jsonl").read_text().splitlines()]
    kept = {line["step"]: line for line in lines if "loss" in line}
    for name in ("loss", "lr"):
        told = {event.step: event.value for event in events.Scalars(name)}
        assert told == pytest.approx({step: line[name] for step, line in kept.items()}, rel=1e-6)
    assert {f"loss by quarter of t/{k}" for k in (1, 2, 3, 4)} <= set(events.Tags()["scalars"])
    assert {event.step for event in events.Images("samples")} >= {2, 4, 6}
    assert [event.step for event in events.Scalars("heldout/loss")] == [3, 6]


def test_export_and_back(followed):
    before = contents(followed / "run")
    ddpm("export", "run", "out", "--onnx", "net.onnx", cwd=followed)
    assert contents(followed / "run") == before and (followed / "net.onnx").stat().st_size > 10_000
    grids = []
    for words in (["run"], ["--weights", "out"]):
        ddpm("sample", *words, "--n", "2", "--steps", "5", "--npz", "a.npz", "--out", "a.png", cwd=followed)
        with np.load(followed / "a.npz") as stored:
            grids.append(stored["images"].astype(int))
    assert grids[0].std() > 1 and abs(grids[0] - grids[1]).max() <= 1  # rounding to bytes
    refused("export", "run", cwd=followed, sentence="where to? name a folder")
    refused("export", "run", "run", cwd=followed, sentence="run holds something else, .lock: choose another folder")


def test_topology_of_a_run(followed):
    out, _, _ = ddpm("topology", "run", cwd=followed)
    assert "run/topology" in out and (followed / "run/topology/diagram.png").stat().st_size > 1000
    refused("topology", "run", "--channels", "8", cwd=followed, sentence="a run has settings of its own")


def test_sampling_keeps_a_runs_own_grid(followed):
    own = (followed / "run/samples.png").read_bytes()
    out, _, _ = ddpm("sample", "run", "--n", "1", "--steps", "5", cwd=followed)
    assert out == "wrote run/drawn.png\n" and (followed / "run/samples.png").read_bytes() == own
