"""Samplers on one and the same network, the one that ships: ours beside diffusers' and denoising-diffusion-pytorch's.

    pip install diffusers denoising-diffusion-pytorch
    python tests/benchmarks/bench_sampling.py [--n 500] [--steps 5,10,20,50] [--out sampling]

All draw the same n digits, as many of each class as in the training data, without guidance. Of each: images a second,
the Fréchet distance to the training digits and its standard error (over ten halves), beside that of the held-out
digits, and the share that the judge reads as the class asked for. Writes OUT.json and OUT.png.
"""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from common import CPU, arguments, draw, keep, pick_precision, seconds
from torch import Tensor, nn

from ddpm_course.config import SamplingConfig
from ddpm_course.data.sets import load_digits, to_uint8
from ddpm_course.judge import evaluation
from ddpm_course.model import Model
from ddpm_course.run.runs import load_model

Draw = Callable[[Model, Tensor, int], Tensor]  # (model, y, steps) -> uint8 images


def ours(**settings: Any) -> Draw:
    def run(model: Model, y: Tensor, steps: int) -> Tensor:
        how = SamplingConfig(steps=steps, guidance=1, **settings)
        return evaluation.draw_samples(model, y, how, batch=250)

    return run


def by_diffusers(name: str) -> Draw:
    "One of diffusers' schedulers, told our betas and that the network answers v."

    def run(model: Model, y: Tensor, steps: int) -> Tensor:
        import diffusers

        alphas = model.schedule.alpha_bars / torch.cat([torch.ones(1), model.schedule.alpha_bars[:-1]])
        scheduler = getattr(diffusers, name)(
            num_train_timesteps=model.schedule.T,
            trained_betas=(1 - alphas).double().numpy(),
            prediction_type="v_prediction",
            timestep_spacing="trailing",
        )
        draws, parts = torch.Generator().manual_seed(0), []
        options = {} if name == "UniPCMultistepScheduler" else {"generator": draws}
        if name == "DDIMScheduler":  # as ours; else it takes the clipped image with the noise of the unclipped one
            options["use_clipped_model_output"] = True
        for labels in y.split(250):
            scheduler.set_timesteps(steps)  # it counts the steps
            x = torch.randn(len(labels), *model.shape, generator=draws)
            for t in scheduler.timesteps:
                answer = model.network(x, t.expand(len(labels)), labels)
                x = scheduler.step(answer.float(), t, x, **options).prev_sample
            parts.append(to_uint8(x))
        return torch.cat(parts)

    return run


class Wrapped(nn.Module):
    "Our network as denoising-diffusion-pytorch's diffusion calls one."

    def __init__(self, model: Model):
        super().__init__()
        self.model, self.channels, self.out_dim = model, model.shape[0], model.shape[0]
        self.random_or_learned_sinusoidal_cond = False

    def forward_with_cond_scale(self, x: Tensor, t: Tensor, y: Tensor, **ignored: Any) -> tuple[Tensor, None]:
        return self.model.network(x, t, y).float(), None


def by_lucidrains(model: Model, y: Tensor, steps: int) -> Tensor:
    "Its DDIM, eta 0, which it uses below 1,000 steps."
    from denoising_diffusion_pytorch import classifier_free_guidance as theirs

    theirs.tqdm = lambda x, **_: x
    torch.manual_seed(0)
    diffusion = theirs.GaussianDiffusion(
        Wrapped(model),
        image_size=model.shape[1],
        timesteps=model.schedule.T,
        sampling_timesteps=steps,
        objective="pred_v",
        ddim_sampling_eta=0.0,
    )
    return torch.cat([to_uint8(2 * diffusion.sample(labels, cond_scale=1.0) - 1) for labels in y.split(250)])


WAYS: dict[str, Draw] = {
    "ddpm_course ddpm, small": ours(sampler="ddpm", variance="small"),
    "ddpm_course ddim": ours(sampler="ddim"),
    "ddpm_course dpm": ours(sampler="dpm"),
    "diffusers DDPM": by_diffusers("DDPMScheduler"),
    "diffusers DDIM": by_diffusers("DDIMScheduler"),
    "diffusers DPM-Solver++": by_diffusers("DPMSolverMultistepScheduler"),
    "diffusers UniPC": by_diffusers("UniPCMultistepScheduler"),
    "denoising-diffusion-pytorch DDIM": by_lucidrains,
}


def measured(way: Draw, steps: int, seen: SimpleNamespace) -> dict:
    "Draw and judge."
    drawn = []
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=seen.bf16):
        took = seconds(lambda: drawn.append(way(seen.model, seen.y, steps)))
    features, logits = evaluation.extract(seen.judge, drawn[0])
    half, draws = len(features) // 2, torch.Generator().manual_seed(0)
    halves = [features[torch.randperm(len(features), generator=draws)[:half]] for _ in range(10)]
    spread = torch.tensor([evaluation.frechet_distance(part, seen.real) for part in halves]).std().item()
    return {
        "steps": steps,
        "images a second": round(len(features) / took, 1),
        "distance": round(evaluation.frechet_distance(features, seen.real), 2),
        "spread over halves": round(spread, 2),
        "asked": round((logits.argmax(1) == seen.y).double().mean().item(), 3),
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


def main() -> None:
    args = arguments(__doc__, n=500, steps="5,10,20,50", out="sampling")
    train, test = load_digits("train", 16), load_digits("test", 16)
    judge, model = evaluation.load_judge(), load_model().eval()
    real = evaluation.extract(judge, train.pixels)[0]
    floor = round(evaluation.frechet_distance(evaluation.extract(judge, test.pixels)[0], real), 2)
    y, bf16 = evaluation.allot_classes(train.labels, args.n), pick_precision("auto", CPU) == "bf16"
    seen = SimpleNamespace(model=model, judge=judge, real=real, y=y, bf16=bf16)
    measured(WAYS["ddpm_course dpm"], 5, seen)  # the first is slow
    lines = []
    for steps in map(int, args.steps.split(",")):
        for name, way in WAYS.items():
            lines.append({"name": name, "held-out": floor} | measured(way, steps, seen))
            print(json.dumps(lines[-1]), flush=True)
    keep(lines, Path(f"{args.out}.json"), "torch", "diffusers", "denoising-diffusion-pytorch")
    plot(lines, Path(f"{args.out}.png"))


if __name__ == "__main__":
    main()
