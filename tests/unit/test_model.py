"The shipped model, judged by a classifier that has only seen real images."

import pytest
import torch

from ddpm_course import SamplingConfig, load_model, sample
from ddpm_course.data.sets import load_digits, to_float, to_uint8
from ddpm_course.judge import evaluation

PER_CLASS = 50
pytestmark = pytest.mark.thorough  # two minutes of drawing, and the model that ships hardly changes


@pytest.fixture(scope="module")
def real():
    return {split: load_digits(split, 16) for split in ("train", "test")}


@pytest.fixture(scope="module")
def judge():
    return evaluation.load_judge()


@pytest.fixture(scope="module")
def samples():
    "500 samples as the asked-for grids are drawn."
    images = sample(load_model(), range(10), PER_CLASS)
    y = torch.arange(10).repeat(PER_CLASS)
    return images.clamp(-1, 1), y


def spread(x, y):
    "Root of the mean variance of a pixel within a class."
    return torch.stack([x[y == c].var(0).mean() for c in range(10)]).mean().sqrt().item()


def test_samples_have_the_asked_class(judge, real, samples):
    right = lambda x, y: (judge(x)[1].argmax(1) == y).float().mean().item()
    held_out = right(to_float(real["test"].pixels), torch.from_numpy(real["test"].labels))
    found = right(*samples)
    print(f"judge on held-out images {held_out:.3f}, on samples {found:.3f}")
    assert held_out >= 0.98, "the judge itself is not good enough"
    assert found >= 0.985


def test_samples_are_diverse(real, samples):
    kept = spread(*samples) / spread(to_float(real["train"].pixels), torch.from_numpy(real["train"].labels))
    print(f"within-class spread {kept:.2f} of the real")
    assert kept >= 0.83


def test_distribution(judge, real, samples):
    """The samples are distributed nearly as the data are, measured without guidance and at the same n.

    Guidance trades variety for clarity and moves the features of a confident classifier further out than those of real
    digits; its distance is printed beside the other.
    """
    train, test = (evaluation.extract(judge, real[split].pixels)[0] for split in ("train", "test"))
    y = evaluation.allot_classes(real["train"].labels, len(test))
    plain = evaluation.draw_samples(load_model(), y, SamplingConfig(sampler="ddpm", steps=25, guidance=1))
    own, plain, guided = (
        evaluation.frechet_distance(x, train)
        for x in (test, evaluation.extract(judge, plain)[0], evaluation.extract(judge, to_uint8(samples[0]))[0])
    )
    print(
        f"Fréchet distance to the training images (digits judge, 64 features): held-out {own:.2f} (n = 500), "
        f"samples {plain:.2f} (n = 500), guided {guided:.2f} (n = 500)"
    )
    assert plain <= 5 * own and guided <= 6 * own


def test_samples_are_no_copies(real, samples):
    nearest = evaluation.nearest_distances(to_uint8(samples[0]), real["train"].pixels)
    usual = evaluation.nearest_distances(real["test"].pixels, real["train"].pixels)
    print(f"distance to the nearest training image: samples {nearest.mean():.2f}, held-out images {usual.mean():.2f}")
    assert nearest.mean() > 0.6 * usual.mean()
    assert (nearest < 0.3 * usual.mean()).float().mean() < 0.01
