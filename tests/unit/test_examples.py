"""examples/*.py: a loop of one's own learns; entries from outside the package train, sample, and do what papers say."""

import importlib.util
import json
import math
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from ddpm_course import RunConfig, SamplingConfig, load_digits, override
from ddpm_course.draws import normal
from ddpm_course.exact import dataset_denoiser
from ddpm_course.losses import OBJECTIVES
from ddpm_course.model import Model, build_network
from ddpm_course.sampling import plan, walk
from ddpm_course.schedules import cosine
from helpers import ROOT, ddpm, environment, refused

EXAMPLES = ROOT / "examples"
SMALL = "--steps 12 --batch 8 --size 8 --multipliers 1,2 --T 50 --grid-every 0 --precision fp32 --device cpu".split()
POINTS = torch.tensor([[-0.9], [0.1], [0.7]]).double()
ENTRIES = {  # file -> words for the run, words for samples
    "dit": ("--network dit --set patch=4 --set depth=2", ""),
    "flow_matching": ("--schedule straight --objective slope", "--sampler euler"),
    "edm": (
        "--network edm --objective edm --set data_std=0.6",
        "--sampler churn --spacing rho --set churn=9 --set rho=5",
    ),
    "post_hoc": ("--average post-hoc --set length=0.2", ""),
    "arrays": ("--data npz:digits.npz", ""),
}


@pytest.fixture(scope="module")
def examples():
    "The five files as modules; what they enter stays for this module only."
    import ddpm_course

    names = ("DATA", "NETWORKS", "OBJECTIVES", "SAMPLERS", "SCHEDULES", "SPACINGS", "EMAS")
    registries = [getattr(ddpm_course, name) for name in names]
    before = [dict(registry) for registry in registries]
    modules = {}
    for name in ENTRIES:
        spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
        modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(modules[name])
    yield modules
    for registry, entries in zip(registries, before):
        registry.clear()
        registry.update(entries)


@pytest.mark.thorough
def test_a_loop_of_ones_own_learns_and_draws(tmp_path):
    command = [sys.executable, EXAMPLES / "training.py", "--steps", "50"]
    out = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=True).stdout
    loss = float(re.search(r"step 50: loss (.+)", out)[1])
    assert 0.1 < loss < 0.7 and Image.open(tmp_path / "digits.png").width > 400, out


@pytest.mark.thorough
@pytest.mark.parametrize("loop, needs", [("ddp", "torch"), ("accelerate", "accelerate"), ("lightning", "lightning")])
def test_the_same_loop_elsewhere_learns(loop, needs):
    pytest.importorskip(needs)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=1"]
    command += [EXAMPLES / "elsewhere.py", loop, "--steps", "60"]
    out = subprocess.run(command, env=environment(), capture_output=True, text=True, check=True).stdout
    assert 0.1 < float(re.search(r"loss after 60 steps: (.+)", out)[1]) < 0.55, out


@pytest.mark.parametrize("name", ENTRIES)
def test_trains_and_samples_from_the_command_line(name, tmp_path):
    digits = load_digits("train", 28)
    np.savez(tmp_path / "digits.npz", images=digits.pixels[:300:2, 0], labels=digits.labels[:300:2])
    train, draw = (words.split() for words in ENTRIES[name])
    plugin = ["--plugin", EXAMPLES / f"{name}.py"]
    out, _, _ = ddpm("train", *plugin, *train, *SMALL, "--out", "run", cwd=tmp_path)
    assert "wrote run" in out
    ddpm("sample", "run", *plugin, *draw, "--steps", "8", "--n", "1", "--out", "a.png", cwd=tmp_path)
    assert (tmp_path / "a.png").exists()
    own = json.loads((tmp_path / "run/config.json").read_text())["training"]["own"]
    assert own == sorted(b for a, b in zip(train, train[1:]) if a == "--set")
    if own:
        changed = [word.replace("0.", "0.1").replace("=4", "=2") for word in train]
        refused("train", *plugin, *changed, *SMALL, "--out", "run", cwd=tmp_path, sentence="run holds another run")


