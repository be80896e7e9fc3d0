"""The notebooks as files (outputs, size, links), and as pages that are run from top to bottom.

A page is run once, in a process forked from one that has imported everything: see tools/execute.py. By default those
run that are touched, and a few others; `-m "not nightly"` runs all that take less than a minute.
"""

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

from arrows import arrows, modules
from ddpm_course.lesson import tools
from execute import differences, folds, only_imports
from helpers import (
    CHAPTERS,
    GUARD,
    MINUTE,
    NOTEBOOKS,
    ROOT,
    cells,
    ddpm,
    default_exp,
    directives,
    each,
    number,
    parse,
    promise,
    read,
)

MOST_WORDS, MOST_LINES = 3000, 260  # in a lesson
MAX_BYTES, MAX_BYTES_WITH_FILMS = 500_000, 800_000
WIDGET = "application/vnd.jupyter.widget-"
LESSONS = [p for p in CHAPTERS if p.parent.name == "nbs"]
SOLUTIONS = [p for p in NOTEBOOKS if p.parent.name == "solutions"]


def code_cells(path: Path) -> list[dict]:
    return [c for c in json.loads(read(path))["cells"] if c["cell_type"] == "code"]


# -- as files ---------------------------------------------------------------------------------------------------------


def links(text: str) -> list[str]:
    "Files that a text links to or shows: paths with a suffix, no addresses."
    return re.findall(r"""(?:\]\(|src=["'])(?![a-z]+:)([^)"'\s#]+\.\w+)(?=[)"'\s#])""", text)


def linked(path: Path, start: str = "") -> set[Path]:
    "The files that a notebook's text, or its lines with this beginning, link to."
    lines = "\n".join(cells(path, "markdown")).splitlines()
    return {(path.parent / target).resolve() for line in lines if line.startswith(start) for target in links(line)}


def file_faults(path: Path) -> Iterable[str]:
    "What is wrong with a notebook as a file."
    code, source = code_cells(path), "\n".join(cells(path))
    outputs = [(c["id"], o) for c in code for o in c["outputs"]]
    kinds = [(name, kind) for name, o in outputs for kind in o.get("data", ())]
    films = any(kind == "image/gif" for _, kind in kinds)
    if path.stat().st_size >= (MAX_BYTES_WITH_FILMS if films else MAX_BYTES):
        yield f"{path.stat().st_size} bytes are too many"
    yield from (f"{name} holds a widget" for name, kind in kinds if kind.startswith(WIDGET))
    yield from (f"{name} ended with an error" for name, o in outputs if o["output_type"] == "error")
    yield from (f"{name} speaks on stderr" for name, o in outputs if o.get("name") == "stderr")
    hidden = lambda c: "export" in directives("".join(c["source"])) or "source_hidden" in str(c["metadata"])
    lesson = [bool(c["outputs"]) for c in code if not hidden(c)]
    if 3 * sum(lesson) < len(lesson):
        yield "less than a third of its cells, but for exports and imports, shows anything"
    ids = Counter(c.get("id") for c in json.loads(read(path))["cells"])
    yield from (f"cell id {name} is used twice" for name, n in ids.items() if n > 1 or name is None)
    for cell in code:
        text = "".join(cell["source"])
        if not text.strip():
            yield f"{cell['id']} is empty"
        if cell["metadata"] != folds(text):
            yield f"{cell['id']} is not folded as tools/execute.py folds it"
        if "slow" in directives(text) and "if slow():" not in text:
            yield f"{cell['id']} takes minutes and runs under Run All"
    draws = re.search(r"^import matplotlib", source, re.M) and "plt.subplots" in source
    if draws and "plt.style.use('ddpm_course.assets.course')" not in source:
        yield "it draws without the course's style"
    yield from re.findall(r"^\s*assert\b.*\b(?:m?seconds|took|elapsed)\b[^=\n]*<.*", source, re.M)  # on busy machines
    yield from (f"{target.name} is no file" for target in linked(path) if not target.exists())


def page_faults(path: Path) -> Iterable[str]:
    "What is wrong with a chapter as a page of the course."
    texts = cells(path, "markdown")
    if default_exp(path) and "default_exp" not in directives(cells(path)[0]):
        yield "default_exp stands outside the first code cell"
    if not texts[0].startswith(f"# {number(path)} · "):
        yield f"its title does not begin with {number(path)}"
    if path.parent.name == "deep_dives" and not re.search(r"^\*A deep dive: .*skip.*\*$", "\n".join(texts[:2]), re.M):
        yield "it does not say at its beginning that it is a deep dive"
    if "index.ipynb" not in {Path(target).name for target in links(texts[-1])}:
        yield "its last text has no link to the index"
    following = [p for p in LESSONS if number(p) > number(path)][:1]
    if following and following[0] not in linked(path, "**Next:**"):
        yield f"no line **Next:** links to {following[0].name}"
    own = [p for p in CHAPTERS if number(p)[:-1] == number(path)]
    own += [p for p in SOLUTIONS if p.name == f"{path.stem}_solution.ipynb"]
    yield from (f"it does not link to {p.name}" for p in own if p not in linked(path))


