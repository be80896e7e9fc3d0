from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageOps
from torch import Tensor

from .base.group import Group
from .config import SamplingConfig
from .data.sets import to_uint8
from .model import Model
from .sampling import class_keys, columns_of, keyed_noise, plan, walk


def grid_image(
    images: Tensor,                     # (N, C, H, W) in [-1, 1] or uint8, row by row
    columns: int,
    titles: Sequence[str] = (),         # one per column, or none
    scale: int = 0,                     # enlarge by whole pixels; 0: to at least 48
) -> Image.Image:
    "Images as one picture with thin gaps."
    pixels = images if images.dtype == torch.uint8 else to_uint8(images)
    scale = scale or max(1, -(-48 // images.shape[2]))
    big = pixels.permute(0, 2, 3, 1).numpy().repeat(scale, 1).repeat(scale, 2)
    n, height, width, channels = big.shape
    head, gap = 14 if titles else 0, 2
    rows = -(-n // columns)
    size = (head + rows * (height + gap) + gap, columns * (width + gap) + gap)
    canvas = np.full((*size, channels), 255, np.uint8)
    for k, image in enumerate(big):
        top, left = head + gap + k // columns * (height + gap), gap + k % columns * (width + gap)
        canvas[top:top + height, left:left + width] = image
    picture = Image.fromarray(canvas[..., 0] if channels == 1 else canvas)
    for k, title in enumerate(titles):
        room, middle = width // 6, gap + (k + 0.5) * (width + gap)      # a letter is 6 pixels wide
        ImageDraw.Draw(picture).text((middle, 2), title[:room], fill=0, anchor='ma')
    return picture


def column_titles(model: Model, classes: Sequence[int] | None = None) -> list[str]:
    "The names of a grid's columns; none for a model without classes."
    return [model.classes[c] for c in columns_of(model, classes)] if model.classes else []


@dataclass(frozen=True)
class Film:
    "How samples came to be: S + 1 states of each."
    levels: list[int]       # the paper's t of each state, T ... 0
    xs: Tensor              # (S + 1, N, C, H, W) uint8: x at each level ...
    x0s: Tensor             # ... and the x_0 predicted from it
    rows: int               # samples of each class; the N are a grid, row by row


def sequence(
    model: Model,
    classes: Sequence[int] | None = None,   # None: see `columns_of`
    n: int = 1,                             # samples of each class
    how: SamplingConfig = SamplingConfig(),
    group: Group = Group(),                 # whose members share the samples
    batch: int = 100,                       # samples at a time; changes nothing but memory
) -> Film:
    "Film the walks of a grid of samples."
    route = plan(how, model)
    keys, y = class_keys(columns_of(model, classes), n)

    def states(i: range) -> Tensor:         # (len(i), S + 1, 2, C, H, W)
        part = slice(i.start, i.stop)
        noise = keyed_noise(model, how.seed, keys[part])
        seen = [torch.stack([to_uint8(x), to_uint8(x0)], 1).cpu()
                for _, x, x0 in walk(model, route, noise, y[part])]
        return torch.stack(seen, 1)
    xs, x0s = group.map(states, len(keys), batch).transpose(0, 1).unbind(2)
    return Film([t + 1 for t in route.indices], xs, x0s, n)


def pick_frames(states: Tensor, count: int) -> list[int]:
    "Places of at most `count` states, first and last included, with about equal change between."
    if count >= len(states):
        return list(range(len(states)))
    change = (states[1:].float() - states[:-1].float()).abs().flatten(1).mean(1).double()
    done = torch.cat([torch.zeros(1, dtype=torch.float64), change.cumsum(0)])
    even = torch.linspace(0, float(done[-1]), count, dtype=torch.float64)[1:-1]
    return sorted({0, *torch.searchsorted(done, even).tolist(), len(states) - 1})


def film_strip(film: Film, count: int = 10) -> Image.Image:
    "`count` states from left to right; two rows per class, x_t and the x_0 predicted from it."
    columns = film.xs.shape[1] // film.rows
    both = torch.stack([film.xs[:, :columns], film.x0s[:, :columns]], 1)
    places = pick_frames(both, count)
    rows = both[places].permute(2, 1, 0, 3, 4, 5)           # sample, kind, frame, ...
    return grid_image(rows.flatten(0, 2), len(places), [f't={film.levels[k]}' for k in places])


def save_gif(
    film: Film,
    path: Path | str,
    frames: int = 40,           # at most; more than there are states: all
    seconds: float = 4.0,       # of the moving part
) -> int:                       # frames written
    "Write an animated GIF, one row per class, its frames dense where the picture changes."
    states = film.xs.unflatten(1, (film.rows, -1)).transpose(1, 2).flatten(1, 2)
    chosen = pick_frames(states, frames)
    pictures = [grid_image(states[k], film.rows) for k in chosen]
    pictures[:-1] = [ImageOps.posterize(picture, 5)         # noise in 32 greys takes less room
                     for picture in pictures[:-1]]
    each = max(20, round(1000 * seconds / len(pictures)))   # ms; viewers are slow below 20
    times = [800, *[each] * (len(pictures) - 2), 2500][-len(pictures):]
    pictures[0].save(path, 'GIF', save_all=True, append_images=pictures[1:], duration=times, loop=0)
    return len(pictures)
