"""The four numbers of page 13a for the file of page 10, whole and trained as it trains itself.

    python benchmarks/bench_blank_page.py [--file nbs/solutions/first_digits.py] [--weights mine.pt] [--out NAME]

Without `--weights` it trains first, one to two minutes of two cores. It draws 300 digits as the page does and prints
one line of JSON, which OUT.json holds, too: the numbers, and the pixels of the first ten digits.
"""

import json
import types
import warnings
from pathlib import Path

import torch
from common import arguments, keep

from ddpm_course.data.sets import load_digits, to_uint8
from ddpm_course.judge.evaluation import extract, load_judge
from ddpm_course.judge.scores import evaluate_images

FILE = Path(__file__).resolve().parents[1] / "nbs/solutions/first_digits.py"


def judged(images: torch.Tensor, y: torch.Tensor) -> dict:
    "As page 13a judges them."
    train, test, eyes = load_digits("train", 16), load_digits("test", 16), load_judge()

    def spread(images: torch.Tensor, y: torch.Tensor) -> float:
        features, _ = extract(eyes, images)
        return torch.stack([features[y == k].var(0).sum() for k in range(10)]).mean().sqrt().item()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # 300 are few, and the floor says what that does
        found = evaluate_images(images, y, (train, test), eyes)
    numbers = {
        "as asked": found.accuracy,
        "Fréchet distance": found.distance,
        "spread": spread(images, y) / spread(torch.tensor(train.pixels), torch.tensor(train.labels)),
        "nearest": found.nearest / found.nearest_held_out,
    }
    return {name: round(float(value), 4) for name, value in numbers.items()}


def main() -> None:
    args = arguments(__doc__, file=str(FILE), weights="", out="")
    m = types.ModuleType("first_digits")
    exec(Path(args.file).read_text(encoding="utf-8"), m.__dict__)
    if args.weights:
        net = m.UNet()
        net.load_state_dict(torch.load(args.weights, weights_only=True))
    else:
        net = m.train()
    y = torch.arange(10).repeat(30)
    torch.manual_seed(0)
    images = to_uint8(m.sample(net, y))
    lines = [{"file": Path(args.file).name, **judged(images, y), "images": images[:10].numpy().tobytes().hex()}]
    print(json.dumps(lines[0]), flush=True)
    if args.out:
        keep(lines, Path(f"{args.out}.json"), "torch")


if __name__ == "__main__":
    main()
