"""The notebooks as files (outputs, size, links) and as lessons: every one runs.

Each check takes the path of a notebook and returns what is wrong with it.
"""

import ast
import importlib.util
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
from itertools import chain
from pathlib import Path

import pytest
from IPython.core.inputtransformer2 import TransformerManager

from ddpm_course.lesson import tools
from helpers import (
    CHAPTERS,
    COME_AGAIN,
    IN_BROWSER,
    MINUTE,
    NOTEBOOKS,
    ROOT,
    WIDGET,
    cells,
    come_again,
    default_exp,
    directives,
    each,
    each_check,
    is_workshop,
    number,
    other_words,
    promise,
    read,
    script,
)

PROMISED = 360  # seconds for all notebooks with two workers
MAX_BYTES = 500_000
MAX_BYTES_WITH_FILMS = 800_000  # where an animated GIF is stored
LESSON_PAGES = [p for p in CHAPTERS if not is_workshop(p)]


def load(name: str):
    "A script of tools/ as a module."
    spec = importlib.util.spec_from_file_location(name, ROOT / f"tools/{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


EXECUTE = load("execute")
source_hash = EXECUTE.source_hash


def code_cells(path: Path) -> list[dict]:
    return [c for c in json.loads(read(path))["cells"] if c["cell_type"] == "code"]


# -- checks -----------------------------------------------------------------------------------------------------------


def too_large(path: Path) -> list[str]:
    "notebook of 500 KB or more, with films of 800 KB"
    films = any("image/gif" in o.get("data", ()) for c in code_cells(path) for o in c["outputs"])
    limit = MAX_BYTES_WITH_FILMS if films else MAX_BYTES
    return [f"{path.stat().st_size} bytes"] * (path.stat().st_size >= limit)


def widget_state(path: Path) -> list[str]:
    "widgets in the metadata or in outputs"
    mimes = [(c["id"], mime) for c in code_cells(path) for o in c["outputs"] for mime in o.get("data", ())]
    found = [name for name, mime in mimes if mime.startswith(WIDGET)]
    return [*json.loads(read(path))["metadata"].keys() & {"widgets"}, *found]


def stored_stderr(path: Path) -> list[str]:
    "outputs on stderr"
    return [c["id"] for c in code_cells(path) if any(o.get("name") == "stderr" for o in c["outputs"])]


def unfolded(path: Path) -> list[str]:
    "cells that are not folded as tools/execute.py folds them"
    return [c["id"] for c in code_cells(path) if c["metadata"] != EXECUTE.folds("".join(c["source"]))]


def unstyled(path: Path) -> list[str]:
    "notebook that draws without the course's style"
    source = "\n".join(cells(path))
    draws = re.search(r"^import matplotlib", source, re.M) and "plt.subplots" in source
    return ["no plt.style.use"] * bool(draws and f"plt.style.use('ddpm_course.assets.course')" not in source)


def unguarded(path: Path) -> list[str]:
    "cells that take minutes and run under Run All"
    slow = [c for c in code_cells(path) if "slow" in directives("".join(c["source"]))]
    return [c["id"] for c in slow if "if slow():" not in "".join(c["source"])]


def asserted_times(path: Path) -> list[str]:
    "assertions on time, which end Run All on a busy machine"
    lines = "\n".join(cells(path)).splitlines()
    return [line.strip() for line in lines if re.match(r"\s*assert\b.*\b(m?seconds|took|elapsed)\b[^=]*<", line)]


def stored_errors(path: Path) -> list[str]:
    "outputs that are errors"
    return [c["id"] for c in code_cells(path) if any(o["output_type"] == "error" for o in c["outputs"])]


def few_outputs(path: Path) -> list[str]:
    "less than a quarter of the code cells with an output"
    shown = [bool(c["outputs"]) for c in code_cells(path)]
    return [f"{sum(shown)} of {len(shown)}"] * (4 * sum(shown) < len(shown))


def bad_ids(path: Path) -> list[str]:
    "cell ids missing or used twice"
    ids = Counter(c.get("id", "no id") for c in json.loads(read(path))["cells"])
    return [name for name, n in ids.items() if n > 1 or name == "no id"]


def other_code(path: Path) -> list[str]:
    "outputs of other code: run tools/execute.py"
    nb = json.loads(read(path))
    kept, now = nb["metadata"].get("executed"), source_hash(nb["cells"])
    return [f"{kept} is stored, the cells are {now}"] * (kept != now)


def empty_cells(path: Path) -> list[str]:
    "empty code cells"
    return [c["id"] for c in code_cells(path) if not "".join(c["source"]).strip()]


def links(text: str) -> list[str]:
    "Files that a text links to or shows: paths with a suffix, no addresses."
    return re.findall(r"""(?:\]\(|src=["'])(?![a-z]+:)([^)"'\s#]+\.\w+)(?=[)"'\s#])""", text)


def dead_links(path: Path) -> list[str]:
    "links to files that do not exist"
    return [target for target in links("\n".join(cells(path, "markdown"))) if not (path.parent / target).exists()]


def late_default_exp(path: Path) -> list[str]:
    "`default_exp` outside the first code cell"
    return default_exp(path) if "default_exp" not in directives((cells(path) or [""])[0]) else []


def other_title(path: Path) -> list[str]:
    "title that does not begin with the chapter's own number"
    first = (cells(path, "markdown") or [""])[0].splitlines() or [""]
    return [] if first[0].startswith(f"# {number(path)} · ") else [first[0]]


def no_next(path: Path) -> list[str]:
    "no line that starts with **Next:** and links to the next lesson"
    lines = "\n".join(cells(path, "markdown")).splitlines()
    following = [p.name for p in LESSON_PAGES if number(p) > number(path)][:1]
    if not following:
        return []
    linked = [Path(target).name for line in lines if line.startswith("**Next:**") for target in links(line)]
    return [] if linked and following[0] in linked else [f"{following[0]} is not among {linked}"]


def unmarked(path: Path) -> list[str]:
    "workshop that does not say at its beginning that it is one"
    if not is_workshop(path):
        return []
    start = "\n".join(cells(path, "markdown")[:2]).splitlines()[1:5]
    return [] if any(re.match(r"\*A workshop: .*skip.*\*$", line) for line in start) else start


def run_faults(output: str, notebooks: list[Path]) -> list[str]:
    "Notebooks that `nbdev_test --do_print --timing` did not report. (Two workers may print into one line.)"
    seconds = seconds_of(output)
    missing = [p for p in notebooks if f"- Completed {p}" not in output or p.name not in seconds]
    return [f"{p.name} was not run" for p in missing]


def seconds_of(output: str) -> dict[str, int]:
    "What `nbdev_test --timing` says that each notebook took."
    return {name: int(s) for name, s in re.findall(r"^(\S+\.ipynb): (\d+) secs$", output, re.M)}


def nbdev_test(root: Path, limit: float, without: tuple[Path, ...] = ()) -> tuple[int, str]:
    "Run all notebooks with two workers of one thread; exit code and output. After `limit` seconds all is killed."
    skip = "|".join(["[_.]", *(re.escape(path.name) for path in without)])
    command = [script("nbdev_test"), "--n_workers", "2", "--do_print", "--timing", "--skip_file_re", f"^({skip})"]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, cwd=root, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    try:
        output, _ = process.communicate(timeout=limit)
    finally:
        if process.poll() is None:  # too late, or interrupted: the workers go too
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return process.returncode, output


FILE_CHECKS = [
    *(too_large, widget_state, stored_errors, stored_stderr, few_outputs, bad_ids, other_code, empty_cells, dead_links),
    *(unfolded, unstyled, unguarded, asserted_times),
]


def unlinked(path: Path) -> list[str]:
    "chapter whose workshops or solutions it does not link to"
    own = [p for p in NOTEBOOKS if is_workshop(p) and p in CHAPTERS and number(p)[:-1] == number(path)]
    own += [p for p in NOTEBOOKS if p.name == f"{path.stem}_solution.ipynb"]
    linked = {(path.parent / target).resolve() for target in links("\n".join(cells(path, "markdown")))}
    return [p.name for p in own if p not in linked]


def no_way_back(path: Path) -> list[str]:
    "solutions that belong to no chapter or do not link to theirs"
    home = [p for p in CHAPTERS if p.name == path.name.replace("_solution", "")]
    linked = {(path.parent / target).resolve() for target in links("\n".join(cells(path, "markdown")))}
    return [] if home and home[0] in linked else [path.name]


def no_way_to_all(path: Path) -> list[str]:
    "last text without a link to the index"
    last = (cells(path, "markdown") or [""])[-1]
    return [] if any(Path(target).name == "index.ipynb" for target in links(last)) else ["no link to the index"]


CHAPTER_CHECKS = [no_way_to_all, late_default_exp, other_title, no_next, unmarked, unlinked]


# -- the notebooks ----------------------------------------------------------------------------------------------------


@each(NOTEBOOKS)
@each_check(*FILE_CHECKS)
def test_notebook(path, check):
    found = check(path)
    assert not found, f"{path.name}: {check.__doc__}: {found}"


@each(CHAPTERS)
@each_check(*CHAPTER_CHECKS)
def test_chapter(path, check):
    found = check(path)
    assert not found, f"{path.name}: {check.__doc__}: {found}"


@each([p for p in NOTEBOOKS if p.parent.name == "solutions"])
def test_solutions(path):
    found = no_way_back(path)
    assert not found, f"{path.name}: {no_way_back.__doc__}: {found}"


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


def test_needed():
    f = "def f():\n    z = x\n    return e"
    cells = ["import a.b\nfrom c import d as e", "x = a.y\nx[1] = 3", f + "\nf(2)", "x = z = 2"]
    statements = ["import a.b", "from c import d as e", "x = a.y", "x[1] = 3", f]
    assert needed(cells, ["f"]) == statements and needed(cells, ["q"]) == []


@each([p for p in LESSON_PAGES if judges(p)])
def test_exercises(path, monkeypatch):
    "The checks accept the solutions, and refuse at least two wrong answers each, with a hint."
    refused, honest = [], tools.expect_error

    @contextmanager
    def noted(kind, words=""):
        with honest(kind, words):
            refused.append(words) if kind is AssertionError else None
            yield

    monkeypatch.setattr(tools, "expect_error", noted)
    space: dict = {"__name__": path.stem}
    run = TransformerManager().transform_cell
    for source in chain(*exercises(path)):
        exec(run(source), space)
    names = judges(path)
    assert all(space[f"check_{name}"](space[name]) is None for name in names), "nothing is written yet"
    print(f"{path.stem}: {len(names)} answers are judged, {len(refused)} wrong ones refused: {refused}")
    assert all(refused) and len(refused) >= 2 * len(names)
    for source in needed(map(run, cells(ROOT / f"nbs/solutions/{path.stem}_solution.ipynb")), names):
        exec(source, space)
    assert [name for name in names if space[f"check_{name}"](space[name]) is not True] == []


def test_every_other_notebook_runs():
    "Those that no other test runs. What each took is shown, beside what is promised, at the end of the tests."
    elsewhere = {*COME_AGAIN, *IN_BROWSER}
    start = time.perf_counter()
    code, output = nbdev_test(ROOT, limit=10 * PROMISED, without=tuple(elsewhere))
    seconds = time.perf_counter() - start
    print(output)  # shown when an assertion fails
    assert code == 0, f"nbdev_test ended with {code}; see its output"
    faults = run_faults(output, [path for path in NOTEBOOKS if path not in elsewhere])
    assert not faults, faults
    promise("notebooks by nbdev_test", seconds, PROMISED)
    for name, took in seconds_of(output).items():
        promise(name, took, MINUTE)


@each([p for p in COME_AGAIN if p not in IN_BROWSER])
def test_outputs_come_again(path, tmp_path):
    "Run anew, a chapter prints what is stored."
    copy = Path(shutil.copy(path, tmp_path))
    command, start = [sys.executable, ROOT / "tools/execute.py", copy], time.perf_counter()
    subprocess.run(command, cwd=tmp_path, check=True, env=os.environ | {"PYTHONPATH": str(ROOT)})
    promise(path.name, time.perf_counter() - start, MINUTE)
    come_again(path, json.loads(read(copy)))


def test_other_words():
    assert not other_words("(0.1234, 5)", "(0.1235, 5)") and not other_words("none", "none")
    assert other_words("0.12", "0.13") and other_words("1 of 2", "1 in 2") and other_words("1", "-1")


# -- the checks can fail ----------------------------------------------------------------------------------------------


def code(source: str, *outputs: dict, id: str = "a") -> dict:
    return {"cell_type": "code", "id": id, "metadata": EXECUTE.folds(source), "source": source, "outputs": outputs}


def text(source: str, **more) -> dict:
    return {"cell_type": "markdown", "id": "text", "source": source, **more}


def write(path: Path, *nb_cells: dict, **metadata) -> Path:
    "A notebook of these cells, marked as executed."
    meta = {"executed": source_hash(nb_cells), **metadata}
    path.write_text(json.dumps({"cells": nb_cells, "metadata": meta, "nbformat": 4, "nbformat_minor": 5}))
    return path


FILM = {"output_type": "display_data", "data": {"image/gif": ""}}
SHOWN = {"output_type": "execute_result", "data": {"text/plain": "1"}}
NEXT = next(p.name for p in LESSON_PAGES if number(p) > "05")
FINE = [
    code("#| default_exp topic", id="0"),
    code("1", SHOWN),
    text(
        "# 05 · Topic\n[own](05_topic.ipynb#end) $[a](b)$ [web](https://a.b/c.d)\n\n"
        f"**Next:** [x]({NEXT})\n\nBack to the [index](index.ipynb)."
    ),
]


def test_fine_notebook_passes(tmp_path):
    path = write(tmp_path / "05_topic.ipynb", *FINE)
    write(tmp_path / NEXT)
    write(tmp_path / "index.ipynb")
    assert {check.__name__: found for check in FILE_CHECKS + CHAPTER_CHECKS if (found := check(path))} == {}


def test_films_may_be_larger(tmp_path):
    assert not too_large(write(tmp_path / "05_topic.ipynb", text("x" * MAX_BYTES), code("1", FILM)))


def test_folds():
    imports, answer = {"jupyter": {"source_hidden": True}}, {"jupyter": {"outputs_hidden": True}}
    assert EXECUTE.folds("#| export\nimport os\nif TYPE_CHECKING:\n    from a import b") == imports
    assert EXECUTE.folds("import os\nplt.style.use('a.b')") == EXECUTE.folds("#| hide\n1") == imports
    assert EXECUTE.folds("import os\nx = 1") == EXECUTE.folds("!ls") == EXECUTE.folds("with a:\n    reveal(1)") == {}
    assert EXECUTE.folds("x = 1\n(reveal('a', x),\n reveal('b', x))") == answer
    assert EXECUTE.folds("#| export\ndef reveal(a): 1\nreveal(1)") == {}


def test_complaints():
    said = {"name": "stderr", "text": "\r 10%|# | 1/10 [00:01<00:09, 1.00it/s]\nUserWarning: no\n"}
    assert EXECUTE.complaints([said, {"name": "stdout", "text": "fine"}]) == ["UserWarning: no"]


@pytest.mark.parametrize(
    "check, nb_cells, metadata",
    [
        (too_large, [text("x" * MAX_BYTES)], {}),
        (too_large, [text("x" * MAX_BYTES_WITH_FILMS), code("1", FILM)], {}),
        (stored_stderr, [code("1", {"output_type": "stream", "name": "stderr", "text": "warning"})], {}),
        (unfolded, [{**code("import os"), "metadata": {}}], {}),
        (unfolded, [{**code("reveal('a', 1)"), "metadata": {}}], {}),
        (unstyled, [code("import matplotlib.pyplot as plt\nplt.subplots()")], {}),
        (unguarded, [code("#| slow\n1")], {}),
        (asserted_times, [code("assert min(seconds) < 0.15")], {}),
        (no_way_to_all, [text("[index](index.ipynb)", id="1"), text("The end.")], {}),
        (widget_state, [], {"widgets": {}}),
        (widget_state, [code("s", {"output_type": "display_data", "data": {WIDGET + "view+json": {}}})], {}),
        (stored_errors, [code("1 / 0", {"output_type": "error"})], {}),
        (few_outputs, [code("1", SHOWN), *[code("x = 1")] * 4], {}),
        (bad_ids, [code("1"), code("2")], {}),
        (bad_ids, [text("x", id="no id")], {}),
        (other_code, [code("1")], {"executed": source_hash([code("2")])}),
        (other_code, [code("1")], {"executed": None}),
        (empty_cells, [code(" \n")], {}),
        (dead_links, [text("[x](06_gone.ipynb)")], {}),
        (dead_links, [text('<img src="gone.png">')], {}),
        (dead_links, [text("![x](images/gone.png 'title')")], {}),
        (late_default_exp, [code("1"), code("#| default_exp topic")], {}),
        (other_title, [text("# 06 · Topic")], {}),
        (no_next, [text(f"see **Next:** [next]({NEXT})")], {}),
        (no_next, [text("**Next:** [later](99_later.ipynb)")], {}),
    ],
)
def test_notebook_check_can_fail(tmp_path, check, nb_cells, metadata):
    assert check(write(tmp_path / "05_topic.ipynb", *nb_cells, **metadata))


def test_workshop_must_be_marked(tmp_path):
    start = "# 05a · Topic: what it is\n\n{}\n\nMore."
    for line, right in [("*A workshop: how it is made. You can skip it.*", True), ("A promise.", False)]:
        path = write(tmp_path / "05a_topic.ipynb", text(start.format(line), id="1"), text("*A workshop: skip*"))
        assert bool(unmarked(path)) != right


def test_links_between_pages_can_be_missing(tmp_path):
    (tmp_path / "solutions").mkdir()
    solution = write(tmp_path / "solutions/05_topic_solution.ipynb", text("[05](../05_topic.ipynb)"))
    assert no_way_back(solution)
    chapter = write(tmp_path / "05_topic.ipynb", text("[solutions](solutions/05_topic_solution.ipynb)"))
    assert not no_way_back(solution) and not unlinked(chapter)
    write(solution, text("[06](../06_topic.ipynb)"))
    write(chapter, text("[solutions](solutions/05_solution.ipynb)"))
    assert no_way_back(solution) and unlinked(chapter) == [solution.name]
    write(chapter, text("[solutions](solutions/05_topic_solution.ipynb) [workshop](05a_made.ipynb)"))
    write(tmp_path / "05a_made.ipynb")
    assert not unlinked(chapter)
    write(tmp_path / "05b_made.ipynb")
    assert unlinked(chapter) == ["05b_made.ipynb"]


def test_run_faults_can_fail():
    a, b = Path("/nbs/00_a.ipynb"), Path("/nbs/01_b.ipynb")
    output = f"- Completed {a}\nSuccess.\n00_a.ipynb: 1234 secs\n"
    assert run_faults(output, [a]) == [] and seconds_of(output) == {"00_a.ipynb": 1234}
    assert run_faults(output, [a, b]) == ["01_b.ipynb was not run"]
    both = f"- Completed {a}- Completed {b}\n\n00_a.ipynb: 1 secs\n01_b.ipynb: 2 secs\n"  # seen
    assert run_faults(both, [a, b]) == []
    assert run_faults("No files were eligible for testing\n", [a]) == ["00_a.ipynb was not run"]
    assert run_faults(output.replace(f"- Completed {a}", ""), [a]) == ["00_a.ipynb was not run"]


def test_failing_notebook_is_noticed(tmp_path):
    (tmp_path / "nbs/solutions").mkdir(parents=True)
    (tmp_path / "ddpm_course").mkdir()
    (tmp_path / "settings.ini").write_text(read(ROOT / "settings.ini"))
    fine, solution = write(tmp_path / "nbs/00_fine.ipynb", code("1")), tmp_path / "nbs/solutions/00_s.ipynb"
    write(solution, code("x = 2"), code("assert x == 2"))
    status, output = nbdev_test(tmp_path, limit=600)
    assert status == 0 and run_faults(output, [fine, solution]) == [], output
    write(solution, code("x = 2"), code("assert x == 3"))
    status, output = nbdev_test(tmp_path, limit=600)
    assert status != 0 and "00_s.ipynb" in output
    with pytest.raises(subprocess.TimeoutExpired):
        nbdev_test(tmp_path, limit=0.1)
