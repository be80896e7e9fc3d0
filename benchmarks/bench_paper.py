"""The paper in small (Ho et al. 2020): no classes, eps, linear schedule, L_simple, fixed large variance, Adam, EMA.

    python benchmarks/bench_paper.py [--seeds 3] [--steps 800] [--runs runs/paper] [--out paper]

The network is theirs in layout: two residual blocks a level, attention at half resolution and in the middle, dropout
.1. It has 16 channels in place of 128, for digits of 16 x 16, so that three levels end at 4 x 4. Adam with a constant
rate, weights averaged without warm-up. A training takes about four minutes of one core, and there are two for each
seed. Weights and pictures are kept in RUNS, and what is there is not made again. OUT.json says how it was made, OUT.npz
has:

    guesses   80 walks of 40 ancestral steps (small variance): the predicted x_0 at ten levels
    plain     24 held-out digits noised to t = 500, and denoised
    equal     the same for the t at which 16 x 16 pixels have as much noise for the whole picture as 256 x 256 pixels at
              t = 1000, 750, 500, 250 (page 22a), and for pairs mixed half and half; either with two noises. 100 steps
    bits      of 500 held-out and 600 training digits, from one t in each of 16 strata
    bound     pictures and bits of networks that were trained on the bound (eq. 12) in place of L_simple
    large, small   64 walks that share all steps down to t = 100, and take each of the last 100 with either variance
"""

import math
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from common import arguments, keep, settings
from torch import Tensor

from ddpm_course.bits import bits_per_dim, output_bound
from ddpm_course.config import PRESETS, SamplingConfig, differences
from ddpm_course.criteria import CRITERIA
from ddpm_course.data.sets import ImageSet, load_digits, to_float, to_uint8
from ddpm_course.draws import Purpose, normal
from ddpm_course.editing import noised
from ddpm_course.forward import q_sample
from ddpm_course.losses import diffusion_losses
from ddpm_course.model import Model, build_model
from ddpm_course.run.training import fit, new_state
from ddpm_course.sampling import keyed_noise, plan, walk
from ddpm_course.simple import Batch, Simple

WORDS = (
    "--schedule linear --objective eps --variance large --no-conditional --label-drop 0 --channels 16 "
    "--multipliers 1,2,2 --blocks 2 --attention 8 --dropout 0.1 --optimizer adamw --lr 2e-3 --warmup 50 "
    "--decay constant --ema 0.99 --no-ema-warmup --batch 32 --precision fp32"
)
TIMES, LEVELS = (1000, 750, 500, 250), (1000, 750, 500, 400, 300, 250, 200, 100, 50, 0)
HOW, STEPS_100 = (SamplingConfig("ddpm", steps=steps, variance="small") for steps in (40, 100))


def some(images: ImageSet, n: int) -> ImageSet:
    "A random choice of so many, the same at each call."
    mine = np.random.default_rng(0).permutation(len(images))[:n]
    return replace(images, pixels=images.pixels[mine], labels=images.labels[mine])


class Bound(Simple):
    "The terms of the bound, scaled so that the factor of eq. 12 is 1 on average."

    def losses(self, model: Model, batch: Batch) -> dict[str, Tensor]:
        xt, s = q_sample(batch.x0, batch.t, batch.eps, model.schedule), model.schedule
        out, scales = model.answer(xt, batch.t), s.scales(batch.t, like=xt)
        term, _ = output_bound(model, out, batch.x0, xt, batch.t, clip=False)
        factor = (s.betas / (2 * s.alphas * (1 - s.alpha_bars))).mean().item() / math.log(2)
        found = diffusion_losses(out, xt, batch.x0, batch.eps, scales, model.objective)
        return found | {"loss": (term / factor).to(xt.dtype)}


CRITERIA["bound"] = Bound


def trained(seed: int, steps: int, path: Path, loss: str = "simple") -> tuple[Model, dict]:
    "The averaged network of a seed, from the file or after training; and how long that took."
    config, images = settings(f"{WORDS} --seed {seed} --steps {steps} --loss {loss}")
    model = build_model(config).eval()
    if not path.exists():
        state, began = new_state(config), time.process_time()
        for k, _ in enumerate(fit(state, images, config)):
            if k % 100 == 99:
                print(f"seed {seed}: step {k + 1}, {time.process_time() - began:.0f} s of the processor", flush=True)
        torch.save({"weights": state.ema.network.state_dict(), "seconds": round(time.process_time() - began)}, path)
    kept = torch.load(path)
    model.network.load_state_dict(kept["weights"])
    parameters = sum(p.numel() for p in model.network.parameters())
    apart = differences(config, PRESETS["cifar10"])
    return model, {"seed": seed, "parameters": parameters, "seconds": kept["seconds"], "apart": apart}


