"The shipped model, judged by a classifier that has only seen real images."
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from ddpm_course import sampling, training
from ddpm_course.core import Purpose, generator
from ddpm_course.data import ASSETS, load_digits, to_float

PER_CLASS = 100


class Classifier(nn.Module):
    "Digits at 16x16; `features` gives 64 numbers an image."

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
            nn.MaxPool2d(2), nn.Conv2d(32, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
            nn.Dropout(0.3), nn.Linear(64 * 16, 64), nn.ReLU())
        self.head = nn.Linear(64, 10)

    def forward(self, x):
        return self.head(self.body(x))


def shifted(x, draws):
    "Each image moved by up to one pixel and slightly rotated: the classifier must not overfit 4,500 images."
    angle = torch.from_numpy(draws.uniform(-0.2, 0.2, len(x))).float()
    move = torch.from_numpy(draws.uniform(-0.15, 0.15, (len(x), 2))).float()
    theta = torch.stack([torch.stack([angle.cos(), -angle.sin(), move[:, 0]], 1), torch.stack([angle.sin(), angle.cos(), move[:, 1]], 1)], 1)
    return F.grid_sample(x + 1, F.affine_grid(theta, x.shape, align_corners=False), align_corners=False) - 1


@pytest.fixture(scope="module")
def real():
    return {split: load_digits(split, 16) for split in ("train", "test")}


@pytest.fixture(scope="module")
def classifier(real):
    torch.manual_seed(0)
    net, draws = Classifier(), generator(0, Purpose.LESSON)
    x, y = to_float(real["train"].pixels), torch.from_numpy(real["train"].labels)
    steps = 12 * len(x) // 100
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3, weight_decay=1e-2)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, total_steps=steps)
    for _ in range(steps):
        i = torch.from_numpy(draws.integers(0, len(x), 100))
        loss = F.cross_entropy(net(shifted(x[i], draws)), y[i])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rate.step()
    return net.eval()


def draw(guidance, steps):
    network, config = training.load_network(ASSETS / "mnist16")
    keys, y = sampling.class_keys(range(10), PER_CLASS)
    images = sampling.sample(sampling.guided(network, guidance, 10), (1, 16, 16), keys, training.build_schedule(config),
                             config.diffusion.objective, y, sampler="ddim", steps=steps)
    return images.clamp(-1, 1), y


@pytest.fixture(scope="module")
def samples():
    "1,000 samples as the asked-for grids are drawn."
    return draw(2.0, 50)


@torch.no_grad()
def accuracy(net, x, y):
    return (net(x).argmax(1) == y).float().mean().item()


def frechet(a, b):
    "Between the Gaussians of two sets of features; tr sqrt(AB) is the sum of the roots of AB's eigenvalues."
    a, b = np.asarray(a, float), np.asarray(b, float)
    roots = np.sqrt(np.linalg.eigvals(np.cov(a.T) @ np.cov(b.T)).real.clip(0))
    return ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(np.cov(a.T) + np.cov(b.T)) - 2 * roots.sum()


def spread(x, y):
    "Root of the mean variance of a pixel within a class."
    return torch.stack([x[y == c].var(0).mean() for c in range(10)]).mean().sqrt().item()


def test_samples_have_the_asked_class(classifier, real, samples):
    held_out = accuracy(classifier, to_float(real["test"].pixels), torch.from_numpy(real["test"].labels))
    found = accuracy(classifier, *samples)
    print(f"classifier on held-out images {held_out:.3f}, on samples {found:.3f}")
    assert held_out >= 0.98, "the judge itself is not good enough"
    assert found >= 0.97


def test_samples_are_diverse(real, samples):
    kept = spread(*samples) / spread(to_float(real["train"].pixels), torch.from_numpy(real["train"].labels))
    print(f"within-class spread {kept:.2f} of the real")
    assert kept >= 0.8


def test_distribution(classifier, real, samples):
    """The samples are distributed nearly as the data are, measured without guidance.

    Guidance trades variety for clarity and moves the features of a confident classifier further out than those of real
    digits; its distance is printed beside the other.
    """
    with torch.no_grad():
        train, test = (classifier.body(to_float(real[split].pixels)) for split in ("train", "test"))
        plain, guided = classifier.body(draw(1.0, 25)[0]), classifier.body(samples[0])
    own = frechet(train, test)
    print(f"Fréchet distance to the training images (64 classifier features): held-out {own:.2f} (n = 500), "
          f"samples {frechet(train, plain):.2f} (n = 1000), at guidance 2 {frechet(train, guided):.2f}")
    assert frechet(train, plain) <= 5 * own


def test_samples_are_no_copies(real, samples):
    train, test = (to_float(real[split].pixels).flatten(1) for split in ("train", "test"))
    nearest = torch.cdist(samples[0].flatten(1), train).min(1).values
    usual = torch.cdist(test, train).min(1).values
    print(f"distance to the nearest training image: samples {nearest.mean():.2f}, held-out images {usual.mean():.2f}")
    assert nearest.mean() > 0.6 * usual.mean()
    assert (nearest < 0.3 * usual.mean()).float().mean() < 0.01
