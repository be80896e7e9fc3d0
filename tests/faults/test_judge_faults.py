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

from ddpm_course.cli import test as test_command
from ddpm_course.data.sets import ImageSet, load_digits
from ddpm_course.draws import Purpose, generator
from ddpm_course.judge import evaluation as ev
from ddpm_course.judge import frechet, kernel
from ddpm_course.judge import scores as sc

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


@pytest.mark.parametrize("n", [10**20, 10**7, 2, 0, -1])
def test_a_number_of_samples_that_cannot_be(n):
    with pytest.raises(ValueError, match=f"n = {n} against 4500 training images is too few"):
        kernel.can_fit(n, 64, 4500)


def test_nan_reaches_no_file(refuses, tmp_path):
    judge = ev.load_judge()
    judge.body[-1].weight[3] = torch.nan
    with patch.object(test_command, "pick_extractor", lambda *args: judge):
        refuses("test", "--fid", 320, "--steps", 1, sentence="finite")
    assert not list(tmp_path.iterdir())


# -- weights of Inception ---------------------------------------------------------------------------------------------


MODULE = "torch_fidelity.feature_extractor_inceptionv3"


def package(network):
    "torch-fidelity with another network inside; with None, as if it were not installed."
    module = types.ModuleType(MODULE)
    module.FeatureExtractorInceptionV3 = network
    return patch.dict(sys.modules, {"torch_fidelity": types.ModuleType("torch_fidelity"), MODULE: network and module})


def offline(*args):
    raise URLError("no route")


def test_missing_packages_and_weights_are_one_sentence():
    with package(None), pytest.raises(ValueError, match="FID needs torch-fidelity: pip install"):
        sc.pick_extractor(COLOUR, 9)
    missing = pytest.raises(FileNotFoundError, match=r"weights that FID needs could not be fetched \(URLError\)")
    with package(offline), missing:
        sc.pick_extractor(COLOUR, 9)


def test_counts_come_before_packages_and_files(tmp_path):
    colour = ImageSet(np.zeros((183, 3, 8, 8), np.uint8), None)
    with pytest.raises(ValueError, match="n = 2 against 183 training images is too few"):
        sc.pick_extractor(colour, 2, tmp_path / "nowhere.pth")
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


def test_moments_that_have_no_distance():
    zero, one = torch.zeros(3).double(), torch.eye(3).double()
    for mean, cov in ((zero * np.nan, one), (zero, one * np.inf), (zero, one * 1e200)):
        with pytest.raises(ValueError, match="finite"):
            frechet.frechet_from_moments(mean, cov, zero, 1e200 * one)
    with pytest.raises(ValueError, match="finite"):  # finite features, whose covariances are not
        ev.frechet_distance(1e200 * GOOD, GOOD)
