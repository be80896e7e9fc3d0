"""The notebooks as files (outputs, size, links), and as pages that are run from top to bottom.

A page is run once, in a process forked from one that has imported everything: see tools/execute.py. By default those
run that are touched, and a few others; `-m "not nightly"` runs all that take less than half a minute.
"""

import base64
import io
import json
import re
import subprocess
from collections import Counter
from collections.abc import Iterable
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

import pytest
from IPython.core.inputtransformer2 import TransformerManager
from PIL import Image

from arrows import arrows, modules
from ddpm_course.lesson import tools
from execute import differences, folds, only_imports
from helpers import (
    CHAPTERS,
    MINUTE,
    NOTEBOOKS,
    ROOT,
    cells,
    ddpm,
    directives,
    each,
    number,
    parse,
    promise,
    read,
)

LESSONS = [p for p in CHAPTERS if p.parent.name == "nbs"]
SOLUTIONS = [p for p in NOTEBOOKS if p.parent.name == "solutions"]


def code_cells(path: Path) -> list[dict]:
    return [c for c in json.loads(read(path))["cells"] if c["cell_type"] == "code"]


# -- as files ---------------------------------------------------------------------------------------------------------


def links(text: str) -> list[str]:
    "Files that a text links to or shows: paths with a suffix, no addresses."
    return re.findall(r"""(?:\]\(|src=["'])(?![a-z]+:)([^)"'\s#]+\.\w+)(?=[)"'\s#])""", text)


def linked(path: Path) -> set[Path]:
    "The files that a notebook's text links to. That none is missing: test_pages.py."
    return {(path.parent / target).resolve() for target in links("\n".join(cells(path, "markdown")))}


def file_faults(path: Path) -> Iterable[str]:
    "What is wrong with a notebook as a file; what it stores is compared where it is run."
    ids = Counter(c.get("id") for c in json.loads(read(path))["cells"])
    yield from (f"cell id {name} is used twice" for name, n in ids.items() if n > 1 or name is None)
    for cell in code_cells(path):
        text = "".join(cell["source"])
        if cell["metadata"] != folds(text):
            yield f"{cell['id']} is not folded as tools/execute.py folds it"
        if "slow" in directives(text) and "if slow():" not in text:
            yield f"{cell['id']} takes minutes and runs under Run All"
        pictures = [
            o["metadata"].get(kind, {}) for o in cell["outputs"] for kind in o.get("data", ()) if "image/" in kind
        ]
        if path in LESSONS and not all(picture.get("alt") for picture in pictures):
            yield f"{cell['id']} draws without alt text: #| fig-alt: ..."


def page_faults(path: Path) -> Iterable[str]:
    "What is wrong with a chapter, or a solution, as a page of the course."
    if path in SOLUTIONS:
        if not [p for p in CHAPTERS if p in linked(path) and path.stem == f"{p.stem}_solution"]:
            yield "it does not link to its chapter"
        return
    texts = cells(path, "markdown")
    if not re.fullmatch(r"\d\d[a-z]?_\w+", path.stem) or not texts[0].startswith(f"# {number(path)} · "):
        yield "it is not NN_topic.ipynb, with a title that begins with its number"
    if path.parent.name == "deep_dives" and not re.search(r"^\*A deep dive: .*skip.*\*$", "\n".join(texts[:2]), re.M):
        yield "it does not say at its beginning that it is a deep dive"
    own = [p for p in CHAPTERS if number(p)[:-1] == number(path)]
    own += [p for p in SOLUTIONS if p.name == f"{path.stem}_solution.ipynb"]
    yield from (f"it does not link to {p.name}" for p in own if p not in linked(path))


@each(NOTEBOOKS)
def test_notebook(path):
    found = list(file_faults(path))
    assert not found, f"{path.name}: {found}"


@each(CHAPTERS + SOLUTIONS)
def test_page(path):
    found = list(page_faults(path))
    assert not found, f"{path.name}: {found}"


# -- exercises --------------------------------------------------------------------------------------------------------

CHECKS = {  # a solution and the module of its checks
    path: found[0]
    for path in SOLUTIONS
    if (found := re.findall(r"^from (ddpm_course\.lesson\.checks\.\w+) import", "\n".join(cells(path)), re.M))
}


@pytest.fixture
def refused(monkeypatch):
    "The hints with which `expect_error` saw wrong answers refused."
    hints, honest = [], tools.expect_error

    @contextmanager
    def noted(kind, words=""):
        with honest(kind, words):
            hints.append(words) if kind is AssertionError else None
            yield

    monkeypatch.setattr(tools, "expect_error", noted)
    return hints


# Those of 24d start the reader's script under torchrun, and kill it.
@pytest.mark.parametrize(
    "path", [pytest.param(p, id=p.name, marks=[pytest.mark.thorough] * (number(p) == "24d")) for p in CHECKS]
)
def test_checks(path, refused):
    "They wait for what is unwritten, accept the solutions, refuse two wrong answers each, and have three hints."
    check = import_module(CHECKS[path]).check
    lesson = next(p for p in CHAPTERS if p.stem == path.stem.removesuffix("_solution"))
    asked, said = ([str(o.get("data")) for c in code_cells(p) for o in c["outputs"]] for p in (lesson, path))
    for name in check.judges:
        thanks, *hints = check.advice(name)
        assert len(hints) == 3 and all((thanks, *hints))
        assert any(f"check.hint('{name}')" in text.replace("\\'", "'") for text in asked), name
    assert sum("right: " in text for text in said) >= len(check.judges)
    space = {"__name__": path.stem, "expect_error": tools.expect_error}
    for source in cells(path):
        if "expect_error(AssertionError" in source or only_imports(parse(source)):
            exec(source, space)
    assert all(refused) and len(refused) >= 2 * len(check.judges), refused


