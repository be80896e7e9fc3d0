"Pages for readers: README, docs/, the site's sources, how notebooks are stored, and the addresses they all take."

import base64
import io
import json
import re
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image

import address
import clean
import figures
import readme
from ddpm_course.cli.main import COMMANDS, make_parser
from helpers import NOTEBOOKS, ROOT, read


def prose(path):
    "The Markdown of a page."
    if path.suffix == ".md":
        return read(path)
    return "\n\n".join("".join(c["source"]) for c in json.loads(read(path))["cells"] if c["cell_type"] == "markdown")


def anchors(text):
    "The names of a page's headings, as GitHub makes them."
    return {
        re.sub(r"[^\w -]", "", line).strip().lower().replace(" ", "-") for line in re.findall(r"^#+ (.*)$", text, re.M)
    }


def test_no_relative_link_is_dead():
    "In README, docs/, the notebooks and the site's own pages, whose links are those of the notebooks."
    dead = []
    for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *NOTEBOOKS, *ROOT.glob("site/pages/*.md")]:
        text = re.sub(r"^```.*?^```|`[^`\n]*`|\$[^$\n]*\$", "", prose(path), flags=re.M | re.S)
        for to in re.findall(r"\]\(([^)\s]+)\)", text):
            name, _, heading = to.partition("#")
            if re.match(r"[a-z]+:", to) or name in ("course.ipynb", "plane.md"):  # the site's own
                continue
            there = ((ROOT / "nbs" if path.parent.name == "pages" else path.parent) / name).resolve() if name else path
            lost = heading and path.suffix == there.suffix == ".md" and heading not in anchors(prose(there))
            if not there.exists() or lost:
                dead.append(f"{path.name}: {to}")
    assert not dead


def test_readme_is_short():
    assert len(read(ROOT / "README.md").split()) < 1350


# -- commands ---------------------------------------------------------------------------------------------------------


def test_docs_name_every_flag():
    "That every command stands there, too, and is understood: tests/cli/test_install.py."
    (found,) = [action for action in make_parser(*COMMANDS)._actions if isinstance(action.choices, dict)]
    flags = {word for p in found.choices.values() for a in p._actions for word in a.option_strings if word[:2] == "--"}
    named = set(re.findall(r"--[\w-]+", read(ROOT / "docs/commands.md")))
    assert not {flag for flag in flags - named - {"--help"} if not flag.startswith("--no-")}


# -- addresses --------------------------------------------------------------------------------------------------------


def test_one_setting_holds_the_addresses(tmp_path):
    settings, there = tmp_path / "settings.ini", "https://github.com/Someone/ddpm_course"

    def fill(url):
        settings.write_text(re.sub(r"^git_url =.*$", f"git_url = {url}", read(ROOT / "settings.ini"), flags=re.M))
        return address.address(settings)

    assert fill("") == ("", "")
    assert (both := fill(there)) == (there, "https://someone.github.io/ddpm_course/")
    with pytest.raises(SystemExit, match="real owner"):
        fill("https://github.com/OWNER/ddpm_course")
    index = readme.readme(json.loads(read(ROOT / "nbs/index.ipynb")))
    assert all(url in readme.addressed(index, *both) for url in both)
    assert "github.io" not in readme.addressed(index, "", "")
    named = readme.citation(read(ROOT / "CITATION.cff"), *both)
    assert f"repository-code: {both[0]}\nurl: {both[1]}\n" in named
    assert "repository-code" not in readme.citation(named, "", "")


def test_a_release_needs_the_address():
    done = subprocess.run([sys.executable, ROOT / "tools/address.py"], capture_output=True, text=True)
    assert bool(done.returncode) == (address.address() == ("", ""))
    assert "python3 tools/address.py" in read(ROOT / ".github/workflows/release.yml")


# -- the site's figures -----------------------------------------------------------------------------------------------


def drawn(stem):
    "The figures of a page, (cell, pixels)."
    cells = json.loads(read(ROOT / f"nbs/{stem}.ipynb"))["cells"]
    for cell in cells:
        for output in cell.get("outputs", []):
            if png := output.get("data", {}).get("image/png"):
                yield "".join(cell["source"]), np.asarray(Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB"))


def darkened(pixels, folder):
    Image.fromarray(pixels).save(folder / "figure.png")
    figures.darken(folder / "figure.png")
    return np.asarray(Image.open(folder / "figure-dark.png").convert("RGB"))


def test_dark_pages_tell_the_truth(tmp_path):
    "Pictures in colour are the same in both modes, lines are turned light, and a map and its colour bar agree."
    coloured = [pixels for source, pixels in drawn("22_colour") if ".plot(" not in source]
    assert len(coloured) >= 6
    for pixels in coloured:  # samples as a whole; faces of few flat colours at least where there is colour
        same = (darkened(pixels, tmp_path) == pixels).all(2)
        assert same[np.ptp(pixels, 2) > 40].all() and (same.all() or not figures.colourful(pixels))
    lines = next(pixels for source, pixels in drawn("02_schedules") if "imshow" not in source and ".plot(" in source)
    assert lines.mean() > 200 and darkened(lines, tmp_path).mean() < 80
    (barred,) = [p for source, p in drawn("06_attention") if "colorbar" in source and not figures.shaded(p)]
    parts = barred[figures.pictures(barred.min(2) < 250)]
    for colour in ((68, 1, 84), (253, 231, 37)):  # both ends of the colour bar lie in what stays
        near = np.abs(barred.astype(int) - colour).max(2) < 30
        assert near.any() and (darkened(barred, tmp_path)[near] == barred[near]).mean() > 0.9 and len(parts)


# -- how notebooks are stored -----------------------------------------------------------------------------------------


def test_notebooks_are_stored_clean(monkeypatch):
    "As `python tools/clean.py` stores them, but for pictures: another version of Pillow makes other bytes."
    from ipykernel.ipkernel import IPythonKernel
    from ipykernel.kernelspec import get_kernel_dict

    stored = clean.kernel(sys.version.split()[0])
    assert stored["kernelspec"]["display_name"] == get_kernel_dict()["display_name"]
    assert stored["language_info"] == IPythonKernel.language_info
    monkeypatch.setattr(clean, "few_colours", lambda png: png)
    changed = [p.name for p in NOTEBOOKS if read(p) != clean.text(clean.cleaned(json.loads(read(p))))]
    assert not changed, f"run python tools/clean.py: {changed}"


def test_a_commit_of_all_notebooks_is_small():
    assert sum(len(zlib.compress(path.read_bytes())) for path in NOTEBOOKS) < 4_000_000


def test_a_palette_is_not_seen():
    random = np.random.default_rng(0)
    colours, greys = (random.integers(0, 256, (60, 60, n), np.uint8) for n in (3, 1))
    greys[:20] = 255
    for pixels, small in ((colours, False), (greys.repeat(3, 2), True)):
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "png")
        stored = Image.open(io.BytesIO(clean.few_colours(file.getvalue())))
        apart = np.abs(np.asarray(stored.convert("RGB")).astype(int) - pixels)
        assert (stored.mode == "P") == small and apart.max() <= 64 and (apart[pixels == 255] == 0).all()
