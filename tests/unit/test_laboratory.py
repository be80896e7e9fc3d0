"The laboratory: its quantiles, its errors against many seeds, races that find nothing where nothing is, and go on."

import json
import sys
from statistics import NormalDist

import numpy as np
import pytest
import torch
from scipy import stats

from ddpm_course import load_digits, override
from ddpm_course.base.intervals import interval, plus_minus, share, student, wilson
from ddpm_course.config import PRESETS
from ddpm_course.data.sets import ImageSet
from ddpm_course.judge import lab
from ddpm_course.judge.frechet import frechet_from_moments
from ddpm_course.judge.lab import Difference, distances, paired, race

BASE = override(
    PRESETS["mnist16"], size=8, channels=8, multipliers=(1, 2), classes=tuple("0123456789"), batch=8, warmup=2, steps=6,
    precision="fp32", save_every=6, keep=1,
)  # fmt: skip


def test_quantiles_are_students():
    for freedom in (1, 2, 3, 4, 7, 20, 500):
        assert student(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=2e-3)
    for freedom, level in ((1, 0.5), (2, 0.99), (8, 0.8), (15, 0.99), (99, 1 - 0.05 / 9)):
        assert student(freedom, level) == pytest.approx(stats.t.ppf((1 + level) / 2, freedom), rel=2e-3)
    assert student(0) == np.inf and Difference(1.0, 0.1, 1).verdict == "no difference larger than inf"
    assert interval(0.12345, 0.01, 10) == "0.1235 ± 0.0226" and interval(0.5, np.nan, 1, 1) == "0.5"
    assert wilson(3, 10) == pytest.approx(stats.binomtest(3, 10).proportion_ci(method="wilson"), rel=1e-4)
    assert share(3, 10) == "30 (11 to 60)" and share(0, 20) == "0 (0 to 16)"
    assert paired(np.ones((1, 1)), 0).verdict == "no difference larger than inf"  # and no warning


def test_one_formatter():
    "A mean and a difference are written by the same function; a sign is the mean's."
    assert interval(0.5, 0.1, 10, 2) == plus_minus(0.5, student(9) * 0.1, ".2f") == "0.50 ± 0.23"
    d = Difference(0.5, 0.1, 10)
    assert f"{d:+.2f}" == "+0.50 ± 0.23" and f"{d}" == str(d) == "+0.5 ± 0.23 (n = 10): worse"


# -- what page 16 claims, with new data in each try -------------------------------------------------------------------


def alarms(differences):
    "How many intervals exclude zero, and the 95 % interval of the share."
    found = [d.verdict in ("better", "worse") for d in differences]
    return sum(found) / len(found), wilson(sum(found), len(found))


def mean_error(x):
    return x.mean(), x.std(ddof=1) / len(x) ** 0.5


@pytest.mark.parametrize("k", [2, 3, 5, 13, 100])
def test_an_honest_error_alarms_in_5_of_100(k):
    "Of k pairs without a difference; the unpaired error of pairs that correlate is too large, and hardly ever alarms."
    dice, found, alone = np.random.default_rng(k), [], []
    for _ in range(4000):
        common = dice.normal(size=k)
        a, b = (3 * common + dice.normal(size=k) for _ in range(2))
        found.append(paired(b, a))
        alone.append(Difference(b.mean() - a.mean(), np.hypot(mean_error(a)[1], mean_error(b)[1]), 2 * k - 1))
    share_of, (low, high) = alarms(found)
    assert low < 0.05 < high, f"{share_of:.3f}"
    assert alarms(alone)[0] < 0.02


