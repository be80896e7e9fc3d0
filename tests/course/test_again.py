"tools/again.py on tests whose colour is known."

import subprocess
import sys

import pytest

from helpers import ROOT

pytestmark = pytest.mark.thorough

TESTS = """
from pathlib import Path
def test_red(): assert 1 == 2, "as it must"
def test_every_other_time():
    count = Path(__file__).with_name("count")
    count.write_text(count.read_text() + "." if count.exists() else ".")
    assert len(count.read_text()) % 2
def test_green(): pass
"""
LEANS = "seen = []\ndef test_a(): seen.append(1)\ndef test_b(): assert seen, 'without a'\n"


def again(folder, tests, *words):
    "Its code and the lines that it prints, on one file of tests."
    (folder / "test_it.py").write_text(tests)
    (folder / "pytest.ini").write_text("[pytest]\naddopts = -p no:randomly\n")
    command = [sys.executable, ROOT / "tools/again.py", *words, "--", "-c", folder / "pytest.ini", folder]
    done = subprocess.run(command, capture_output=True, text=True)
    assert not done.stderr, done.stderr
    return done.returncode, done.stdout.splitlines()


def test_the_table_says_what_was_red_how_often_and_why(tmp_path):
    code, lines = again(tmp_path, TESTS, "--alone", "2", "--busy", "1", "--one-core", "1")
    assert code == 1 and "4 runs" in lines
    assert [line.split(":")[0] for line in lines[:4]] == [
        "alone",
        "alone, random order 1",
        "busy, random order 2",
        "one core",
    ]
    rows = {tuple(line.split(" | ")[:3]): line.split(" | ")[3] for line in lines if "test_it.py" in line}
    assert set(rows) == {
        ("test_it.py::test_red", "alone", "2 of 2"),
        ("test_it.py::test_red", "busy", "1 of 1"),
        ("test_it.py::test_red", "one core", "1 of 1"),
        ("test_it.py::test_every_other_time", "alone", "1 of 2"),
        ("test_it.py::test_every_other_time", "one core", "1 of 1"),
    }
    assert all("as it must" in why for row, why in rows.items() if row[0].endswith("test_red"))


def test_green_is_green_and_what_is_no_test_is_red(tmp_path):
    one = ("--alone", "1", "--busy", "0", "--one-core", "0")
    code, lines = again(tmp_path, "def test_green(): pass", *one)
    assert code == 0 and lines[-1] == "1 runs: all green"
    code, lines = again(tmp_path, "import os; os._exit(3)", *one)
    assert code == 1 and lines[-1] == "(no report) | alone | 1 of 1 | ended with code 3"
    code, lines = again(tmp_path, "", *one)
    assert code == 1 and lines[-1].startswith("(no test) | alone | 1 of 1 | ended with code 5")


def test_a_random_order_shows_who_leans_on_another(tmp_path):
    few = ("--alone", "4", "--busy", "0", "--one-core", "0")
    assert again(tmp_path, LEANS, *few)[0] == 0
    code, lines = again(tmp_path, LEANS, *few, "--order", "random")
    assert code == 1 and lines[-1].startswith("test_it.py::test_b | alone | ") and "without a" in lines[-1]
