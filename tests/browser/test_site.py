"""The site in a real browser: built without a warning, whole and usable; what it draws is what the package draws.

It needs Chromium, Node.js and npm; where one is missing these tests are skipped and say so. All of it is in the second
tier: the site is built first, which takes a minute.
"""

import functools
import html
import http.server
import itertools
import json
import re
import shutil
import subprocess
import sys
import threading
import time
import urllib.parse
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from ddpm_course import SamplingConfig, load_model, sample
from ddpm_course.compose import compose
from ddpm_course.config import RunConfig, override, to_json
from ddpm_course.data.sets import ASSETS, load_digits, to_float
from ddpm_course.draws import Purpose, generator, normal
from ddpm_course.editing import Edit, sample_edits
from ddpm_course.exact import dataset_denoiser
from ddpm_course.forward import q_sample
from ddpm_course.lesson.toys import digit_points
from ddpm_course.losses import OBJECTIVES
from ddpm_course.model import Model, build_model
from ddpm_course.run.runs import load_run
from ddpm_course.sampling import guided, plan, walk
from ddpm_course.schedules import cosine, linear
from helpers import CHROMIUM, ROOT, promise, without

pytestmark = pytest.mark.thorough
OUT = ROOT / "_site"
NEEDED = {"chromium": CHROMIUM, "node": shutil.which("node"), "npm": shutil.which("npm")}
QUIET = ["--no-sandbox", "--disable-quic", "--disable-background-networking", "--disable-component-update"]
AXE = """() => axe.run(document, {resultTypes: ['violations']}).then(found =>
  found.violations.map(v => [v.impact, v.id, v.nodes[0].html]))"""


class Handler(http.server.SimpleHTTPRequestHandler):
    "Plain files, under a path of their own."

    extensions_map = http.server.SimpleHTTPRequestHandler.extensions_map | {
        ".js": "text/javascript",
        ".wasm": "application/wasm",
    }

    def translate_path(self, path):
        return super().translate_path(path.removeprefix("/below"))

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def site():
    "The address of a fresh build."
    missing = [name for name, found in NEEDED.items() if not found]
    if missing:
        without(f"not found: {missing}")
    began = time.monotonic()
    done = subprocess.run([sys.executable, ROOT / "tools/site.py"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr  # a warning of Sphinx is an error
    promise("building the site", time.monotonic() - began, 180)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=OUT))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/below"
    server.shutdown()


@pytest.fixture(scope="module")
def browser(site):
    from playwright.sync_api import sync_playwright

    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield browser
        browser.close()


@pytest.fixture
def visit(site, browser):
    "visit(name, width, scheme): a page that has been loaded; `wrong` is what went wrong."
    contexts = {}

    def visit(name, width=1400, scheme="light"):
        how = {"viewport": {"width": width, "height": 900}, "color_scheme": scheme}
        if str(how) not in contexts:
            contexts[str(how)] = browser.new_context(**how)
            contexts[str(how)].set_default_timeout(0)  # the only clock is that of the whole test
        page = contexts[str(how)].new_page()
        page.wrong = []

        def answered(response):
            if response.status >= 400 or not response.url.startswith((site, "data:", "blob:")):
                page.wrong.append(f"{response.status} {response.url}")

        page.on("console", lambda message: message.type == "error" and page.wrong.append(message.text))
        page.on("pageerror", lambda error: page.wrong.append(str(error)))
        page.on("response", answered)
        page.goto(f"{site}/{name}")
        return page

    yield visit
    for context in contexts.values():
        context.close()


def drawn(page):
    "The pictures of the cover when they are done, (N, C * H * W)."
    page.wait_for_function("() => ['done', 'error'].includes(document.getElementById('draw').dataset.state)")
    assert page.get_attribute("#draw", "data-state") == "done", page.text_content("#status")
    return torch.tensor(page.evaluate("() => document.getElementById('draw').frames.at(-1).x.map(x => [...x])"))


