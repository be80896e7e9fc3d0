"Style and types, as pyproject.toml, nbs/ruff.toml and ddpm_course/ruff.toml say; notebooks are linted as well."

import json
import subprocess
import sys

import pytest

from helpers import GUARD, ROOT

RUFF = [sys.executable, "-m", "ruff"]
MYPY = [sys.executable, "-m", "mypy"]


def findings(command, folder):
    "What a tool says, and whether it found anything."
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=GUARD)
    assert done.returncode in (0, 1), done.stdout + done.stderr  # 2 is a tool that did not understand
    return done.returncode == 1, done.stdout + done.stderr


@pytest.mark.parametrize("folder", ["ddpm_course", "nbs", "tests", "tools", "setup.py"])
def test_ruff_finds_nothing(folder):
    found, said = findings([*RUFF, "check", "--output-format", "concise", folder], ROOT)
    assert not found, said


def test_tests_and_tools_are_formatted():
    found, said = findings([*RUFF, "format", "--check", "tests", "tools"], ROOT)
    assert not found, said


def test_mypy_finds_nothing():
    found, said = findings(MYPY, ROOT)
    assert not found, said


def notebook(source):
    cell = {"cell_type": "code", "id": "a", "metadata": {}, "outputs": [], "execution_count": None, "source": source}
    return json.dumps({"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5})


@pytest.mark.parametrize(
    "name, good, bad",
    [
        ("ddpm_course/a.py", "import math\n\nprint(math)\n", "import math\n"),
        ("tools/a.py", "x = 1" + 110 * " " + "# 1\n", "x = 1" + 120 * " " + "# 1\n"),
        ("nbs/00_a.ipynb", notebook("x = 1" + 90 * "0"), notebook("x = 1" + 100 * "0")),
        ("tests/a.py", "import helpers\n\nprint(helpers)\n", "import re\n"),
    ],
)
def test_ruff_can_find(tmp_path, name, good, bad):
    "With our configuration, which each folder has from its own file or from the one above."
    for config in ("pyproject.toml", "nbs/ruff.toml", "ddpm_course/ruff.toml"):
        (tmp_path / config).parent.mkdir(exist_ok=True)
        (tmp_path / config).write_text((ROOT / config).read_text())
    (tmp_path / name).parent.mkdir(exist_ok=True)
    for text, wrong in ((good, False), (bad, True)):
        (tmp_path / name).write_text(text)
        found, said = findings([*RUFF, "check", name], tmp_path)
        assert found == wrong, said


def test_mypy_can_find(tmp_path):
    (tmp_path / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())
    package = tmp_path / "ddpm_course"
    package.mkdir()
    (package / "__init__.py").write_text("def f(x: int = None): return x + 1\n")
    found, said = findings(MYPY, tmp_path)
    assert found and 'Incompatible default for parameter "x"' in said, said
