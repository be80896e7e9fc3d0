"""Ways to fill in a lower half, of chapter 19: pasted, clean, noised, and RePaint's rounds.

    python benchmarks/bench_fillings.py [--draws 4] [--out fillings]

The lower halves of the 500 held-out digits are drawn anew by DDIM with the network that ships, without guidance, so
many times each; all ways begin at the same noise. OUT.json has a line for each way:

    calls     how often the network is asked, for each picture
    seam      of each picture, the mean squared difference of the rows above and below the seam (mean of its draws)
    misread   of each picture, the share of its draws that the judge reads as another class
    distance  Fréchet distance of all filled pictures to the training digits (line `real`: of the pictures as they were)
    again     the same of a hundred redraws of the pictures, class by class and alike for all ways, so that the spread
              of a difference is its error

About a quarter of an hour of one core.
"""

from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from common import arguments, keep
from torch import Tensor

from ddpm_course.data.sets import load_digits, to_float, to_uint8
from ddpm_course.draws import Purpose, normal
from ddpm_course.judge.evaluation import extract, frechet_distance, load_judge
from ddpm_course.run.runs import load_model
from ddpm_course.sampling import ddim_step, sampling_indices

WAYS = {  # name -> what is put back after a step, steps, rounds
    "pasted": ("nothing", 10, 1),
    "clean": ("clean", 10, 1),
    "clean, shrunk": ("shrunk", 10, 1),  # as the level shrinks it, without the noise
    "noised": ("noised", 10, 1),
    "same noise": ("same", 10, 1),
    "noised, 50 steps": ("noised", 50, 1),
    "noised, 2 rounds": ("noised", 10, 2),
    "noised, 5 rounds": ("noised", 10, 5),
    "noised, 10 rounds": ("noised", 10, 10),
    "clean, 5 rounds": ("clean", 10, 5),
}
REDRAWS = 100


@torch.no_grad()
def fill(pictures: Tensor, y: Tensor, seed: int, put_back: str, steps: int, rounds: int) -> Tensor:
    "The pictures (N, 1, 16, 16), whose lower halves are drawn anew."
    model, keys = load_model(precision="bf16"), range(len(pictures))
    stops, abars = sampling_indices(1000, steps), model.schedule.alpha_bars
    levels = [(t, abars[t].item()) for t in stops] + [(-1, 1.0)]
    lower = (torch.arange(16) >= 8)[:, None].expand(16, 16)

    def noise(purpose: Purpose, t: int, again: int = 0) -> Tensor:
        return normal(model.shape, seed, purpose, t + 1 + again * 2**32, keys)

    def mix(x: Tensor, keep: float, eps: Tensor) -> Tensor:
        return keep**0.5 * x + (1 - keep) ** 0.5 * eps

    x = noise(Purpose.SAMPLE, -1)
    for (t, abar), (_, abar_next) in pairwise(levels):
        for again in range(rounds if abar_next < 1 else 1):
            if again:
                x = mix(x, abar / abar_next, noise(Purpose.AGAIN, t, again))  # back up
            now = model.predict(x, t, y)
            x = ddim_step(now.x0, now.eps, torch.zeros_like(x), abar, abar_next, 0.0)
            known = {
                "nothing": x,
                "clean": pictures,
                "shrunk": mix(pictures, abar_next, torch.zeros_like(x)),
                "noised": mix(pictures, abar_next, noise(Purpose.KNOWN, t, again)),
                "same": mix(pictures, abar_next, noise(Purpose.KNOWN, 0)),
            }[put_back]
            x = torch.where(lower, x, known)
    return torch.where(lower, x, pictures)


def main() -> None:
    args = arguments(__doc__, draws=4, out="")
    held_out, judge = load_digits("test", 16), load_judge()
    pictures, y = to_float(held_out.pixels), torch.from_numpy(held_out.labels).long()
    real = extract(judge, load_digits("train", 16).pixels)[0]
    dice, places = np.random.default_rng(0), [np.flatnonzero(held_out.labels == c) for c in range(10)]
    picks = [np.concatenate([dice.choice(c, len(c)) for c in places]) for _ in range(REDRAWS)]
    lines = []

    def look(name: str, calls: int, draws: list[Tensor]) -> None:
        seams = [(x[:, :, 7] - x[:, :, 8]).square().mean((1, 2)) for x in draws]
        seen = [extract(judge, to_uint8(x)) for x in draws]
        features = torch.stack([f for f, _ in seen])  # (draws, N, 64)
        misread = torch.stack([(logits.argmax(1) != y).float() for _, logits in seen]).mean(0)
        line = {"name": name, "calls": calls, "distance": round(frechet_distance(features.flatten(0, 1), real), 4)}
        line["again"] = [round(frechet_distance(features[:, pick].flatten(0, 1), real), 3) for pick in picks]
        line["seam"] = [round(v, 4) for v in torch.stack(seams).mean(0).tolist()]
        line["misread"] = misread.tolist()
        lines.append(line)
        print(name, line["distance"], np.mean(line["seam"]), np.mean(line["misread"]), flush=True)

    look("real", 0, [pictures])
    for name, (put_back, steps, rounds) in WAYS.items():
        draws = [fill(pictures, y, seed, put_back, steps, rounds) for seed in range(args.draws)]
        look(name, (steps - 1) * rounds + 1, draws)
    if args.out:
        keep(lines, Path(f"{args.out}.json"), "torch")


if __name__ == "__main__":
    main()
