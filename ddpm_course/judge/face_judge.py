"The judge of faces: which class, and which parts, it sees in pictures."
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from ..data.faces import Faces, load_faces
from ..data.sets import ImageSet
from .evaluation import Judge, extract, read_judge

WORN = ('beard', 'glasses', 'hat')          # it sees whether there is one, not which


class FaceJudge(Judge):
    "A classifier of faces: features (N, 64) and logits (N, 5) of images; `parts` reads more."
    name = 'faces judge'

    def __init__(self):
        super().__init__(channels=3, classes=5)
        names = load_faces('test').names
        self.names: dict[str, tuple[str, ...]] = {part: ('none', 'some') for part in WORN}
        self.names |= {part: names[part] for part in ('length', 'hair colour', 'background')}
        self.heads = nn.ModuleList(nn.Linear(self.num_features, len(names))
                                   for names in self.names.values())

    def parts(self, features: Tensor) -> dict[str, Tensor]:
        "Logits (N, K) of each part's names."
        return {part: head(features) for part, head in zip(self.names, self.heads)}


def load_face_judge() -> FaceJudge:
    "The judge of faces that ships with the package, made by tools/make_face_judge.py."
    return read_judge(FaceJudge(), 'face_judge.safetensors')


@torch.no_grad()
def see_parts(judge: FaceJudge, pixels: np.ndarray | Tensor) -> Faces:
    """The parts that the judge sees in pictures (N, 3, 16, 16) uint8: of hat, glasses and beard
    whether there is one. `shows` of what comes back says who shows a combination, such as one of
    `held_out`. (Hair may be hidden by a hat: its colour is then a guess.)"""
    features, _ = extract(judge, pixels)
    found = {part: logits.argmax(1).numpy().astype(np.uint8)
             for part, logits in judge.parts(features.float()).items()}
    return replace(load_faces('test'), images=ImageSet(np.asarray(pixels), None), parts=found,
                   names=judge.names)