def way(model: Model, keys: range, seed: int, t: int = 1000, x: Tensor | None = None, how=HOW) -> list:
    "A walk, or its part from the paper's t on: (t, x_t, guess of x_0) of each level."
    return list(walk(model, plan(replace(how, seed=seed), model, t / 1000), keyed_noise(model, seed, keys), None, x))


def mixed(model: Model, t: int, lam: float, first: Tensor, second: Tensor, seed: int, how=HOW) -> Tensor:
    "Pairs noised to t, mixed, and denoised."
    n, abar = len(first), model.schedule.alpha_bars[t - 1].item()
    eps = normal((1, 16, 16), 0, Purpose.LESSON, 0, range(2 * n))
    x = (1 - lam) * noised(first, abar, eps[:n]) + lam * noised(second, abar, eps[n:])
    return way(model, range(n), seed, t, x, how)[-1][1]


def cheap(model: Model, seed: int) -> dict[str, np.ndarray]:
    "All but the two variances."
    guesses = {t: x0 for t, _, x0 in way(model, range(80), seed)}
    found = {"guesses": to_uint8(torch.stack([guesses[t] for t in LEVELS])), "times": LEVELS}
    train, test = load_digits("train", 16), load_digits("test", 16)
    first, second = to_float(some(test, 48).pixels).split(24)
    odds = model.schedule.snr
    at = [10 * round(((odds - 256 * odds[t - 1]).abs().argmin().item() + 1) / 10) for t in TIMES]
    each = [(lam, noise) for lam in (0, 0.5) for noise in (20, 21)]
    halves = [[mixed(model, t, lam, first, second, noise, STEPS_100) for lam, noise in each] for t in at]
    found |= {"pairs": to_uint8(torch.stack([first, second])), "equal times": at}
    found["equal"] = to_uint8(torch.stack([torch.stack(row) for row in halves]))
    found["plain"] = to_uint8(mixed(model, 500, 0, first, second, 20))
    for name, images in (("test", some(test, 500)), ("train", some(train, 600))):
        bits = bits_per_dim(model, images)
        found[f"{name} bits"], found["edges"] = bits.each, bits.edges
        found[f"{name} spent"] = torch.cat([bits.prior.mean()[None], bits.widths * bits.terms.mean(1)])
        found[f"{name} error"] = bits.x0_mse.mean(1)
    return {name: np.asarray(x) for name, x in found.items()}


def variances(model: Model, seed: int) -> dict[str, np.ndarray]:
    "The last 100 of 1,000 steps with either variance."
    x = next(x for t, x, _ in way(model, range(64), seed) if t == 100)
    both = {kind: SamplingConfig("ddpm", steps=1000, variance=kind) for kind in ("large", "small")}
    return {kind: to_uint8(way(model, range(64), seed, 100, x, how)[-1][1]).numpy() for kind, how in both.items()}


def other(model: Model, seed: int) -> dict[str, np.ndarray]:
    "Pictures and bits of a network that was trained on the bound."
    bits, walks = bits_per_dim(model, some(load_digits("test", 16), 500)), way(model, range(80), seed)
    return {"bound pictures": to_uint8(walks[-1][1]).numpy(), "bound bits": bits.each.numpy()}


def main() -> None:
    args = arguments(__doc__, seeds=3, steps=800, runs="runs/paper", out="")
    folder, lines, arrays = Path(args.runs), [], {}
    folder.mkdir(parents=True, exist_ok=True)
    for part in (cheap, variances, other):
        for seed in range(args.seeds):
            file, loss = (f"bound_{seed}.pt", "bound") if part is other else (f"{seed}.pt", "simple")
            model, line = trained(seed, args.steps, folder / file, loss)
            path = folder / f"{part.__name__}_{seed}.npz"
            if not path.exists():
                np.savez_compressed(path, **part(model, seed))
            arrays[seed] = arrays.get(seed, {}) | dict(np.load(path))
            lines += [line] * (part is cheap)
            print(f"seed {seed}: {part.__name__}", flush=True)
    if args.out:
        keep(lines, Path(f"{args.out}.json"), "torch")
        named = {f"{seed} {name}": x for seed, found in arrays.items() for name, x in found.items()}
        np.savez_compressed(f"{args.out}.npz", **named)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
