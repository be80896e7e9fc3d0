"A control: the folded network, with as many steps of training as the record of flow matching."

import runpy
from pathlib import Path

FOLDED = runpy.run_path(str(Path(__file__).parents[1] / "3_folded.py"))
sample = FOLDED["sample"]


def train(seed: int):
    return FOLDED["train"](seed, steps=450)
