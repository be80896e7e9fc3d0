"""What holds the course together: one notebook makes one module, modules lean on earlier ones only, both say the same.

Each check is a function that returns what is wrong, so that it runs on the course and, in the last test of this file,
on input that must fail: a check that cannot fail checks nothing.
"""

import ast
import json
import re
import shutil
import statistics
import subprocess
import sys
from contextlib import suppress
from functools import cache
from itertools import chain, pairwise
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

import pytest
from IPython.core.inputtransformer2 import TransformerManager
from pyflakes import checker, messages

from helpers import (
    CHAPTERS,
    NOTEBOOKS,
    PACKAGE,
    ROOT,
    cells,
    default_exp,
    directives,
    each,
    each_check,
    number,
    read,
    script,
)

MODULES = sorted(p for p in PACKAGE.glob("*.py") if p.stem not in {"__init__", "__main__", "_modidx"})
BY_HAND = [PACKAGE / "__init__.py", PACKAGE / "__main__.py", *ROOT.glob("tools/*.py"), *ROOT.glob("tests/**/*.py")]
LESSONS = [p for p in NOTEBOOKS if p.name != "index.ipynb"]  # chapters and their solutions
LOOKING_AHEAD = {"00_core.ipynb"}  # opens with digits that the model of later chapters draws
MODULE_LINES = 320
CORE_LINES = 260  # in the lessons up to LAST_OF_CORE, which everybody reads
LAST_OF_CORE = "12"
MODULE_COLUMNS = 120
CELL_COLUMNS = 100
FUNCTION_LINES = 40
PARAMETERS = 6
MAY_BE_WIDE = {"unet.UNet.__init__"}  # the network's settings; those of runs are dataclasses, which have no such limit
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
FLAWS = (
    messages.UndefinedName,
    messages.UndefinedLocal,
    messages.UndefinedExport,
    messages.UnusedImport,
    messages.ImportStarUsed,
    messages.ImportStarUsage,
)


# -- reading ----------------------------------------------------------------------------------------------------------


def exported(source: str) -> bool:
    return not directives(source).keys().isdisjoint({"export", "exports", "exporti"})


def parse(source: str) -> ast.Module:
    "The syntax tree of a module or of a code cell, magics and shell lines included."
    return ast.parse(TransformerManager().transform_cell(source))


# -- checks -----------------------------------------------------------------------------------------------------------


def flaws(source: str) -> list[str]:
    "undefined names or unused imports"
    found = checker.Checker(ast.parse(source)).messages
    return [f"line {m.lineno}: {m.message % m.message_args}" for m in found if isinstance(m, FLAWS)]


def star_imports(source: str) -> list[str]:
    "star imports"
    nodes = [n for n in ast.walk(parse(source)) if isinstance(n, ast.ImportFrom)]
    return [ast.unparse(n) for n in nodes if n.names[0].name == "*"]


