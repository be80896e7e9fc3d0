"""Figures for dark pages: white becomes the page's colour, lines and letters turn light, pictures stay as they are."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageSequence
from scipy import ndimage

PAGE = 18  # the grey of a dark page


def trimmed(ink: np.ndarray, place: tuple[slice, slice]) -> tuple[slice, slice]:
    "A rectangle without tick marks: up to ten rows and columns at its edges go if they are mostly empty."
    ends = []
    for axis, side in ((1, place[0]), (0, place[1])):
        full = np.flatnonzero(ink[place].mean(axis) > 0.5)
        tight = slice(side.start + full[0], side.start + full[-1] + 1) if len(full) else side
        ends.append(tight if max(tight.start - side.start, side.stop - tight.stop) <= 10 else side)
    return ends[0], ends[1]


def pictures(ink: np.ndarray) -> np.ndarray:
    "Which pixels lie in pictures (digits, maps, colour bars): rectangles with edges all of ink, (H, W) bool both."
    inside = np.zeros_like(ink)
    parts, _ = ndimage.label(ink)
    for found in ndimage.find_objects(parts):
        place = trimmed(ink, found)
        box = ink[place]
        edges = np.concatenate([box[0], box[-1], box[:, 0], box[:, -1]])
        if min(box.shape) >= 10 and edges.mean() > 0.98 and box.mean() > 0.4:
            inside[place] = True
    return inside


def colourful(light: np.ndarray) -> bool:
    "Whether a figure, (H, W, 3), is of pictures in colour: many coarse colours, each on more than 0.05 % of it."
    coarse = (light // 24).astype(int) @ (121, 11, 1)
    return bool((np.bincount(coarse.ravel()) > 5e-4 * coarse.size).sum() > 80)  # line plots have 30, maps up to 60


def shaded(light: np.ndarray) -> bool:
    "Whether a figure, (H, W, 3), has black grounds or many greys: a map, or pictures without a frame of ink."
    beside = light[~pictures(light.min(2) < 250)]
    grey = beside[beside.max(1) - beside.min(1) < 12].min(1).astype(int)
    share = np.bincount(grey, minlength=256) / max(1, len(beside))
    return bool(share[:40].sum() > 0.05 or (share[40:240] > 0.001).sum() >= 10)


def dark(light: np.ndarray) -> np.ndarray:
    "A figure on white, (H, W, 3), on the page's dark: lightness is turned round, hues and pictures stay."
    middle = (light.max(2, keepdims=True) + light.min(2, keepdims=True)) / 2
    turned = PAGE + (light + 255 - 2 * middle).clip(0, 255) * (255 - PAGE) / 255
    return np.where(pictures(light.min(2) < 250)[..., None], light, turned)


def darken(path: Path) -> None:
    """Beside a figure or a film, NAME.png or NAME.gif, its like for dark pages, NAME-dark. One whose colours or greys
    mean something stays as it is."""
    with Image.open(path) as image:
        frames = [np.asarray(frame.convert("RGB")).astype(np.float32) for frame in ImageSequence.Iterator(image)]
        times = [frame.info.get("duration", 0) for frame in ImageSequence.Iterator(image)]
    if 2 * sum(colourful(frame) or shaded(frame) for frame in frames) < len(frames):
        frames = list(map(dark, frames))
    first, *rest = (Image.fromarray(frame.astype(np.uint8)) for frame in frames)
    film = {"save_all": True, "append_images": rest, "duration": times, "loop": 0} if rest else {}
    first.save(path.with_name(f"{path.stem}-dark{path.suffix}"), optimize=True, **film)
