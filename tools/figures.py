"""Figures for dark pages: white becomes the page's colour, lines and letters turn light, pictures stay as they are."""

from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage

PAGE = 18  # the grey of a dark page


def pictures(ink: np.ndarray) -> np.ndarray:
    "Which pixels lie in pictures, such as digits: rectangles whose four edges are all ink, (H, W) bool both."
    inside = np.zeros_like(ink)
    parts, _ = ndimage.label(ink)
    for place in ndimage.find_objects(parts):
        box = ink[place]
        edges = np.concatenate([box[0], box[-1], box[:, 0], box[:, -1]])
        if min(box.shape) >= 10 and edges.mean() > 0.98 and box.mean() > 0.4:
            inside[place] = True
    return inside


def shaded(light: np.ndarray) -> bool:
    "Whether a figure, (..., 3), has black grounds or many greys: a map, or pictures without a frame of ink."
    grey = light[light.max(-1) - light.min(-1) < 12].min(-1).astype(int)
    share = np.bincount(grey, minlength=256) / max(1, light[..., 0].size)
    return bool(share[:40].sum() > 0.05 or (share[40:240] > 0.001).sum() >= 10)


def darken(path: Path) -> None:
    """Beside a figure on white, NAME.png, one on dark, NAME-dark.png: lightness is turned round, hues stay. A figure whose
    greys mean something stays as it is."""
    with Image.open(path) as image:
        light = np.asarray(image.convert("RGB")).astype(np.float32)
    middle = (light.max(2, keepdims=True) + light.min(2, keepdims=True)) / 2
    turned = PAGE + (light + 255 - 2 * middle).clip(0, 255) * (255 - PAGE) / 255
    keep = pictures(light.min(2) < 250)[..., None]
    if shaded(light[~keep[..., 0]]):
        turned = light
    Image.fromarray(np.where(keep, light, turned).astype(np.uint8)).save(
        path.with_name(f"{path.stem}-dark.png"), optimize=True
    )
