"Page 24d's judge: it names each of ten mistakes by its own symptom, and passes right scripts in any style."

import re
import shutil
from dataclasses import replace

import pytest
import torch

from ddpm_course.lesson.answers import Sentence
from ddpm_course.lesson.checks.check_workshop import check, script_says
from ddpm_course.lesson.trial import Seen
from ddpm_course.lesson.workshop import MISTAKES, RIGHT, broken, write
from helpers import ROOT

SAYS = [  # of each broken script
    "one process and two agree in the first step, and differ later",
    "one process and two agree, and three differ",
    "after SIGKILL the first loss is off",
    "after SIGKILL the first loss is right, and the next ones are off",
    "after the stops the average is off",
    "a run that has finished goes on for 2 more steps, and trains 3",
    "SIGTERM came in step",
    "a save fails half-way",
    r"hangs: 15 seconds after SIGTERM .* process 0: line \d+, `\(loss.* process 1: line \d+, `dist.barrier",
    r"hangs: two processes have printed 10 losses.* process 0: line \d+, `dist.barrier.* process 1: line \d+, `\(loss",
]
STYLES = sorted((ROOT / "tests/course/workshop").glob("*.py"))


def judged(path) -> Sentence:
    def script():
        return path

    return check.verdict(script)


def test_ten_scripts_are_broken_in_one_or_two_lines(tmp_path):
    assert len(MISTAKES) == len(SAYS) == len({broken(k) for k in range(1, 11)} - {RIGHT}) == 10
    path = write(1, tmp_path)
    path.write_text("mine")
    assert write(1, tmp_path).read_text() == "mine"  # what a reader has repaired stays


@pytest.mark.parametrize(
    "number",
    [pytest.param(k, marks=pytest.mark.thorough if k == 8 else pytest.mark.nightly) for k in range(1, 11)],
)
def test_a_mistake_is_named_by_its_symptom(number, tmp_path):
    said = judged(write(number, tmp_path))
    assert said.kind == "hint"
    assert re.search(SAYS[number - 1], said.words)


@pytest.mark.nightly
@pytest.mark.parametrize("style", [None, *STYLES], ids=lambda path: path.stem if path else "right")
def test_right_scripts_pass(style, tmp_path):
    path = tmp_path / "ddp.py"
    path.write_text(style.read_text() if style else RIGHT)
    shutil.copy(ROOT / "nbs/solutions/first_digits.py", tmp_path / "mine.py")
    said = judged(path)
    assert said.kind == "right", said.words


def losses(start, end):
    return [1 / (2 + k) for k in range(start, end)]


WEIGHTS = {"network": {"w": torch.ones(2)}, "average": {"w": torch.zeros(2)}}
HEALTHY = Seen(
    two=losses(0, 13), again=losses(10, 14), code=143, one=losses(0, 17), three=losses(14, 17), full=losses(17, 19),
    files={"one": WEIGHTS, "three": WEIGHTS},
)  # fmt: skip


@pytest.mark.parametrize(
    "seen, words",
    [
        ({"code": 0}, "code 0, and not 143"),
        ({"code": -15}, "code -15, and not 143"),
        ({"again": losses(0, 4)}, "began again with step 1"),
        ({"full": losses(16, 19)}, SAYS[5]),
        ({"three": losses(10, 17)}, SAYS[6]),
        ({"two": losses(1, 14)}, "two processes differ from one in the first step"),
        ({"two": losses(0, 12) + [0.5]}, SAYS[0]),
        ({"again": losses(11, 15)}, SAYS[2]),
        ({"again": losses(10, 13) + [0.5]}, SAYS[3]),
        ({"three": losses(14, 16) + [0.5]}, SAYS[1]),
        ({"whole": False}, SAYS[7]),
    ],
)
def test_what_is_said_of_what_was_seen(seen, words):
    script_says(HEALTHY)
    with pytest.raises(AssertionError, match=words):
        script_says(replace(HEALTHY, **seen))