# -- as pages ---------------------------------------------------------------------------------------------------------

SLOW = set("08a 13a 15 16 17 19 20 20a 21 22 24 25".split())  # half a minute and more on two cores
FEW = {"02_schedules", "11a_checkpoints", "03_forward_solution"}  # of each kind


def touched() -> set[Path]:
    "Files that are not as they are upstream or, where there is no such thing, in the last commit."
    for base in (["--merge-base", "@{upstream}"], ["HEAD"]):
        done = subprocess.run(["git", "diff", "--name-only", *base], cwd=ROOT, capture_output=True, text=True)
        if done.returncode == 0:
            return {ROOT / name for name in done.stdout.splitlines()}
    return set()


def leans_on(path: Path) -> set[Path]:
    "A page and the modules that it imports."
    sources = map(TransformerManager().transform_cell, cells(path))
    return {path, *(modules()[name] for source in sources for name in arrows(source))}


CHANGED = touched()


def tier(path: Path) -> list[pytest.MarkDecorator]:
    "The first runs a few pages and what is touched, the second the others; at night those that take half a minute."
    if path.stem in FEW or leans_on(path) & CHANGED:
        return []
    chapter = next((p for p in CHAPTERS if path.stem == f"{p.stem}_solution"), path)  # a solution trains as often
    return [pytest.mark.nightly if chapter.stem[:3].strip("_") in SLOW else pytest.mark.thorough]


PAGES = [pytest.param(p, id=p.stem, marks=tier(p)) for p in NOTEBOOKS]


@pytest.mark.parametrize("path", PAGES)
def test_page_comes_again(path):
    "Run anew it shows what is stored, says nothing on stderr, and its controls change their picture."
    _, _, seconds = ddpm("--check", path, cwd=path.parent, program="execute")
    promise(path.stem, seconds, MINUTE)


def page(folder: Path, *sources: str) -> Path:
    "A notebook of these code cells, not run yet."
    made = [
        {"cell_type": "code", "execution_count": None, "id": f"{k}", "metadata": {}, "outputs": [], "source": source}
        for k, source in enumerate(sources)
    ]
    (folder / "page.ipynb").write_text(json.dumps({"cells": made, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
    return folder / "page.ipynb"


def test_a_folded_answer_is_out_of_sight(tmp_path):
    "JupyterLab shows the first line of what is folded: not the answer."
    source = "reveal = print\nreveal(42)"
    ddpm(page(tmp_path, source), cwd=tmp_path, program="execute")
    (cell,) = code_cells(tmp_path / "page.ipynb")
    assert cell["metadata"] == folds(source) and cell["metadata"]["jupyter"] == {"outputs_hidden": True}
    first, answer = cell["outputs"]
    assert "42" not in str(first) and "42" in str(answer)


EXPLORER = """import ipywidgets
import matplotlib.pyplot as plt
from ddpm_course.lesson.explorers import Explorer
line, = plt.plot([0, 1])
Explorer(plt.gcf(), lambda a, b: line.set_linewidth(a), a=ipywidgets.IntSlider(5, 0, 5), b=ipywidgets.IntSlider())
"""


@pytest.mark.parametrize(
    "source, words",
    [
        ("import sys; print('careful', file=sys.stderr)", "cell 0 says on stderr:\ncareful"),
        ("1 / 0", "ZeroDivisionError"),
        (EXPLORER.strip() + ".show()", "the picture stays when b is moved to 1"),
    ],
)
def test_what_a_page_may_not_do(tmp_path, source, words):
    _, err, _ = ddpm(page(tmp_path, source), cwd=tmp_path, code=1, program="execute")
    assert words in err
    assert code_cells(tmp_path / "page.ipynb")[0]["outputs"] == []


def said(text: str) -> list[dict]:
    return [{"output_type": "stream", "name": "stdout", "text": text}]


def square(height: int) -> list[dict]:
    "A black rectangle on white, as a figure."
    image, file = Image.new("L", (100, 100), "white"), io.BytesIO()
    image.paste(0, (0, 0, 100, height))
    image.save(file, "png")
    return [{"output_type": "display_data", "data": {"image/png": base64.b64encode(file.getvalue()).decode()}}]


@pytest.mark.parametrize(
    "source, kept, now, found",
    [
        ("", said("loss 0.5"), said("loss 0.504"), 0),
        ("", said("loss 0.5"), said("loss 0.51"), 1),
        ("#| varies\nfit()", said("loss 0.5"), said("loss 0.51"), 0),
        ("#| varies\nfit()", said("loss 0.5"), said("lost 0.51"), 1),
        ("", said("loss 0.5"), [], 1),
        ("", square(100), square(99), 0),
        ("", square(100), square(20), 1),
    ],
)
def test_what_has_changed_is_found(source, kept, now, found):
    cells = [{"cell_type": "code", "id": "0", "source": source, "outputs": outputs} for outputs in (kept, now)]
    assert len(list(differences(*({"cells": [cell]} for cell in cells)))) == found


def test_a_number_before_the_training_is_compared():
    def page(before: str, after: str) -> dict:
        shown = [("", before), ("#| varies", after)]
        return {"cells": [{"cell_type": "code", "id": s, "source": s, "outputs": said(o)} for s, o in shown]}

    assert not list(differences(page("1", "loss 0.5"), page("1", "loss 0.6")))
    assert len(list(differences(page("1", "loss 0.5"), page("2", "loss 0.5")))) == 1
