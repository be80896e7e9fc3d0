"""Chapters with explorers in a real JupyterLab, in a real browser: run from top to bottom, each control moved.

It needs Chromium (Debian: `apt-get install chromium`); where there is none, these tests are skipped and say so. One
chapter is in the first tier, all others in the second; that they run at all is tested in tests/course.
"""

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from functools import partial

import pytest

from helpers import CHROMIUM, MINUTE, NOTEBOOKS, ROOT, cells, environment, free_port, number, promise, wait_for

WITH_EXPLORERS = [p for p in NOTEBOOKS if "Explorer(" in "\n".join(cells(p))]
FIRST = "02"
ASKS_A_NETWORK = {"05", "12", "17", "19"}  # their explorers answer within a second, the others within .15

LEFT = """() => {  // cells that are still to run; null while the kernel is busy
  const panel = window.jupyterapp.shell.currentWidget;
  if (panel.sessionContext.session?.kernel?.status !== 'idle') return null;
  const code = [...panel.content.model.cells].filter(cell => cell.type === 'code');
  return code.filter(c => c.executionCount === null && c.sharedModel.getSource().trim()).length; }"""
STATE = """() => {
  const cells = [...window.jupyterapp.shell.currentWidget.content.model.cells].filter(cell => cell.type === 'code');
  const outputs = cell => Array.from({length: cell.outputs.length}, (_, k) => cell.outputs.get(k).toJSON());
  const found = (name, is, say) => cells.flatMap((c, i) => outputs(c).filter(is).map(o => `cell ${i}: ${say(o)}`));
  return {
    errors: found('errors', o => o.output_type === 'error', o => `${o.ename}: ${o.evalue}`),
    stderr: found('stderr', o => o.name === 'stderr', o => String(o.text).slice(0, 300)),
  }; }"""
