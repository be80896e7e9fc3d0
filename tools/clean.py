"""Store notebooks so that opening changes nothing and a commit stays small.

    python tools/clean.py                   # all notebooks
    python tools/clean.py nbs/NAME.ipynb    # one

Execution counts and foreign metadata go, the kernel's metadata is what JupyterLab would write when it opens the page
(under another version of Python it still writes that), and figures get a palette where nobody can see the difference.
`nbdev_clean` would rename the kernel, and JupyterLab would name it again.
"""

import base64
import io
import platform
import sys
from pathlib import Path

import numpy as np
from notebooks import notebooks, read, text
from PIL import Image


def kernel(version: str) -> dict:
    "A notebook's metadata, as JupyterLab writes it."
    language = {"codemirror_mode": {"name": "ipython", "version": 3}, "file_extension": ".py", "name": "python",
                "mimetype": "text/x-python", "nbconvert_exporter": "python", "pygments_lexer": "ipython3",
                "version": version}  # fmt: skip
    spec = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
    return {"kernelspec": spec, "language_info": language}


def few_colours(png: bytes) -> bytes:
    "A picture in at most 256 colours if no pixel is far off and the error is small (RMS 2 of 255); else as it is."
    image = Image.open(io.BytesIO(png))
    pixels = np.asarray(image.convert("RGBA"))
    if image.mode not in ("RGB", "RGBA") or pixels[..., 3].min() < 255:
        return png
    true = pixels[..., :3]
    for colours in (32, 64, 128, 256):
        few = image.convert("RGB").quantize(colours, kmeans=1, dither=Image.Dither.NONE)
        if (white := (true == 255).all(2)).any():  # paper stays white
            palette = np.array(few.getpalette())
            index = np.bincount(np.asarray(few)[white]).argmax()
            palette[3 * index : 3 * index + 3] = 255
            few.putpalette(palette.tolist())
        apart = np.abs(np.asarray(few.convert("RGB")).astype(int) - true)
        if apart.max() <= 64 and (apart**2).mean() <= 4:
            file = io.BytesIO()
            few.save(file, "png", optimize=True)
            return min(file.getvalue(), png, key=len)
    if image.mode == "RGB":
        return png
    file = io.BytesIO()
    image.convert("RGB").save(file, "png", optimize=True)
    return min(file.getvalue(), png, key=len)


def cleaned(nb: dict) -> dict:
    "The notebook as it is committed."
    for cell in nb["cells"]:
        cell["metadata"] = {key: cell["metadata"][key] for key in ("jupyter", "tags") if key in cell["metadata"]}
        if cell["cell_type"] == "code":
            cell["execution_count"] = None
        for output in cell.get("outputs", []):
            if "execution_count" in output:
                output["execution_count"] = None
            if png := output.get("data", {}).get("image/png"):
                output["data"]["image/png"] = base64.b64encode(few_colours(base64.b64decode("".join(png)))).decode()
    version = nb["metadata"].get("language_info", {}).get("version", platform.python_version())
    return {**nb, "metadata": kernel(version)}


def main() -> None:
    for path in map(Path, sys.argv[1:]) if sys.argv[1:] else notebooks():
        path.write_text(text(cleaned(read(path))), encoding="utf-8")


if __name__ == "__main__":
    main()
