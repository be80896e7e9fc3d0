"What leans on what: the imports between the package's modules, and those of a notebook's cells."

import ast
import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "ddpm_course"


@cache
def modules() -> dict[str, Path]:
    "The modules of the package, `run.training` for ddpm_course/run/training.py."
    found = sorted(p for p in PACKAGE.rglob("*.py") if not p.name.startswith("_"))
    return {".".join(p.relative_to(PACKAGE).with_suffix("").parts): p for p in found}


@cache
def homes() -> dict[str, str]:
    "The module of each name of `from ddpm_course import NAME`."
    tree = ast.parse((PACKAGE / "__init__.pyi").read_text(encoding="utf-8"))
    nodes = [node for node in tree.body if isinstance(node, ast.ImportFrom) and node.level]
    return {alias.name: node.module for node in nodes for alias in node.names}


def module_of(path: str) -> str:
    "The module that a dotted path without `ddpm_course.` leads to or into; '' if there is none."
    parts = path.split(".")
    return next((name for k in range(len(parts), 0, -1) if (name := ".".join(parts[:k])) in modules()), "")


def imported(node: ast.AST, own: str) -> set[str]:
    "The paths below the package that an import names, or a string that some registry would import."
    if isinstance(node, ast.Import):
        return {alias.name.removeprefix("ddpm_course.") for alias in node.names if "ddpm_course." in alias.name}
    if isinstance(node, ast.ImportFrom):
        parts = node.module.split(".") if node.module else []
        if not node.level and parts[0] != "ddpm_course":
            return set()
        parts = [*own.split(".")[: -node.level], *parts] if node.level else parts[1:]
        names = [alias.name for alias in node.names]
        return {".".join([*parts, name]) for name in names} if parts else {homes().get(name, name) for name in names}
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        named = re.fullmatch(r"(?:ddpm_course)?\.?([\w.]+)(?::\w+)?", node.value)
        if named and (node.value.startswith("ddpm_course.") or (":" in node.value and named[1] in modules())):
            return {named[1]}
    return set()


def arrows(source: str, own: str = "") -> set[str]:
    "The modules that a source imports or names for import, wherever it does."
    paths = set().union(*(imported(node, own) for node in ast.walk(ast.parse(source))))
    return {module_of(path) for path in paths} - {""}
