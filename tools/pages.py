"""From notebooks to pages for readers: what tools/site.py gives to Sphinx.

A cell's tags say what it is (see CONTRIBUTING.md): what is folded in JupyterLab is folded here, under words of its own
kind. Lines that begin with `#|` go, a guess becomes a field in the page, and no check waits, as nothing runs here.
"""

import ast
import html
import os
import re
from pathlib import Path

from notebooks import ROOT, cells, read

from address import address

NOTEBOOKS = ROOT / "nbs"
FOLDS = {"imports": "Imports", "plot": "The code of this figure", "check": "What is checked here"}
GUESS = """<form class="guess" data-guess="{name}"><label>Your guess: {said} <input type="text" inputmode="decimal"
autocomplete="off"></label><output></output></form>"""
CAPTIONS = {  # of what is live on the site, where the figure itself stays, as the text speaks of it
    "draw": "Here are ten pictures in place of four. <i>Taken</i> is the long slider; sampler and steps stand under "
    "<i>Exact settings</i>, where ddim has eta 0 and ddpm eta 1; guidance ends at 6.",
    "plane": "All of this under your own hands: the exact denoiser is the photocopier.",
    "both": "Above a strip; here is the same digit at every step, with other noise.",
    "weights": "The figure above stays as it is. Here its weights follow the sliders, with the best answer as a dot.",
    "field": "The figure above stays as it is. This one follows the slider: its left panel, with fewer arrows.",
    "flow": "The same in the plane, with a slider: without fresh noise, four hundred points flow to a three.",
}
WORDS = {  # of what is live, where it shows something else than its figure
    "flow": "Four hundred points of the plane, with a mark for the quarter in which each began, flow to a three.",
}
EXERCISES = "## Exercises\n\n*In JupyterLab a check answers below each cell; [how to open it]({up}index.ipynb).*"
SHOWN = {NOTEBOOKS: "", ROOT / "docs": "docs", ROOT / "benchmarks/results": "results"}  # folder -> where on the site
YOURS = """Yours, so far, in this browser:

```{raw} html
<ul id="guesses"><li>none yet</li></ul>
```
"""
ROOMS = {"": "The ideas", "base": "What all stand on", "data": "Data", "run": "Runs", "judge": "Judging",
         "share": "Sharing", "cli": "The command line"}  # fmt: skip


def title(path: Path) -> str:
    "A page's name in lists: what stands before the colon of its title."
    return (
        re.search(r"^# ([^:\n]*)", "\n".join(cells(path, "markdown")), re.M)[1]
        .replace(" · ", " ")
        .replace("`", "")
        .strip()
    )


def on_site(path: Path) -> str:
    "Where a file of the checkout stands on the site, or the page of a folder in nbs/; '' if it does not."
    for folder, there in SHOWN.items():
        if path.is_relative_to(folder) and (path.is_file() or folder == NOTEBOOKS):
            found = (Path(there) / path.relative_to(folder)).as_posix()
            return {"index.ipynb": "course.ipynb"}.get(found, f"{found}.md" if path.is_dir() else found)
    return ""


def prose(text: str, path: Path) -> str:
    "Markdown with links that hold inside the site; the index of the notebooks is the page `course`."

    def link(found: re.Match) -> str:
        words, to = found.groups()
        if to.startswith("#"):  # as MyST names headings
            return f"[{words}]({re.sub(r'[^#a-z0-9-]', '', to.lower())})"
        if re.match("[a-z]+:", to):
            return found[0]
        name, mark, heading = to.partition("#")
        place = (path.parent / name).resolve()
        if there := on_site(place):
            return f"[{words}]({os.path.relpath(there, Path(on_site(path)).parent)}{mark}{heading})"
        repository, _ = address()
        return f"[{words}]({repository}/blob/main/{place.relative_to(ROOT)})" if repository else words

    up = "" if path.parent == NOTEBOOKS else "../"
    text = re.sub(r"^## Exercises$", EXERCISES.format(up=up), text, flags=re.M)
    text = text.replace("Clone this repository", "Clone the repository (the cover of this site has the line)")
    text = re.sub(r"Solutions: \[solutions/[^\]]*\]", "[The solutions]", text)
    return re.sub(r"\[([^\]]*)\]\(([^)\s]+)\)", link, text)


def solved(text: str, path: Path) -> str:
    "Exercises, each with a link to its section of the solutions."
    to = NOTEBOOKS / "solutions" / f"{path.stem}_solution.ipynb"
    sections = re.findall(r"^## ((\d) · .*)$", "\n".join(cells(to, "markdown")), re.M) if to.exists() else []
    for title, number in sections:
        anchor = re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")  # as MyST and GitHub make it
        link = f"[(solution)]({os.path.relpath(to, path.parent)}#{anchor})"
        text = re.sub(rf"^({number}\. \*\*|\*\*{number}\. )(.*?\*\*)", rf"\g<0> {link}", text, flags=re.M)
    return text


