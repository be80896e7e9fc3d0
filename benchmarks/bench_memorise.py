"""When does the network of lesson 05 copy? From few training points to many, and from few steps to many.

    python benchmarks/bench_memorise.py [--networks 4] [--out memorise]

For each number of training points and of steps so many networks are trained, each from weights of its own, on points of
its own, with the batch, the learning rate and the chain of the lesson. Of the samples of each network, and of the exact
denoiser of the same points, this is the share, in percent, whose nearest point is a training point, where as many
held-out points lie beside the training points (the mean of 20 held-out sets): one half by symmetry, if nothing is
copied. Writes OUT.json, with machine and versions. One core is enough, and some minutes.
"""

from collections.abc import Callable
from pathlib import Path

import torch
from common import arguments, keep
from torch import Tensor, nn

from ddpm_course.exact import dataset_denoiser
from ddpm_course.forward import posterior_tables
from ddpm_course.lesson.toys import digit_points
from ddpm_course.schedules import cosine

SCHEDULE = cosine(1000)
POINTS, STEPS = (10, 50, 200), (1000, 4000)
BATCH, SAMPLES, SETS = 256, 300, 20


class PointNets(nn.Module):
    "K of the lesson's PointNet side by side: eps from (K, B, 2) and indices (K, B)."

    def __init__(self, networks: int, width: int = 128):
        super().__init__()
        self.frequencies = 2.0 ** torch.arange(6)
        sizes = (2 + 2 * 18, width, width, width, 2)
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for inputs, outputs in zip(sizes, sizes[1:]):  # drawn as nn.Linear draws them
            edge = inputs**-0.5
            self.weights.append(torch.empty(networks, inputs, outputs).uniform_(-edge, edge))
            self.biases.append(torch.empty(networks, 1, outputs).uniform_(-edge, edge))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        where = torch.cat([x, (t / SCHEDULE.T)[..., None]], dim=2)
        angles = (where[..., None] * self.frequencies).flatten(2)
        x = torch.cat([x, angles.sin(), angles.cos()], dim=2)
        for k, (weight, bias) in enumerate(zip(self.weights, self.biases)):
            x = torch.baddbmm(bias, x if k == 0 else nn.functional.silu(x), weight)
        return x


def trained(data: Tensor, steps: int) -> PointNets:
    "Algorithm 1 for K networks, each on its own points, data (K, N, 2)."
    torch.manual_seed(0)
    nets, rows = PointNets(len(data)), torch.arange(len(data))[:, None]
    optimizer = torch.optim.Adam(nets.parameters(), fused=True)
    signals, sigmas = (root.float()[:, None] for root in SCHEDULE.roots)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 2e-3 * (1 - step / steps)
        x0 = data[rows, torch.randint(data.shape[1], (len(data), BATCH))]
        t, eps = torch.randint(SCHEDULE.T, x0.shape[:2]), torch.randn(x0.shape)
        optimizer.zero_grad()
        ((eps - nets(signals[t] * x0 + sigmas[t] * eps, t)) ** 2).mean((1, 2)).sum().backward()
        optimizer.step()
    return nets


def copiers(data: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    "The exact denoisers of K sets of points as one function that predicts eps, like PointNets."

    def eps_hat(x: Tensor, t: Tensor) -> Tensor:
        signal, sigma = SCHEDULE.scales(int(t[0, 0]), like=x)
        x0 = [dataset_denoiser(part, int(t[0, 0]), points, SCHEDULE) for part, points in zip(x, data)]
        return (x - signal * torch.stack(x0)) / sigma

    return eps_hat


@torch.no_grad()
def samples(nets: Callable[[Tensor, Tensor], Tensor], networks: int) -> Tensor:
    "Algorithm 2, as in the lesson: (K, SAMPLES, 2)."
    sigmas = posterior_tables(SCHEDULE)[2].sqrt().tolist()
    x = torch.randn(networks, SAMPLES, 2)
    for t in reversed(range(SCHEDULE.T)):
        alpha, abar = SCHEDULE.alphas[t].item(), SCHEDULE.alpha_bars[t].item()
        eps_hat = nets(x, torch.full(x.shape[:2], t))
        x = (x - (1 - alpha) / (1 - abar) ** 0.5 * eps_hat) / alpha**0.5
        x = x + sigmas[t] * torch.randn(x.shape)  # sigma is 0 at the index 0
    return x


def copied(drawn: Tensor, data: Tensor) -> list[float]:
    "The percentage whose nearest point is a training point, for each of K networks."
    held_out = torch.stack([digit_points(data.shape[1], seed=1000 + k) for k in range(SETS)])
    to_training = torch.cdist(drawn, data).min(2).values  # (K, SAMPLES)
    to_held_out = torch.stack([torch.cdist(drawn, points).min(2).values for points in held_out])
    return [round(100 * share, 2) for share in (to_training < to_held_out).double().mean((0, 2)).tolist()]


def main() -> None:
    args = arguments(__doc__, networks=4, out="memorise")
    torch.set_num_threads(1)
    found = []
    for n in POINTS:
        data = torch.stack([digit_points(n, seed=100 + k) for k in range(args.networks)])
        row = {"points": n, "exact": copied(samples(copiers(data), len(data)), data)}
        row["networks"] = {steps: copied(samples(trained(data, steps), len(data)), data) for steps in STEPS}
        found.append(row)
        print(row, flush=True)
    keep(found, Path(__file__).parent / "results" / f"{args.out}.json", "torch")


if __name__ == "__main__":
    main()
