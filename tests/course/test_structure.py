"""What holds the course together: who leans on whom, what notebooks make, what a registry holds.

A module that a notebook makes says so in its first lines; the others are edited as Python.
"""

import ast
import graphlib
import re
import shutil
import subprocess
import sys
from collections import Counter

import pytest
from IPython.core.inputtransformer2 import TransformerManager

from arrows import arrows, modules
from helpers import (
    NOTEBOOKS,
    PACKAGE,
    ROOT,
    cells,
    default_exp,
    each,
    environment,
    number,
    read,
    script,
)

ROOMS = ["base", "data", "top", "run", "judge", "share", "cli"]  # each sees those before it; lesson/ sees all
PAPER = (
    "attention bits bound config criteria draws editing embeddings exact film flow forward heldout hybrid "
    "losses model samplers sampling schedules simple steps unet"
).split()
LOOK_AHEAD = {"00_start", "13_runs", "13_runs_solution"}  # open with what the whole package can do
LOOK_AHEAD |= {"10_first_digits", "10_first_digits_solution", "12_sampling", "13a_blank_page"}  # with 15's judge


# -- arrows -----------------------------------------------------------------------------------------------------------


def room(module: str) -> str:
    "The room of a module; `draws`, though of the paper, leans on nothing and stands below all."
    return "base" if module == "draws" else module.rpartition(".")[0] or "top"


def sees(one: str, other: str) -> bool:
    "Whether a module of the first room may lean on one of the second."
    if one.startswith("lesson"):  # the course's part: only notebooks and tests import it
        return other != "lesson.checks" or one == other
    if other.startswith("lesson"):
        return False
    return ROOMS.index(other) <= ROOMS.index(one)


def faults(sources: dict[str, str]) -> set[str]:
    "Arrows that lead up, and one circle, among modules given as name: source."
    graph = {name: arrows(source, name, sources) - {name} for name, source in sources.items()}
    found = {f"{a} leans on {b}" for a, below in graph.items() for b in below if not sees(room(a), room(b))}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        found.add("a circle: " + ", ".join(sorted(set(error.args[1]))))
    return found


def test_no_arrow_leads_up_or_round():
    assert not faults({name: read(path) for name, path in modules().items()})


@pytest.mark.parametrize(
    "module, source",
    [
        ("data.sets", "def f():\n    from ddpm_course.model import Model"),
        ("model", "from .run.training import fit"),
        ("run.training", "from ddpm_course.lesson import tools"),
        ("model", "ENTRIES = {'fit': 'ddpm_course.run.training:fit'}"),
        ("base.a", "from .b import x"),
    ],
)
def test_a_bad_arrow_is_found(module, source):
    good = {"base.a": "import a.b", "base.b": "from . import a", "data.sets": "from ..base.a import x", "model": ""}
    good |= {
        "lesson.checks.check_data": "from ..tools import x",
        "run.training": "from .. import model",
        "lesson.tools": "from ..run.training import fit",
    }
    assert not faults(good)
    assert faults(good | {module: source})


def test_file_names_are_used_once():
    found = Counter(path.name for path in PACKAGE.rglob("*.py"))
    assert [name for name, times in found.items() if times > 1] == ["__init__.py"]


def test_the_top_is_the_paper():
    found = sorted(path.stem for path in PACKAGE.glob("*.py") if not path.stem.startswith("_"))
    assert found == PAPER


# -- registries -------------------------------------------------------------------------------------------------------

ENTRIES = """
import importlib, os, pkgutil, sys
import torchvision, matplotlib.pyplot           # what the forks would all import, and nothing of the package
for words in sys.argv[1:]:
    if os.fork() == 0:
        module, name = words.split(':')
        registry = getattr(importlib.import_module(module), name)
        alone = list(registry)
        for found in pkgutil.walk_packages([module.split('.')[0]], module.split('.')[0] + '.'):
            if not found.name.endswith('__main__'):
                importlib.import_module(found.name)
        print(words, *sorted(set(registry) ^ set(alone)), sep=' + ', flush=True)
        os._exit(0)
    os.wait()
"""


def registries() -> list[str]:
    "The dictionaries in capitals at the top of the modules, `ddpm_course.losses:OBJECTIVES`."
    found = []
    for name, path in modules().items():
        for node in ast.parse(read(path)).body:
            target = node.target if isinstance(node, ast.AnnAssign) else getattr(node, "targets", [None])[0]
            if isinstance(target, ast.Name) and re.match("[A-Z]+$", target.id) and isinstance(node.value, ast.Dict):
                found.append(f"ddpm_course.{name}:{target.id}")
    return found


def test_no_import_adds_an_entry():
    "Whoever imports a registry sees what somebody sees who has imported everything."
    command = [sys.executable, "-c", ENTRIES, *registries()]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == registries() and len(registries()) > 8


# -- notebooks and modules --------------------------------------------------------------------------------------------


def test_notebooks_and_modules_belong_together():
    made = sorted(name for path in NOTEBOOKS for name in default_exp(path))
    assert made == sorted(name for name, path in modules().items() if "AUTOGENERATED" in read(path))


@each([path for path in NOTEBOOKS if path.name != "index.ipynb" and path.stem not in LOOK_AHEAD])
def test_notebook_leans_on_earlier_ones(path):
    "Of modules that notebooks make: on lessons before it with their deep dives, and on those of its own lesson."
    order = {module: number(chapter)[:2] for chapter in NOTEBOOKS for module in default_exp(chapter)}
    own = (default_exp(path) or [""])[0]
    used = set().union(*(arrows(TransformerManager().transform_cell(source), own) for source in cells(path)))
    used -= {"lesson.mine", "judge.lab"}  # checks of the reader's own file, and verdicts, stand in early lessons, too
    late = sorted(module for module in used if order.get(module, "") > number(path)[:2])
    assert not late, f"{path.name} uses {late} of later chapters"


# -- in sync ----------------------------------------------------------------------------------------------------------


def test_export_is_in_sync(tmp_path):
    "nbdev_export changes no module."
    for name in ("settings.ini", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    for name in ("nbs", "ddpm_course"):
        skip = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints", "assets", "runs")
        shutil.copytree(ROOT / name, tmp_path / name, ignore=skip)
    for path in (tmp_path / "ddpm_course").rglob("*.py"):
        if "AUTOGENERATED" in read(path):
            path.unlink()
    subprocess.run([script("nbdev_export")], cwd=tmp_path, check=True)
    made, here = ({p.relative_to(f): read(p) for p in f.rglob("*.py")} for f in (tmp_path / "ddpm_course", PACKAGE))
    differ = sorted(str(path) for path in made | here if made.get(path) != here.get(path))
    assert not differ, f"{differ} differ from their notebooks: run nbdev_export"


def test_readme_is_in_sync():
    done = subprocess.run([sys.executable, ROOT / "tools/readme.py", "--check"], capture_output=True, text=True)
    assert done.returncode == 0, f"README.md does not follow from nbs/index.ipynb:\n{done.stderr}"


def test_imports_are_light():
    "What `ddpm --help` needs: no PyTorch, no matplotlib."
    program = "import sys, ddpm_course.cli.main; print({'torch', 'matplotlib', 'numpy'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
