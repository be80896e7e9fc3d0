"""The notebooks as files (outputs, size, links) and as lessons: each runs.

By default those run whose cells, or the modules behind them, are not those that their stored outputs were made with;
and every sixth of the others, other ones at each commit. `-m thorough` runs them all.
"""

import ast
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from itertools import chain, combinations
from pathlib import Path

import pytest
from IPython.core.inputtransformer2 import TransformerManager

import helpers
from ddpm_course.lesson import tools
from execute import changed, folds
from helpers import (
    CHAPTERS,
    MINUTE,
    NOTEBOOKS,
    ROOT,
    cells,
    default_exp,
    directives,
    each,
    number,
    promise,
    read,
    script,
)

MOST_WORDS, MOST_LINES = 3000, 260  # in a lesson
PROMISED = 15 * MINUTE  # for all notebooks, one after the other
MAX_BYTES, MAX_BYTES_WITH_FILMS = 500_000, 800_000
WIDGET = "application/vnd.jupyter.widget-"
LESSONS = [p for p in CHAPTERS if p.parent.name == "nbs"]
SOLUTIONS = [p for p in NOTEBOOKS if p.parent.name == "solutions"]
CHECKED = [p for p in SOLUTIONS if default_exp(p)]  # their module holds the checks of the lesson's exercises
COME_AGAIN = [p for p in LESSONS if number(p) in ("00", "02", "03", "07", "23")]  # neither train nor measure time


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
    if "cells" in changed(path):
        yield "its outputs are of other code: run tools/execute.py"
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


def tell(path: Path, counts: dict[str, int]) -> None:
    "Shown at the end of the tests."
    helpers.PROMISES.append(f"{path.stem:16} " + ", ".join(f"{count:5,} {what}" for what, count in counts.items()))


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
    if f"{path.stem}_solution" not in [solution.stem for solution in CHECKED]:  # else `test_checks` tells more
        tell(path, size(path))
    assert not found, f"{path.name}: {found}"


@each(SOLUTIONS)
def test_solution_links_to_its_chapter(path):
    home = [p for p in CHAPTERS if p.name == path.name.replace("_solution", "")]
    assert home and home[0] in linked(path), path.name


# -- exercises --------------------------------------------------------------------------------------------------------