def test_arrays_of_bytes_or_floats_with_any_labels(examples, tmp_path):
    "Labels from 1 on, with a gap, of which the held-out tenth lacks one: no class is empty, none is another's."
    digits = load_digits("train", 28)
    rows = np.concatenate([np.flatnonzero(digits.labels == k)[:10] for k in (1, 3, 7)])[:29]  # 7 is not held out
    bytes_, labels = digits.pixels[rows, 0], digits.labels[rows]
    for images in (bytes_, bytes_ / 255, np.float32(bytes_ / 127.5 - 1), np.repeat(bytes_[..., None] / 255, 3, 3)):
        np.savez(tmp_path / "a.npz", images=images, labels=labels)
        train, held_out = examples["arrays"].npz(28, None, tmp_path / "a.npz")
        assert train.classes == held_out.classes == ("1", "3", "7")
        assert held_out.labels.tolist() == [0, 1] and np.bincount(train.labels).tolist() == [9, 9, 9]
        assert (held_out.pixels == bytes_[9::10, None]).all()
    np.savez(tmp_path / "a.npz", images=bytes_ / 1.0, labels=labels)
    refused(
        *f"train --plugin {EXAMPLES}/arrays.py --data npz:a.npz".split(),
        cwd=tmp_path,
        sentence="floats from 0 to 255: expected 0 for black to 1 for white, or -1 to 1",
    )


@pytest.mark.parametrize(
    "words, sentence",
    [
        (f"train --plugin {EXAMPLES}/dit.py --network dit --set pach=2", "no entry has a setting for 'pach=2'"),
        (f"train --plugin {EXAMPLES}/dit.py --network dit --set patch=3", "patch = 3 does not divide images of 8x8"),
        ("sample --set foo", "no entry has a setting for 'foo'"),
        ("topology --set pach=2", "no entry has a setting for 'pach=2'"),
    ],
)
def test_a_misspelt_setting_is_one_sentence(tmp_path, words, sentence):
    refused(*words.split(), *SMALL * ("train" in words), cwd=tmp_path, sentence=sentence)
    assert not list(tmp_path.iterdir())


LOSS = """
from ddpm_course import CRITERIA, Simple
class Cautious(Simple):
    def losses(self, model, batch):
        found = super().losses(model, batch)
        return found | {"loss": (found["loss"] + 1e-6).sqrt()}
CRITERIA["cautious"] = Cautious
"""


def test_a_loss_of_ones_own_and_a_run_without_its_plugin(tmp_path):
    (tmp_path / "mine.py").write_text(LOSS)
    words = ["train", "--plugin", "mine.py", "--loss", "cautious", *SMALL, "--out", "run"]
    ddpm(*words, cwd=tmp_path)
    config = json.loads((tmp_path / "run/config.json").read_text())
    assert config["diffusion"]["loss"] == "cautious" and config["plugins"][0].startswith("mine.py:")
    ddpm("test", "run", "--plugin", "mine.py", cwd=tmp_path)
    refused("test", "run", cwd=tmp_path, sentence="with the plugin mine.py: load it first, if you trust that file")
    assert ddpm(*words, cwd=tmp_path)[0].count("\n") == 1  # a finished run prints one line


def ends(how, schedule, start):
    "Where walks of the exact denoiser of three points end."
    model = Model(lambda x, t, y: dataset_denoiser(x, int(t[0]), POINTS, schedule), schedule, OBJECTIVES["x0"], (1,))
    noise = lambda t: normal(start.shape[1:], 1, 9, t + 2, range(len(start))).double()
    return [x for _, x, _ in walk(model, plan(how, model), noise, x=start)]


START = normal((1,), 0, 9, 0, range(300)).double()


def test_flow_matching_is_ddim_after_a_change_of_names(examples):
    schedule = examples["flow_matching"].straight(400)
    euler, ddim = (
        torch.stack(ends(SamplingConfig(name, steps=50, clip=False), schedule, START)) for name in ("euler", "ddim")
    )
    assert (euler - ddim).abs().max() < 1e-6
    signal, sigma = schedule.alpha_bars.sqrt(), (1 - schedule.alpha_bars).sqrt()
    s = sigma / (signal + sigma)
    assert torch.allclose(s, torch.arange(1, 401).double() / 401)  # evenly, from image to noise


