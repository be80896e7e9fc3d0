"""Write README.md from nbs/index.ipynb.

    python tools/readme.py            # writes README.md
    python tools/readme.py --check    # exit code 1 when README.md differs

Markdown cells are taken as they are, code cells become fenced blocks with the text they printed, and cells marked
`#| hide` are left out. Links that are relative to nbs/ are rewritten to be relative to the top folder.
"""

import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def relink(text: str) -> str:
    "Point links and images that are relative to nbs/ at the same file seen from the top folder."
    below = re.sub(r"(\]\(|src=\")(?![a-z]+:|#|/)(?=[^)\"\s])", r"\1nbs/", text)
    return re.sub(r"(\]\(|src=\")nbs/\.\./", r"\1", below)


def readme(nb: dict) -> str:
    parts = ["<!-- Made from nbs/index.ipynb by `python tools/readme.py`: edit the notebook. -->"]
    for cell in nb["cells"]:
        source = "".join(cell["source"]).strip()
        if re.search(r"^#\|\s*hide", source, re.M) or not source:
            continue
        if cell["cell_type"] == "markdown":
            parts.append(relink(source))
            continue
        parts.append(f"```python\n{source}\n```")
        for output in cell["outputs"]:
            text = "".join(output.get("text", output.get("data", {}).get("text/plain", "")))
            if text and "image/png" not in output.get("data", {}):
                parts.append("\n".join("    " + line for line in text.rstrip().splitlines()))
    return "\n\n".join(parts) + "\n"


def main() -> None:
    text = readme(json.loads((ROOT / "nbs/index.ipynb").read_text(encoding="utf-8")))
    path = ROOT / "README.md"
    if sys.argv[1:] != ["--check"]:
        path.write_text(text, encoding="utf-8")
    elif path.read_text(encoding="utf-8") != text:
        sys.exit("README.md is out of date: run python tools/readme.py")


if __name__ == "__main__":
    main()