def choose(page, **settings):
    "Settings of the cover; the last one that is changed begins a new draw."
    for name, value in settings.items():
        page.evaluate("([name, value]) => { document.getElementById(name).value = value }", [name, str(value)])
    page.evaluate("() => document.getElementById('steps').dispatchEvent(new Event('change'))")


# -- what is built ----------------------------------------------------------------------------------------------------


def test_no_link_inside_is_dead(site):
    pages = {path: path.read_text() for path in OUT.glob("**/*.html")}
    ids = {path: set(re.findall(r'\bid="([^"]+)"', text)) for path, text in pages.items()}
    wrong = []
    for path, text in pages.items():
        for to in re.findall(r'<a\b[^>]*\bhref="([^"]+)"', text):
            part, _, name = urllib.parse.unquote(html.unescape(to)).partition("#")
            there = (path.parent / part).resolve() if part else path
            if ":" not in part and (not there.exists() or name and name not in ids.get(there, {name})):
                wrong.append((path.name, to))
    assert not wrong


def test_each_exercise_names_its_solution(site):
    "A link at each exercise that has a section among the solutions, and to this section."
    for path in sorted((OUT / "solutions").glob("*.html")):
        lesson = path.name.replace("_solution", "")
        page = next(p for p in (OUT / lesson, OUT / "deep_dives" / lesson) if p.exists()).read_text()
        sections = re.findall(r'<section id="([^"]+)">\s*(?:<[^>]*>\s*)*?<h2>\d · ', path.read_text())
        linked = re.findall(rf'solutions/{path.name}#([^"]+)"><span[^>]*>\(solution\)', page)
        assert linked == sections, lesson


# -- what is drawn ----------------------------------------------------------------------------------------------------

# The parts of the cover, each after those that it uses: what the browser computes, and what the package does.
PARTS = {
    "noise.js": (
        "draws.py",
        "({ normal }) => [...normal(20000, 5, 7, 3, 2n ** 33n + 1n)]",
        lambda: normal((20000,), 5, Purpose.SAMPLE, 3, [2**33 + 1]),
    ),
    "sampler.js": (
        "betas.py, steps.py or sampling.py",
        """({ SCHEDULES, trailing, walk }) => {
          const predict = (x, t) => x.map(v => Math.sin(v + t)), noise = t => [0, 1, 2].map(i => Math.cos(i + t));
          const how = { indices: trailing(1000, 7), noise };
          return Object.values(SCHEDULES).map(make => make(1000)).flatMap(abars => ['ddpm', 'ddim', 'dpm'].flatMap(
            sampler => [...walk(predict, [0.5, -1, 2], { sampler, abars, ...how })].flatMap(({ x }) => x))); }""",
        lambda: chains(),
    ),
    "unet.js": (
        "unet.py, attention.py or embeddings.py",
        """async ({ buildUNet }, get) => {
          const { readConfig } = await get('network.js'), { readSafetensors } = await get('safetensors.js');
          const kernel = (await WebAssembly.instantiate(await get('matmul.wasm'))).instance.exports;
          const facts = readConfig(await get('model/config.json')), weights = await get('model/ema.safetensors');
          const network = buildUNet(readSafetensors(weights), kernel, facts);
          const x = Float32Array.from({ length: 768 }, (_, i) => Math.sin(i));
          return [0, 300, 999].flatMap(t => [...network(x, t, [3, 4, 10])]); }""",
        lambda: answers(lambda model, x, t: model.answer(x, torch.full((3,), t), torch.tensor([3, 4, 10]))),
    ),
    "network.js": (
        "model.py, losses.py or sampling.py",
        """async ({ loadModel }, get) => {
          const files = ['model/config.json', 'model/ema.safetensors', 'matmul.wasm'];
          const x = Float32Array.from({ length: 768 }, (_, i) => Math.sin(i));
          const { predict } = await loadModel(...await Promise.all(files.map(get)));
          return [0, 300, 999].flatMap(t => [...predict(x, t, [3, 4, 5], 2), ...predict(x, t, [3, 3, 3], 2, 8)]); }""",
        lambda: answers(
            lambda model, x, t: torch.cat(
                [guided(model, 2).predict(x, t, torch.tensor([3, 4, 5])).x0, compose(model, "38", 2).predict(x, t).x0]
            )
        ),
    ),
}
RUN = """async ([name, url]) => {
  const get = async file => file.endsWith('.js') ? import(url + file)
    : (await fetch(url + file))[file.endsWith('.json') ? 'json' : 'arrayBuffer']();
  return (%s)(await get(name), get); }"""