def own_imports(source: str) -> set[str]:
    "Modules of the package that are imported anywhere in the source, absolute or relative."
    names = set()
    for node in ast.walk(parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parts = ["ddpm_course"] * bool(node.level) + [node.module] * bool(node.module)
            names |= {".".join([*parts, alias.name]) for alias in node.names}
    return {name.split(".")[1] for name in names if name.startswith("ddpm_course.")}


def lazy_imports(source: str) -> set[str]:
    "Names that are taken from the package itself, `from ddpm_course import name`, and are no modules."
    nodes = [n for n in ast.walk(parse(source)) if isinstance(n, ast.ImportFrom)]
    top = [n for n in nodes if n.module == "ddpm_course" or (n.level == 1 and not n.module)]
    names = {alias.name for node in top for alias in node.names}
    return {name for name in names if not name.startswith("__")} - {path.stem for path in MODULES}


def late_names(source: str, own: str, order: dict[str, str], homes: dict[str, str]) -> list[str]:
    "names of later chapters, taken from the package itself"
    return sorted(name for name in lazy_imports(source) if order.get(homes.get(name, ""), "") > own)


def late_imports(source: str, own: str, order: dict[str, str], lesson: bool = False) -> list[str]:
    "imports from later chapters"
    late = {module for module, place in order.items() if place > own or (place == own and not lesson)}
    return sorted(own_imports(source) & late)


def public(tree: ast.Module) -> set[str]:
    "The names in a module's `__all__`."
    assigned = [n for n in tree.body if isinstance(n, ast.Assign)]
    return {name for n in assigned if ast.unparse(n.targets) == "__all__" for name in ast.literal_eval(n.value)}


def undocumented(source: str) -> list[str]:
    "public functions without docstring or annotation"
    tree, found = ast.parse(source), []
    names = public(tree)
    for node in tree.body:
        if not isinstance(node, DEFINITIONS) or node.name not in names:
            continue
        if not ast.get_docstring(node):
            found.append(f"{node.name} has no docstring")
        if isinstance(node, ast.ClassDef):
            continue
        a = node.args
        found += [
            f"{node.name}({arg.arg}) has no annotation"
            for arg in (*a.posonlyargs, *a.args, a.vararg, *a.kwonlyargs, a.kwarg)
            if arg and not arg.annotation and arg.arg not in {"ax", "self", "cls"}
        ]
    return found


def defined(source: str) -> list[str]:
    "Functions and classes that a cell defines at its top."
    return [n.name for n in parse(source).body if isinstance(n, DEFINITIONS)]


def long_exports(sources: list[str]) -> list[str]:
    "exported cells of more than 40 lines"
    sizes = [
        (len([line for line in s.splitlines() if line.strip() and not line.startswith("#|")]), s)
        for s in sources
        if exported(s)
    ]
    return [f"{n} lines: {defined(s) or s[:60]}" for n, s in sizes if n > 40]


def undemonstrated(sources: list[str]) -> list[str]:
    "exported definitions with no lesson cell before the next one"
    return [
        f"{defined(a)} and {defined(b)}"
        for a, b in pairwise(sources)
        if all(exported(s) and defined(s) for s in (a, b))
    ]


def long_module(path: Path, chapter: str) -> list[str]:
    "more lines than its chapter may have"
    limit = CORE_LINES if re.fullmatch(r"\d\d", chapter) and chapter <= LAST_OF_CORE else MODULE_LINES
    lines = len(read(path).splitlines())
    return [f"{lines} lines, at most {limit}"] * (lines > limit)


def long_lines(source: str, columns: int) -> list[str]:
    "lines that are too long"
    return [f"{len(line)}: {line.strip()[:60]}" for line in source.splitlines() if len(line) > columns]


def long_cell_lines(sources: list[str]) -> list[str]:
    "lines of more than 100 columns"
    return [found for source in sources for found in long_lines(source, CELL_COLUMNS)]


def long_module_lines(source: str) -> list[str]:
    "lines of more than 120 columns, but for nbdev's list of names"
    lines = [line for line in source.splitlines() if not line.startswith("__all__")]
    return long_lines("\n".join(lines), MODULE_COLUMNS)


class Function(NamedTuple):
    name: str
    lines: int
    parameters: int


def functions(source: str, prefix: str = "") -> list[Function]:
    "All functions of a module, methods and inner ones too; self and cls are no parameters."
    found = []

    def visit(node: ast.AST, name: str) -> None:
        for child in ast.iter_child_nodes(node):
            inner = f"{name}.{child.name}" if isinstance(child, DEFINITIONS) else name
            if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
                a = child.args
                given = [arg.arg for arg in (*a.posonlyargs, *a.args, a.vararg, *a.kwonlyargs, a.kwarg) if arg]
                count = len(given) - (given[:1] in (["self"], ["cls"]))
                found.append(Function(inner, child.end_lineno - child.lineno + 1, count))
            visit(child, inner)

    visit(ast.parse(source), prefix)
    return found


def long_functions(source: str, prefix: str = "") -> list[str]:
    "functions of more than 40 lines"
    return [f"{f.name} has {f.lines}" for f in functions(source, prefix) if f.lines > FUNCTION_LINES]


def wide_functions(source: str, prefix: str = "") -> list[str]:
    "functions of more than six parameters"
    wide = [f for f in functions(source, prefix) if f.parameters > PARAMETERS and f.name not in MAY_BE_WIDE]
    return [f"{f.name} has {f.parameters}" for f in wide]


def parallel_assignments(source: str) -> list[str]:
    "parallel assignments of more than two names"
    pairs = [(n, t) for n in ast.walk(parse(source)) if isinstance(n, ast.Assign) for t in n.targets]
    return [
        ast.unparse(node)[:80]
        for node, target in pairs
        if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple) and len(target.elts) > 2
    ]