def exercises(path: Path) -> tuple[list[str], list[str]]:
    "Code cells before a chapter's first section, and those of its exercises."
    sections: list[list[str]] = [[]]
    for cell in json.loads(read(path))["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "code":
            sections[-1].append(source)
        elif source.startswith("## "):
            sections.append([source])
    found = [section[1:] for section in sections if section[0].startswith("## Exercises")]
    return sections[0], found[0] if found else []


def judges(path: Path) -> list[str]:
    "What a chapter's exercises ask for and judge, `NAME` for `check_NAME`."
    return re.findall(r"^def check_(\w+)\(", "\n".join(exercises(path)[1]), re.M)


def made(statement: ast.stmt) -> set[str]:
    "The names that a statement gives or changes."
    if isinstance(statement, (ast.FunctionDef, ast.ClassDef)):
        return {statement.name}
    found = set()
    for node in ast.walk(statement):
        if isinstance(node, ast.alias):
            found.add(node.asname or node.name.partition(".")[0])
        elif isinstance(getattr(node, "ctx", None), ast.Store):
            found |= {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}
    return found


def needed(sources: Iterable[str], names: Iterable[str]) -> list[str]:
    "The statements that define these names, and before them those that define what they use: no experiment."
    wanted, kept = set(names), []
    for statement in reversed([s for source in sources for s in ast.parse(source).body]):
        if made(statement) & wanted:
            wanted |= {node.id for node in ast.walk(statement) if isinstance(node, ast.Name)}
            kept.insert(0, ast.unparse(statement))
    return kept


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


@each([p for p in LESSONS if judges(p)])
def test_exercises(path, refused):
    "The checks accept the solutions, and refuse at least two wrong answers each, with a hint."
    space: dict = {"__name__": path.stem}
    run = TransformerManager().transform_cell
    for source in chain(*exercises(path)):
        exec(run(source), space)
    names = judges(path)
    assert all(space[f"check_{name}"](space[name]) is None for name in names), "nothing is written yet"
    assert all(refused) and len(refused) >= 2 * len(names), refused
    for source in needed(map(run, cells(ROOT / f"nbs/solutions/{path.stem}_solution.ipynb")), names):
        exec(source, space)
    assert [name for name in names if space[f"check_{name}"](space[name]) is not True] == []


@each(CHECKED)
def test_checks(path, refused):
    "Checks wait for what is unwritten, accept the solutions, refuse two wrong answers each, and have three hints."
    check = import_module(f"ddpm_course.{default_exp(path)[0]}").check
    lesson = next(p for p in CHAPTERS if p.stem == path.stem.removesuffix("_solution"))
    verdicts, space = [], {"__name__": path.stem}
    for source in exercises(lesson)[1]:
        exec(source, {"check": lambda f: verdicts.append((f.__name__, check.verdict(f).kind))})
    assert verdicts == [(name, "waiting") for name in check.judges]
    for source in cells(path):
        if "export" in directives(source) or "expect_error" in source:
            exec(source, space)
    assert all(refused) and len(refused) >= 2 * len(check.judges), refused
    for source in needed(cells(path), check.judges):
        exec(source, space)
    assert [name for name in check.judges if check.verdict(space[name]).kind != "right"] == []
    advice = [check.advice(name) for name in check.judges]
    assert all(len(words) == 4 and all(words) for words in advice)
    asked = "\n".join(cells(lesson, "markdown")).partition("## Exercises")[2].partition("\n## ")[0]
    asked = len(re.findall(r"^(?:\*\*)?\d+\. ", asked, re.M))
    tell(lesson, size(lesson) | {"exercises": asked, "answers refused": len(refused), "hints": 3 * len(advice)})


def test_a_folded_answer_is_out_of_sight(tmp_path):
    "JupyterLab shows the first line of what is folded: not the answer."
    source = "reveal = print\nreveal(42)"
    cell = {"cell_type": "code", "execution_count": None, "id": "a", "metadata": {}, "outputs": [], "source": source}
    page = tmp_path / "page.ipynb"
    page.write_text(json.dumps({"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
    subprocess.run([sys.executable, ROOT / "tools/execute.py", page], check=True)
    (cell,) = code_cells(page)
    assert cell["metadata"] == folds(source) and cell["metadata"]["jupyter"] == {"outputs_hidden": True}
    first, answer = cell["outputs"]
    assert "42" not in str(first) and "42" in str(answer)


@each([p for p in LESSONS if number(p) == "02"])
def test_guesses_can_be_read_in_the_figure(path, tmp_path, monkeypatch):
    "The labels of two guesses are inside the figure, overlap nothing, and the legend stays as it was."
    monkeypatch.chdir(tmp_path)  # where the guesses are kept
    guesses, space = iter("400 480".split()), {"__name__": path.stem}
    for source in cells(path):
        exec(re.sub(r"(predict\(.*), None\)", lambda found: f"{found[1]}, {next(guesses)})", source), space)
        if "reveal('half-way step, cosine'" in source:
            break
    fig, ax = space["fig"], space["ax"]
    fig.canvas.draw()
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["linear", "cosine"]
    labels = [text for text in ax.texts if "you:" in text.get_text()]
    assert [text.get_text().strip() for text in labels] == ["you: 400", "you: 480"]
    boxes = [part.get_window_extent() for part in (*labels, ax.get_legend())]
    assert all(fig.bbox.containsx(x) and fig.bbox.containsy(y) for box in boxes for x, y in box.corners())
    assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))


# -- as programs ------------------------------------------------------------------------------------------------------


def nbdev_test(paths: list[Path], workers: int, limit: float):
    "Run these notebooks in processes of one thread each; after `limit` seconds all is killed."
    names = "|".join(re.escape(path.name) for path in paths)
    command = [script("nbdev_test"), "--n_workers", str(workers), "--do_print", "--timing", "--file_re", f"^({names})$"]
    env, start = os.environ | {"OMP_NUM_THREADS": "1"}, time.perf_counter()
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "start_new_session": True}
    process = subprocess.Popen(command, cwd=ROOT, env=env, **pipes)
    try:
        output, _ = process.communicate(timeout=limit)
    finally:
        if process.poll() is None:  # too late, or interrupted: the workers go too
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    print(output)  # shown when an assertion fails
    assert process.returncode == 0, f"nbdev_test ended with {process.returncode}; see its output"
    took = {name: int(s) for name, s in re.findall(r"^(\S+\.ipynb): (\d+) secs$", output, re.M)}
    assert took.keys() == {path.name for path in paths}, "not all were run"
    promise(f"{len(paths)} notebooks", time.perf_counter() - start, PROMISED / len(NOTEBOOKS) * len(paths))
    for name, seconds in took.items():
        promise(name, seconds, MINUTE)


@cache
def turn() -> int:
    "Which sixth is run: another at each commit, the same for one commit."
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout
    return int(head or "0", 16) % 6


def test_notebooks_that_changed_and_a_sixth_run():
    differ = {path: changed(path) for path in NOTEBOOKS}
    due = [path for path in NOTEBOOKS if differ[path] - {"torch"}]  # another PyTorch alone: the second tier
    sixth = [path for path in NOTEBOOKS[turn() :: 6] if path not in due]
    others = sum(found == {"torch"} for found in differ.values())
    line = f"{len(due)} notebooks have changed and are run; of the {len(NOTEBOOKS) - len(due)} others sixth number "
    line += f"{turn()}: {' '.join(number(p) + 's' * (p in SOLUTIONS) for p in sixth)} (-m thorough: all)"
    helpers.PROMISES.append(line + f"; the outputs of {others} are of another PyTorch" * bool(others))
    nbdev_test(due + sixth, workers=1, limit=10 * PROMISED)


@pytest.mark.thorough
def test_every_notebook_runs():
    nbdev_test(NOTEBOOKS, workers=2, limit=10 * PROMISED)


def texts(path: Path) -> list[str]:
    """What cells printed or showed as text, but for widgets, and for what says how long something took.

    A cell's figures come last: the order depends on who runs it.
    """
    found = []
    for cell in code_cells(path):
        outputs = [o for o in cell["outputs"] if not any(kind.startswith(WIDGET) for kind in o.get("data", ()))]
        for output in sorted(outputs, key=lambda o: "image/png" in o.get("data", ())):
            found.append("".join(output.get("text") or output.get("data", {}).get("text/plain", "")))
    return [text for text in found if not re.search(r"milli|second|\bm?s\b|KB", text)]


def other_words(one: str, other: str) -> bool:
    "Whether two texts differ by more than a hundredth in their numbers; processors differ in last digits."
    number = r"-?\d+(?:\.\d*)?(?:e[+-]?\d+)?"
    if re.sub(number, "#", one) != re.sub(number, "#", other):
        return True
    pairs = zip(re.findall(number, one), re.findall(number, other))
    return any(abs(float(a) - float(b)) > 0.01 * abs(float(a)) + 1e-6 for a, b in pairs)


@pytest.mark.thorough
@each(COME_AGAIN)
def test_outputs_come_again(path, tmp_path):
    "Run anew, a lesson prints what is stored."
    copy = Path(shutil.copy(path, tmp_path))
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, ROOT / "tools/execute.py", copy], cwd=tmp_path, check=True, env=env)
    kept, found = texts(path), texts(copy)
    assert len(kept) == len(found) > 5
    differ = [(a, b) for a, b in zip(kept, found) if other_words(a, b)]
    assert not differ, differ
