"""Execute notebooks in place and keep their real outputs.

    python tools/execute.py                      # notebooks whose cells, or the modules behind them, have changed
    python tools/execute.py --all                # every notebook
    python tools/execute.py nbs/02_schedules.ipynb ...
    python tools/execute.py --flags slow         # cells marked `#| slow` too

Cells whose flag is in `tst_flags` (settings.ini) are skipped and keep the outputs they have, as are
`#| eval: false` cells. Widget views are dropped: a stored page can show the static figure beside them, not a slider.
Whatever a library says on stderr ends the run: readers would see it in pink, and nobody else would.

JupyterLab folds what this script marks: the source of cells that only import or that begin with a line `#| fold: plot`
or `#| fold: check` (without the colon in an exported cell: nbdev keeps a line with one in the module), and what
`reveal` shows, until it is run. Tags say the same to other programs: `hide-input` or `hide-output`, and `imports`,
`plot`, `check`, or `answer`. `#| fold-output` folds the output of any other cell. Lines `#| fig-alt: ...` become the
alt text of figures.
"""

import argparse
import ast
import configparser
import json
import os
import re
import sys
import time
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path

from arrows import behind_text, modules

ROOT = Path(__file__).resolve().parent.parent
WIDGET = "application/vnd.jupyter.widget-view+json"
FOLDED = {"text/html": "<!-- folded: run the cell, or click here -->"}  # else its first line is in sight


def digest(*texts: str) -> str:
    "The same with other comments: lines that are nothing else are left out."
    lines = [line.rstrip() for text in texts for line in text.splitlines() if not re.match(r" *# ", line)]
    return sha256(json.dumps(lines).encode()).hexdigest()[:16]


def fingerprint(cells: list[dict]) -> dict[str, str]:
    "Kept beside the outputs, `executed`: of which code cells they are, of which modules, of which PyTorch."
    code = ["".join(c["source"]) for c in cells if c["cell_type"] == "code"]
    below = [modules()[name].read_text(encoding="utf-8") for name in sorted(behind_text("\n".join(code)))]
    torch = ".".join(version("torch").split(".")[:2])
    return {"cells": sha256(json.dumps(code).encode()).hexdigest()[:16], "modules": digest(*below), "torch": torch}


def changed(path: Path) -> set[str]:
    "What is not as it was when a notebook's outputs were made: cells, modules, torch."
    nb = json.loads(path.read_text(encoding="utf-8"))
    kept = nb["metadata"].get("executed")
    kept = kept if isinstance(kept, dict) else {}
    return {name for name, now in fingerprint(nb["cells"]).items() if kept.get(name) != now}


def stored(outputs: list[dict], alt: str = "") -> list[dict]:
    "Outputs as they are committed: no widget views, no progress bars, pictures alone, with their alt text."
    kept = [o for o in outputs if WIDGET not in o.get("data", {}) and o.get("name") != "stderr"]
    for output in kept:
        data = output.get("data", {})
        if "image/png" in data:
            data.pop("image/jpeg", None)  # of the same picture
        for kind in [kind for kind in data if kind in ("image/png", "image/jpeg", "image/gif", "image/svg+xml")]:
            data[kind] = data[kind].strip()
            data.pop("text/html", None)  # JupyterLab's: what an explorer shows beside its controls
            if alt:
                output["metadata"] = {kind: {"alt": alt}}
    return kept


def complaints(outputs: list[dict]) -> list[str]:
    "What a cell said on stderr, but for progress bars."
    said = "".join("".join(o["text"]) for o in outputs if o.get("name") == "stderr")
    return [line for line in re.split(r"[\r\n]+", said) if line.strip() and not re.search(r"\d%\||\dit\b", line)]


def only_imports(tree: ast.Module) -> bool:
    "Whether a cell imports and chooses the figures' style, and does nothing else."

    def imports(node: ast.stmt) -> bool:
        if isinstance(node, ast.If):
            return ast.unparse(node.test) == "TYPE_CHECKING" and all(map(imports, node.body))
        return isinstance(node, (ast.Import, ast.ImportFrom)) or ast.unparse(node).startswith("plt.style.use(")

    return bool(tree.body) and all(map(imports, tree.body))


