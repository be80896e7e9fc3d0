"The metrics against closed forms, second implementations and generators whose faults are known."

from dataclasses import asdict

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from torch.nn import functional as F

from ddpm_course.config import PRESETS, SamplingConfig, override
from ddpm_course.data.sets import ASSETS, ImageSet, load_digits
from ddpm_course.draws import Purpose, generator
from ddpm_course.judge import evaluation as ev
from ddpm_course.judge import frechet, kernel
from ddpm_course.judge import scores as sc
from ddpm_course.model import build_model
from ddpm_course.run.runs import load_model

fid, inception, kid = (pytest.importorskip(f"torchmetrics.image.{name}") for name in ("fid", "inception", "kid"))


@pytest.fixture(scope="module")
def digits():
    return {split: load_digits(split, 16) for split in ("train", "test")}


@pytest.fixture(scope="module")
def judge():
    return ev.load_judge()


@pytest.fixture(scope="module")
def real(digits, judge):
    return {split: ev.extract(judge, images.pixels)[0] for split, images in digits.items()}


@pytest.fixture(scope="module")
def shipped():
    return load_model()


@pytest.fixture(scope="module")
def scores(digits, judge):
    "Of test images, judged as if they were samples."
    y = torch.from_numpy(digits["test"].labels)
    return sc.evaluate_images(torch.from_numpy(digits["test"].pixels), y, (digits["train"], digits["test"]), judge)


def random_features(n=300, d=12, stretch=1.0, seed=0):
    random = generator(seed, Purpose.LESSON)
    mix = random.standard_normal((d, d)) * stretch
    return torch.from_numpy(random.standard_normal((n, d)) @ mix + random.standard_normal(d))


def pass_on(features):
    "A network for torchmetrics, which is given features in place of images."
    network = torch.nn.Identity()
    network.num_features = features
    return network


def library_frechet(a, b):
    metric = fid.FrechetInceptionDistance(feature=pass_on(a.shape[1]))
    metric.update(a, real=True)
    metric.update(b, real=False)
    return metric.compute().item()


# -- the distance -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stretch", [0.1, 1.0, 30.0])
def test_distance_has_two_second_opinions(stretch):
    a, b = random_features(seed=1), random_features(200, stretch=stretch, seed=2)
    mean, cov = lambda x: x.numpy().mean(0), lambda x: np.cov(x.numpy().T)
    root = sqrtm(cov(a) @ cov(b)).real
    expected = ((mean(a) - mean(b)) ** 2).sum() + np.trace(cov(a) + cov(b) - 2 * root)
    assert ev.frechet_distance(a, b) == pytest.approx(expected, rel=1e-8)
    assert library_frechet(a, b) == pytest.approx(expected, rel=1e-6)
    flat = torch.cat([a, a[:, :1]], 1)  # a singular covariance
    assert abs(ev.frechet_distance(flat, flat)) < 1e-4


@pytest.mark.filterwarnings("ignore:Metric `InceptionScore`")
@pytest.mark.parametrize("n, seed, splits", [(403, 0, 10), (403, 2**63 + 5, 10), (7, 3, 10), (50, 1, 2)])
def test_inception_score_is_that_of_a_library(n, seed, splits):
    "Bit for bit: what was measured before is measured now."
    logits = torch.from_numpy(generator(3, Purpose.LESSON).standard_normal((n, 7)))
    metric = inception.InceptionScore(feature=pass_on(7), splits=splits)
    metric.update(logits)
    before = torch.random.get_rng_state()
    found = sc.inception_score(logits, seed, splits)
    assert torch.equal(before, torch.random.get_rng_state()), "the caller's generator was moved"
    torch.manual_seed(seed)
    assert found == tuple(x.item() for x in metric.compute())


# -- the judge --------------------------------------------------------------------------------------------------------


