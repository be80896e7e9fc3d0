"""Samplers on one and the same network, the one that ships: ours beside diffusers' and denoising-diffusion-pytorch's.

    pip install diffusers denoising-diffusion-pytorch
    python benchmarks/bench_sampling.py [--n 500] [--steps 5,10,20,50] [--seeds 4] [--out sampling]

All draw n digits for each seed, as many of each class as in the training data, without guidance. Of each: images a
second, the Fréchet distance to the training digits with its standard error over the seeds, beside that of real digits
(see bench_quality.py), and the share that the judge reads as the class asked for. Writes OUT.json and OUT.png.
"""

import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from common import arguments, draw, draw_floor, floors, keep
from torch import Tensor, nn

from ddpm_course.config import SamplingConfig
from ddpm_course.data.sets import load_digits, to_uint8
from ddpm_course.judge import evaluation
from ddpm_course.model import Model
from ddpm_course.run.runs import load_model


def ours(settings: dict, model: Model, y: Tensor, steps: int, seed: int) -> Tensor:
    return evaluation.draw_samples(model, y, SamplingConfig(steps=steps, guidance=1, seed=seed, **settings), batch=250)


def by_diffusers(name: str, model: Model, y: Tensor, steps: int, seed: int) -> Tensor:
    "One of diffusers' schedulers, told our betas and that the network answers v."
    import diffusers

    told = {"prediction_type": "v_prediction", "timestep_spacing": "trailing"}
    told |= {"num_train_timesteps": model.schedule.T, "trained_betas": model.schedule.betas.numpy()}
    scheduler = getattr(diffusers, name)(**told)
    draws, parts = torch.Generator().manual_seed(seed), []
    options = {} if name == "UniPCMultistepScheduler" else {"generator": draws}
    if name == "DDIMScheduler":  # as ours; else it takes the clipped image with the noise of the unclipped one
        options["use_clipped_model_output"] = True
    for labels in y.split(250):
        scheduler.set_timesteps(steps)  # it counts the steps
        x = torch.randn(len(labels), *model.shape, generator=draws)
        for t in scheduler.timesteps:
            x = scheduler.step(model.answer(x, t.expand(len(labels)), labels), t, x, **options).prev_sample
        parts.append(to_uint8(x))
    return torch.cat(parts)


class Wrapped(nn.Module):
    "Our network as denoising-diffusion-pytorch's diffusion calls one."

    def __init__(self, model: Model):
        super().__init__()
        self.model, self.channels, self.out_dim = model, model.shape[0], model.shape[0]
        self.random_or_learned_sinusoidal_cond = False

    def forward_with_cond_scale(self, x: Tensor, t: Tensor, y: Tensor, **ignored: Any) -> tuple[Tensor, None]:
        return self.model.answer(x, t, y), None


def by_lucidrains(model: Model, y: Tensor, steps: int, seed: int) -> Tensor:
    "Its DDIM, eta 0, which it uses below 1,000 steps."
    from denoising_diffusion_pytorch import classifier_free_guidance as theirs

    theirs.tqdm = lambda x, **_: x
    torch.manual_seed(seed)
    told = {"image_size": model.shape[1], "timesteps": model.schedule.T, "sampling_timesteps": steps}
    diffusion = theirs.GaussianDiffusion(Wrapped(model), objective="pred_v", ddim_sampling_eta=0.0, **told)
    return torch.cat([to_uint8(2 * diffusion.sample(labels, cond_scale=1.0) - 1) for labels in y.split(250)])


WAYS: dict[str, Callable[[Model, Tensor, int, int], Tensor]] = {  # uint8 images of (model, y, steps, seed)
    "ddpm_course ddpm, small": partial(ours, {"sampler": "ddpm", "variance": "small"}),
    "ddpm_course ddim": partial(ours, {"sampler": "ddim"}),
    "ddpm_course dpm": partial(ours, {"sampler": "dpm"}),
    "ddpm_course dpm, x_0 not clipped": partial(ours, {"sampler": "dpm", "clip": False}),  # as diffusers' own
    "diffusers DDPM": partial(by_diffusers, "DDPMScheduler"),
    "diffusers DDIM": partial(by_diffusers, "DDIMScheduler"),
    "diffusers DPM-Solver++": partial(by_diffusers, "DPMSolverMultistepScheduler"),
    "diffusers UniPC": partial(by_diffusers, "UniPCMultistepScheduler"),
    "denoising-diffusion-pytorch DDIM": by_lucidrains,
}


KINDS = (("ddpm,", "DDPM"), ("ddim", "DDIM"), (" dpm", "DPM-"), ("UniPC",))  # one colour each, in any package
STYLES = {"clipped": "s:", "ddpm_course": "o-", "diffusers": "x--", "denoising": "^--"}  # one a package


def plot(lines: list[dict], floor: list[float], path: Path) -> None:
    import matplotlib.pyplot as plt

    fig, ax = plt.subplots(figsize=(8, 3.6), layout="constrained")
    for name in WAYS:
        mine = [line for line in lines if line["name"] == name]
        x, far, error = ([line[what] for line in mine] for what in ("steps", "distance", "standard error"))
        kind = next(k for k, words in enumerate(KINDS) if any(word in name for word in words))
        style = next(style for word, style in STYLES.items() if word in name)
        ax.errorbar(x, far, error, fmt=style, color=f"C{kind}", label=name)
    draw_floor(ax, floor)
    ax.set(xscale="log", yscale="log", xlabel="evaluations of the network", ylabel="Fréchet distance")
    ax.set_xticks(x, labels=map(str, x))
    ax.set_yticks([0.5, 1, 2, 4], labels=["0.5", "1", "2", "4"])
    ax.minorticks_off()
    ax.legend(fontsize=9, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    draw(fig, path)


@torch.no_grad()
def main() -> None:
    args = arguments(__doc__, n=500, steps="5,10,20,50", seeds=4, out="sampling")
    train, judge, model, lines = load_digits("train", 16), evaluation.load_judge(), load_model(), []
    real, _ = evaluation.extract(judge, train.pixels)
    y = evaluation.allot_classes(train.labels, args.n)
    WAYS["ddpm_course dpm"](model, y, 5, 0)  # the first is slow
    for steps in map(int, args.steps.split(",")):
        for name, way in WAYS.items():
            began = time.perf_counter()
            drawn = [way(model, y, steps, seed) for seed in range(args.seeds)]
            took = time.perf_counter() - began
            seen = [evaluation.extract(judge, images) for images in drawn]
            far = [evaluation.frechet_distance(features, real) for features, _ in seen]
            asked = [(logits.argmax(1) == y).double().mean().item() for _, logits in seen]
            found = {"name": name, "steps": steps, "images a second": round(args.n * args.seeds / took, 1)}
            found |= {"distance": round(statistics.mean(far), 2), "asked": round(statistics.mean(asked), 3)}
            found["standard error"] = round(statistics.stdev(far) / args.seeds**0.5, 2)
            print(json.dumps(found), flush=True)
            lines.append(found)
    keep(lines, Path(f"{args.out}.json"), "torch", "diffusers", "denoising-diffusion-pytorch")
    plot(lines, floors(train), Path(f"{args.out}.png"))


if __name__ == "__main__":
    main()