def test_losses_of_one_digit_are_no_independent_values():
    "Counted by digit 5 of 100 groups without a difference alarm; by loss as many as the correlation predicts."
    dice, r, ways = np.random.default_rng(3), 0.24, {"digit": [], "loss": []}
    for _ in range(4000):
        groups = [r**0.5 * dice.normal(size=250) + (1 - r) ** 0.5 * dice.normal(size=(4, 250)) for _ in range(2)]
        for way, values in (("digit", [x.mean(0) for x in groups]), ("loss", [x.flatten() for x in groups])):
            (one, error), (two, other) = map(mean_error, values)
            ways[way].append(Difference(one - two, np.hypot(error, other), 500))
    (_, (low, high)), (_, (least, most)) = alarms(ways["digit"]), alarms(ways["loss"])
    assert low < 0.05 < high
    assert least < 2 * NormalDist().cdf(-1.96 / (1 + 3 * r) ** 0.5) < most


def test_an_honest_bootstrap_alarms_in_5_of_100():
    """Two sets of pairs and fixed classes, no difference: a hundred redraws of the same pairs, class by class, give an
    honest error of a difference of Fréchet distances. With redraws of its own for each set it is far too large."""
    dice, centre, real = np.random.default_rng(5), np.repeat([0.0, 4.0, 8.0], 40), (6.0, 5.0)  # mean, deviation

    def distances_of(x):
        "Of one feature, and many sets at once."
        return (x.mean(-1) - real[0]) ** 2 + (x.std(-1, ddof=1) - real[1]) ** 2

    x = torch.from_numpy(centre)[:, None]
    moments = torch.tensor([real[0]]).double(), torch.tensor([[real[1] ** 2]]).double()
    assert frechet_from_moments(x.mean(0), x.var(0)[None], *moments) == pytest.approx(distances_of(centre))

    def error(sets, picks):
        "Of the difference, by the same redraws, and as if each set had its own."
        one, two = (distances_of(x[picks]) for x in sets)
        return (one - two).std(ddof=1), np.hypot(one.std(ddof=1), two.std(ddof=1))

    found, scatter, first = {"honest": [], "unpaired": []}, [], 40 * np.arange(3)[:, None]
    for _ in range(1500):
        common = centre + dice.normal(size=120)
        sets = [common + 0.4 * dice.normal(size=120) for _ in range(2)]
        scatter.append(distances_of(sets[0]) - distances_of(sets[1]))
        errors = error(sets, (dice.integers(0, 40, (100, 3, 40)) + first).reshape(100, 120))
        for name, each in zip(found, errors, strict=True):
            found[name].append(Difference(scatter[-1], each, 100))
    low, high = alarms(found["honest"])[1]
    assert low < 0.05 < high
    assert alarms(found["unpaired"])[0] < 0.01
    assert np.mean([d.error for d in found["honest"]]) == pytest.approx(np.std(scatter), rel=0.05)


@pytest.mark.parametrize(
    "by_seed, by_image, n", [(0, 1, 80), (1, 0, 80), (1, 1, 80), (0, 0, 80), (3, 1, 80), (1, 0, 1)]
)
def test_null_experiments(by_seed, by_image, n):
    "Two names for the same thing: at most 7 of 100 false alarms; the errors are those that many tries scatter by."
    dice, found = np.random.default_rng(0), []
    for _ in range(2000):
        a, b = (
            by_seed * dice.normal(size=(6, 1)) + by_image * dice.normal(size=(1, n)) + dice.normal(size=(6, n))
            for _ in range(2)
        )
        found.append(paired(a, b))
    assert sum(d.verdict in ("better", "worse") for d in found) <= 0.07 * len(found)
    scatter, error = np.std([d.mean for d in found]), np.sqrt(np.mean([d.error**2 for d in found]))
    assert error == pytest.approx(scatter, rel=0.2)


@pytest.mark.parametrize("by_seed, by_image, rest", [(0.1, 1, 0.3), (1, 0.1, 0.3), (1, 1, 1)])
def test_the_variance_is_right_on_average(by_seed, by_image, rest):
    "With three seeds, too, where images decide most: of the part of the images nothing is lost."
    dice, S, n = np.random.default_rng(2), 3, 60
    found = [
        paired(
            by_seed * dice.normal(size=(S, 1)) + by_image * dice.normal(size=(1, n)) + rest * dice.normal(size=(S, n)),
            0,
        ).error
        ** 2
        for _ in range(4000)
    ]
    assert np.mean(found) == pytest.approx(by_seed**2 / S + by_image**2 / n + rest**2 / (S * n), rel=0.07)


