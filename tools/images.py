"""Make the pictures that README.md shows, nbs/images/*, each with the command that it names.

    python tools/images.py
    python tools/site.py && python tools/images.py cover    # cover.gif, which needs Chromium

`loss.png` is drawn of the log of the model that ships, which is a default run's.
"""

import base64
import functools
import http.server
import io
import json
import shutil
import sys
import tempfile
import threading
from pathlib import Path

from PIL import Image

from ddpm_course.cli.main import main as ddpm
from ddpm_course.data.sets import ASSETS, load_digits
from ddpm_course.heldout import loss_floor, plot_losses
from ddpm_course.lesson.explorers import palette
from ddpm_course.run.checkpoints import read_metrics
from ddpm_course.run.runs import load_run

ROOT = Path(__file__).resolve().parent.parent
IMAGES = ROOT / "nbs/images"


def chain() -> bytes:
    "The figure of chapter 00 whose cell is labelled `fig-chain`, as it was stored when the chapter ran."
    cells = json.loads((ROOT / "nbs/00_start.ipynb").read_text(encoding="utf-8"))["cells"]
    (cell,) = [c for c in cells if "#| label: fig-chain" in "".join(c["source"])]
    (figure,) = [o["data"]["image/png"] for o in cell["outputs"] if "image/png" in o.get("data", {})]
    return base64.b64decode("".join(figure))


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


def cover(path: Path) -> None:
    "The site's cover while its slider walks from noise to pictures, as a GIF."
    from playwright.sync_api import sync_playwright

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=ROOT / "_site"))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 820, "height": 900})
        page.goto(f"http://127.0.0.1:{server.server_port}/index.html")
        page.wait_for_function("() => document.getElementById('draw').dataset.state === 'done'")
        frames = []
        for k in range(11):
            page.evaluate(
                "k => { const s = document.getElementById('step'); s.value = k; s.dispatchEvent(new Event('input')); }",
                k,
            )
            frames.append(Image.open(io.BytesIO(page.locator("#draw").screenshot())).convert("RGB"))
        browser.close()
    server.shutdown()
    first, *rest = palette(frames, 64)
    first.save(path, save_all=True, append_images=rest, duration=[400] * 10 + [3000], loop=0)


def main() -> None:
    if sys.argv[1:] == ["cover"]:
        return cover(IMAGES / "cover.gif")
    IMAGES.mkdir(exist_ok=True)
    (IMAGES / "chain.png").write_bytes(chain())
    ddpm(["sample", "--out", str(IMAGES / "samples.png")])
    ddpm(["sample", str(ASSETS / "emoji16"), "--n", "4", "--out", str(IMAGES / "emoji.png")])
    with tempfile.TemporaryDirectory() as folder:
        ddpm(["genseq", "--classes", "2,3,7,9", "--out", f"{folder}/denoising.gif"])
        shutil.copy(f"{folder}/denoising.gif", IMAGES)
        ddpm(["topology", "--out", folder])
        shutil.copy(f"{folder}/diagram.png", IMAGES / "unet.png")
        shutil.copy(f"{folder}/diffusion.png", IMAGES)
    shipped = ASSETS / "mnist16"
    floor = loss_floor(load_digits("train", 16), load_run(shipped)[1])
    plot_losses(read_metrics(shipped), floor).savefig(IMAGES / "loss.png", dpi=100)


if __name__ == "__main__":
    main()