SHOWS = r"(^|\n)(\w+\.show\(\)|shown)$"  # the cell's last line
SHOW_EXPLORER = """async ([shows, k]) => {  // JupyterLab draws only the cells in sight; null where there is no k-th
  const notebook = window.jupyterapp.shell.currentWidget.content;
  const places = notebook.widgets.map((w, i) => RegExp(shows).test(w.model.sharedModel.getSource()) ? i : -1);
  const place = places.filter(i => i >= 0)[k];
  if (place === undefined) return false;
  notebook.activeCellIndex = place;
  await notebook.scrollToItem(place, 'start');
  return true;
}"""
CELL = ".jp-CodeCell.jp-mod-active"
PICTURE = f"{CELL} .jp-OutputArea-output img.widget-image"
WATCH = f"""() => {{  // note when the next key or click arrives, and when the picture is another one
  window.moved = window.answered = null;
  for (const kind of ['keydown', 'pointerdown', 'change'])
    addEventListener(kind, () => window.moved ??= performance.now(), {{capture: true, once: true}});
  const noted = new MutationObserver(() => {{ window.answered = performance.now(); noted.disconnect(); }});
  noted.observe(document.querySelector('{PICTURE}'), {{attributeFilter: ['src']}});
}}"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    "A JupyterLab on a copy of the notebooks, and a browser; (address, browser)."
    if not CHROMIUM:
        pytest.skip("no chromium was found")
    from playwright.sync_api import sync_playwright

    home = tmp_path_factory.mktemp("jupyter")
    skip = shutil.ignore_patterns(".ipynb_checkpoints", "runs", ".guesses.json")
    shutil.copytree(ROOT / "nbs", home / "nbs", ignore=skip)
    for name in ("tests", "ddpm_course"):  # where chapters find their records and the shipped model
        (home / name).symlink_to(ROOT / name)
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    words = f"--no-browser --allow-root --ip=127.0.0.1 --port={port} --IdentityProvider.token=x --LabApp.news_url="
    command = [sys.executable, "-m", "jupyterlab", home / "nbs", *words.split(), "--LabApp.expose_app_in_browser=True"]
    env = environment(JUPYTER_CONFIG_DIR=str(home), JUPYTER_DATA_DIR=str(home / "data"))
    env |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}  # as in conftest.py
    env["PYTHONPATH"] = os.pathsep.join([str(ROOT), env["PYTHONPATH"]])
    with (home / "log").open("w") as log:
        server = subprocess.Popen(list(map(str, command)), env=env, stdout=log, stderr=log)

    def answers():
        try:
            return urllib.request.urlopen(f"{url}/api/status?token=x", timeout=2)
        except OSError:
            return None

    try:
        wait_for(answers, server)
        with sync_playwright() as p:
            still = "--blink-settings=imageAnimationPolicy=2"  # films: the processor would draw them all the time
            how = {"executable_path": CHROMIUM, "args": ["--no-sandbox", still]}
            size = {"width": 1400, "height": 900}  # one browser for all pages: it keeps JupyterLab, compiled
            browser = p.chromium.launch_persistent_context(home / "profile", viewport=size, **how)
            yield url, browser
            browser.close()
    finally:
        server.terminate()
        server.wait(20)


@pytest.fixture
def page(lab):
    "A page. Kernels are ended, nothing is saved."
    url, browser = lab
    page = browser.new_page()
    yield page
    page.close()
    for session in json.load(urllib.request.urlopen(f"{url}/api/sessions?token=x")):
        end = urllib.request.Request(f"{url}/api/sessions/{session['id']}?token=x", method="DELETE")
        urllib.request.urlopen(end)


def run_all(page, url, name):
    "Open a chapter and choose Run All Cells; what JupyterLab then knows of its cells, and the seconds it took."
    page.goto(f"{url}/lab/workspaces/tests/tree/{name}?token=x&reset")
    idle = "() => window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'"
    page.wait_for_function(idle, timeout=300_000)
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.locator('.lm-Menu-item[data-command="runmenu:run-all"]').click()
    began = time.monotonic()
    while time.monotonic() < began + 10 * MINUTE:
        time.sleep(0.3)
        left = page.evaluate(LEFT)
        if left is None:
            continue
        state = page.evaluate(STATE)
        if left == 0 or state["errors"]:
            return state, time.monotonic() - began
    pytest.fail(f"{name} did not end within {10 * MINUTE} s")


def moves(page):
    "One function for each control of the explorer in sight; it moves the control."
    box = page.locator(f"{CELL} .jp-OutputArea-output .widget-vbox", has=page.locator("img.widget-image")).first

    def slide(handle):
        at_end = handle.get_attribute("aria-valuenow") == handle.get_attribute("aria-valuemax")
        handle.press("ArrowLeft" if at_end else "ArrowRight")

    kinds = {
        ".noUi-handle": slide,
        ".widget-toggle-buttons": lambda group: group.locator("button:not(.mod-active)").first.click(),
        "select": lambda menu: menu.select_option(index=int(menu.evaluate("menu => menu.selectedIndex === 0"))),
        "input[type=checkbox]": lambda tick: tick.click(),
    }
    return [(kind, partial(move, one)) for kind, move in kinds.items() for one in box.locator(kind).all()]


def seconds_until_changed(page, move):
    "Move a control; how long, in the page, until the picture is another one."
    page.evaluate(WATCH)
    move()
    page.wait_for_function("() => window.answered", timeout=180_000)
    return page.evaluate("() => window.answered - window.moved") / 1000


TIERS = [pytest.param(p, id=p.stem, marks=[pytest.mark.thorough] * (number(p) != FIRST)) for p in WITH_EXPLORERS]


@pytest.mark.parametrize("path", TIERS)
def test_explorer(lab, page, path):
    "Run All ends without an error and without a word on stderr; each control changes the picture."
    state, seconds = run_all(page, lab[0], path.relative_to(ROOT / "nbs"))
    promise(f"{path.name}, Run All", seconds, MINUTE)
    assert not state["errors"] and not state["stderr"], state
    limit = 1.0 if number(path) in ASKS_A_NETWORK else 0.15
    shown = 0
    while page.evaluate(SHOW_EXPLORER, [SHOWS, shown]):
        shown += 1
        page.locator(PICTURE).first.wait_for(timeout=180_000)
        controls = moves(page)
        assert controls, "an explorer has controls"
        for k, (kind, move) in enumerate(controls):
            promise(f"{path.name}, explorer {shown}, {kind} {k}", seconds_until_changed(page, move), limit)
    assert shown


def test_explorers_are_found():
    assert {number(p) for p in WITH_EXPLORERS} >= {"00b", "02", "03", "05", "06", "09", "12"}
