"""Execute notebooks: each in a process of its own, forked from one that has imported everything, two at a time.

    python tools/execute.py nbs/02_schedules.ipynb ...   # and keep their real outputs
    python tools/execute.py --all                        # every notebook
    python tools/execute.py --all --slow                 # cells marked `#| slow` too
    python tools/execute.py --check nbs/NAME.ipynb       # keep nothing, say what is not as it is stored

Cells marked `#| slow` are skipped and keep the outputs they have. From a cell on that trains or reads a clock, and is
marked `#| varies`, `--check` compares words only. Widget views are dropped: a stored page can show the static figure
beside them, not a slider. Whatever a library says on stderr ends the run: readers would see it in pink, and nobody else
would. At the end of a page each control of its explorers is moved, and must change the picture.

JupyterLab folds what this script marks: the source of cells that only import or that begin with a line `#| fold: plot`
or `#| fold: check` (without the colon in an exported cell: nbdev keeps a line with one in the module), and what
`reveal` shows, until it is run. Tags say the same to other programs: `hide-input` or `hide-output`, and `imports`,
`plot`, `check`, or `answer`. `#| fold-output` folds the output of any other cell. Lines `#| fig-alt: ...` become the
alt text of figures.
"""

import argparse
import ast
import base64
import io
import os
import pkgutil
import re
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from importlib import import_module
from pathlib import Path

from notebooks import ROOT, directives, notebooks, read, text

from clean import cleaned

WIDGET = "application/vnd.jupyter.widget-view+json"
FOLDED = {"text/html": "<!-- folded: run the cell, or click here -->"}  # else its first line is in sight
PICTURES = ("image/png", "image/jpeg", "image/gif", "image/svg+xml")


# -- what is stored ---------------------------------------------------------------------------------------------------


def stored(outputs: list[dict], alt: str = "") -> list[dict]:
    "Outputs as they are committed: no widget views, no progress bars, pictures alone, with their alt text."
    kept = [o for o in outputs if WIDGET not in o.get("data", {}) and o.get("name") != "stderr"]
    for output in kept:
        data = output.get("data", {})
        if "image/png" in data:
            data.pop("image/jpeg", None)  # of the same picture
        for kind in data.keys() & PICTURES:
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

    said = directives(source)
    tree = ast.parse(TransformerManager().transform_cell(source))
    folded, tags = {}, []
    if "hide" in said or only_imports(tree):
        folded["source_hidden"], tags = True, ["hide-input", "imports"]
    if kind := said.get("fold:", said.get("fold")):
        folded["source_hidden"], tags = True, ["hide-input", kind]
    if "export" not in said and ("fold-output" in said or reveals(tree)):
        folded["outputs_hidden"], tags = True, tags + ["hide-output", "answer"]
    return {"jupyter": folded, "tags": tags} if folded else {}


def alt_text(source: str) -> str:
    "What the cell's `#| fig-alt: ...` lines say of its figures."
    return " ".join(re.findall(r"^#\| fig-alt: *(.+)$", source, re.M))


# -- running ----------------------------------------------------------------------------------------------------------


def run(path: Path, slow: bool) -> dict:
    """The notebook with the outputs that it has now, run from top to bottom in its own folder.

    Without `slow`, cells marked so keep what they have. Raises SystemExit, with what is wrong, at the first cell
    that fails or says something on stderr, and where a control of an explorer does.
    """
    from execnb.shell import CaptureShell

    nb = read(path)
    os.chdir(path.parent)
    shell, values = CaptureShell(path, mpl_format="png"), []
    for i, cell in enumerate(nb["cells"]):
        shell._cell_idx = i  # what the error report names
        source = "".join(cell["source"])
        if cell["cell_type"] != "code":
            continue
        cell["metadata"] = folds(source)
        if "slow" in directives(source) and not slow:
            continue
        outputs = [dict(o) for o in shell.run(source)]
        if shell.exc:
            sys.exit(shell.prettytb(path))
        if said := complaints(outputs):
            sys.exit(f"{path.name}, cell {i} says on stderr:\n" + "\n".join(said))
        values.append(shell.result)
        folded = "answer" in cell["metadata"].get("tags", ())
        before = [{"data": FOLDED, "metadata": {}, "output_type": "display_data"}] * folded
        cell.update(outputs=before + stored(outputs, alt_text(source)), execution_count=None)
    for box in values:
        move_controls(box, path.name)
    return cleaned(nb)


def next_to(control):
    "The value of a control after one move: of a menu the next entry, of a slider one step up, or down at its end."
    if hasattr(control, "options"):
        options = [option[-1] if isinstance(option, tuple) else option for option in control.options]
        return options[(options.index(control.value) + 1) % len(options)]
    if hasattr(control, "base"):
        up, down, end = control.value * control.base**control.step, control.min, control.base**control.max
    else:
        up, down, end = control.value + control.step, control.value - control.step, control.max
    return up if up <= end else down


def move_controls(box, page: str) -> None:
    "Where a cell's value is an explorer: move each of its controls, and back; SystemExit if the picture stays."
    *controls, picture = getattr(box, "children", None) or [None]
    if "explorer" not in getattr(picture, "_dom_classes", ()):
        return
    for control in controls:
        here, shown = control.value, picture.value
        control.value = next_to(control)
        if picture.value == shown:
            sys.exit(f"{page}: the picture stays when {control.description} is moved to {control.value}")
        control.value = here


