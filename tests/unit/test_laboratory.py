"The laboratory: its quantiles, its errors against many seeds, races that find nothing where nothing is, and go on."

import json
import sys

import numpy as np
import pytest
from scipy import stats

from ddpm_course import load_digits, override
from ddpm_course.base.intervals import interval, share, student, wilson
from ddpm_course.config import PRESETS
from ddpm_course.data.sets import ImageSet
from ddpm_course.judge import lab
from ddpm_course.judge.lab import Difference, distances, paired, race

BASE = override(
    PRESETS["mnist16"], size=8, channels=8, multipliers=(1, 2), classes=tuple("0123456789"), batch=8, warmup=2, steps=6,
    precision="fp32", save_every=6, keep=1,
)  # fmt: skip


def test_quantiles_are_students():
    for freedom in (1, 2, 3, 4, 7, 20, 500):
        assert student(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=2e-3)
    assert student(0) == np.inf and Difference(1.0, 0.1, 1).verdict == "no difference larger than inf"
    assert interval(0.12345, 0.01, 10) == "0.1235 ± 0.0226" and interval(0.5, np.nan, 1, 1) == "0.5"
    assert wilson(3, 10) == pytest.approx(stats.binomtest(3, 10).proportion_ci(method="wilson"), rel=1e-4)
    assert share(3, 10) == "30 (11 to 60)" and share(0, 20) == "0 (0 to 16)"
    assert paired(np.ones((1, 1)), 0).verdict == "no difference larger than inf"  # and no warning


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