def parallel_in_exports(sources: list[str]) -> list[str]:
    "parallel assignments of more than two names in exported cells"
    return [found for s in sources if exported(s) for found in parallel_assignments(s)]


def names_used(source: str) -> set[str]:
    "Names and attributes that a cell reads, also in scripts that it holds as strings."
    found = set()
    for node in ast.walk(parse(source)):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            found.add(node.id)
        elif isinstance(node, ast.Attribute):
            found.add(node.attr)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and "\n" in node.value.strip():
            with suppress(SyntaxError):
                found |= names_used(node.value)
    return found


def unused_in_lesson(sources: list[str], names: set[str]) -> list[str]:
    "exported names that no lesson cell of the notebook uses"
    used = set().union(*(names_used(s) for s in sources if not exported(s)))
    return sorted(names - used)


def main_guards(sources: list[str]) -> list[str]:
    "exported cells with `if __name__`"
    return [s for s in sources if exported(s) and re.search(r"\bif\s+__name__", s)]


def differing(one: Path, other: Path) -> list[str]:
    "Python files that are not the same, byte for byte, in two folders."
    files = [{p.name: p.read_bytes() for p in folder.glob("*.py")} for folder in (one, other)]
    return sorted(name for name in files[0] | files[1] if files[0].get(name) != files[1].get(name))


PROBE = """
import builtins, dis, importlib, json, sys, types

def nested(code):
    for const in code.co_consts:
        if isinstance(const, types.CodeType):
            yield const
            yield from nested(const)

name = sys.argv[1]
module = importlib.import_module(name)
heavy = sorted({"torch", "matplotlib"} & sys.modules.keys())
known = {*vars(module), *vars(builtins), "__annotations__"}
leaked = []
for code in nested(module.__spec__.loader.get_code(name)):                      # functions, methods, class bodies
    steps = list(dis.get_instructions(code))
    local = {s.argval for s in steps if s.opname == "STORE_NAME"}
    loaded = {s.argval for s in steps if s.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    leaked += [f"{code.co_qualname}: {n}" for n in sorted(loaded - local - known)]
missing = [n for n in getattr(module, "__all__", []) if not hasattr(module, n)]
print(json.dumps({"module": name, "heavy": heavy, "leaked": leaked, "missing": missing}))
"""
PROBES = """
import os, sys
import matplotlib.pyplot, torch  # once; what the package imports is imported in each child anew

code = sys.stdin.read()
for name in sys.argv[1:]:
    if os.fork() == 0:
        sys.argv[1:] = [name]
        exec(code)
        sys.stdout.flush()
        os._exit(0)
    os.wait()
"""


@cache
def probe(root: Path, module: str) -> dict[str, list[str]]:
    "Import one module in a fresh process: heavy imports, names of `__all__` it lacks, globals its functions lack."
    run = subprocess.run([sys.executable, "-c", PROBE, module], cwd=root, capture_output=True, text=True)
    assert run.returncode == 0, f"{module} does not import on its own:\n{run.stderr}"
    return json.loads(run.stdout.splitlines()[-1])


@cache
def probes(root: Path, modules: tuple[str, ...]) -> tuple[dict[str, dict], str]:
    "The same for several modules, each in a child of a process that has only imported other people's packages."
    command = [sys.executable, "-c", PROBES, *modules]
    run = subprocess.run(command, cwd=root, input=PROBE, capture_output=True, text=True)
    return {found["module"]: found for found in map(json.loads, run.stdout.splitlines())}, run.stderr


def readme(root: Path, *args: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "tools/readme.py", *args], cwd=root, capture_output=True, text=True)


# -- the course -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def order() -> dict[str, str]:
    "Each module's chapter number."
    return {module: number(path) for path in CHAPTERS for module in default_exp(path)}


