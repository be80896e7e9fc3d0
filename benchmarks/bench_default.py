"""What a run of so many seconds reaches, by its settings: judged by the judge that ships, and by one of other seeds.

    python benchmarks/bench_default.py [--seconds 60] [--out default] -- '' '--optimizer adamw --lr 3e-3' ...

Each word is what `ddpm train` would be given; '' is the default. The steps are as many as fit (20 are timed first), or
those of --steps; two runs beside one another disturb both. One line of JSON a run, and all of them, with machine and
versions, in OUT.json:

    held-out     loss in v on the held-out digits
    asked        share of 500 digits (guidance 2, 25 DDIM steps) that is read as the class asked for
    spread       within a class, over that of the training digits (same digits)
    guided       their Fréchet distance to the training digits; beside it that of the held-out digits
    plain        Fréchet distance of 500 other digits (guidance 1, 25 ancestral steps)
"""

import json
from pathlib import Path

import torch
from common import SamplingConfig, arguments, digits_and_judges, judged, keep, plain_digits, train

from ddpm_course.data.sets import to_float, to_uint8
from ddpm_course.sampling import sample


def spread(images: torch.Tensor, y: torch.Tensor) -> float:
    "Root of the mean variance of a pixel within a class."
    return torch.stack([images[y == c].var(0).mean() for c in range(10)]).mean().sqrt().item()


def main() -> None:
    args = arguments(__doc__, seconds=60.0, out="")
    digits, judges = digits_and_judges()
    y, labels, lines = torch.arange(10).repeat(50), torch.from_numpy(digits["train"].labels), []
    how = SamplingConfig(sampler="ddim", steps=25, guidance=2)
    for words in args.words:
        model, line = train(words, args.seconds, digits)
        guided = to_uint8(sample(model, range(10), 50, how, batch=250))
        plain, _ = plain_digits(model, digits)
        line["spread"] = round(spread(to_float(guided), y) / spread(to_float(digits["train"].pixels), labels), 3)
        line |= {name: judged(judge, digits, y, guided=guided, plain=plain) for name, judge in judges.items()}
        print(json.dumps(line), flush=True)
        lines.append(line)
    if args.out:
        keep(lines, Path(f"{args.out}.json"), "torch")


if __name__ == "__main__":
    main()