def test_a_bound_is_rounded_up():
    for error in np.random.default_rng(0).uniform(0, 1, 200) ** 4 + 1e-6:
        d = Difference(0.0, error, 9)
        said = float(d.verdict.removeprefix("no difference larger than "))
        assert d.reach * (1 - 1e-9) <= said <= d.reach * 1.1


def test_a_difference_is_seen():
    dice = np.random.default_rng(1)
    common = dice.normal(size=(5, 200)) + dice.normal(size=(1, 200))  # pairs: the same seeds and images
    a, b = common + 0.01 * dice.normal(size=(5, 200)), common + 0.02
    assert paired(a, b).verdict == "better" and paired(b, a).verdict == "worse"
    assert paired(a[0], b[0]).n == 200 and paired(a, b).n == 5


@pytest.mark.parametrize("change", [{"schedule": "linear"}, {"T": 100}])
def test_other_noise_levels_do_not_race(tmp_path, change):
    "At equal t the same denoiser errs less where there is more noise: it would be better than itself."
    data = load_digits("train", 8), load_digits("test", 8)
    with pytest.raises(ValueError, match="theirs and mine have other noise levels.* --bpd.* --fid"):
        race(tmp_path, {"mine": {}, "theirs": change}, BASE, data)
    assert not list(tmp_path.iterdir())


def test_a_race_goes_on_where_it_was_stopped(tmp_path, monkeypatch):
    train, test = load_digits("train", 8), load_digits("test", 8)
    monkeypatch.setattr(lab, "versions", lambda: {"torch": "old"})
    first = race(tmp_path / "a", {"one": {}}, BASE, (train, test), seeds=(0,))
    monkeypatch.setattr(lab, "versions", lambda: {"torch": "new"})
    both = race(tmp_path / "a", {"one": {}, "two": {"lr": 1e-3}}, BASE, (train, test), seeds=(0, 1))
    whole = race(tmp_path / "b", {"one": {}, "two": {"lr": 1e-3}}, BASE, (train, test), seeds=(0, 1))
    assert both["one"].shape == (2, 500) and np.array_equal(both["one"][:1], first["one"])
    assert all(np.array_equal(both[name], whole[name]) for name in whole)
    assert not np.array_equal(both["one"], both["two"])
    kept = json.loads((tmp_path / "a/lab.json").read_text())
    assert set(kept) == {"plans", "losses", "what", "made"} and len(kept["losses"]) == 4
    assert [kept["made"][f"one/{seed}"]["torch"] for seed in (0, 1)] == ["old", "new"]  # each as it was made
    for other in ({"base": override(BASE, batch=4)}, {"passes": 24}):
        args = {"base": BASE, **other}
        with pytest.raises(ValueError, match="holds another race"):
            race(tmp_path / "a", {"one": {}}, args.pop("base"), (train, test), seeds=(0,), **args)


def test_equal_passes(tmp_path):
    data = load_digits("train", 8), load_digits("test", 8)
    variants = {"small": {"batch": 4}, "large": {"batch": 8}}
    race(tmp_path, variants, BASE, data, seeds=(0,), passes=32)
    steps = [json.loads((tmp_path / n / "0/config.json").read_text())["training"]["steps"] for n in variants]
    assert steps == [8, 4]


def test_distances_are_seen_by_fitting_eyes(tmp_path, monkeypatch):
    "The judge of digits looks at digits only: colour runs once got a distance of 1.60 from it."
    data = [ImageSet.of(np.zeros((k, 8, 8, 3), np.uint8)) for k in (20, 9)]
    race(tmp_path, {"one": {}}, override(BASE, image_channels=3, classes=(), steps=1), data, seeds=(0,))
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    with pytest.raises(ValueError, match="FID needs torch-fidelity"):
        distances(tmp_path, ["one"], (0,), data[0], 9)
