"""Make the pictures that README.md shows, nbs/images/*, each with the command that it names.

python tools/images.py

`loss.png` is drawn of the log of the model that ships, which is a default run's.
"""

import base64
import json
import shutil
import tempfile
from pathlib import Path

from ddpm_course.cli.main import main as ddpm
from ddpm_course.data.sets import ASSETS, load_digits
from ddpm_course.heldout import loss_floor, plot_losses
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


def main() -> None:
    IMAGES.mkdir(exist_ok=True)
    (IMAGES / "chain.png").write_bytes(chain())
    ddpm(["sample", "--out", str(IMAGES / "samples.png")])
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