def test_judge_knows_digits_of_any_size_and_colour(judge):
    for size in (16, 28, 32):
        test = load_digits("test", size)
        _, logits = ev.extract(judge, np.repeat(test.pixels, 3, axis=1) if size == 32 else test.pixels)
        assert (logits.argmax(1).numpy() == test.labels).mean() >= 0.97
    assert (ASSETS / "judge.safetensors").stat().st_size < 300_000


# -- classes and floor ------------------------------------------------------------------------------------------------


def test_the_floor_falls_with_more_pictures(digits, real):
    labels = digits["train"].labels
    small, large = (ev.real_floor(real["train"], labels, n) for n in (100, 1000))
    assert small > 4 * large, "the bias falls like 1 / n"
    assert ev.real_floor(real["train"], None, 1000) < small


def test_too_few_for_a_frechet_distance_have_a_kernel_distance(digits, judge):
    images, y = torch.from_numpy(digits["test"].pixels), torch.from_numpy(digits["test"].labels)
    found = sc.evaluate_images(images[::25], y[::25], (digits["train"], digits["test"]), judge)
    assert found.distance is found.floor is found.held_out is None and found.n == found.floor_n == 20
    assert abs(found.kernel) < 4 * found.kernel_se and "too few images, n = 20" in str(found)
    few = ImageSet(digits["train"].pixels[::45], digits["train"].labels[::45], digits["train"].classes)
    found = sc.evaluate_images(images, y, (few, digits["test"]), judge)
    assert found.distance is None and found.floor_n == 50 and abs(found.kernel) < 1


# -- the distance without its bias -------------------------------------------------------------------------------------


def two_classes(random, scale, shift, n=120, d=6):
    "n points of two equally frequent Gaussians, 6 apart, and their classes."
    labels = np.arange(n) % 2
    points = scale * random.standard_normal((n, d)) + shift
    points[:, 0] += 6 * labels
    return torch.from_numpy(points), labels


def its_moments(scale, shift, d=6):
    mean, cov = torch.full((d,), float(shift)).double(), scale**2 * torch.eye(d).double()
    mean[0], cov[0, 0] = shift + 3, scale**2 + 9
    return mean, cov


@pytest.fixture(scope="module")
def tries():
    "By generator: the exact distance from the reference, forty measured ones, those corrected, and their errors."
    found = {}
    for scale, shift in ((1, 0), (1, 0.3), (0.5, 0.2)):  # the reference itself, a moved one, a narrow one
        exact = frechet.frechet_from_moments(*its_moments(scale, shift), *its_moments(1, 0))
        random, rows = generator(1, Purpose.LESSON), []
        for k in range(40):
            a, b = two_classes(random, scale, shift), two_classes(random, 1, 0)
            rows.append([ev.frechet_distance(a[0], b[0]), *frechet.corrected_distance(*a, *b, draws=40, seed=k)])
        found[scale, shift] = exact, *np.array(rows).T
    return found


def test_correction_leaves_little_of_the_bias(tries):
    "And the error bar keeps its promise; where the distance is zero it is on the safe side."
    for exact, distances, corrected, errors in tries.values():
        bias, left = distances.mean() - exact, corrected.mean() - exact
        assert bias > 4 * distances.std() / 40**0.5, "few points make a distance larger"
        assert abs(left) < bias / 4
        assert (abs(corrected - exact) < 1.96 * errors).mean() >= 0.875
    exact, distances, corrected, errors = tries[1, 0]
    assert exact == pytest.approx(0, abs=1e-9) and errors.mean() > 1.3 * corrected.std()


def test_bias_belongs_to_the_generator(tries):
    wide, narrow = (tries[k][1].mean() - tries[k][0] for k in ((1, 0.3), (0.5, 0.2)))
    assert narrow < 0.7 * wide


