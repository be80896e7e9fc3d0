"The package as a wheel, away from the checkout."

import os
import re
import shlex
import shutil
import subprocess
import sys

import pytest

from ddpm_course.cli.main import COMMANDS, make_parser
from ddpm_course.config import PRESETS, differences, from_json
from helpers import ROOT


def pip(*words):
    subprocess.run(
        [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *map(str, words)], check=True
    )


def test_wheel_samples_outside_the_checkout(tmp_path):
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    for name in tracked:  # a clean copy: build/ in the checkout could hide a missing file
        (tmp_path / "source" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / "source" / name)
    pip("wheel", tmp_path / "source", "--no-deps", "--no-build-isolation", "--wheel-dir", tmp_path)
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.stat().st_size < 4_500_000, "digits (1 MB), faces (0.4), two models (1.3 MB each), and little else"
    pip("install", "--no-deps", "--target", tmp_path / "site", wheel)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    where = subprocess.run(
        [sys.executable, "-c", "import ddpm_course; print(ddpm_course.__file__)"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert where.startswith(str(tmp_path / "site"))
    subprocess.run(
        [sys.executable, "-m", "ddpm_course", "sample", "--n", "1", "--steps", "5"],
        cwd=tmp_path,
        env=environment,
        check=True,
    )
    assert (tmp_path / "samples.png").exists()


@pytest.mark.parametrize("preset", ["mnist16", "faces16"])
def test_shipped_model_is_a_run_of_its_preset(preset):
    shipped = from_json((ROOT / "ddpm_course/assets" / preset / "config.json").read_text())
    assert set(differences(shipped, PRESETS[preset])) <= {
        "classes",
        "digest",
        "image_channels",
        "precision",
        "threads",
    }


def shell_lines(markdown):
    "The commands of a page's shell blocks, without comments; a line that ends with a backslash goes on."
    blocks = re.findall(r"^```sh\n(.*?)^```", markdown, re.M | re.S)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [" ".join(shlex.split(line, comments=True)) for line in lines if line.strip()]


def test_readme_holds_the_line_that_is_run():
    "The README's one line for tests is the one that .ci/run runs, there with the second tier."
    (line,) = [line for line in shell_lines((ROOT / "README.md").read_text()) if "pytest" in line]
    (run,) = [line for line in (ROOT / ".ci/run").read_text().splitlines() if "-m pytest" in line]
    assert " ".join(shlex.split(run)) == f"{line} -m not nightly"


def test_readme_begins_with_the_line_that_trains():
    first = shell_lines((ROOT / "README.md").read_text())[0]
    assert first == "python3 -m venv .venv && .venv/bin/pip install . && .venv/bin/ddpm train"


def test_readme_commands_are_understood():
    "Each `ddpm` line of README and docs/commands.md is one that the command line knows, and together they show all."
    parser, known = make_parser(*COMMANDS), []
    for line in shell_lines("".join((ROOT / name).read_text() for name in ("README.md", "docs/commands.md"))):
        for part in line.split(" && "):
            words = part.split()
            name = words[0].rpartition("/")[2]
            if name == "torchrun":
                name, words = "ddpm", words[words.index("ddpm_course") :]
            if name == "ddpm":
                known.append(parser.parse_args(words[1:]).command)
    assert set(known) == set(COMMANDS) and known[0] == "train"
