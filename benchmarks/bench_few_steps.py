"""Quality against evaluations: DDPM, flow matching and EDM, each trained as long, and students in 4, 2 and 1 steps.

    python benchmarks/bench_few_steps.py [--seeds 3] [--n 1000] [--walks 4000] [--out few_steps]

Three recipes race (`judge.lab`: the same steps, batches and first weights for each of the seeds); all samples of a seed
begin at the same noise, guidance is 1.75. From each DDPM a student is made for each number of steps. What is there
already is kept. About an hour of one core. OUT.json: for each line the evaluations a picture (guidance counts
twice), and for each seed the Fréchet distance of n samples to the training digits and the share that is read as asked.
"""

import copy
import json
import math
from dataclasses import replace
from pathlib import Path

from common import arguments, keep
from safetensors.torch import load_file, save_file
from torch import Tensor

from ddpm_course import SAMPLERS, SPACINGS, Schedule, Step
from ddpm_course.config import PRESETS, SamplingConfig, TrainingConfig
from ddpm_course.data.sets import load_digits
from ddpm_course.flow import velocity
from ddpm_course.judge.evaluation import allot_classes, draw_samples, extract, frechet_distance, load_judge
from ddpm_course.judge.lab import race
from ddpm_course.lesson.few_steps import distil, walks_of
from ddpm_course.model import Model
from ddpm_course.run.runs import load_plugin, load_run
from ddpm_course.steps import sampling_indices

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
RECIPES = {  # name -> changes to the default run
    "DDPM": {},
    "flow matching": {"schedule": "straight", "objective": "slope"},
    "EDM": {"objective": "edm", "network": "edm", "own": ("data_std=0.5",)},
}
WALKS = {  # name of a line -> recipe, settings, numbers of steps, evaluations of the conditional network for that
    "DDPM, ddim": ("DDPM", {"sampler": "ddim"}, {2: 2, 4: 4, 8: 8, 20: 20}),
    "DDPM, dpm": ("DDPM", {"sampler": "dpm"}, {2: 2, 4: 4, 8: 8, 20: 20}),
    "flow matching, Euler": ("flow matching", {"sampler": "euler"}, {2: 2, 4: 4, 8: 8, 20: 20}),
    "EDM over s, rho": ("EDM", {"sampler": "churn", "spacing": "rho"}, {2: 3, 4: 7, 8: 15, 11: 21}),
    "EDM over the angle, rho": ("EDM", {"sampler": "heun", "spacing": "rho"}, {2: 3, 4: 7, 8: 15, 11: 21}),
    "EDM over s, even": ("EDM", {"sampler": "churn"}, {2: 3, 4: 7, 8: 15, 11: 21}),
    "EDM over the angle, even": ("EDM", {"sampler": "heun"}, {2: 3, 4: 7, 8: 15, 11: 21}),
    "EDM over s, even from 80": ("EDM", {"sampler": "churn", "spacing": "from 80"}, {2: 3, 4: 7, 8: 15, 11: 21}),
    "EDM by turns, rho": ("EDM", {"sampler": "turn", "spacing": "rho"}, {2: 3, 4: 7, 8: 15, 11: 21}),
    "EDM by turns, even": ("EDM", {"sampler": "turn"}, {2: 3, 4: 7, 8: 15, 11: 21}),
}
STUDY = TrainingConfig(steps=400, batch=128, lr=4e-3)  # of a student


def from_80(T: int, steps: int, *, schedule: Schedule) -> list[int]:
    "Even indices, but that the first has the noise at which EDM begins; the last index of the cosine has s = 20,000."
    first = int(((1 / schedule.alpha_bars - 1).sqrt() - 80).abs().argmin())
    return [first, *sampling_indices(T, steps)[1:]]


def turn(step: Step) -> Tensor:
    "Heun's method over the angle, on the circle instead of along its tangent: x and v are turned, not moved."
    if step.abar_next == 1:
        return step.now.x0
    angle = math.acos(step.abar_next**0.5) - math.acos(step.abar**0.5)
    cos, sin, v = math.cos(angle), math.sin(angle), velocity(step.now, step.abar)
    ahead = cos * step.x + sin * v
    there = velocity(step.ask(ahead, step.t_next), step.abar_next)
    return cos * step.x + sin * (v + cos * there + sin * ahead) / 2  # the second velocity is turned back


SPACINGS["from 80"], SAMPLERS["turn"] = from_80, turn


def main() -> None:
    args = arguments(__doc__, seeds=3, n=1000, walks=4000, folder="build/few", out="few_steps")
    folder, path = Path(args.folder), Path(f"{args.out}.json")
    data, judge = tuple(load_digits(split, 16) for split in ("train", "test")), load_judge()
    for name in ("flow_matching", "edm"):
        load_plugin(EXAMPLES / f"{name}.py")
    for name, changes in RECIPES.items():  # each by itself: their noise levels differ, and so no losses are compared
        race(folder, {name: changes}, PRESETS["mnist16"], data, range(args.seeds))
    real, y = extract(judge, data[0].pixels)[0], allot_classes(data[0].labels, args.n)
    lines = json.loads(path.read_text())["runs"] if path.exists() else []

    def look(name: str, model: Model, how: SamplingConfig, steps: int, evaluations: int, seed: int) -> None:
        "Judge, unless that was done."
        key = {"name": name, "steps": steps, "evaluations": evaluations, "seed": seed}
        if any(key.items() <= line.items() for line in lines):
            return
        features, logits = extract(judge, draw_samples(model, y, how, batch=250))
        right = (logits.argmax(1) == y).double().mean().item()
        lines.append({**key, "distance": round(frechet_distance(features, real), 4), "asked": right})
        print(json.dumps(lines[-1]), flush=True)
        keep(lines, path, "torch")

    for seed in range(args.seeds):
        for name, (recipe, how, all_steps) in WALKS.items():
            model, _ = load_run(folder / recipe / str(seed))
            for steps, evaluations in all_steps.items():
                look(name, model, SamplingConfig(steps=steps, seed=1, **how), steps, 2 * evaluations, seed)
        teacher, walks = load_run(folder / "DDPM" / str(seed))[0], None
        for steps in (4, 2, 1):
            kept = folder / f"student {steps}, {seed}.safetensors"
            if not kept.exists():
                walks = walks or walks_of(teacher, args.walks, SamplingConfig(seed=100 + seed))
                student = distil(teacher, walks, steps, replace(STUDY, seed=seed))
                save_file(student.network.state_dict(), kept)
            network = copy.deepcopy(teacher.network)
            network.load_state_dict(load_file(kept))
            student = replace(teacher, network=network, can_guide=False)
            how = SamplingConfig("ddim", steps=steps, guidance=1, clip=False, seed=1)
            look(f"student of {steps}", student, how, steps, steps, seed)


if __name__ == "__main__":
    main()
