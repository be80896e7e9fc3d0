"""Ways to fill in the right half of a face, of page 19: pasted, clean, noised, and RePaint's rounds.

    python benchmarks/bench_fillings.py [--n 250] [--out fillings]

The right halves of n held-out faces, each class equally often, are drawn anew with the faces16 model that ships, given
their class, without guidance. All ways begin at the same noise. OUT.json has a line for each way:

    calls     how often the network predicts, for each face
    wrong     of each face, the percentage of the filled pixels that are off by more than 0.25 in some channel
    error     of each face, the mean squared error of the filled half
    seam      of each face, the mean squared difference of the columns left and right of the seam

and lines `real` (the faces as they were) and `mirrored` (the left half, mirrored). Some five minutes of one core.
"""

from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from common import arguments, keep
from torch import Tensor

from ddpm_course.data.faces import load_faces
from ddpm_course.data.sets import ASSETS, to_float
from ddpm_course.draws import Purpose, normal
from ddpm_course.editing import noised
from ddpm_course.model import Model
from ddpm_course.run.runs import load_run
from ddpm_course.steps import ddim_step, sampling_indices

WAYS = {  # name -> what is put back after a step, steps, rounds, eta, whether the last step has rounds, too
    "pasted": ("nothing", 10, 1, 0.0, False),
    "clean": ("clean", 10, 1, 0.0, False),
    "noised": ("noised", 10, 1, 0.0, False),
    "noised, 50 steps": ("noised", 50, 1, 0.0, False),
    "noised, eta 1": ("noised", 10, 1, 1.0, False),
    "noised, 50 steps, eta 1": ("noised", 50, 1, 1.0, False),
    "noised, 2 rounds": ("noised", 10, 2, 0.0, False),
    "noised, 5 rounds": ("noised", 10, 5, 0.0, False),
    "noised, 5 rounds, the last step, too": ("noised", 10, 5, 0.0, True),
    "clean, 5 rounds": ("clean", 10, 5, 0.0, False),
}


@torch.no_grad()
def fill(
    model: Model, faces: Tensor, y: Tensor, put_back: str, steps: int, rounds: int, eta: float, last: bool
) -> Tensor:
    "The faces (N, 3, 16, 16), whose right halves are drawn anew."
    stops, abars = sampling_indices(model.schedule.T, steps), model.schedule.alpha_bars
    levels = [(t, abars[t].item()) for t in stops] + [(-1, 1.0)]
    right = torch.arange(16).expand(16, 16) >= 8

    def noise(purpose: Purpose, t: int, again: int = 0) -> Tensor:
        return normal(model.shape, 0, purpose, t + 1 + again * 2**32, range(len(faces)))

    x = noise(Purpose.SAMPLE, -1)
    for (t, abar), (_, abar_next) in pairwise(levels):
        for again in range(rounds if abar_next < 1 or last else 1):
            if again:
                x = noised(x, abar / abar_next, noise(Purpose.AGAIN, t, again))  # back up
            now = model.predict(x, t, y)
            x = ddim_step(now.x0, now.eps, noise(Purpose.SAMPLE, t, again), abar, abar_next, eta)
            known = {"nothing": x, "clean": faces, "noised": noised(faces, abar_next, noise(Purpose.KNOWN, t, again))}
            x = torch.where(right, x, known[put_back])
    return torch.where(right, x, faces)


def main() -> None:
    args = arguments(__doc__, n=250, out="")
    model, _ = load_run(ASSETS / "faces16", precision="fp32")
    model, images = model.eval(), load_faces("test").images.spread(args.n)
    faces, y, lines = to_float(images.pixels), torch.from_numpy(images.labels).long(), []

    def look(name: str, calls: int, filled: Tensor) -> None:
        off, seam = (filled - faces)[..., 8:], filled[..., 7] - filled[..., 8]
        line = {
            "wrong": 100 * (off.abs().amax(1) > 0.25).float().mean((1, 2)),
            "error": off.square().mean((1, 2, 3)),
            "seam": seam.square().mean((1, 2)),
        }
        lines.append(
            {"name": name, "calls": calls} | {key: np.round(v.tolist(), 4).tolist() for key, v in line.items()}
        )
        print(name, calls, *(f"{key} {v.mean():.4f}" for key, v in line.items()), flush=True)

    look("real", 0, faces)
    look("mirrored", 0, torch.cat([faces[..., :8], faces[..., :8].flip(-1)], -1))
    for name, (put_back, steps, rounds, eta, last) in WAYS.items():
        calls = steps * rounds if last else (steps - 1) * rounds + 1
        look(name, calls, fill(model, faces, y, put_back, steps, rounds, eta, last))
    if args.out:
        keep(lines, Path(f"{args.out}.json"), "torch")


if __name__ == "__main__":
    main()