def plain(words: str) -> str:
    "Words for where no formula can stand: x_{500} is x₅₀₀."
    digits = str.maketrans("0123456789t", "₀₁₂₃₄₅₆₇₈₉ₜ")
    words = re.sub(r"\[([^\]]*)\]\([^)]*\)|[`*$]", r"\1", words)
    return re.sub(r"_\{?(\d+|t)\}?(?![\w])", lambda found: found[1].translate(digits), words)


def guesses(source: str) -> str:
    "Fields for the guesses that a cell asks for."
    calls = [node.value for node in ast.parse(source).body if isinstance(node, ast.Expr)]
    names = [ast.literal_eval(call.args[0]) for call in calls]
    return "\n".join(GUESS.format(name=html.escape(name), said=html.escape(plain(name))) for name in names)


def spoken(output: dict) -> list[dict]:
    "An output for readers: no boxes that wait for an answer; a revealed answer is set beside the reader's guess."
    text = "".join(output.get("data", {}).get("text/html", ""))
    if "<b>waiting:</b>" in text or "folded: run the cell" in text:
        return []
    answer = re.search(r"<b>answer:</b> (.*) \((.*)\); no guess", text)
    if answer:
        said, name = answer.groups()
        line = (
            f'<p class="answer" data-guess="{name}" data-answer="{said}"><b>{plain(name)}:</b> {said}<span></span></p>'
        )
        return [{"output_type": "display_data", "metadata": {}, "data": {"text/html": line}}]
    return [output]


def live(kind: str, words: str) -> dict:
    "The output of a cell that draws in the page; `words` say what its figure shows."
    script, said = kind if kind in ("draw", "plane") else "explore", WORDS.get(kind, words)
    name = f'id="{kind}" class="live"' if script == kind else f'class="live explore" data-kind="{kind}"'
    text = (
        f'<p class="small">{CAPTIONS.get(kind, "")}</p><section {name} aria-label="{html.escape(said)}"></section>\n'
        f'<script type="module" src="_static/{script}.js"></script>'
    )
    return {"output_type": "display_data", "metadata": {}, "data": {"text/html": text}}


def code(cell: dict, path: Path, told: str) -> dict | None:
    "A code cell for readers; None where there is nothing to read."
    source, tags = "".join(cell["source"]), set(cell["metadata"].get("tags", []))
    shown = re.sub(r"^#\|.*\n?", "", source, flags=re.M).strip("\n")
    outputs = [said for output in cell["outputs"] for said in spoken(output)]
    if not shown or (re.search(r"^#\| hide", source, re.M) and not outputs):
        return None
    if re.match(r"predict\(", shown):
        return {"cell_type": "markdown", "metadata": {}, "id": cell["id"], "source": guesses(shown)}
    if shown.startswith("%%"):  # a file that is written, or a shell
        first, _, rest = shown.partition("\n")
        language = "python" if first.endswith(".py") else "bash"
        name = first.removeprefix("%%writefile ").replace("{folder}/", "") if "writefile" in first else "In a shell"
        block = f"```{{code-block}} {language}\n:caption: {name}\n\n{rest}\n```"
        return {"cell_type": "markdown", "metadata": {}, "id": cell["id"], "source": block}
    kind = next((words for tag, words in FOLDS.items() if tag in tags), "The code")
    if kind == FOLDS["check"] and (
        re.search(r"^#\| export", source, re.M) or not re.search(r"^\s*assert ", source, re.M)
    ):
        kind = "The code"
    kind += f": {told}" if told and kind != "Imports" else ""
    meta: dict = {"code_prompt_show": kind, "code_prompt_hide": kind}
    if "answer" in tags:
        shown_as = "".join(str(output.get("data", "")) for output in outputs)
        how = ": a figure" if "image/png" in shown_as else ": a table" if "<table" in shown_as else ""
        meta = {f"code_prompt_{way}": f"The answer{how}" for way in ("show", "hide")}
        tags = {"remove-input", "hide-output"} if tags & {"plot", "check"} else {"hide-output"}
    if re.search(r"^#\| hide", source, re.M):
        tags = {"remove-input"}
    alts = [facts["alt"] for output in outputs for facts in output.get("metadata", {}).values() if "alt" in facts]
    if alts:
        meta["image"] = {"alt": " ".join(alts).replace("\n", " ")}  # one for all pictures of a cell
    if explorer := re.search(r"^#\| live: (\w+)", source, re.M):
        outputs = [*(outputs if explorer[1] in CAPTIONS else []), live(explorer[1], meta["image"]["alt"])]
    kept = sorted(tags & {"hide-input", "hide-output", "remove-input"})
    return {**cell, "source": shown, "outputs": outputs, "metadata": {"tags": kept, "mystnb": meta}}


