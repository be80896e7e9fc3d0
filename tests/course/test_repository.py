"What stands around the package: the workflow of the tests, the versions, the pages for those who carry on."

import json
import re
import shlex
import shutil
import subprocess
import sys

import pytest

import ddpm_course
from helpers import NOTEBOOKS, ROOT, read, script

WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))


def runs(text):
    "The command lines of a workflow."
    return re.findall(r"^ +- run: (.*)$", text, re.M)


def shell_lines(markdown):
    blocks = re.findall(r"^```sh\n(.*?)^```", markdown, re.M | re.S)
    return [line for line in "\n".join(blocks).splitlines() if line.strip()]


def schema_errors(path):
    "What GitHub's own schema of workflows says of a file."
    command = [script("check-jsonschema"), "--builtin-schema", "vendor.github-workflows", str(path)]
    done = subprocess.run(command, capture_output=True, text=True)
    return "" if done.returncode == 0 else done.stdout + done.stderr


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda p: p.name)
def test_workflow_is_valid(path):
    assert not schema_errors(path)


def test_workflow_can_be_invalid(tmp_path):
    bad = tmp_path / "bad.yml"
    bad.write_text(read(WORKFLOWS[0]).replace("runs-on", "runs-at"))
    assert "runs-at" in schema_errors(bad) or "runs-on" in schema_errors(bad)


def test_workflow_runs_the_readmes_lines():
    lines = shell_lines(read(ROOT / "README.md"))
    trains, tests = lines[0], next(line for line in lines if "pytest" in line)
    here = runs(read(WORKFLOWS[0]))
    assert trains in here and tests in here


def test_floors_are_those_of_settings():
    floors = subprocess.run(
        [sys.executable, ROOT / "tools/floors.py"], capture_output=True, text=True, check=True
    ).stdout
    required = re.search(r"^requirements = (.*)$", read(ROOT / "settings.ini"), re.M)[1].split()
    assert [line.replace("==", ">=") for line in floors.splitlines()] == required


def test_clean_leaves_the_notebooks_as_they_are(tmp_path):
    for name in ("settings.ini", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "nbs", tmp_path / "nbs", ignore=shutil.ignore_patterns(".ipynb_checkpoints", "runs"))
    (tmp_path / "ddpm_course").mkdir()
    subprocess.run([script("nbdev_clean")], cwd=tmp_path, check=True)
    changed = [p.name for p in NOTEBOOKS if read(p) != read(tmp_path / p.relative_to(ROOT))]
    assert not changed, f"nbdev_clean changes {changed}: run tools/execute.py, or nbdev_clean"


def test_one_version():
    version = ddpm_course.__version__
    assert re.search(r"^version: (\S+)$", read(ROOT / "CITATION.cff"), re.M)[1] == version
    assert re.search(r"^version = (\S+)$", read(ROOT / "settings.ini"), re.M)[1] == version
    assert f"\n## {version}" in read(ROOT / "CHANGELOG.md")


def test_contributing_names_what_exists():
    text = read(ROOT / "CONTRIBUTING.md")
    assert shell_lines(text)[0].endswith("pip install -e '.[dev]'")
    for word in {word for word in re.findall(r"`([^`\n]+)`", text) if word.startswith("python ")}:
        path = shlex.split(word)[1]
        assert path == "-m" or (ROOT / path).exists(), word
    assert {"nbdev_export", "nbdev_clean"} <= set(re.findall(r"nbdev_\w+", text))
    assert json.loads(read(ROOT / ".devcontainer/devcontainer.json"))["postCreateCommand"].endswith("'.[course,dev]'")
    assert all((ROOT / name).exists() for name in re.findall(r"tools/\w+\.py", read(ROOT / ".pre-commit-config.yaml")))
