"A speedrun: what a file may not read is refused, also where it hides its try; seeds are three; what counts is told."

import pytest

from ddpm_course.judge.speedrun import Lap, laps, verdict

HEAD = "import torch\nimport numpy as np\nfrom ddpm_course.data.sets import ASSETS, load_digits\n"
DRAW = "\ndef sample(net, y):\n    return torch.randn(len(y), 1, 16, 16)\n"


def run(tmp_path, body, seeds=(0,)):
    (tmp_path / "a.py").write_text(f"{HEAD}def train():\n    {body}\n{DRAW}")
    return list(laps(tmp_path / "a.py", seeds, n=100))


@pytest.mark.parametrize(
    "body, what",
    [
        ("load_digits('test', 16)", "the test digits"),
        ("np.load(ASSETS / 'mnist5k.npz')['images']", "digits past the package"),
        ("__import__('ddpm_course').load_model()", "weights that ship"),
        ("__import__('ddpm_course.judge.evaluation', fromlist=['x']).load_judge()", "weights that ship"),
        ("open(ASSETS / 'judge.safetensors', 'rb').read()", "weights that ship"),
        ("__import__('safetensors').safe_open(str(ASSETS / 'judge.safetensors'), 'pt')", "weights that ship"),
    ],
)
def test_what_ships_is_refused(tmp_path, body, what):
    hidden = f"try:\n        {body}\n    except ValueError: pass"
    with pytest.raises(ValueError, match=f"begins with nothing: it may not read {what}"):
        run(tmp_path, hidden if "digits" in what else body)


def test_training_digits_are_allowed_and_each_seed_is_another(tmp_path):
    found = run(tmp_path, "torch.manual_seed(0)\n    assert len(load_digits('train', 16)) == 4500", (0, 1, 2))
    assert found[0].digest != found[1].digest and found[0].distance > 50
    assert verdict(found).startswith("not certified: seed 0 reached")


@pytest.mark.parametrize(
    "body, sentence", [("__import__('os')._exit(3)", "ended with an error"), ("raise ValueError('no')", "^no$")]
)
def test_a_failure_is_one_sentence(tmp_path, body, sentence):
    with pytest.raises(ValueError, match=sentence):
        run(tmp_path, body)


def test_verdicts():
    good = [Lap(k, 60.0 + k, 50.0, 1.2, 0.99, 0.9, f"{k}") for k in range(3)]
    change = lambda **new: [*good[:2], Lap(**{**vars(good[2]), **new})]
    assert verdict(good) == "certified: 62.0 s"
    assert verdict(good[:2]) == "not certified: three seeds are asked for"
    assert verdict(change(asked=0.94)) == "not certified: of seed 2 0.940 are as asked, not 0.95"
    assert verdict(change(distance=1.51)) == "not certified: seed 2 reached 1.51, more than 1.5"
    assert verdict(change(nearest=0.3)) == "not certified: the digits of seed 2 are copies"
    assert verdict(change(digest="1")) == "not certified: two seeds drew the same digits"