def size(path: Path) -> dict[str, int]:
    "What a lesson asks of its reader: words, lines of code in sight; its figures, and those without alt text."
    seen = dict.fromkeys(("words", "lines", "figures", "without alt text"), 0)
    seen["words"] = sum(len(text.split()) for text in cells(path, "markdown"))
    for cell in code_cells(path):
        if not cell["metadata"].get("jupyter", {}).get("source_hidden"):
            lines = "".join(cell["source"]).splitlines()
            seen["lines"] += sum(bool(line.strip()) and not line.startswith("#|") for line in lines)
        kinds = [(kind, o["metadata"]) for o in cell["outputs"] for kind in o.get("data", ()) if "image/" in kind]
        seen["figures"] += len(kinds)
        seen["without alt text"] += sum(not metadata.get(kind, {}).get("alt") for kind, metadata in kinds)
    return seen


def reading_faults(path: Path) -> Iterable[str]:
    "What stands between a reader and the lesson: size, plotting in sight, folds without a word, figures without alt."
    before, seen = "", size(path)
    if seen["words"] > MOST_WORDS or seen["lines"] > MOST_LINES or seen["without alt text"]:
        yield f"{seen}: at most {MOST_WORDS} words, {MOST_LINES} lines in sight, and #| fig-alt: ... in a figure's cell"
    for cell in json.loads(read(path))["cells"]:
        text = "".join(cell["source"])
        if cell["cell_type"] == "code":
            drawn = re.findall(r"^.*\b(?:ax\w*|fig\w*|plt)(?:\[[^]]*\])*\.", text, re.M)
            if len(drawn) > 6 and "hide-input" not in cell["metadata"].get("tags", ()):
                yield f"{cell['id']} draws in sight: #| fold: plot"
            folded = {"fold:", "fold"} & set(directives(text))
            if folded and not re.search(r"^\*Folded: .*\*$", before.splitlines()[-1]):
                yield f"{cell['id']} is folded, and no line *Folded: ...* before it says what it does"
        before = text


@each(NOTEBOOKS)
def test_notebook(path):
    found = list(file_faults(path))
    assert not found, f"{path.name}: {found}"


@each(CHAPTERS)
def test_page(path):
    found = list(page_faults(path))
    assert not found, f"{path.name}: {found}"


@each(LESSONS)
def test_lesson_is_easy_to_read(path):
    found = list(reading_faults(path))
    assert not found, f"{path.name}: {found}"


@each(SOLUTIONS)
def test_solution_links_to_its_chapter(path):
    home = [p for p in CHAPTERS if p.name == path.name.replace("_solution", "")]
    assert home and home[0] in linked(path), path.name


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


@each(CHECKS)
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


def test_guesses_can_be_read_in_the_figure(tmp_path):
    "The labels of two guesses that are close are inside the figure, and overlap nothing."
    import matplotlib.pyplot as plt

    with plt.style.context("ddpm_course.assets.course"):
        fig, ax = plt.subplots()
        ax.set_xlim(0, 1000)
        for guess in (400, 480):
            tools.keep_guess(f"{guess}", guess, tmp_path / "guesses")
            tools.reveal(f"{guess}", 500, ax, tmp_path / "guesses")
        fig.canvas.draw()
    assert [text.get_text().strip() for text in ax.texts] == ["you: 400", "you: 480"]
    a, b = (text.get_window_extent() for text in ax.texts)
    assert all(fig.bbox.contains(*corner) for box in (a, b) for corner in box.corners()) and not a.overlaps(b)


# -- as pages ---------------------------------------------------------------------------------------------------------

FEW = {"00_start", "02_schedules", "07_embeddings", "11a_checkpoints", "03_forward_solution"}  # of each kind


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
    "The first runs a few pages and what is touched, the second the others; those that take a minute run at night."
    if path.stem in FEW or leans_on(path) & CHANGED:
        return []
    takes_long = re.search(r"runs in (?:about|under) a minute", "\n".join(cells(path, "markdown")))
    return [pytest.mark.nightly if takes_long else pytest.mark.thorough]


PAGES = [pytest.param(p, id=p.stem, marks=tier(p)) for p in NOTEBOOKS]


@pytest.mark.parametrize("path", PAGES)
def test_page_comes_again(path):
    "Run anew it shows what is stored, says nothing on stderr, and its controls change their picture."
    _, _, seconds = ddpm("--check", path, cwd=path.parent, program="execute", limit=GUARD)
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


DRAW = "import matplotlib.pyplot as plt\nplt.figure(figsize=(2, 2)).add_axes((0, 0, 1, 1)).fill([0, 1, 1], [0, 0, {}]);"


@pytest.mark.parametrize(
    "kept, now, found",
    [
        ("print('loss 0.5')", "print('loss 0.504')", 0),
        ("print('loss 0.5')", "print('loss 0.51')", 1),
        ("print('loss 0.5')", "print('Loss 0.5')", 1),
        ("print('loss 0.5')", "print('loss 0.51')  # fit()", 0),
        ("print('loss 0.5')", "print('lost 0.51')  # fit()", 1),
        ("print('loss 0.5')", "pass", 1),
        (DRAW.format(1), DRAW.format(0.98), 0),
        (DRAW.format(1), DRAW.format(0.2), 1),
        (DRAW.format(1), DRAW.format(0.2) + "  # fit();", 0),
    ],
)
def test_what_has_changed_is_found(tmp_path, kept, now, found):
    pages = []
    for source in (kept, now):
        ddpm(page(tmp_path, source), cwd=tmp_path, program="execute")
        pages.append(json.loads(read(tmp_path / "page.ipynb")))
    assert len(list(differences(*pages))) == found
