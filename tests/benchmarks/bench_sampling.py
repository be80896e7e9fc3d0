"""Samplers on one and the same network, the one that ships: ours beside diffusers' and denoising-diffusion-pytorch's.

    pip install diffusers denoising-diffusion-pytorch
    python tests/benchmarks/bench_sampling.py [--n 500] [--steps 5,10,20,50] [--out sampling]

All draw the same n digits, as many of each class as in the training data, without guidance. Of each: images a second,
the Fréchet distance to the training digits and its standard error (over ten halves), beside that of the held-out
digits, and the share that the judge reads as the class asked for. Writes OUT.json and OUT.png.
"""

import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from common import arguments, draw, keep
from torch import Tensor, nn

from ddpm_course.config import SamplingConfig
from ddpm_course.data.sets import load_digits, to_uint8
from ddpm_course.judge import evaluation
from ddpm_course.model import Model
from ddpm_course.run.runs import load_model


def ours(settings: dict, model: Model, y: Tensor, steps: int) -> Tensor:
    return evaluation.draw_samples(model, y, SamplingConfig(steps=steps, guidance=1, **settings), batch=250)


def by_diffusers(name: str, model: Model, y: Tensor, steps: int) -> Tensor:
    "One of diffusers' schedulers, told our betas and that the network answers v."
    import diffusers

    told = {"prediction_type": "v_prediction", "timestep_spacing": "trailing"}
    told |= {"num_train_timesteps": model.schedule.T, "trained_betas": model.schedule.betas.numpy()}
    scheduler = getattr(diffusers, name)(**told)
    draws, parts = torch.Generator().manual_seed(0), []
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


def by_lucidrains(model: Model, y: Tensor, steps: int) -> Tensor:
    "Its DDIM, eta 0, which it uses below 1,000 steps."
    from denoising_diffusion_pytorch import classifier_free_guidance as theirs

    theirs.tqdm = lambda x, **_: x
    torch.manual_seed(0)
    told = {"image_size": model.shape[1], "timesteps": model.schedule.T, "sampling_timesteps": steps}
    diffusion = theirs.GaussianDiffusion(Wrapped(model), objective="pred_v", ddim_sampling_eta=0.0, **told)
    return torch.cat([to_uint8(2 * diffusion.sample(labels, cond_scale=1.0) - 1) for labels in y.split(250)])


WAYS: dict[str, Callable[[Model, Tensor, int], Tensor]] = {  # uint8 images of (model, y, steps)
    "ddpm_course ddpm, small": partial(ours, {"sampler": "ddpm", "variance": "small"}),
    "ddpm_course ddim": partial(ours, {"sampler": "ddim"}),
    "ddpm_course dpm": partial(ours, {"sampler": "dpm"}),
    "diffusers DDPM": partial(by_diffusers, "DDPMScheduler"),
    "diffusers DDIM": partial(by_diffusers, "DDIMScheduler"),
    "diffusers DPM-Solver++": partial(by_diffusers, "DPMSolverMultistepScheduler"),
    "diffusers UniPC": partial(by_diffusers, "UniPCMultistepScheduler"),
    "denoising-diffusion-pytorch DDIM": by_lucidrains,
}


def plot(lines: list[dict], path: Path) -> None:
    import matplotlib.pyplot as plt

    fig, ax = plt.subplots(figsize=(8, 3.4), layout="constrained")
    for name in WAYS:
        mine = [line for line in lines if line["name"] == name]
        x, far = [line["steps"] for line in mine], [line["distance"] for line in mine]
        ax.plot(x, far, "o-" if name.startswith("ddpm_course") else "x--", label=name)
    ax.axhline(lines[0]["held-out"], color="0.5", ls=":", label="held-out digits")
    ax.set(xscale="log", yscale="log", xlabel="evaluations of the network", ylabel="Fréchet distance")
    ax.set_xticks(x, labels=map(str, x))
    ax.set_yticks([0.5, 1, 2, 4], labels=["0.5", "1", "2", "4"])
    ax.minorticks_off()
    ax.legend(fontsize=9, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    draw(fig, path)


@torch.no_grad()
def main() -> None:
    args = arguments(__doc__, n=500, steps="5,10,20,50", out="sampling")
    train, test = load_digits("train", 16), load_digits("test", 16)
    judge, model, lines = evaluation.load_judge(), load_model(), []
    real, unseen = (evaluation.extract(judge, images.pixels)[0] for images in (train, test))
    distance = lambda features: evaluation.frechet_distance(features, real)
    y = evaluation.allot_classes(train.labels, args.n)
    WAYS["ddpm_course dpm"](model, y, 5)  # the first is slow
    for steps in map(int, args.steps.split(",")):
        for name, way in WAYS.items():
            began, draws = time.perf_counter(), torch.Generator().manual_seed(0)
            drawn = way(model, y, steps)
            took = time.perf_counter() - began
            features, logits = evaluation.extract(judge, drawn)
            halves = [distance(features[torch.randperm(args.n, generator=draws)[: args.n // 2]]) for _ in range(10)]
            found = {"name": name, "held-out": round(distance(unseen), 2), "steps": steps}
            found |= {"images a second": round(args.n / took, 1), "distance": round(distance(features), 2)}
            found["spread over halves"] = round(torch.tensor(halves).std().item(), 2)
            found["asked"] = round((logits.argmax(1) == y).double().mean().item(), 3)
            print(json.dumps(found), flush=True)
            lines.append(found)
    keep(lines, Path(f"{args.out}.json"), "torch", "diffusers", "denoising-diffusion-pytorch")
    plot(lines, Path(f"{args.out}.png"))


if __name__ == "__main__":
    main()
