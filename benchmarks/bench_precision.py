"""What 16 bits cost: the shipped model in fp32 and in bf16, with the same seeds.

    python benchmarks/bench_precision.py --n 50

Fréchet distances of --n samples of each class, the held-out loss and the bits per dimension of the same images and
draws, with the errors of the differences; images a second, in turn. Some minutes on two quiet cores. A processor
without bf16 instructions emulates them: slowly, with nearly the same digits. What results/precision.json says is why
`bits.bits_per_dim` computes in fp32: rounding costs two hundredths of a bit, and is not seen in pictures or distances.
"""

from dataclasses import replace
from pathlib import Path

from common import arguments, keep, medians, seconds

from ddpm_course import SamplingConfig, load_digits, load_model, sample
from ddpm_course.bits import bits_per_dim
from ddpm_course.data.sets import to_uint8
from ddpm_course.heldout import heldout_draws
from ddpm_course.judge.evaluation import extract, frechet_distance, load_judge
from ddpm_course.simple import Simple

RESULTS = Path(__file__).parent / "results/precision.json"


def more(a, b) -> list[float]:
    "The mean of b - a over images, and its standard error."
    each = b - a
    return [round(each.mean().item(), 5), round((each.std() / len(each) ** 0.5).item(), 5)]


def main() -> None:
    args = arguments(__doc__, n=50, rounds=5)
    models = {name: load_model(precision=name) for name in ("fp32", "bf16")}
    train, test, judge = load_digits("train", 16), load_digits("test", 16), load_judge()
    features, _ = extract(judge, train.pixels)
    images = {name: sample(model, None, args.n, SamplingConfig(guidance=1)) for name, model in models.items()}
    seen = {name: extract(judge, to_uint8(drawn))[0] for name, drawn in images.items()}
    found = {f"distance, {name}": frechet_distance(one, features) for name, one in seen.items()}
    apart = (images["bf16"] - images["fp32"]).abs()
    found |= {"a pixel, mean": apart.mean().item(), "a pixel, most": apart.max().item()}
    found = {name: round(value, 4) for name, value in found.items()}
    losses = [heldout_draws(model, test, Simple())["loss"].mean(0) for model in models.values()]
    found["held-out loss, more in bf16"] = more(*losses)
    low = replace(models["fp32"], network=models["bf16"].answer)  # the bound itself is always computed in fp32
    found["bits, more in bf16"] = more(*(bits_per_dim(model, test).each for model in (models["fp32"], low)))
    works = {name: lambda m=model: 100 / seconds(lambda: sample(m, None, 10)) for name, model in models.items()}
    found["images a second"] = medians(works, args.rounds, 1)
    keep([{"n": args.n, **found}], RESULTS, "torch")
    print(found)


if __name__ == "__main__":
    main()