def chains():
    "Every state of every chain, of a network that is easy to write in two languages."
    found = []
    for schedule in (cosine(1000), linear(1000)):
        model = Model(lambda x, t, y: torch.sin(x + t[:, None]), schedule, OBJECTIVES["x0"], (3,))
        for sampler in ("ddpm", "ddim", "dpm"):
            noise = lambda t: torch.cos(torch.arange(3) + t)[None].double()
            begin, how = torch.tensor([[0.5, -1, 2]]).double(), plan(SamplingConfig(sampler, steps=7), model)
            found += [x for _, x, _ in walk(model, how, noise, x=begin)]
    return torch.cat(found)


@torch.no_grad()
def answers(ask):
    x = torch.sin(torch.arange(768.0).double()).float().view(3, 1, 16, 16)
    return torch.cat([ask(load_model(precision="fp32").eval(), x, t) for t in (0, 300, 999)])


@pytest.mark.parametrize("name", PARTS)
def test_parts(visit, site, name):
    "If a part of the cover is no longer the package's, this says which, and what to do."
    source, script, expect = PARTS[name]
    found = torch.tensor(visit("licences.html").evaluate(RUN % script, [name, f"{site}/_static/"]), dtype=torch.float64)
    apart = (found - expect().flatten()).abs().max().item()
    assert apart < 1e-5, (
        f"site/js/{name} and ddpm_course/{source} differ by {apart:.2g}. The package is right: change the function "
        f"of that name in site/js/{name}, not the limit. If several parts fail, begin with the first of {list(PARTS)}."
    )


def test_cover(visit):
    "Ten digits of the package appear, again at a click, and again by the link; then the faces."
    page = visit("index.html")
    drawn(page)
    page.evaluate("() => { document.getElementById('draw').dataset.state = '' }")  # or the first draw passes for it
    page.get_by_role("button", name="Draw others").click()
    how = SamplingConfig(sampler="ddim", steps=10, guidance=2, seed=2)
    expected = sample(load_model(precision="fp32"), how=how).flatten(1)
    found = drawn(page)
    apart = (found - expected).abs().max()
    assert expected.std() > 0.3 and apart < 1e-5, (
        f"{apart:.2g} apart: where test_parts passes, look at draw.js and worker.js"
    )
    assert "--sampler ddim --steps 10 --guidance 2 --seed 2 --precision fp32" in page.text_content("#line")
    page.get_by_role("button", name="Copy a link").click()
    again = visit(page.url.partition("/below/")[2])
    assert torch.equal(drawn(again), found)
    again.select_option("#model", "faces")
    again.wait_for_function("() => document.getElementById('line').textContent.includes('faces16')")
    faces = load_run(ASSETS / "faces16", precision="fp32")[0]
    how = SamplingConfig(sampler="ddim", steps=10, guidance=2, seed=2)
    assert (drawn(again) - sample(faces, n=2, how=how).flatten(1)).abs().max() < 1e-5
    choose(again, **{"class": 2, "also": 1, "seed": 7})  # at seed 2 rounding alone turns one face by 1e-4
    both = compose(faces, ["hat", "glasses"], 2, "short")
    assert "['hat', 'glasses'], 2, 'short')" in again.text_content("#line")
    assert (
        drawn(again) - sample(both, n=1, how=replace(how, guidance=None, seed=7)).flatten(1)
    ).abs().max() < 1e-4  # three answers add up
    assert not page.wrong + again.wrong


