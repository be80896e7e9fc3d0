"""Images in one file of numpy: `images` (N, H, W) or (N, H, W, 3), bytes or floats from 0 or -1 to 1, and perhaps
`labels` (N,), whole numbers or words: each that occurs is a class of that name.

ddpm train --plugin examples/arrays.py --data npz:digits.npz
"""

import numpy as np
from PIL import Image

from ddpm_course import DATA, ImageSet
from ddpm_course.data.sets import as_bytes, black_of


def npz(size: int, channels: int | None, path: str) -> tuple[ImageSet, ImageSet]:
    "Every tenth image is held out."
    with np.load(path) as file:
        images, labels = file["images"], file.get("labels")
    if images.dtype.kind == "f":
        images = as_bytes(images, black_of(images), 1)
    mode = {1: "L", 3: "RGB", None: None}[channels]
    pictures = [Image.fromarray(image) for image in images]
    pixels = np.stack(
        [np.asarray((p.convert(mode) if mode else p).resize((size, size), Image.Resampling.BOX)) for p in pictures]
    )
    whole = ImageSet.of(pixels, labels)  # at once: one order of classes for both parts
    held = np.arange(len(pixels)) % 10 == 9
    return whole[~held], whole[held]


DATA["npz"] = npz
