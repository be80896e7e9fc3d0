import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .base.registry import look_up
from .base.group import Group
from .config import RunConfig
from .simple import LOSSES, Batch, Simple, quarter_sums
from .data.sets import ImageSet, batch_indices, to_float
from .draws import Purpose, normal, uniform
from .exact import dataset_denoiser
from .forward import q_sample
from .losses import OBJECTIVES
from .model import Model, build_schedule


def heldout_batch(
    images: ImageSet,
    i: range,                               # which images
    draw: int,                              # number of the draw of t and noise
    model: Model,
    within: tuple[float, float],            # t lies in low .. high - 1
    by_time: bool = False,                  # the noise belongs to t, and not to the draw
) -> Batch:                                 # on the model's device
    "Held-out images with fixed times and noise: the same for every model, batch and process."
    x0 = to_float(images.pixels[i.start:i.stop])
    low, high = within
    t = (low + uniform(0, Purpose.HELDOUT_TIME, draw, i) * (high - low)).long()
    steps = t.tolist() if by_time else [draw] * len(i)
    eps = torch.cat([normal(x0.shape[1:], 0, Purpose.HELDOUT_NOISE, step, [k])
                     for step, k in zip(steps, i)])
    y = images.labels_at(slice(i.start, i.stop)) if model.classes else None
    like = torch.empty(0, device=model.device)
    return Batch(torch.tensor(i), x0, t, torch.ones(len(i)), eps, y).to(like)


def summary(
    values: Tensor,         # (repeats, N) a loss of each draw, float64
    t: Tensor,              # (repeats, N) its index
    T: int,
) -> dict[str, Any]:        # mean, its standard error, and both by quarter of t
    "Means whose errors know that the draws of one image belong together."
    n, quarter = values.shape[1], t * 4 // T
    sums, counts = quarter_sums(values.flatten(), t.flatten(), T)
    means, each = sums / counts, values.mean(0)
    apart = torch.zeros(4, n, dtype=torch.float64)      # deviations, added up by image
    places = quarter, torch.arange(n).expand_as(t)
    apart.index_put_(places, values - means[quarter], accumulate=True)
    return {'mean': values.mean().item(), 'se': each.std().item() / n**0.5 if n > 1 else math.nan,
            'quarters': means.tolist(),
            'quarters_se': (apart.square().sum(1).sqrt() / counts).tolist()}


@torch.no_grad()
def heldout_draws(
    model: Model,
    images: ImageSet,
    criterion: Simple,          # whose losses; `build_criterion(config)` makes a run's own
    repeats: int = 4,           # draws of (t, eps) for each image
    batch: int = 250,           # changes nothing but speed and memory
    group: Group = Group(),     # whose members share the images
) -> dict[str, Tensor]:         # 't' and each of `LOSSES`: (repeats, N), losses in float64
    "The loss of each image in each draw, with fixed times and noise."
    n, T = len(images), model.schedule.T
    model.eval()

    def losses_of(i: range) -> Tensor:      # (len(i), repeats, 3)
        draws = [criterion.losses(model, heldout_batch(images, i, r, model, (0, T)))
                 for r in range(repeats)]
        return torch.stack([torch.stack([found[name] for name in LOSSES]) for found in draws]
                           ).permute(2, 0, 1).cpu().double()

    table = group.map(losses_of, n, batch).permute(2, 1, 0).contiguous()
    t = torch.stack([(uniform(0, Purpose.HELDOUT_TIME, r, range(n)) * T).long()
                     for r in range(repeats)])
    return {'t': t} | dict(zip(LOSSES, table))


def heldout_loss(model: Model, images: ImageSet, criterion: Simple, repeats: int = 4,
                 batch: int = 250, group: Group = Group()) -> dict[str, Any]:
    "For each of `LOSSES` the `summary` of `heldout_draws`, which names the arguments."
    draws = heldout_draws(model, images, criterion, repeats, batch, group)
    return {name: summary(draws[name], draws['t'], model.schedule.T) for name in LOSSES}


def loss_floor(images: ImageSet, config: RunConfig, n: int = 1000) -> list[float]:
    "Least possible training loss by quarter of t, from `n` draws and the exact denoiser."
    schedule, data = build_schedule(config), to_float(images.pixels)
    labels = torch.zeros(len(data), dtype=torch.long)
    if config.num_classes:
        labels = torch.from_numpy(images.labels)
    target = look_up('objective', OBJECTIVES, config.diffusion.objective).target
    i = torch.from_numpy(batch_indices(len(data), n, 0, 0))
    t = torch.arange(n) * schedule.T // n
    eps = normal(data.shape[1:], 0, Purpose.HELDOUT_NOISE, 0, range(n))
    sums = torch.zeros(2, 4, dtype=torch.float64)
    for c in labels[i].unique():
        mine, kin = labels[i] == c, data[labels == c]
        x0, times = data[i[mine]], t[mine]
        xt = q_sample(x0, times, eps[mine], schedule)
        wrong = dataset_denoiser(xt, times, kin, schedule) - x0
        signal, sigma = schedule.scales(times, like=x0)
        error = target(wrong, -signal / sigma * wrong, signal, sigma)   # a target is linear
        sums += quarter_sums(error.square().flatten(1).mean(1), times, schedule.T)
    return (sums[0] / sums[1]).tolist()


def plot_losses(metrics: list[dict], floor: Sequence[float] = (), heldout: Sequence[dict] = ()):
    """A figure: the total loss, which looks flat, and its quarters, which do not, above their floor;
    beside the total what held-out images gave on the way, where the log has it."""
    import matplotlib.pyplot as plt
    with plt.style.context('ddpm_course.assets.course'):
        fig, (left, right) = plt.subplots(1, 2, figsize=(10, 3.2), sharey=True)
        steps = [line['step'] for line in metrics]
        rows = [[math.nan if v is None else v for v in line['loss_quarters']] for line in metrics]
        seen = [v for row in rows for v in row if v > 0] or [1.0]
        low = min([f for f in floor if f > min(seen) / 4] + seen)  # far below: only named
        left.plot(steps, [line['loss'] for line in metrics], color='black')
        if heldout:
            left.plot([line['step'] for line in heldout],
                      [line['heldout']['loss'] for line in heldout], 'o', color='C1',
                      markersize=3, label='held-out images')
            left.legend()
        left.set(yscale='log', xlabel='step', ylabel='training loss', title='all t')
        for q in range(4):
            name = f'quarter {q + 1} of t' + ' (cleanest)' * (q == 0) + ' (noisiest)' * (q == 3)
            if floor:
                name += f'\nfloor {floor[q]:.2g}' + ', below the axis' * (floor[q] < low)
            curve, = right.plot(steps, [row[q] for row in rows], label=name)
            if floor:
                right.axhline(floor[q], color=curve.get_color(), linewidth=1, alpha=0.6)
        right.set(xlabel='step', title='by quarter of t' + ' (thin: exact denoiser)' * bool(floor))
        left.set_ylim(low / 1.3, 1.3 * max(seen))
        right.legend(loc='center left', bbox_to_anchor=(1, 0.5))
        fig.tight_layout()
        plt.close(fig)
        return fig