def test_classes_that_were_fixed_stay_fixed():
    "Redrawn without classes, an error counts chance that was not there, and too much is taken away."
    random, rows = generator(2, Purpose.LESSON), []
    exact = frechet.frechet_from_moments(*its_moments(1, 0.3), *its_moments(1, 0))
    for k in range(20):
        (a, classes), (b, _) = two_classes(random, 1, 0.3), two_classes(random, 1, 0)
        both = classes, np.zeros_like(classes)
        rows.append([frechet.corrected_distance(a, y, b, y, draws=40, seed=k) for y in both])
    (within, error), (blind, too_long) = np.array(rows).mean(0)
    assert too_long > 1.5 * error and blind < within and blind < exact


def test_two_halves_of_real_digits_are_no_distance_apart(digits, real):
    labels = digits["train"].labels
    for draw in range(4):
        half = ev.real_subset(labels, len(labels), len(labels) // 2, draw=draw)
        a, b = (real["train"][torch.from_numpy(side)] for side in (half, ~half))
        found, error = frechet.corrected_distance(a, labels[half], b, labels[~half], draws=30)
        assert abs(found) < 1.96 * error and abs(found) < 0.5 * ev.frechet_distance(a, b)
        again = frechet.redrawn(a, labels[half], generator(0, Purpose.LESSON))
        assert again.shape == a.shape


# -- the kernel distance ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n, d", [(3, 2), (50, 12), (450, 64)])
def test_kernel_distance_is_that_of_a_library(n, d):
    a, b = random_features(n, d), random_features(n, d, stretch=0.7, seed=1)
    assert kernel.kernel_distance(a, b)[0] == pytest.approx(kid.poly_mmd(a, b).item(), rel=1e-9)


@pytest.mark.parametrize("n, m", [(3, 5), (12, 30)])
def test_kernel_distance_is_not_biased(n, m, shift=0.5):
    "The average over 2,000 tries is the exact value, to four of its standard errors; the error is on the safe side."
    random = generator(8, Purpose.LESSON)
    draw = lambda k, by: torch.from_numpy(random.standard_normal((k, 1)) + by)
    tries = np.array([kernel.kernel_distance(draw(n, 0), draw(m, shift)) for _ in range(2000)])
    moments = shift, shift**2 + 1, shift**3 + 3 * shift  # of a normal distribution
    exact = 3 * moments[0] ** 2 + 3 * (moments[1] - 1) ** 2 + moments[2] ** 2
    assert abs(tries[:, 0].mean() - exact) < 4 * tries[:, 0].std() / 2000**0.5
    assert np.sqrt((tries[:, 1] ** 2).mean()) > 0.9 * tries[:, 0].std()


def test_many_are_compared_in_blocks(monkeypatch):
    "All pairs of 50,000 take a quarter of an hour. Blocks are not biased either, and of no more than so many."
    a, b = random_features(200, 5), random_features(430, 5, stretch=0.7, seed=1)
    exact, value = kernel.kernel_distance(a, b), kernel.kernel_distance(a, b, most=50)
    assert abs(value[0] - exact[0]) < 3 * value[1] and exact[1] < value[1] < 3 * exact[1]
    sizes, all_pairs = [], kernel.all_pairs
    monkeypatch.setattr(kernel, "all_pairs", lambda x, y: (sizes.append((len(x), len(y))), all_pairs(x, y))[1])
    kernel.kernel_distance(a, b, most=60)
    assert sizes == [(50, 60)] * 4


# -- copies -----------------------------------------------------------------------------------------------------------


def test_the_nearest_picture_is_found_in_any_part(monkeypatch):
    "And no more than 64 MB of training pictures are floats at a time: a million of 64x64 would need 49 GB."
    random, seen = generator(9, Purpose.LESSON), []
    train = random.integers(0, 256, (70_000, 1, 16, 16), dtype=np.uint8)
    to_float = ev.to_float
    monkeypatch.setattr(ev, "to_float", lambda x: (seen.append(len(x)), to_float(x))[1])
    assert ev.nearest_distances(train[[5, 69_999]], train).max() < 0.05
    assert max(seen) * 256 * 4 <= 64 * 2**20 and sum(seen) == 70_002


# -- all of it on generators whose faults are known -------------------------------------------------------------------


@pytest.mark.parametrize("fault, factor", [("noise", 300), ("one class", 100), ("one image a class", 10), ("blur", 3)])
def test_faults_are_far(digits, judge, real, scores, fault, factor):
    train = digits["train"]
    first = [np.flatnonzero(train.labels == c)[0] for c in range(10)]
    images = {
        "noise": generator(5, Purpose.LESSON).integers(0, 256, (500, 1, 16, 16), dtype=np.uint8),
        "one class": train.pixels[np.resize(np.flatnonzero(train.labels == 4), 500)],
        "one image a class": train.pixels[np.repeat(first, 50)],
        "blur": F.avg_pool2d(torch.from_numpy(digits["test"].pixels).float(), 3, 1, 1).byte().numpy(),
    }[fault]
    assert ev.frechet_distance(ev.extract(judge, images)[0], real["train"]) > factor * scores.floor


def test_samples_are_drawn_and_judged_the_same_twice(digits, judge, shipped):
    how = SamplingConfig(sampler="dpm", steps=3, guidance=1)
    with pytest.warns(UserWarning, match="n = 70 is small"):
        one = sc.evaluate_samples(shipped, (digits["train"], digits["test"]), 70, how)
    y = ev.allot_classes(digits["train"].labels, 70)
    images = ev.draw_samples(shipped, y, how, batch=33)
    two = asdict(sc.evaluate_images(images, y, (digits["train"], digits["test"]), judge, how=how))
    assert asdict(one) == {k: pytest.approx(v, rel=0.02) if isinstance(v, float) else v for k, v in two.items()}
    assert one.n == one.floor_n == 70


def test_model_without_classes(digits):
    config = override(PRESETS["mnist16"], conditional=False, T=4, channels=8, classes=tuple("0123456789"))
    with pytest.warns(UserWarning):
        found = sc.evaluate_samples(build_model(config).eval(), (digits["train"], digits["test"]), 66)
    assert found.accuracy is None and found.n == 66 and "class as asked" not in str(found)


# -- which eyes -------------------------------------------------------------------------------------------------------


def test_the_judge_of_digits_looks_at_what_it_can_read(digits):
    "Ten grey classes, called 0 to 9 or not called anything, were taken for digits: KMNIST in folders, say."
    random, test = generator(10, Purpose.LESSON), digits["test"]
    noise = ImageSet.of(random.integers(0, 256, (300, 16, 16), dtype=np.uint8), np.arange(300) % 10)
    some = ImageSet(test.pixels[::2], test.labels[::2], test.classes)
    shuffled = ImageSet(test.pixels, random.permutation(test.labels), test.classes)
    colour = ImageSet(np.repeat(test.pixels, 3, 1), test.labels, test.classes)
    found = [sc.are_digits(each) for each in (test, some, load_digits("train", 8), noise, shuffled, colour)]
    assert found == [True, True, True, False, False, False]


def test_colour_images_get_an_fid():
    class Small(sc.Inception):
        num_features = 12

        def __init__(self):
            torch.nn.Module.__init__(self)
            self.scale = torch.nn.Parameter(torch.ones(1))

        def net(self, x):
            assert x.dtype == torch.uint8 and x.shape[1] == 3
            features = F.adaptive_avg_pool2d(x.float(), 2).flatten(1) * self.scale
            return features, features @ torch.ones(12, 5)

    random = generator(6, Purpose.LESSON)
    train, test = (ImageSet(random.integers(0, 256, (n, 3, 8, 8), dtype=np.uint8), None) for n in (300, 40))
    images, y = torch.from_numpy(train.pixels[:80] // 2), torch.full((80,), -1)
    scores = sc.evaluate_images(images, y, (train, test), Small())
    assert str(scores).startswith("FID (Inception-v3, 12 features)") and "\nKID " in str(scores)
    assert scores.accuracy is None and scores.held_out is not None
