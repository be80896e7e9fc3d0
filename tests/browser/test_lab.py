"""The course in a JupyterLab as README opens it, and a chapter there in a real browser: run, and an explorer moved.

That each control changes its picture is tested where the page is run: see tools/execute.py. Here stands what needs a
browser: that the controls arrive there. It needs Chromium (Debian: `apt-get install chromium`); where there is none,
this is skipped and says so. One page is in the second tier; the others run at night.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import urllib.request

import pytest

from helpers import CHROMIUM, NOTEBOOKS, ROOT, cells, environment, free_port, number, read, wait_for, without

WITH_EXPLORERS = [p for p in NOTEBOOKS if "Explorer(" in "\n".join(cells(p))]
FIRST = "02"
pytestmark = pytest.mark.thorough

STATE = """() => {  // null while the kernel is busy
  const panel = window.jupyterapp.shell.currentWidget;
  if (panel?.sessionContext?.session?.kernel?.status !== 'idle') return null;
  const cells = [...panel.content.model.cells].filter(c => c.type === 'code' && c.sharedModel.getSource().trim());
  const outputs = cells.flatMap(c => Array.from({length: c.outputs.length}, (_, k) => c.outputs.get(k).toJSON()));
  return {
    left: cells.filter(cell => cell.executionCount === null).length,
    wrong: outputs.filter(o => o.output_type === 'error' || o.name === 'stderr').map(o => JSON.stringify(o)),
  }; }"""
SHOW_EXPLORER = """() => {  // JupyterLab draws only the cells in sight
  const notebook = window.jupyterapp.shell.currentWidget.content;
  const shows = w => /^(\\w+\\.show\\(\\)|shown)$/m.test(w.model.sharedModel.getSource());
  return notebook.scrollToItem(notebook.widgets.findIndex(shows), 'start'); }"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    "A JupyterLab on a copy of the checkout, opened by README's line without its browser: its address."
    (line,) = [line for line in read(ROOT / "README.md").splitlines() if "jupyter lab" in line]
    assert line in read(ROOT / "site/pages/index.md")
    opened = line.partition("jupyter lab ")[2]
    home = tmp_path_factory.mktemp("jupyter")
    shutil.copytree(ROOT, home, ignore=shutil.ignore_patterns(".*", "_site", "build", "runs"), dirs_exist_ok=True)
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    words = f"--no-browser --allow-root --ip=127.0.0.1 --port={port} --IdentityProvider.token=x --LabApp.news_url="
    command = [sys.executable, "-m", "jupyterlab", *shlex.split(opened), *words.split()]
    command.append("--LabApp.expose_app_in_browser=True")
    env = environment(JUPYTER_CONFIG_DIR=str(home / "config"), JUPYTER_DATA_DIR=str(home / "data"))
    env |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}  # as in conftest.py
    env["PYTHONPATH"] = os.pathsep.join([str(ROOT), env["PYTHONPATH"]])
    with (home / "log").open("w") as log:
        server = subprocess.Popen(command, cwd=home, env=env, stdout=log, stderr=log)

    def answers():
        try:
            return urllib.request.urlopen(f"{url}/api/status?token=x", timeout=2)
        except OSError:
            return None

    try:
        wait_for(answers, server)
        yield url
    finally:
        server.terminate()
        server.wait(20)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if not CHROMIUM:
        without("no chromium was found")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as p:
        still = "--blink-settings=imageAnimationPolicy=2"  # films: the processor would draw them all the time
        how = {"executable_path": CHROMIUM, "args": ["--no-sandbox", still]}
        size = {"width": 1400, "height": 900}  # one browser for all pages: it keeps JupyterLab, compiled
        browser = p.chromium.launch_persistent_context(tmp_path_factory.mktemp("profile"), viewport=size, **how)
        yield browser
        browser.close()


@pytest.fixture
def page(browser, lab):
    "A page. Kernels are ended, nothing is saved."
    page = browser.new_page()
    page.set_default_timeout(0)  # the only clock is that of the whole test
    yield page
    page.close()
    for session in json.load(urllib.request.urlopen(f"{lab}/api/sessions?token=x")):
        end = urllib.request.Request(f"{lab}/api/sessions/{session['id']}?token=x", method="DELETE")
        urllib.request.urlopen(end)


def test_the_whole_repository_is_served(lab):
    "The index's pictures and CONTRIBUTING can be reached."
    shown = re.findall(r"\]\(\.\./([\w./-]+)", "\n".join(cells(ROOT / "nbs/index.ipynb", "markdown")))
    for name in ("CONTRIBUTING.md", "nbs/images/denoising.gif", *shown):
        assert urllib.request.urlopen(f"{lab}/files/{name}?token=x").status == 200, name
    assert shown


def settled(page, condition):
    "What is known of the notebook's cells once the kernel rests and this holds."
    state = []

    def holds():
        state[:] = [page.evaluate(STATE)]
        return state[0] and condition(state[0])

    wait_for(holds)
    return state[0]


TIERS = [pytest.param(p, id=p.stem, marks=[pytest.mark.nightly] * (number(p) != FIRST)) for p in WITH_EXPLORERS]


@pytest.mark.parametrize("path", TIERS)
def test_explorer(lab, page, path):
    "Run All ends without an error and without a word on stderr; a control of the first explorer changes its picture."
    page.goto(f"{lab}/lab/workspaces/tests/tree/{path.relative_to(ROOT)}?token=x&reset")
    page.wait_for_function("() => window.jupyterapp")
    settled(page, lambda state: state["left"])
    page.evaluate("() => { window.jupyterapp.commands.execute('runmenu:run-all') }")
    state = settled(page, lambda state: not state["left"] or state["wrong"])
    assert not state["wrong"], state
    page.evaluate(SHOW_EXPLORER)
    picture = page.locator("img.explorer").first
    picture.wait_for()
    before = picture.get_attribute("src")
    picture.locator("xpath=..").get_by_role("slider").first.press("ArrowLeft")
    page.wait_for_function("([image, before]) => image.src !== before", arg=[picture.element_handle(), before])