@pytest.fixture(scope="module")
def homes() -> dict[str, str]:
    "Each public name's module."
    return {name: path.stem for path in MODULES for name in public(ast.parse(read(path)))}


@each(MODULES + BY_HAND)
@each_check(flaws, star_imports)
def test_python_file(path, check):
    found = check(read(path))
    assert not found, f"{path.relative_to(ROOT)}: {check.__doc__}: {found}"


@each(MODULES)
def test_module_is_documented(path):
    found = undocumented(read(path))
    assert not found, f"{path.name}: {undocumented.__doc__}: {found}"


@each(MODULES)
def test_module_imports_earlier_chapters_only(path, order):
    found = late_imports(read(path), order.get(path.stem, ""), order)
    assert not found, f"{path.name}: {late_imports.__doc__}: {found}"


@each(MODULES)
def test_module_has_its_notebook(path):
    notebooks = [p.name for p in CHAPTERS if path.stem in default_exp(p)]
    assert len(notebooks) == 1, f"{path.name} is exported by {notebooks or 'no notebook'}, not by one chapter"


@each(NOTEBOOKS)
def test_notebook_has_its_module(path):
    names = default_exp(path)
    if path not in CHAPTERS:
        assert not names, f"{path.name} is no chapter and exports to {names}"
        return
    assert re.fullmatch(r"\d\d[a-z]?_\w+\.ipynb", path.name), f"{path.name} is not named NN_topic.ipynb"
    own = path.stem.removeprefix(number(path) + "_")
    assert names in ([], [own]), f"{path.name} exports to {names}, not to {own}"
    assert names or not any(map(exported, cells(path))), f"{path.name} exports cells and has no default_exp"
    assert all((PACKAGE / f"{name}.py").exists() for name in names), f"{path.name}: no ddpm_course/{names[0]}.py"


@each(NOTEBOOKS)
def test_notebook_has_no_star_import(path):
    found = list(chain(*map(star_imports, cells(path))))
    assert not found, f"{path.name}: {found}"


@each(MODULES)
def test_module_imports_from_modules(path):
    found = lazy_imports(read(path))
    assert not found, f"{path.name}: import these from their modules, not from the package: {sorted(found)}"


@each([p for p in LESSONS if p.name not in LOOKING_AHEAD])
def test_lesson_uses_no_later_name(path, order, homes):
    found = [name for s in cells(path) for name in late_names(s, number(path), order, homes)]
    assert not found, f"{path.name}: {late_names.__doc__}: {found}"


@each(LESSONS)
def test_lesson_imports_earlier_chapters_only(path, order):
    found = [name for s in cells(path) for name in late_imports(s, number(path), order, lesson=True)]
    assert not found, f"{path.name}: {late_imports.__doc__}: {found}"


@each(MODULES)
def test_module_is_short(path, order):
    found = long_module(path, order.get(path.stem, ""))
    assert not found, f"{path.name}: {long_module.__doc__}: {found}"


@each(MODULES)
@each_check(long_module_lines, long_functions, wide_functions)
def test_module_is_readable(path, check):
    found = check(read(path)) if check is long_module_lines else check(read(path), path.stem)
    assert not found, f"{path.name}: {check.__doc__}: {found}"


def test_largest_functions():
    "Shown by `pytest -rP` or `-s`."
    found = [f for path in MODULES for f in functions(read(path), path.stem)]
    print(f"{len(found)} functions, {statistics.median(f.lines for f in found):g} lines in the median")
    for what in ("lines", "parameters"):
        print(f"\nmost {what}:")
        for f in sorted(found, key=attrgetter(what), reverse=True)[:10]:
            print(f"{getattr(f, what):4}  {f.name}")
    assert found


@each(LESSONS)
def test_lines_of_cells(path):
    found = long_cell_lines(cells(path))
    assert not found, f"{path.name}: {long_cell_lines.__doc__}: {found}"


@each([p for p in CHAPTERS if default_exp(p)])
def test_every_export_is_used_in_its_lesson(path):
    (module,) = default_exp(path)
    tree = ast.parse(read(PACKAGE / f"{module}.py"))
    made = {node.name for node in tree.body if isinstance(node, DEFINITIONS)}  # tables show themselves where they stand
    found = unused_in_lesson(cells(path), public(tree) & made)
    assert not found, f"{path.name}: {unused_in_lesson.__doc__}: {found}"


