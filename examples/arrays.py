"""Images in one file of numpy, `images` (N, H, W) or (N, H, W, 3) uint8 and perhaps `labels` (N,).

ddpm train --plugin examples/arrays.py --data npz:digits.npz
"""

import numpy as np
from PIL import Image

from ddpm_course import DATA, ImageSet


def npz(size: int, channels: int | None, path: str) -> tuple[ImageSet, ImageSet]:
    "Every tenth image is held out."
    with np.load(path) as file:
        images, labels = file["images"], file.get("labels")
    mode = {1: "L", 3: "RGB", None: None}[channels]
    pictures = [Image.fromarray(image) for image in images]
    pixels = np.stack(
        [np.asarray((p.convert(mode) if mode else p).resize((size, size), Image.Resampling.BOX)) for p in pictures]
    )
    classes = tuple(map(str, range(int(labels.max()) + 1))) if labels is not None else ()
    held = np.arange(len(pixels)) % 10 == 9
    return tuple(ImageSet.of(pixels[part], None if labels is None else labels[part], classes) for part in (~held, held))


DATA["npz"] = npz
