"""When does the network of lesson 05 learn its points by heart? Passes, points and steps, apart from one another.

    python benchmarks/bench_memorise.py [--networks 6] [--out memorise]

For each number of training points and each number of steps, so many networks are trained: each from weights of its
own, on points of its own, with its own decay of the rate to zero. They are the network, the batch (256) and the rate of
the lesson. A point is shown steps * 256 / points times, so that the table can be read along equal steps and along
equal shows. Each network draws 1,000 samples, and of these is noted

    near      the share within sigma_1 of a point that it was trained on
    by_chance the same, of as many points of the shape that it was never shown (mean of 20 such sets)
    nearest   the share whose nearest neighbour is a training point, where training points and as many others lie
              together (mean of the same 20 sets): one half by symmetry, if nothing was learned by heart

beside the loss on training points, on 4,000 others, and the floor, the exact denoiser's loss on the training points.
Writes OUT.json, with machine and versions. One core is enough, and some minutes.
"""

from pathlib import Path

import torch
from common import arguments, keep
from torch import Tensor, nn

from ddpm_course.exact import dataset_denoiser
from ddpm_course.forward import q_posterior, q_sample
from ddpm_course.lesson.toys import digit_points
from ddpm_course.schedules import cosine

SCHEDULE = cosine(200)
GRID = {50: (250, 1000, 4000, 16000), 200: (1000, 4000, 16000), 800: (4000, 16000)}  # points: steps
BATCH, SAMPLES, SETS = 256, 1000, 20


class PointNets(nn.Module):
    "K of the lesson's PointNet side by side: eps from (K, B, 2) and indices (K, B)."

    def __init__(self, networks: int, width: int = 128):
        super().__init__()
        self.speeds = 2.0 ** torch.arange(6)
        sizes = (2 + 2 * 18, width, width, width, 2)
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for inputs, outputs in zip(sizes, sizes[1:]):  # drawn as nn.Linear draws them
            edge = inputs**-0.5
            self.weights.append(torch.empty(networks, inputs, outputs).uniform_(-edge, edge))
            self.biases.append(torch.empty(networks, 1, outputs).uniform_(-edge, edge))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        where = torch.cat([x, (t / SCHEDULE.T)[..., None]], dim=2)
        angles = (where[..., None] * self.speeds).flatten(2)
        x = torch.cat([x, angles.sin(), angles.cos()], dim=2)
        for k, (weight, bias) in enumerate(zip(self.weights, self.biases)):
            x = torch.baddbmm(bias, x if k == 0 else nn.functional.silu(x), weight)
        return x


def trained(data: Tensor, steps: int) -> PointNets:
    "Algorithm 1 for K networks, each on its own points, data (K, N, 2)."
    torch.manual_seed(0)
    nets, rows = PointNets(len(data)), torch.arange(len(data))[:, None]
    optimizer = torch.optim.Adam(nets.parameters(), lr=2e-3, foreach=True)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 2e-3 * (1 - step / steps)
        x0 = data[rows, torch.randint(data.shape[1], (len(data), BATCH))]
        t, eps = torch.randint(SCHEDULE.T, x0.shape[:2]), torch.randn(x0.shape)
        xt = q_sample(x0.flatten(0, 1), t.flatten(), eps.flatten(0, 1), SCHEDULE).view_as(x0)
        optimizer.zero_grad()
        ((eps - nets(xt, t)) ** 2).mean((1, 2)).sum().backward()
        optimizer.step()
    return nets


@torch.no_grad()
def samples(nets: PointNets, networks: int) -> Tensor:
    "The lesson's sampler, (K, SAMPLES, 2)."
    x = torch.randn(networks, SAMPLES, 2)
    for t in reversed(range(SCHEDULE.T)):
        signal, sigma = SCHEDULE.scales(t, like=x)
        x0 = ((x - sigma * nets(x, torch.full(x.shape[:2], t))) / signal).clamp(-1.5, 1.5)
        mean, variance = q_posterior(x0, x, t, SCHEDULE)
        x = mean + variance.sqrt() * torch.randn(x.shape)
    return x


@torch.no_grad()
def losses(nets: PointNets, points: Tensor, per_index: int = 50) -> tuple[list[float], list[float]]:
    "Mean squared error in eps on points (K, N, 2), of each network, and of the exact denoiser of these points."
    draws = torch.Generator().manual_seed(0)
    t = torch.arange(SCHEDULE.T).repeat_interleave(per_index)
    x0 = points[:, torch.randint(points.shape[1], (len(t),), generator=draws)]
    eps = torch.randn(len(t), 2, generator=draws)
    xt = torch.stack([q_sample(x, t, eps, SCHEDULE) for x in x0])
    signal, sigma = SCHEDULE.scales(t, like=eps)
    exact = torch.stack([(x - signal * dataset_denoiser(x, t, p, SCHEDULE)) / sigma for x, p in zip(xt, points)])
    learned = nets(xt, t.expand(len(points), -1))
    return tuple(((eps - answer) ** 2).mean((1, 2)).tolist() for answer in (learned, exact))


def looked_at(nets: PointNets, data: Tensor) -> dict[str, list[float]]:
    "What is noted, a list with one number a network."
    drawn, sigma_1 = samples(nets, len(data)), (1 - SCHEDULE.alpha_bars[0]).sqrt().item()
    to_training = torch.cdist(drawn, data).min(2).values  # (K, SAMPLES)
    unseen = torch.stack([digit_points(data.shape[1], seed=1000 + k) for k in range(SETS)])
    to_unseen = torch.stack([torch.cdist(drawn, points).min(2).values for points in unseen])
    others = digit_points(4000, seed=1).expand(len(data), -1, -1)
    training, floor = losses(nets, data)
    return {
        "near": (to_training < sigma_1).double().mean(1).tolist(),
        "by_chance": (to_unseen < sigma_1).double().mean((0, 2)).tolist(),
        "nearest": (to_training < to_unseen).double().mean((0, 2)).tolist(),
        "off_shape": torch.cdist(drawn, others).min(2).values.mean(1).tolist(),
        "loss": training,
        "loss_others": losses(nets, others)[0],
        "floor": floor,
    }


def main() -> None:
    args = arguments(__doc__, networks=6, out="memorise")
    torch.set_num_threads(1)
    found = []
    for n, marks in GRID.items():
        data = torch.stack([digit_points(n, seed=100 + k) for k in range(args.networks)])
        for steps in marks:
            row = {"points": n, "steps": steps, "shows": steps * BATCH // n}
            seen = looked_at(trained(data, steps), data)
            found.append(row | {name: [round(x, 5) for x in all] for name, all in seen.items()})
            print(row | {name: round(sum(all) / len(all), 4) for name, all in seen.items()}, flush=True)
    keep(found, Path(__file__).parent / "results" / f"{args.out}.json", "torch")


if __name__ == "__main__":
    main()