@each(CHAPTERS)
@each_check(long_exports, undemonstrated, main_guards, parallel_in_exports)
def test_exported_cells(path, check):
    found = check(cells(path))
    assert not found, f"{path.name}: {check.__doc__}: {found}"


def test_export_is_in_sync(tmp_path):
    for name in ("settings.ini", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    for name in ("nbs", "ddpm_course"):
        skip = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints", "assets", "runs")
        shutil.copytree(ROOT / name, tmp_path / name, ignore=skip)
    for path in MODULES:
        (tmp_path / "ddpm_course" / path.name).unlink()
    subprocess.run([script("nbdev_export")], cwd=tmp_path, check=True)
    found = differing(PACKAGE, tmp_path / "ddpm_course")
    assert not found, f"{found} differ from their notebooks: run nbdev_export"


def test_readme_is_in_sync():
    run = readme(ROOT, "--check")
    assert run.returncode == 0, f"README.md does not follow from nbs/index.ipynb:\n{run.stderr}"


@each(MODULES)
def test_module_stands_alone(path):
    every, errors = probes(ROOT, tuple(f"ddpm_course.{p.stem}" for p in MODULES))
    assert (name := f"ddpm_course.{path.stem}") in every, f"{name} does not import on its own:\n{errors}"
    found = every[name]
    assert not found["missing"], f"{path.name}: in __all__ but not in the module: {found['missing']}"
    assert not found["leaked"], f"{path.name}: globals that only the notebook has: {found['leaked']}"


LIGHT = ["ddpm_course", *(f"ddpm_course.{p.stem}" for p in MODULES if p.stem in {"config", "fields", "cli"})]


@pytest.mark.parametrize("module", LIGHT)
def test_import_is_light(module):
    found = probe(ROOT, module)["heavy"]
    assert not found, f"import {module} imports {found}"


# -- the checks can fail ----------------------------------------------------------------------------------------------

ORDER = {"core": "00", "data": "01", "extra": "01a", "schedules": "02"}
EXPORT = "#| export\ndef {}(): pass"


def late(source: str) -> list[str]:
    "imports that the module `data` may not have"
    return late_imports(source, "01", ORDER)


def lazy(source: str) -> set[str]:
    "names that a module takes from the package itself"
    return lazy_imports(source)


def looks_ahead(source: str) -> list[str]:
    "names of chapters later than 01"
    return late_names(source, "01", ORDER, {"cosine": "schedules", "show": "core"})


def unused_f(sources: list[str]) -> list[str]:
    "the name f, where no lesson cell uses it"
    return unused_in_lesson(sources, {"f"})


def late_in_lesson(source: str) -> list[str]:
    return late_imports(source, "01", ORDER, lesson=True)


@pytest.mark.parametrize(
    "check, good, bad",
    [
        (flaws, "import re\nre.sub", "re.sub"),
        (flaws, "import re\nre.sub", "import re"),
        (flaws, "f = 1\n__all__ = ['f']", "__all__ = ['f']"),
        (star_imports, "!ls *\nfrom math import pi", "%time 1\nif True:\n    from math import *"),
        (late, "from .core import x\nfrom . import __version__", "from .data import x"),
        (late, "from ddpm_course import core, __version__", "from ddpm_course import core, schedules"),
        (late, "import ddpm_course.core, ddpm_course", "import ddpm_course.schedules as s"),
        (late, "def f():\n    from . import core", "def f():\n    from . import extra"),
        (lazy, "from ddpm_course import core, __version__\nfrom . import data", "from ddpm_course import show"),
        (lazy, "from .core import show", "def f():\n    from . import show"),
        (looks_ahead, "from ddpm_course import show, core", "from ddpm_course import show, cosine"),
        (late_in_lesson, "from ddpm_course.data import x", "from ddpm_course.extra import x"),
        (undocumented, "__all__ = ['f']\ndef f(x: int, ax): 'doc'\ndef _g(x): 1", "__all__ = ['f']\ndef f(x: int): 1"),
        (undocumented, "__all__ = ['f']\ndef f(*, x: int): 'doc'", "__all__ = ['f']\ndef f(*, x): 'doc'"),
        (undocumented, "__all__ = ['A']\nclass A: 'doc'", "__all__ = ['A']\nclass A: pass"),
        (long_exports, ["#| export\n" + "x = 1\n\n" * 40, "x = 1\n" * 41], ["#| export\n" + "x = 1\n" * 41]),
        (undemonstrated, [EXPORT.format("f"), "f()", EXPORT.format("g")], [EXPORT.format("f"), EXPORT.format("g")]),
        (long_cell_lines, ["x" * 100, "#| export\ny"], ["x", "#| export\n" + "x" * 101]),
        (long_module_lines, "x" * 120, "y\n" + "x" * 121),
        (long_functions, "def f():" + "\n    1" * 39, "class A:\n  def f(self):" + "\n    1" * 40),
        (long_functions, "def f(): 1", "def f():\n  def g():" + "\n    1" * 40),
        (wide_functions, "class A:\n  def f(self, a, b, c, d, e, f): 1", "def f(a, b, /, c, d, *e, f, **g): 1"),
        (
            parallel_in_exports,
            ["a, b, c = 1, 2, 3", "#| export\na, b = 1, 2\na, b, c = f()"],
            ["#| export\na, b, c = 1, 2, 3"],
        ),
        (unused_f, ["#| export\ndef f(): 1", "f()"], ["#| export\ndef f(): 1\nf()", "f = 1"]),
        (unused_f, ["import m\nm.f()"], ["g('f()')"]),
        (unused_f, [r"run('import m\nm.f()\n')"], [r"run('f is fine\n')"]),
        (main_guards, ["if __name__ == '__main__': pass"], ["#| export\nif __name__ == '__main__': pass"]),
    ],
)
def test_source_check_can_fail(check, good, bad):
    assert not check(good)
    assert check(bad)


def test_long_module_can_fail(tmp_path):
    path = tmp_path / "a.py"
    for lines, chapter, fine in [(260, "12", True), (261, "12", False), (320, "12a", True), (321, "16", False)]:
        path.write_text("x\n" * lines)
        assert bool(long_module(path, chapter)) != fine


def test_probe_can_fail(tmp_path):
    (tmp_path / "fine.py").write_text("import re\nclass A:\n    x: int = 1\n    y = x\n    def f(self): re, len\n")
    (tmp_path / "bad.py").write_text("import matplotlib\n__all__ = ['gone']\ndef f():\n    return lambda: leaked\n")
    fine = {"module": "fine", "heavy": [], "leaked": [], "missing": []}
    assert probe(tmp_path, "fine") == fine
    bad = {"module": "bad", "heavy": ["matplotlib"], "leaked": ["f.<locals>.<lambda>: leaked"], "missing": ["gone"]}
    assert probe(tmp_path, "bad") == bad
    with pytest.raises(AssertionError, match="does not import"):
        probe(tmp_path, "absent")
    found, errors = probes(tmp_path, ("absent", "fine"))
    assert found == {"fine": fine | {"heavy": ["matplotlib", "torch"]}} and "No module named 'absent'" in errors


def test_differing_can_fail(tmp_path):
    for folder, text in (("a", "1"), ("b", "1 ")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "same.py").write_text("1")
        (tmp_path / folder / "edited.py").write_text(text)
        (tmp_path / folder / f"only_{folder}.py").write_text("1")
    assert differing(tmp_path / "a", tmp_path / "a") == []
    assert differing(tmp_path / "a", tmp_path / "b") == ["edited.py", "only_a.py", "only_b.py"]


def test_readme_can_be_out_of_date(tmp_path):
    (tmp_path / "tools").mkdir()
    (tmp_path / "nbs").mkdir()
    shutil.copy(ROOT / "tools/readme.py", tmp_path / "tools")
    (tmp_path / "nbs/index.ipynb").write_text(json.dumps({"cells": [{"cell_type": "markdown", "source": "# Title"}]}))
    assert readme(tmp_path).returncode == 0 and readme(tmp_path, "--check").returncode == 0
    (tmp_path / "README.md").write_text("# Another title")
    assert "out of date" in readme(tmp_path, "--check").stderr
