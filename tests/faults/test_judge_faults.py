"What goes wrong where samples are judged: each is refused in one sentence, before the work, and leaves no file."

import hashlib
import os
import sys
import types
from unittest.mock import patch
from urllib.error import URLError

import numpy as np
import pytest
import torch

from ddpm_course.base.group import Group
from ddpm_course.cli import compare, main
from ddpm_course.cli import test as test_command
from ddpm_course.config import PRESETS, override
from ddpm_course.data.sets import ImageSet, load_digits
from ddpm_course.data.sources import DATA
from ddpm_course.draws import Purpose, generator
from ddpm_course.judge import evaluation as ev
from ddpm_course.judge import kernel
from ddpm_course.judge import scores as sc
from ddpm_course.model import Model
from helpers import train

COLOUR = ImageSet(np.zeros((9, 3, 8, 8), np.uint8), None)
GOOD = torch.from_numpy(generator(1, Purpose.LESSON).standard_normal((20, 5)))


def spoilt(value: float) -> torch.Tensor:
    x = GOOD.clone()
    x[7, 2] = value
    return x


@pytest.mark.parametrize("distance", [ev.frechet_distance, kernel.kernel_distance])
@pytest.mark.parametrize(
    "bad", [spoilt(np.nan), spoilt(np.inf), spoilt(-np.inf), GOOD[:0], GOOD[:1]], ids="nan inf -inf none one".split()
)
def test_features_that_have_no_distance(distance, bad):
    "The Fréchet distance of such features once ended the process: LAPACK does not look at what it is given."
    for pair in ((bad, GOOD), (GOOD, bad)):
        with pytest.raises(ValueError, match="features of .* finite"):
            distance(*pair)


def test_nan_reaches_no_file(refuses, tmp_path):
    judge = ev.load_judge()
    judge.body[-1].weight[3] = torch.nan
    with patch.object(test_command, "pick_extractor", lambda *args: judge):
        refuses("test", "--fid", 320, "--steps", 1, sentence="finite")
    assert not list(tmp_path.iterdir())


# -- runs and pictures that do not belong together --------------------------------------------------------------------


def tiny(folder, images, **more):
    "A run of one step on some pictures, as a folder's name."
    small = {"size": 8, "channels": 8, "multipliers": (1, 2), "T": 30, "steps": 1, "batch": 4, "precision": "fp32"}
    return str(train(folder, override(PRESETS["mnist16"], **small | more), images).folder)


def test_other_noise_levels_are_not_compared(tmp_path, refuses):
    "One denoiser under two schedules is never better than itself."
    digits = load_digits("train", 8)
    runs = [tiny(tmp_path / name, digits, schedule=name) for name in ("cosine", "linear")]
    refuses("compare", *runs, sentence="linear and " + runs[0])


@pytest.mark.parametrize("command", ["test", "doctor", "compare"])
def test_commands_ask_for_the_pictures_of_the_run(tmp_path, refuses, command):
    "Trained on arrays, a run names none; its setting still says mnist5k, on which it was once measured."
    run = tiny(tmp_path / "run", ImageSet.of(np.zeros((20, 8, 8), np.uint8)))
    refuses(command, run, sentence="mnist5k holds other pictures than those this model was trained on")


def test_held_out_pictures_that_another_run_has_seen_are_counted(tmp_path, capsys, monkeypatch):
    "As where a folder has grown: its every tenth picture is another one than before."
    digits, held_out = load_digits("train", 8), load_digits("test", 8)
    leaked = ImageSet(*(np.concatenate([getattr(part, name) for part in (digits, held_out)])[300:]
                        for name in ("pixels", "labels")), digits.classes)  # fmt: skip
    runs = [tiny(tmp_path / "a", digits), tiny(tmp_path / "b", leaked, data="leaked")]
    monkeypatch.setitem(DATA, "leaked", lambda size, channels: (leaked, held_out))
    for count in ("500", "nobody knows how many"):
        with pytest.warns(UserWarning, match=f"b was trained on other pictures: {count} of the 500 held-out images"):
            compare.run(compare.Request(runs=tuple(runs), precision="fp32"), Group())
        monkeypatch.delitem(DATA, "leaked", raising=False)
    header, first, second, note = capsys.readouterr().out.splitlines()[:4]
    assert "minus the first" in header and "±" in second and "95 % confidence interval" in note and "±" not in first