@pytest.mark.parametrize("sampler", ["ddim", "dpm", "ddpm"])
def test_same_pictures(visit, sampler):
    page = visit("index.html")
    drawn(page)
    choose(page, sampler=sampler, seed=11, guidance=1.75, steps=7)
    page.evaluate("() => { const menu = document.getElementById('class'); menu.value = 4; menu.onchange(); }")
    how = SamplingConfig(sampler=sampler, steps=7, guidance=1.75, seed=11)
    expected = sample(load_model(precision="fp32"), [4], 10, how).flatten(1)
    assert (drawn(page) - expected).abs().max() < 1e-5


@pytest.mark.parametrize(
    "objective, schedule, told, limit",
    [("v", "linear", True, 1e-5), ("x0", "cosine", False, 1e-5), ("eps", "linear", True, 1e-3)],
)
def test_own_model(visit, tmp_path, objective, schedule, told, limit):
    """A run of other classes, size and colour, with attention above the middle. (An error in eps is divided by the root
    of alpha-bar, .006 at the beginning.)"""
    classes = ("cat", "dog", "owl") if told else ()
    words = dict(objective=objective, schedule=schedule, size=24, image_channels=3, classes=classes, channels=12)
    words |= dict(multipliers=(1, 2), attention=(12,), conditional=told, precision="fp32")
    config = override(RunConfig(), **words)
    model = build_model(config)
    with torch.no_grad():  # some layers begin at zero
        for k, weight in enumerate(model.network.parameters()):
            weight += 0.05 * torch.from_numpy(generator(0, Purpose.LESSON, 0, k).standard_normal(weight.shape)).float()
    save_file(model.network.state_dict(), tmp_path / "ema.safetensors")
    (tmp_path / "config.json").write_text(to_json(config))
    page = visit("index.html")
    drawn(page)
    page.evaluate("() => { document.getElementById('draw').dataset.state = '' }")
    page.set_input_files("#files", [tmp_path / "config.json", tmp_path / "ema.safetensors"])
    page.wait_for_function("() => document.getElementById('line').textContent.includes('RUN')")
    how = SamplingConfig(sampler="ddim", steps=10, seed=1, guidance=2 if told else None)
    found = drawn(page)
    expected = sample(model, n=4 if told else 1, how=how).flatten(1)[: len(found)]
    assert expected.std() > 0.1 and (found - expected).abs().max() < limit and not page.wrong


@pytest.mark.parametrize("masked", [False, True])
def test_drawing(visit, masked):
    "A drawing is finished as `ddpm sample --from` finishes it, all of it or what a mask marks."
    page = visit("index.html")
    drawn(page)
    place = page.locator("canvas.pad")
    place.scroll_into_view_if_needed()
    box = place.bounding_box()

    def stroke(*ends):
        (x, y), *others = [(box["x"] + u * box["width"], box["y"] + v * box["height"]) for u, v in ends]
        page.mouse.move(x, y)
        page.mouse.down()
        for other in others:
            page.mouse.move(*other, steps=8)
        page.mouse.up()

    stroke((0.3, 0.2), (0.7, 0.2), (0.45, 0.85))
    if masked:
        page.select_option("#pad select", "mask")
        stroke((0.2, 0.7), (0.8, 0.7))
        stroke((0.2, 0.85), (0.8, 0.85))
    choose(page, sampler="ddpm", seed=3)
    page.wait_for_function("() => document.getElementById('draw').dataset.state === 'done'")
    found = drawn(page)
    job = page.evaluate("() => { const { picture, mask } = document.getElementById('draw').job;"
                        " return [[...picture], mask && [...mask]]; }")  # fmt: skip
    picture, mask = torch.tensor(job[0]).view(1, 16, 16), job[1] and torch.tensor(job[1]).view(16, 16).bool()
    assert (picture > 0).sum() > 10 and bool(masked) == (mask is not None)
    how = SamplingConfig(sampler="ddpm", steps=10, guidance=2, seed=3)
    edit = Edit(picture, 1.0 if masked else 0.6, mask)
    expected = sample_edits(load_model(precision="fp32"), edit, how=how).flatten(1)
    assert (found - expected).abs().max() < 1e-5 and not page.wrong


