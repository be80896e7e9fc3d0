"""Make _site/: the course as a web site, from the notebooks as they lie, with pages that draw in the reader's browser.

    .venv/bin/pip install -e '.[site]'      # once; and Node.js with npm
    python tools/site.py
    python -m http.server -d _site          # to look at it

The pages are Sphinx's (myst-nb, sphinx-book-theme); site/ has what they have beside the notebooks. When they are read,
nothing is loaded from another host.
"""

import json
import re
import shutil
import subprocess
import sys
from multiprocessing import Pool
from pathlib import Path

from notebooks import ROOT, notebooks
from PIL import Image

import figures
import pages
from address import address
from ddpm_course.data.sets import load_digits

SITE, WORK, OUT = ROOT / "site", ROOT / "build" / "site", ROOT / "_site"
MODELS = {name: ROOT / "ddpm_course/assets" / run for name, run in (("model", "mnist16"), ("faces", "faces16"))}
PARTS = {
    "What noise does": ("00", "01", "02", "03", "04", "05"),
    "The network": ("06", "07", "08", "09"),
    "Training and using it": ("10", "11", "12", "13"),
    "Branches, in any order": ("14", "15", "16", "17", "18", "19", "2"),
}
BESIDE = [
    "The whole course <course>",
    "Draw points <plane>",
    "Teaching <teaching>",
    "glossary",
    "notation",
    "references",
    "errata",
    *(f"docs/{name.removesuffix('.md')}" for name in pages.documentation()),
]


def packages() -> Path:
    "The packages of site/package.json, in the folder of the build."
    WORK.mkdir(parents=True, exist_ok=True)
    shutil.copy(SITE / "package.json", WORK)
    subprocess.run("npm install --no-package-lock --no-audit --no-fund --silent".split(), cwd=WORK, check=True)
    return WORK / "node_modules"


def tree(options: str, entries: list[str]) -> str:
    return "\n".join([f"\n```{{toctree}}\n{options}\n", *entries, "```\n"])


def entry(path: Path) -> str:
    return f"{pages.title(path)} <{path.relative_to(pages.NOTEBOOKS).with_suffix('')}>"


def write_sources(source: Path) -> None:
    "All pages, for Sphinx."
    shutil.rmtree(source, ignore_errors=True)
    shutil.copytree(SITE / "pages", source)
    for path in (SITE / "conf.py", SITE / "js/scorer.js"):
        shutil.copy(path, source)
    shutil.copytree(pages.NOTEBOOKS / "images", source / "images")
    shutil.copytree(pages.NOTEBOOKS / "solutions", source / "solutions", ignore=shutil.ignore_patterns("*.ipynb", ".*"))
    shutil.copytree(ROOT / "benchmarks/results", source / "results", ignore=shutil.ignore_patterns("*.json"))
    found = notebooks()
    for path in found:
        to = source / path.relative_to(pages.NOTEBOOKS)
        to.parent.mkdir(exist_ok=True)
        if path.stem == "index":
            to = to.with_name("course.ipynb")
        to.write_text(json.dumps(pages.page(path)), encoding="utf-8")
    (source / "api").mkdir()
    for room in pages.ROOMS:
        (source / "api" / f"{room or 'ideas'}.md").write_text(pages.interface(room), encoding="utf-8")

    (source / "docs").mkdir()
    for name, text in pages.documentation().items():
        (source / "docs" / name).write_text(text, encoding="utf-8")
    cover = (source / "index.md").read_text(encoding="utf-8")
    if repository := address()[0]:
        cover = re.sub(r"\n\*\(ADDRESS .*\n", "", cover).replace("ADDRESS", repository)
    (source / "index.md").write_text(cover, encoding="utf-8")

    lessons = [path for path in found if path.parent == pages.NOTEBOOKS and path.stem[0].isdigit()]
    below = {name: [entry(p) for p in found if p.parent.name == name] for name in ("deep_dives", "solutions")}
    below["api"] = [f"api/{room or 'ideas'}" for room in pages.ROOMS]
    for name, entries in below.items():
        with (source / f"{name}.md").open("a", encoding="utf-8") as file:
            file.write({"deep_dives": pages.deep_dives, "api": pages.interfaces}.get(name, str)())
            file.write(tree({"deep_dives": ":hidden:", "api": ":maxdepth: 2"}.get(name, ":maxdepth: 1"), entries))
    parts = {part: [entry(p) for p in lessons if p.stem.startswith(numbers)] for part, numbers in PARTS.items()}
    parts["Beside the lessons"] = [*BESIDE, *below, "licences"]
    with (source / "index.md").open("a", encoding="utf-8") as file:
        file.writelines(tree(f":hidden:\n:caption: {part}", entries) for part, entries in parts.items())