# -- comparing --------------------------------------------------------------------------------------------------------

NUMBER = r"[-+]?(?<![^\W_])\d+(?:,\d{3})*(?:\.\d*)?(?:e[-+]?\d+)?|\bnan\b"
OWN = r"\b(?:bf16|fp16|fp32)\b|\S*/tmp\w{8}\b"  # the machine's: the precision of `auto`, a folder for a while


def text_of(output: dict) -> str:
    "What an output says in words."
    data = output.get("data", {})
    kinds = [kind for kind in data if kind.startswith("text/") and not data.keys() & set(PICTURES)]
    return "\n".join("".join(part) for part in [output.get("text", ""), *(data[kind] for kind in sorted(kinds))])


def same_text(kept: str, now: str, varies: bool) -> bool:
    "The same words; and the same numbers to a hundredth, as processors differ in last digits, unless they vary."
    words = [re.sub(f"{NUMBER}|{OWN}", "#", text).split() for text in (kept, now)]
    numbers = [[float(n.replace(",", "")) for n in re.findall(NUMBER, text)] for text in (kept, now)]
    return words[0] == words[1] and (
        varies or all(str(a) == str(b) or abs(a - b) <= 0.01 * abs(a) + 1e-5 for a, b in zip(*numbers))
    )


def same_picture(kept: str, now: str) -> bool:
    "About the same size, and seen from afar the same."
    from PIL import Image, ImageChops, ImageStat

    a, b = (Image.open(io.BytesIO(base64.b64decode(text))).convert("L") for text in (kept, now))
    apart = ImageChops.difference(a.resize((32, 32)), b.resize((32, 32)))
    return all(abs(m / n - 1) < 0.1 for m, n in zip(a.size, b.size)) and ImageStat.Stat(apart).mean[0] < 5


def differences(kept: dict, now: dict) -> Iterable[str]:
    """What a notebook shows that is not what is stored in it.

    From a cell on that says `#| varies`, because it trains or reads a clock, numbers and pictures may be others.
    """
    cells = [cell for nb in (kept, now) for cell in nb["cells"] if cell["cell_type"] == "code"]
    varies = False
    for before, after in zip(cells[: len(cells) // 2], cells[len(cells) // 2 :]):
        varies |= "varies" in directives("".join(after["source"]))
        kinds = [[sorted(o.get("data", {o.get("name"): 0})) for o in cell["outputs"]] for cell in (before, after)]
        if kinds[0] != kinds[1]:
            yield f"cell {after['id']} shows {kinds[1]}, stored is {kinds[0]}"
            continue
        for old, new in zip(before["outputs"], after["outputs"]):
            texts = text_of(old), text_of(new)
            if not same_text(*texts, varies):
                yield f"cell {after['id']} says\n{texts[1]}\nand stored is\n{texts[0]}"
            for kind in old.get("data", {}).keys() & set(PICTURES[:3]):
                if not varies and not same_picture(old["data"][kind], new["data"][kind]):
                    yield f"cell {after['id']} draws another picture than is stored"


# -- the command ------------------------------------------------------------------------------------------------------


def warm_up() -> None:
    "Import what notebooks import, and start no thread."
    names = [module.name for module in pkgutil.walk_packages([str(ROOT / "ddpm_course")], "ddpm_course.")]
    for name in ["matplotlib.pyplot", "execnb.shell", "ipywidgets", *names]:
        if not name.endswith("__main__"):
            import_module(name)
    import_module("torch").set_num_threads(1)


def forked(work: Callable[[Path], None], path: Path) -> int:
    "Do the work in a child of this process; its number."
    if pid := os.fork():
        return pid
    code = 1
    try:
        work(path)
        code = 0
    except SystemExit as end:
        print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("notebooks", nargs="*", type=Path)
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--slow", action="store_true")
    args = parser.parse_args(words)
    os.environ["DDPM_SLOW"] = str(int(args.slow))  # what `slow()` asks
    os.environ |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}  # the same numbers, one at a time or two
    sys.path.insert(0, str(ROOT))

    def work(path: Path) -> None:
        begun = time.time()
        nb = run(path, args.slow)
        took = time.time() - begun
        if args.check:
            if found := list(differences(read(path), nb)):
                sys.exit(f"{path.name}: run tools/execute.py where this is wished\n" + "\n".join(found))
        else:
            path.write_text(text(nb), encoding="utf-8")
        print(f"{took:5.1f} s  {path.name}", flush=True)

    paths = [path.resolve() for path in (notebooks() if args.all else args.notebooks)]
    if len(paths) == 1:
        return work(paths[0])
    warm_up()
    running, failed = 0, 0
    for path in [*paths, None, None]:
        if running == 2 or (path is None and running):
            failed += os.wait()[1] != 0
            running -= 1
        if path:
            forked(work, path)
            running += 1
    sys.exit(f"{failed} of {len(paths)} notebooks failed" if failed else 0)


if __name__ == "__main__":
    main()