def test_explorers(visit, site):
    "Each control of each explorer changes what it draws; schedules and digits are the package's."
    kept = json.loads((ROOT / "site/static/digits.json").read_text())
    assert kept["three"] == load_digits("train", 28).pixels[1600].flatten().tolist()
    assert kept["mystery"] == load_digits("test", 28).pixels[321].flatten().tolist()
    for name, many in (("points", 40), ("more", 200)):
        assert np.allclose(kept[name], digit_points(many).flatten(), atol=1e-3)
    digits, query = (to_float(load_digits(split, 16).pixels).flatten(1) for split in ("train", "test"))
    points, clock = 2 * torch.tensor(kept["more"]).view(-1, 2).double(), cosine(1000)
    noise = lambda step, *shape: normal(shape, 0, Purpose.LESSON, step, [0])[0]
    exact = Model(lambda x, t, y: dataset_denoiser(x, int(t[0]), points, clock), clock, OBJECTIVES["x0"], (2,))
    route = plan(SamplingConfig("ddim", steps=40, clip=False), exact)
    answers = {
        "06_attention": dataset_denoiser(q_sample(query[171:172], 549, noise(3, 1, 256), clock), 549, digits, clock),
        "17_flow": [x for _, x, _ in walk(exact, route, lambda t: None, x=noise(1, 400, 2).double())][-1],
    }
    seen = 0
    for name in ("02_schedules", "03_forward", "04_exact", "06_attention", "17_flow"):
        page = visit(f"{name}.html")
        page.wait_for_function("() => [...document.querySelectorAll('.explore')].every(e => e.querySelector('input'))")
        if name in answers:
            found = torch.tensor(page.evaluate("() => [...document.querySelector('.explore').found]"))
            assert (found - answers[name].flatten()).abs().max() < 1e-4
        for control in page.locator(".explore input").all() + page.locator(".explore select").all():
            shot = """e => [...e.closest('.explore').querySelectorAll('canvas')].map(c => c.toDataURL()).join()"""
            before = control.evaluate(shot)
            control.press(
                control.evaluate("e => e.tagName === 'SELECT' ? 'ArrowDown' : +e.value < +e.max ? 'End' : 'Home'")
            )
            assert control.evaluate(shot) != before
            seen += 1
        assert not page.wrong
    assert seen == 14
    script = f"""async T => {{ const {{ SCHEDULES }} = await import('{site}/_static/sampler.js');
      return ['linear', 'cosine'].map(name => SCHEDULES[name](T)); }}"""
    for T in (25, 1000):
        for found, make in zip(page.evaluate(script, T), (linear, cosine)):
            assert np.allclose(found, make(T).alpha_bars, rtol=1e-9)


def test_plane(visit, site):
    "The exact denoiser is page 04's, and copies; a network learns the points."
    page = visit("plane.html")
    points, places = np.random.default_rng(0).normal(size=(2, 40, 2))
    script = f"""async ([places, points, abars]) => {{ const {{ denoise }} = await import('{site}/_static/exact.js');
      return abars.map(abar => [...denoise(places, points, abar)]); }}"""
    levels, schedule = (0, 300, 999), cosine(1000)
    found = page.evaluate(
        script, [places.ravel().tolist(), points.ravel().tolist(), schedule.alpha_bars[list(levels)].tolist()]
    )
    for t, answer in zip(levels, found):
        theirs = dataset_denoiser(torch.from_numpy(places), t, torch.from_numpy(points), schedule)
        assert (torch.tensor(answer).view(-1, 2) - theirs).abs().max() < 1e-5
    page.wait_for_function("() => +document.getElementById('plane').dataset.exact > 0.95")
    assert not page.wrong


