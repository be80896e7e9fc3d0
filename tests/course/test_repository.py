"What stands around the package: style and types, the workflow, the versions, the pages for those who carry on."

import json
import re
import shlex
import subprocess
import sys

import yaml

import ddpm_course
from floors import floors
from helpers import ROOT, read


def test_ruff_finds_nothing():
    "As pyproject.toml, nbs/ruff.toml and ddpm_course/ruff.toml say."
    for words in ("check --output-format concise", "format --check tests tools"):
        command = [sys.executable, "-m", "ruff", *words.split()]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def setting(name):
    return re.search(rf"^{name} = (.*)$", read(ROOT / "settings.ini"), re.M)[1]


def shell_lines(markdown):
    blocks = re.findall(r"^```sh\n(.*?)^```", markdown, re.M | re.S)
    return [line for line in "\n".join(blocks).splitlines() if line.strip()]


def test_workflow_runs_the_readmes_lines():
    lines = shell_lines(read(ROOT / "README.md"))
    jobs = yaml.safe_load(read(ROOT / ".github/workflows/tests.yml"))["jobs"]
    runs = {name: [step["run"] for step in job["steps"] if "run" in step] for name, job in jobs.items()}
    assert next(line for line in lines if "pytest" in line) in runs["tests"] and lines[0] in runs["train"]
    assert ".venv/bin/mypy" in runs["lint"] and ".venv/bin/python -m pytest -m ''" in runs["everything"]


def test_every_requirement_has_a_floor():
    required = setting("requirements")
    assert [line.replace("==", ">=") for line in floors(required)] == required.split()


def test_licences_of_the_site_name_what_is_installed():
    listed = dict(re.findall(r"([\w-]+) (\d+\.\d+\.\d+)", read(ROOT / "site/pages/licences.md")))
    node = json.loads(read(ROOT / "site/package.json"))
    fixed = dict(re.findall(r"(\S+)==(\S+)", setting("site_requirements")))
    node = {
        name.lower(): version for kind in ("dependencies", "devDependencies") for name, version in node[kind].items()
    }
    assert {name.lower(): version for name, version in listed.items()} == fixed | node


def test_one_version():
    version = ddpm_course.__version__
    assert re.search(r"^version: (\S+)$", read(ROOT / "CITATION.cff"), re.M)[1] == setting("version") == version
    assert f"\n## {version}" in read(ROOT / "CHANGELOG.md")


def test_contributing_names_what_exists():
    text = read(ROOT / "CONTRIBUTING.md")
    for word in re.findall(r"`(python [^`\n]+)`", text):
        path = shlex.split(word)[1]
        assert path == "-m" or (ROOT / path).exists(), word
    assert all((ROOT / name).exists() for name in re.findall(r"tools/\w+\.py", read(ROOT / ".pre-commit-config.yaml")))
