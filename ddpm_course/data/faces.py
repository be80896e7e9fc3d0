"Faces of 16x16 pixels whose parts are all known: who wears what, and what never meets."
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from .sets import ASSETS, ImageSet

PATH = ASSETS / 'faces.npz'


@dataclass(frozen=True, eq=False)
class Faces:
    "Faces with their parts; see `load_faces`."
    images: ImageSet
    parts: dict[str, np.ndarray]            # part -> (N,) uint8: which of the part's names
    names: dict[str, tuple[str, ...]]       # part -> its names; 'none' is the first where it exists
    held_out: tuple[dict[str, str], ...]    # what never meets in train and test: part -> name
    palette: np.ndarray                     # (K, 3) uint8: all colours of all faces

    def shows(self, combination: Mapping[str, str]) -> np.ndarray:
        """(N,) bool: which faces have these parts, such as {'hat': 'any', 'length': 'long'}; any
        means all but none. Raises ValueError for a part or name that does not exist."""
        found = np.ones(len(self.images), bool)
        for part, name in combination.items():
            names = self.names.get(part, ())
            if name not in names and (name, names[:1]) != ('any', ('none',)):
                raise ValueError(f'no face has {part} {name!r}: expected one of '
                                 f'{", ".join(names or self.names)}')
            have = self.parts[part]
            found &= (have > 0) if name == 'any' else have == names.index(name)
        return found


@lru_cache(maxsize=1)
def read_faces() -> dict[str, Any]:
    "What the file holds; `images` are (N, 16, 16, 3). Not to be changed."
    with np.load(PATH) as file:
        found = dict(file)
    about = json.loads(found.pop('about').tobytes())
    return found | about | {'images': found['palette'][found['images']]}


def load_faces(split: str = 'train') -> Faces:
    """The 5,000 faces that `--data faces` trains on ('train'), or the 1,000 that it holds out
    ('test'), with their parts; or 350 of what these never show ('unseen'): 50 for each combination
    of `held_out`, in its order, without classes. Made by tools/make_faces.py."""
    file = read_faces()
    if split not in file['splits']:
        raise ValueError(f'a split is one of {", ".join(file["splits"])}, not {split!r}')
    rows = file['split'] == file['splits'].index(split)
    labels = None if split == 'unseen' else file['labels'][rows]
    names = {part: tuple(names) for part, names in file['names'].items()}
    classes = () if labels is None else file['classes']
    return Faces(ImageSet.of(file['images'][rows], labels, classes),
                 dict(zip(names, file['parts'][rows].T)), names, tuple(file['held out']),
                 file['palette'])


def on_palette(pixels: np.ndarray, palette: np.ndarray) -> list[bytes]:
    "Each picture of (N, 3, H, W) with all its pixels set to the nearest colour of the palette."
    flat = torch.from_numpy(pixels).movedim(1, -1).reshape(len(pixels), -1, 3).float()
    nearest = torch.cdist(flat, torch.from_numpy(palette).float()).argmin(-1).to(torch.uint8)
    return [row.tobytes() for row in nearest.numpy()]