def plane_in_pytorch(points, steps, seed, B=64, rate=4e-3):
    "What site/js/mlp.js trains, by PyTorch's gradients and Adam with the package's draws: losses, averaged weights."
    abars, T = cosine(1000).alpha_bars.float(), 1000

    def told(x, u):
        waves = [f(k * v)[:, None] for k in (1, 2, 4) for v in x.T for f in (torch.sin, torch.cos)]
        return torch.cat([x, *waves, *(f(k * u)[:, None] for k in (1.5, 3, 6, 12) for f in (torch.sin, torch.cos))], 1)

    sizes, layers = (22, 64, 64, 2), []
    for i, (ins, outs) in enumerate(itertools.pairwise(sizes)):
        drawn = normal(((ins + 1) * outs,), seed, Purpose.INIT, 0, [i])[0]
        scale = 0 if i == 2 else ins**-0.5
        layers += [(scale * drawn[: ins * outs].view(outs, ins)).requires_grad_(), torch.zeros(outs).requires_grad_()]
    mean, losses = [w.detach().clone() for w in layers], []
    adam = torch.optim.Adam(layers, betas=(0.9, 0.99))
    for n in range(steps):
        eps = normal((2 * B,), seed, Purpose.NOISE, n, [0]).view(B, 2)
        u = torch.from_numpy(generator(seed, Purpose.TIME, n, 0).random(2 * B))
        x0, t = points[(u[:B] * len(points)).long()], ((torch.arange(B) + u[B:]) / B * T).long()
        signal, sigma = abars[t].sqrt()[:, None], (1 - abars[t]).sqrt()[:, None]
        h = told(signal * x0 + sigma * eps, t / T)
        for k in (0, 2, 4):
            h = h @ layers[k].T + layers[k + 1]
            h = torch.nn.functional.silu(h) if k < 4 else h
        loss = (h - (signal * eps - sigma * x0)).square().mean()
        adam.zero_grad()
        loss.backward()
        adam.param_groups[0]["lr"] = rate * min(1, (n + 1) / 50) / (1 + (n + 1) / 1000) ** 0.5
        adam.step()
        for w, m in zip(layers, mean):
            m.lerp_(w.detach(), 1 - min(0.995, (n + 1) / (n + 10)))
        losses.append(loss.item())
    return losses, mean


def test_the_plane_trains_as_pytorch_does(visit, site):
    "The same losses and averaged weights for the same seed: its gradients are written by hand."
    page = visit("plane.html")
    points = torch.from_numpy(np.random.default_rng(1).normal(size=(20, 2))).float()
    script = f"""async points => {{ const {{ trainer }} = await import('{site}/_static/mlp.js');
      const {{ SCHEDULES }} = await import('{site}/_static/sampler.js');
      const {{ step, mean }} = trainer(points, SCHEDULES.cosine(1000), 3), losses = [];
      for (let n = 0; n < 200; n++) losses.push(step());
      return [losses, mean.map(w => [...w])]; }}"""
    losses, layers = page.evaluate(script, points.flatten().tolist())
    theirs, mean = plane_in_pytorch(points, 200, 3)
    assert np.allclose(losses, theirs, rtol=1e-3) and np.mean(theirs[-50:]) < np.mean(theirs[:10])
    for k, layer in enumerate(layers):
        assert np.allclose(layer, torch.cat([mean[2 * k].flatten(), mean[2 * k + 1]]), atol=2e-3)