@pytest.mark.parametrize("churn", ["0", "20"])
def test_samplers_from_outside_reach_the_data(examples, churn):
    own = (f"churn={churn}", "rho=7") if churn != "0" else ("rho=7",)
    edm = SamplingConfig("churn", steps=40, spacing="rho", clip=False, own=own)
    for how, schedule in (
        (edm, cosine(1000)),
        (SamplingConfig("euler", steps=200, clip=False), examples["flow_matching"].straight(1000)),
    ):
        last = ends(how, schedule, START)[-1]
        nearest = (last - POINTS.T).abs().min(1).values
        counts = [((last - point).abs() < 0.05).double().mean().item() for point in POINTS]
        assert nearest.max() < 0.05 and all(abs(share - 1 / 3) < 4 * math.sqrt(2 / 9 / 300) for share in counts)


def test_rho_spacing_is_even_in_its_root(examples):
    schedule = cosine(1000)
    indices = examples["edm"].rho(1000, 10, schedule=schedule, rho=7.0)
    levels = (1 / schedule.alpha_bars - 1).sqrt()[indices]
    roots = levels ** (1 / 7)
    assert abs(levels[0] / 80 - 1) < 0.1 and indices[-1] == 0 and len(indices) == 10
    assert (roots.diff() / roots.diff().mean() - 1).abs().max() < 0.1  # but for the nearest index


def test_preconditioned_answer_has_variance_one(examples):
    "Of data of the expected spread, at any level (EDM, appendix B.6)."
    schedule, x0, eps = (
        cosine(1000),
        examples["edm"].STD * normal((20_000,), 0, 9, 1, [0])[0],
        normal((20_000,), 0, 9, 2, [0])[0],
    )
    for t in (5, 300, 600, 950):
        signal, sigma = schedule.scales(t, like=x0)
        F = examples["edm"].answer(x0, eps, signal, sigma)
        assert abs(F.std() - 1) < 0.03
        found, noise = examples["edm"].solve(F, signal * x0 + sigma * eps, signal, sigma)
        assert torch.allclose(found, x0, atol=1e-3) and torch.allclose(noise, eps, atol=1e-3)


def test_post_hoc_average_is_the_one_that_was_not_kept(examples):
    "On a walk of weights: of a kept length to rounding, of another nearly (EDM2, section 3)."
    post_hoc, steps = examples["post_hoc"], 800
    plan = override(RunConfig(), size=8, multipliers=(1,), steps=steps, classes=("a",)).training
    network = torch.nn.Linear(30, 30)
    average, third, gen = post_hoc.PostHoc(network, plan, length=0.1), None, torch.Generator().manual_seed(0)
    resumed = None
    for step in range(steps):
        with torch.no_grad():
            network.weight += 0.1 * torch.randn(30, 30, generator=gen)
        average.update(network, step)
        keep = (1 - 1 / (step + 1)) ** (post_hoc.power(0.07) + 1)
        now = torch.nn.utils.parameters_to_vector(network.parameters()).detach()
        third = now if third is None else keep * third + (1 - keep) * now
        if step == steps // 2:  # goes on from what a checkpoint keeps
            resumed = post_hoc.PostHoc(network, plan)
            resumed.load_state_dict({k: v.clone() for k, v in average.state_dict().items()})
        elif resumed:
            resumed.update(network, step)
    kept = torch.nn.utils.parameters_to_vector(average.two[1].parameters())
    spread = (kept - third).norm()
    assert (average.combine(steps, 0.1) - kept).norm() < 1e-3 * spread
    assert (average.combine(steps, 0.07) - third).norm() < 0.1 * spread
    assert torch.equal(resumed.combine(steps, 0.07), average.combine(steps, 0.07))


def test_dit_begins_at_nothing(examples):
    network = build_network(override(RunConfig(), size=8, network="dit", own=("depth=2",), classes=("a", "b")))
    x, t, y = torch.randn(3, 1, 8, 8), torch.tensor([0, 5, 9]), torch.tensor([0, 1, 2])
    assert network(x, t, y).shape == x.shape and not network(x, t, y).any()  # adaLN-Zero