def overview(path: Path) -> list[dict]:
    "The cells of the course's own page: the table of its lessons first, the reader's guesses last."
    first, *others = read(path)["cells"]
    table = next(cell for cell in others if "".join(cell["source"]).startswith("## Read the course"))
    text = "".join(first["source"]).replace(
        "# ddpm_course: learn diffusion models by building one", "## About the course"
    )
    last = {**first, "id": "yours", "source": YOURS}
    rest = [cell for cell in others if cell is not table]
    return [{**first, "source": "# The whole course"}, table, {**first, "id": "about", "source": text}, *rest, last]


def page(path: Path) -> dict:
    "A notebook as a page. Import cells in a row become one, which lies before the first that is read."
    cells: list[dict] = []
    exercises = False  # whether they have begun
    exercises = False  # whether they have begun
    told = ""  # what a sentence before a fold says of it
    for cell in overview(path) if path.stem == "index" else read(path)["cells"]:
        if cell["cell_type"] == "markdown":
            before, mark, text = "".join(cell["source"]).rpartition("## Exercises")
            exercises = exercises or bool(mark)
            text = before + mark + (solved(text, path) if exercises else text)
            found = re.search(r"\n*\*Folded: (.*)\*\s*$", text)
            first, _, more = found[1].partition(". ") if found else ("", "", "")  # more is for all to read
            told = plain(first).rstrip(".")
            text = prose(f"{text[: found.start()]}\n\n{more}" if found else text, path)
            if explorer := re.search(r"<!-- live: (\w+) -->", text):
                html_of = live(explorer[1], "Points, and walkers that find them.")["data"]["text/html"]
                text = text.replace(explorer[0], f"```{{raw}} html\n{html_of}\n```")
            cells.append({**cell, "source": text})
            continue
        made, before = code(cell, path, told), cells[-1]["metadata"].get("mystnb", {}) if cells else {}
        words = made["metadata"].get("mystnb", {}).get("code_prompt_show") if made else None
        if made and words == "Imports" == before.get("code_prompt_show"):
            cells[-1]["source"] += "\n\n" + made["source"]
        elif made:
            cells.append(made)
    return {"nbformat": 4, "nbformat_minor": 5, "cells": cells,
            "metadata": {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
                         "language_info": {"name": "python"}}}  # fmt: skip


def deep_dives() -> str:
    "The table of the deep dives, as docs/design.md has it."
    text = (ROOT / "docs/design.md").read_text(encoding="utf-8")
    table = re.search(r"^\| deep dive \|.*?(?=\n\n|\Z)", text, re.M | re.S)[0]
    return "\n" + table.replace("../nbs/", "") + "\n"


def documentation() -> dict[str, str]:
    "The pages of docs/, by name."
    return {path.name: prose(path.read_text(encoding="utf-8"), path) for path in sorted((ROOT / "docs").glob("*.md"))}


def public(path: Path) -> dict[str, ast.FunctionDef | ast.ClassDef]:
    "The functions and classes of a module that are for others: those of `__all__`, or without an underscore."
    text = path.read_text(encoding="utf-8")
    listed = re.search(r"__all__ = (\[.*?\])", text, re.S)
    found = {node.name: node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    names = ast.literal_eval(listed[1]) if listed else [name for name in found if not name.startswith("_")]
    return {name: node for name, node in found.items() if name in names}


def modules(room: str) -> dict[str, Path]:
    "The modules of a room that have public names, by their dotted names."
    found = sorted((ROOT / "ddpm_course" / room).glob("[!_]*.py"))
    return {".".join(p.relative_to(ROOT).with_suffix("").parts): p for p in found if public(p)}


def interface(room: str) -> str:
    "The public names of the modules in a room: signatures with their comments, and docstrings."
    parts = [f"# {ROOMS[room]}", ""]
    for module, path in modules(room).items():
        text = path.read_text(encoding="utf-8")
        made = re.search(r"File to edit: (?:\.\./)*nbs/(.*)\.ipynb", text)
        parts += [f"## {module}", "", *([f"Made in [{made[1]}](../{made[1]}.ipynb).", ""] if made else [])]
        for node in public(path).values():
            first = node.decorator_list[0].lineno if node.decorator_list else node.lineno
            last = node.body[0].end_lineno if ast.get_docstring(node) is not None else node.body[0].lineno - 1
            parts.append("```python\n" + "\n".join(text.splitlines()[first - 1 : last]) + "\n```\n")
    return "\n".join(parts)


def interfaces() -> str:
    "A line for each module: the first of its docstring, or else its public names."
    rows = ["", "| module | what is in it |", "|---|---|"]
    for room in ROOMS:
        for module, path in modules(room).items():
            said = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").partition("\n")[0]
            here = f"api/{room or 'ideas'}.md#{module.replace('.', '-').replace('_', '-')}"
            rows.append(f"| [{module.removeprefix('ddpm_course.')}]({here}) | {said or ', '.join(public(path))} |")
    return "\n".join(rows) + "\n"
