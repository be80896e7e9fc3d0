"Notebooks as files: where they lie, their cells and directives, and the text that is stored."

import json
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def notebooks() -> list[Path]:
    "All of the checkout, in order."
    return sorted(p for p in (ROOT / "nbs").rglob("[!.]*.ipynb") if ".ipynb_checkpoints" not in p.parts)


def read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def text(nb: dict) -> str:
    return json.dumps(nb, indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def cells(path: Path, kind: str = "code") -> list[str]:
    "The sources of a notebook's cells."
    return ["".join(cell["source"]) for cell in read(path)["cells"] if cell["cell_type"] == kind]


def directives(source: str) -> dict[str, str]:
    "`#| name value` lines of a cell, as name: value."
    return dict(re.findall(r"^#[ \t]*\|[ \t]*(\S+)[ \t]*(.*)$", source, re.M))
