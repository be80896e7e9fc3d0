"""Write README.md from nbs/index.ipynb, and into each chapter its links to the one before, the index, the next.

    python tools/readme.py            # writes README.md, the links, and the addresses in CITATION.cff
    python tools/readme.py --check    # exit code 1 when one of them differs

Markdown cells are taken as they are, code cells become fenced blocks with the text they printed, and cells marked
`#| hide`, or `<!-- hide -->` in Markdown, are left out. Links that are relative to nbs/ are rewritten to be relative to
the top folder. Once the address of the repository is known (tools/address.py), README.md names it and the site.
"""

import re
import sys
from pathlib import Path

from notebooks import ROOT, read, text

from address import address


def relink(text: str) -> str:
    "Point links and images that are relative to nbs/ at the same file seen from the top folder."
    below = re.sub(r"(\]\(|src=\")(?![a-z]+:|#|/)(?=[^)\"\s])", r"\1nbs/", text)
    return re.sub(r"(\]\(|src=\")nbs/\.\./", r"\1", below)


def addressed(text: str, repository: str, site: str) -> str:
    "Fill in where the repository and the site are, or name neither."
    if repository:
        text = text.replace("Clone this repository", f"Clone this repository (`git clone {repository}`)")
    there = f"The course is also [a site]({site}), where a model draws digits in your browser."
    return text.replace("<!-- site -->\n\n", there + "\n\n" if site else "")


def citation(text: str, repository: str, site: str) -> str:
    "CITATION.cff with both addresses, or with none."
    text = re.sub(r"^(repository-code|url): .*\n", "", text, flags=re.M)
    lines = f"repository-code: {repository}\nurl: {site}\n" if repository else ""
    return text.replace("license:", lines + "license:", 1)


def readme(nb: dict) -> str:
    parts = ["<!-- Made from nbs/index.ipynb by `python tools/readme.py`: edit the notebook. -->"]
    for cell in nb["cells"]:
        source = "".join(cell["source"]).strip()
        if re.search(r"^(#\||<!--)\s*hide", source, re.M) or not source:
            continue
        if cell["cell_type"] == "markdown":
            parts.append(relink(source))
            continue
        parts.append(f"```python\n{source}\n```")
        for output in cell["outputs"]:
            said = "".join(output.get("text", output.get("data", {}).get("text/plain", "")))
            if said and "image/png" not in output.get("data", {}):
                parts.append("\n".join("    " + line for line in said.rstrip().splitlines()))
    return "\n\n".join(parts) + "\n"


def navigated(path: Path, lessons: list[Path]) -> str:
    "A chapter with its links below its title and at its end; a deep dive's lead to its own lesson and the next."
    nb = read(path)
    number = lambda p: p.name.partition("_")[0]
    up = "" if path.parent.name == "nbs" else "../"
    links = [f"[index]({up}index.ipynb)"]
    links[:0] = [f"[← {p.stem.replace('_', ' ')}]({up}{p.name})" for p in lessons if number(p) < number(path)][-1:]
    links += [f"[{p.stem.replace('_', ' ')} →]({up}{p.name})" for p in lessons if number(p) > number(path)][:1]
    texts = [cell for cell in nb["cells"] if cell["cell_type"] == "markdown"]
    for cell, place in ((texts[0], r"\A.*\n"), (texts[-1], r"\Z")):
        source = re.sub(r"\n\n(Back to the \[index|(\[← .*)?\[index\]\().*", "", "".join(cell["source"]))
        source = re.sub(place, lambda found: found[0].rstrip() + "\n\n" + " · ".join(links) + "\n", source, count=1)
        cell["source"] = source.rstrip().splitlines(keepends=True)
    return text(nb)


def main() -> None:
    chapters = [p for folder in ("nbs", "nbs/deep_dives") for p in sorted((ROOT / folder).glob("[0-9]*.ipynb"))]
    lessons = [p for p in chapters if p.parent.name == "nbs"]
    made = {path: navigated(path, lessons) for path in chapters}
    made[ROOT / "README.md"] = addressed(readme(read(ROOT / "nbs/index.ipynb")), *address())
    made[ROOT / "CITATION.cff"] = citation((ROOT / "CITATION.cff").read_text(encoding="utf-8"), *address())
    for path, now in made.items():
        if path.read_text(encoding="utf-8") == now:
            continue
        if "--check" in sys.argv:
            sys.exit(f"{path.name} is out of date: run python tools/readme.py")
        path.write_text(now, encoding="utf-8")


if __name__ == "__main__":
    main()
