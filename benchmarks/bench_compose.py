"""Which parts do samples of a model of faces show: of one class, and of two classes at once?

    python benchmarks/bench_compose.py [RUN ...] [--n 100] [--out benchmarks/results/compose]

A RUN is a folder of `ddpm train --preset faces16`, the model that ships if none is named. Counted by the judge of
parts, which was trained on real faces alone:

    real       the 50 real faces of each combination that training and test faces never show: how many it sees
    alone      5n samples, each class equally often, without guidance: how many show which parts, and how many are
               copies of training faces once their pixels are set to the nearest colour of the palette
    free       5n samples without a class, so that no label forbids two parts at once: the same counts
    single     n samples of each class with guidance 2
    composed   n samples of each pair of classes at once, b + W (c - b) + W (d - b), with W = 1, 2 and 4; b is the
               answer without a class, or that for the class `short`, whose faces wear nothing

All samples are drawn in the default number of steps, and all cells begin with the same noise. Seven minutes a run on
one slow core.
"""

from itertools import combinations, product
from pathlib import Path

import numpy as np
import torch
from common import arguments, keep
from torch import Tensor

from ddpm_course.compose import compose
from ddpm_course.config import SamplingConfig
from ddpm_course.data.faces import Faces, load_faces, on_palette
from ddpm_course.data.sets import ASSETS
from ddpm_course.judge.evaluation import allot_classes, draw_samples
from ddpm_course.judge.face_judge import FaceJudge, load_face_judge, see_parts
from ddpm_course.run.runs import load_run

PARTS = {
    "beard": {"beard": "any"},
    "glasses": {"glasses": "any"},
    "hat": {"hat": "any"},
    "long": {"length": "long"},
    "pink": {"background": "pink"},
    "green": {"hair colour": "green"},
}
PAIRS = list(combinations(["beard", "glasses", "hat", "long"], 2))
WEIGHTS = (1, 2, 4)


def counts(seen: Faces) -> dict[str, int]:
    "How many show each part, and each two parts together."
    shown = {name: seen.shows(part) for name, part in PARTS.items()}
    two = {f"{a} {b}": shown[a] & shown[b] for a, b in combinations(PARTS, 2)}
    return {name: int(rows.sum()) for name, rows in (shown | two).items()}


def counted(drawn: Tensor, judge: FaceJudge, known: set[bytes], palette: np.ndarray) -> dict[str, object]:
    "Samples, copies among them, and the parts that they show."
    copies = int(np.sum([row in known for row in on_palette(drawn.numpy(), palette)]))
    return {"n": len(drawn), "copies": copies, "shown": counts(see_parts(judge, drawn))}


def main() -> None:
    args = arguments(__doc__, n=100, out="benchmarks/results/compose")
    train, unseen, judge = load_faces("train"), load_faces("unseen"), load_face_judge()
    known = {*on_palette(train.images.pixels, train.palette)}
    seen = see_parts(judge, unseen.images.pixels)
    found = []
    for combination in unseen.held_out:
        real = unseen.shows(combination)
        name = " ".join(part for part, shown in PARTS.items() if shown.items() <= combination.items())
        both = int(seen.shows(combination)[real].sum())
        found.append({"what": "real", "asked": name, "n": int(real.sum()), "seen": both})
    for run in args.words or [ASSETS / "faces16"]:
        model, config = load_run(run, precision="fp32")
        about = {"seed": config.training.seed, "steps": config.training.steps}
        classes = allot_classes(train.images.labels, 5 * args.n)
        for what, guidance in (("alone", 1), ("free", 0)):  # guidance 0 is the answer without a class
            drawn = draw_samples(model, classes, SamplingConfig(guidance=guidance))
            found.append({"what": what} | about | counted(drawn, judge, known, train.palette))
            print(found[-1], flush=True)
        single = [((name,), 2, "") for name in ("beard", "glasses", "hat", "long")]
        for asked, w, base in single + [*product(PAIRS, WEIGHTS, ("", "short"))]:
            y = torch.full((args.n,), -1)  # without classes: `compose` holds them
            drawn = draw_samples(compose(model, asked, w, base), y, SamplingConfig())
            cell = {"what": ("", "single", "composed")[len(asked)]} | about | {"asked": " ".join(asked), "w": w}
            found.append(cell | {"base": base, "n": args.n, "shown": counts(see_parts(judge, drawn))})
            print(found[-1], flush=True)
    keep(found, Path(f"{args.out}.json"), "torch")


if __name__ == "__main__":
    main()
