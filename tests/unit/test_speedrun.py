"A speedrun: each seed draws other digits, what goes wrong shows where, and what counts is told."

import importlib.util

import pytest

from helpers import ROOT

spec = importlib.util.spec_from_file_location("race", ROOT / "examples/speedrun/race.py")
race = importlib.util.module_from_spec(spec)
spec.loader.exec_module(race)


def run(tmp_path, body, seeds=(0,)):
    (tmp_path / "a.py").write_text(
        f"import torch\ndef train():\n    {body}\ndef sample(net, y):\n    return torch.randn(len(y), 1, 16, 16)\n"
    )
    return list(race.laps(tmp_path / "a.py", seeds, n=100))


def test_each_seed_draws_other_digits(tmp_path, monkeypatch):
    "Also where the file sets a seed; and no file of the current folder is run."
    (tmp_path / "random.py").write_text("raise SystemExit('a file of the current folder was run')")
    monkeypatch.chdir(tmp_path)
    found = run(tmp_path, "torch.manual_seed(0)", (0, 1, 2))
    assert len({lap.digest for lap in found}) == 3 and found[0].distance > 50
    assert race.verdict(found).startswith("not certified: seed 0 reached")


@pytest.mark.parametrize(
    "body, code, shown",
    [("raise ValueError('no')", 1, ['a.py", line 3, in train', "ValueError: no"]), ("raise SystemExit(0)", 0, [])],
)
def test_a_file_that_fails_shows_where(tmp_path, capfd, body, code, shown):
    with pytest.raises(ValueError, match=f"a.py ended with code {code} before a lap was complete"):
        run(tmp_path, body)
    err = capfd.readouterr().err
    assert all(words in err for words in shown), err


def test_verdicts():
    good = [race.Lap(k, 60.0 + k, 50.0, 1.2, 0.99, 0.9, f"{k}") for k in range(3)]
    change = lambda **new: [*good[:2], race.Lap(**{**vars(good[2]), **new})]
    assert race.verdict(good) == "certified: 62.0 s"
    assert race.verdict(change(asked=0.94)) == "not certified: of seed 2 0.940 are as asked, not 0.95"
    assert race.verdict(change(distance=1.51)) == "not certified: seed 2 reached 1.51, more than 1.5"
    assert race.verdict(change(nearest=0.3)) == "not certified: the digits of seed 2 are copies"
    for found in (good[:2], change(digest="1")):
        assert race.verdict(found) == "not certified: three seeds with different digits are asked for"