def write_static(static: Path, node: Path) -> None:
    "What the pages load: styles, scripts, the kernel, the model that ships, MathJax."
    shutil.rmtree(static, ignore_errors=True)
    shutil.copytree(SITE / "static", static)
    shutil.copytree(SITE / "js", static, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.wat"))
    subprocess.run([node / ".bin/wat2wasm", SITE / "js/matmul.wat", "-o", static / "matmul.wasm"], check=True)
    for name, run in MODELS.items():
        (static / name).mkdir()
        for path in (run / "config.json", *run.glob("checkpoints/*/ema.safetensors")):
            shutil.copy(path, static / name)
    train, test = (load_digits(split, 16).pixels for split in ("train", "test"))
    (static / "digits16.bin").write_bytes(train.tobytes() + test[171].tobytes())  # page 06's keys, and its query
    math = static / "mathjax"
    shutil.copytree(node / "mathjax/es5/output/chtml/fonts", math / "output/chtml/fonts")
    shutil.copy(node / "mathjax/es5/tex-chtml.js", math)


MENDED = [  # what the theme writes, and what a page has instead
    ('<summary aria-label="Toggle hidden content">', "<summary>"),
    ('<summary><span class="toctree', '<summary aria-label="its pages"><span class="toctree'),
    ("<script[^>]*fontawesome.js[^>]*></script>", ""),  # the icons are a font, too
    (r'(<button class="btn search-button-field[^>]*?) aria-label="Search"', r"\1"),
]


def mend(path: Path) -> set[str]:
    """Two figures for one, for light and dark; their sizes, so that a page does not jump while it loads, and a wide one
    can be moved sideways on a phone. And the words of a fold, or a button, are its name: what the theme adds
    would hide them from a screen reader. Which patterns of MENDED were there is given back."""
    text = path.read_text(encoding="utf-8")
    there = {old for old, _ in MENDED if re.search(old, text)}

    def figure(found: re.Match) -> str:
        begin, name, kind, end = found.groups()
        width, height = Image.open(OUT / "_images" / f"{name}.{kind}").size
        size = f' width="{width}" height="{height}" loading="lazy" '
        kinds = {"light": name, "dark": f"{name}-dark"}
        both = "".join(f'<span class="only-{k}">{begin}{n}.{kind}"{size}{end}</span>' for k, n in kinds.items())
        return f'<span class="wide">{both}</span>' if width > 600 else both

    text = re.sub(r'(<img [^>]*src="[^"]*_images/)([^"/]*)\.(png|gif)"([^>]*>)', figure, text)
    header = re.search(r'<header id="pst-header".*?</header>', text, re.S)  # out of sight, and its buttons come first
    if header:
        text = text.replace(header[0], re.sub("(primary|secondary)-toggle", "", header[0]))
    for old, new in MENDED:
        text = re.sub(old, new, text)
    text = text.replace("nbs/course.ipynb", "nbs/index.ipynb")  # on buttons, where the repository has an address
    path.write_text(text, encoding="utf-8")
    return there


def main() -> None:
    source = WORK / "source"
    write_sources(source)
    write_static(source / "_static", packages())
    for folder in (OUT, WORK / "html"):
        shutil.rmtree(folder, ignore_errors=True)
    sphinx = [sys.executable, *"-m sphinx -q -W --keep-going -j 2 -b html -d".split()]
    subprocess.run([*sphinx, WORK / "doctrees", source, WORK / "html"], check=True)
    (WORK / "html").rename(OUT)
    for name in (".buildinfo", "objects.inv", "_static/scripts/fontawesome.js"):
        (OUT / name).unlink(missing_ok=True)
    with Pool() as pool:
        pool.map(figures.darken, [path for kind in ("png", "gif") for path in OUT.glob(f"_images/*.{kind}")])
        there = set().union(*pool.map(mend, OUT.glob("**/*.html")))
    if lost := [old for old, _ in MENDED if old not in there]:
        sys.exit(f"the theme writes these no longer: {lost}")
    shutil.copytree(source / "images", OUT / "images")  # for those that a page names in HTML
    for path in OUT.glob("**/*.map"):  # of the theme's sources, megabytes that no page asks for
        path.unlink()
    (OUT / ".nojekyll").touch()  # GitHub Pages: folders that begin with _ are pages, too


if __name__ == "__main__":
    main()