def test_a_drawn_ring_is_learned(visit):
    "300 points, drawn with the mouse; in some seconds the network's walkers end on the ring, its held-out half too."
    page = visit("plane.html")
    page.click("#clear")
    box = page.locator("canvas.plane").nth(1).bounding_box()
    middle, radius = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2), box["width"] / 3
    page.mouse.move(middle[0] + radius, middle[1])
    page.mouse.down()
    for k in range(1, 300):
        page.mouse.move(middle[0] + radius * np.cos(k * np.pi / 150), middle[1] + radius * np.sin(k * np.pi / 150))
    page.mouse.up()
    began = time.monotonic()
    r = 4.4 / 3
    page.wait_for_function(
        f"""() => {{ const x = document.getElementById('plane').ended?.network ?? [];
          let off = 0; for (let i = 0; i < x.length; i += 2) off += Math.abs(Math.hypot(x[i], x[i + 1]) - {r});
          return x.length && 2 * off / x.length < 0.15; }}""",
    )
    promise("learning a drawn ring of 300 points", time.monotonic() - began, 10)
    assert 0.35 < float(page.evaluate("document.getElementById('plane').dataset.network")) < 0.65
    assert float(page.evaluate("document.getElementById('plane').dataset.exact")) > 0.95 and not page.wrong


# -- pages ------------------------------------------------------------------------------------------------------------


def test_guess_stays(visit, browser):
    "A guess is kept in the browser, and stands beside the answer."
    page = visit("02_schedules.html")
    field = page.locator("form.guess input").first
    field.fill("300")
    field.press("Tab")
    page.wait_for_function("() => document.querySelector('details:has(p.answer)').open")
    page.reload()
    assert page.locator("form.guess input").first.input_value() == "300"
    assert "You guessed 300, off by" in page.locator("p.answer").first.text_content()
    page = visit("course.html")
    assert "You guessed 300, off by" in page.locator("#guesses").text_content()


@pytest.mark.parametrize(
    "word, place", [("guidance", "12"), ("attention", "06"), ("latent", "glossary.html#term-latent"), ("SNR", "")]
)
def test_search(visit, word, place):
    "First the lesson that is called so, or the glossary; then lessons; and no formula is shown as TeX."
    page = visit(f"search.html?q={word}")
    page.wait_for_function("() => /Search finished/.test(document.body.innerText)")
    first, *lessons = [link.get_attribute("href") for link in page.locator("ul.search li a").all()[:8]]
    assert first.startswith(("glossary.html#term", place)) and not any("/" in to for to in lessons)
    page.wait_for_function("() => document.querySelectorAll('ul.search p.context').length > 0")
    assert not re.search(r"\\[(\[]|\\[a-z]{3}", page.text_content("ul.search"))


BROKEN = "() => [...document.images].filter(i => i.complete && !i.naturalWidth).map(i => i.src)"
UNSET = """() => [...document.querySelectorAll('.math')].filter(
  m => !m.querySelector('mjx-container') || m.querySelector('mjx-merror')).map(m => m.textContent)"""


FEW = "index course plane glossary 02_schedules 12_sampling 17_flow 22_colour 23_topology api/ideas docs/design".split()


@pytest.mark.parametrize(
    "width, scheme, every",
    [
        (400, "dark", False),
        *[pytest.param(*how, True, marks=pytest.mark.nightly) for how in ((400, "dark"), (1400, "light"))],
    ],
)
def test_pages(visit, width, scheme, every):
    "A page of each kind, at night each page: nothing missing, or sideways on a phone, or that shuts anybody out."
    assert all((OUT / f"{name}.html").exists() for name in FEW)
    axe = (ROOT / "build/site/node_modules/axe-core/axe.min.js").read_text()
    wrong = {}
    for path in sorted(OUT.glob("**/*.html")):
        name = path.relative_to(OUT).as_posix()
        if name.startswith("_static") or path.stem in ("search", "genindex"):
            continue
        if not every and name.removesuffix(".html") not in FEW:
            continue
        page = visit(name, width, scheme)
        page.wait_for_load_state("load")
        page.evaluate("() => window.MathJax?.startup?.promise")
        page.evaluate(axe)
        found = [what for what in page.evaluate(AXE) if what[0] in ("serious", "critical")]
        found += page.wrong + page.evaluate(BROKEN) + page.evaluate(UNSET)
        if page.evaluate("() => document.documentElement.scrollWidth > innerWidth"):
            found.append("it scrolls sideways")
        if found:
            wrong[name] = found
        page.close()
    assert not wrong, json.dumps(wrong, indent=1)