def test_batch_is_the_most_that_is_computed_at_a_time(tmp_path, monkeypatch):
    "Losses, bits, samples and features."
    run, seen = tiny(tmp_path / "run", load_digits("train", 8)), set()

    def watch(owner, name):
        call = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda self, x, *more: (seen.add((name, len(x))), call(self, x, *more))[1])

    watch(Model, "answer")
    watch(ev.Judge, "forward")
    monkeypatch.chdir(tmp_path)
    main.dispatch(f"test {run} --bpd --fid 70 --steps 1 --batch 60 --device cpu --precision fp32".split())
    assert max(seen, key=lambda call: call[1])[1] == 60 and {name for name, _ in seen} == {"answer", "forward"}


# -- weights of Inception ---------------------------------------------------------------------------------------------


MODULE = "torch_fidelity.feature_extractor_inceptionv3"


def package(network):
    "torch-fidelity with another network inside; with None, as if it were not installed."
    module = types.ModuleType(MODULE)
    module.FeatureExtractorInceptionV3 = network
    return patch.dict(sys.modules, {"torch_fidelity": types.ModuleType("torch_fidelity"), MODULE: network and module})


def offline(*args):
    raise URLError("no route")


def test_missing_packages_and_weights_are_one_sentence(recwarn):
    with package(None), pytest.raises(ValueError, match="FID needs torch-fidelity: pip install"):
        sc.pick_extractor(COLOUR, 20)
    assert not recwarn.list  # of how few they are, before it is known that they can be looked at
    missing = pytest.raises(FileNotFoundError, match=r"weights that FID needs could not be fetched \(URLError\)")
    with package(offline), missing:
        sc.pick_extractor(COLOUR, 9)


def test_counts_are_looked_at_and_weights_that_nobody_needs(tmp_path):
    colour = ImageSet(np.zeros((183, 3, 8, 8), np.uint8), None)
    with package(lambda *names: torch.nn.Identity()), pytest.raises(ValueError, match="n = 2 against 183 training"):
        sc.pick_extractor(colour, 2)
    with pytest.raises(ValueError, match="grey digits, and the judge of digits looks at them"):
        sc.pick_extractor(load_digits("test", 16), 500, tmp_path / "nowhere.pth")


class Net(torch.nn.Module):
    "In place of torch-fidelity's network: as many weights as a test needs."

    def __init__(self, name, features, path=None):
        super().__init__()
        self.fc = torch.nn.Linear(3, 2)
        self.load_state_dict(torch.load(path))


def test_only_the_published_weights_are_inception(tmp_path):
    "Right names and shapes are not enough: the numbers would be called FID, and be others'."
    file, whole = tmp_path / "inception.pth", {"fc.weight": torch.ones(2, 3), "fc.bias": torch.zeros(2)}
    torch.save(whole, file)
    published = f"weights-{hashlib.sha256(file.read_bytes()).hexdigest()[:8]}.pth"
    with package(Net):
        with patch.object(sc, "WEIGHTS", published):
            assert sc.pick_extractor(COLOUR, 9, file).net.fc.weight.eq(1).all()
        for other in (whole, b"not one of them"):  # it is not even read
            torch.save(other, file)
            with pytest.raises(ValueError, match=r"inception.pth holds other weights than weights-inception.*6726825d"):
                sc.pick_extractor(COLOUR, 9, file)


def test_weights_that_are_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with package(Net):
        for name, kind in (("nowhere", FileNotFoundError), (".", ValueError), ("pipe", ValueError)):
            with pytest.raises(kind, match=name):
                sc.pick_extractor(COLOUR, 9, str(tmp_path / name))