def reveals(tree: ast.Module) -> bool:
    "Whether a cell shows what `reveal` says: not where it is defined or tried out in a block of its own."
    blocks = (ast.With, ast.FunctionDef, ast.ClassDef, ast.Assert)
    nodes = [inner for node in tree.body if not isinstance(node, blocks) for inner in ast.walk(node)]
    return any(isinstance(n, ast.Call) and ast.unparse(n.func) == "reveal" for n in nodes)


def folds(source: str) -> dict:
    "The metadata of a code cell: what JupyterLab shows folded."
    from IPython.core.inputtransformer2 import TransformerManager

    directives = dict(re.findall(r"^#\|\s*(\S+)[ \t]*(.*)$", source, re.M))
    tree = ast.parse(TransformerManager().transform_cell(source))
    folded, tags = {}, []
    if "default_exp" in directives or "hide" in directives or only_imports(tree):
        folded["source_hidden"], tags = True, ["hide-input", "imports"]
    if kind := directives.get("fold:", directives.get("fold")):
        folded["source_hidden"], tags = True, ["hide-input", kind]
    if "export" not in directives and ("fold-output" in directives or reveals(tree)):
        folded["outputs_hidden"], tags = True, tags + ["hide-output", "answer"]
    return {"jupyter": folded, "tags": tags} if folded else {}


def alt_text(source: str) -> str:
    "What the cell's `#| fig-alt: ...` lines say of its figures."
    return " ".join(re.findall(r"^#\| fig-alt: *(.+)$", source, re.M))


def execute(path: Path, flags: set[str]) -> float:
    "Run one notebook from its own folder, write its outputs back, return the seconds it took."
    from execnb.shell import CaptureShell

    nb = json.loads(path.read_text(encoding="utf-8"))
    shell = CaptureShell(path, mpl_format="png")
    start = time.time()
    for i, cell in enumerate(nb["cells"]):
        shell._cell_idx = i  # what the error report names
        source = "".join(cell["source"])
        if cell["cell_type"] != "code":
            continue
        cell["metadata"] = folds(source)
        directives = re.findall(r"^#\|\s*(\S+)(?:\s+(\S+))?", source, re.M)
        if any(name in flags or (name, value) == ("eval:", "false") for name, value in directives):
            continue
        outputs = [dict(o) for o in shell.run(source)]
        if shell.exc:
            sys.exit(shell.prettytb(path))
        if said := complaints(outputs):
            sys.exit(f"{path.name}, cell {i} says on stderr:\n" + "\n".join(said))
        folded = "answer" in cell["metadata"].get("tags", ())
        before = [{"data": FOLDED, "metadata": {}, "output_type": "display_data"}] * folded
        cell.update(outputs=before + stored(outputs, alt_text(source)), execution_count=None)
    nb["metadata"].pop("language_info", None)  # as nbdev_clean leaves it
    nb["metadata"]["executed"] = fingerprint(nb["cells"])
    path.write_text(json.dumps(nb, indent=1, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8")
    return time.time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("notebooks", nargs="*", type=Path)
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--flags", default="")
    args = parser.parse_args()
    config = configparser.ConfigParser()
    config.read(ROOT / "settings.ini")
    flags = set(config["DEFAULT"]["tst_flags"].split()) - set(args.flags.split())
    os.environ["DDPM_SLOW"] = "1" if "slow" in args.flags.split() else "0"  # what `slow()` asks
    sys.path.insert(0, str(ROOT))
    found = sorted(p for p in (ROOT / "nbs").rglob("[!.]*.ipynb") if ".ipynb_checkpoints" not in p.parts)
    paths = [p.resolve() for p in args.notebooks or found if args.notebooks or args.all or changed(p) - {"torch"}]
    if len(paths) == 1:
        os.chdir(paths[0].parent)
        print(f"{execute(paths[0], flags):5.1f} s  {paths[0].name}")
        return
    for path in paths:  # a fresh process each: one notebook cannot lean on another
        pid = os.spawnv(os.P_WAIT, sys.executable, [sys.executable, __file__, str(path), "--flags", args.flags])
        if pid:
            sys.exit(pid)


if __name__ == "__main__":
    main()
