import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .base.group import Group
from .base.intervals import interval
from .bound import bound_term, prior_term, reverse_log_variance
from .data.sets import ImageSet, to_float
from .forward import q_posterior, q_sample
from .heldout import heldout_batch
from .model import Model, read_answer


def output_bound(
    model: Model,                   # whose answer it is; its variance is used
    output: Tensor,                 # the network's answer to xt, with or without a variance
    x0: Tensor,                     # (B, C, H, W) byte values in [-1, 1]
    xt: Tensor,                     # like x0, noised to index t
    t: Tensor,                      # (B,) indices
    clip: bool = True,              # x_0 to [-1, 1], as in sampling
) -> tuple[Tensor, Tensor]:         # bits per dimension (B,); the predicted x_0
    "The term of the bound that an answer stands for. Raises ValueError where it lacks a variance."
    if x0.device.type != 'mps':     # which has no float64
        x0, xt = x0.double(), xt.double()
        output = output.double()
    seen = read_answer(output, xt, t, model.schedule, model.objective, clip)
    kind = seen.v if model.variance == 'learned' else model.variance
    if kind is None:
        raise ValueError('this network has learned no variance: expected large or small')
    mean, _ = q_posterior(seen.x0, xt, t, model.schedule)
    log_var = reverse_log_variance(kind, t, model.schedule, xt)
    return bound_term(x0, xt, t, mean, log_var, model.schedule), seen.x0


def strata(T: int, count: int) -> list[int]:
    "Edges of at most `count` + 1 strata of 0..T-1: index 0 alone, then growing geometrically."
    return sorted({0, *(round(T ** (k / count)) for k in range(count + 1))})


@dataclass(frozen=True)
class Bits:
    "The bound of a set of images, in bits per dimension."
    edges: list[int]        # (K + 1,) stratum k: indices edges[k] .. edges[k + 1] - 1; 0: decoder
    prior: Tensor           # (N,)
    terms: Tensor           # (K, N) a term of each stratum
    x0_mse: Tensor          # (K, N) mean squared error of the predicted x_0 there

    @property
    def widths(self) -> Tensor:
        "How many indices each stratum stands for, (K,)."
        return torch.tensor(self.edges, dtype=torch.float64).diff()

    @property
    def each(self) -> Tensor:
        "The total of each image, (N,)."
        return self.prior + (self.widths[:, None] * self.terms).sum(0)

    @property
    def mean(self) -> float:
        "The mean over images."
        return self.each.mean().item()

    @property
    def se(self) -> float:
        "The standard error of the mean over images."
        return (self.each.std() / len(self.prior) ** 0.5).item() if len(self.prior) > 1 else math.nan

    def summary(self) -> dict[str, float | int]:
        "The total, its standard error and its three parts."
        spent = (self.widths * self.terms.mean(1)).tolist()
        return {'mean': self.mean, 'se': self.se, 'decoder': spent[0], 'steps': sum(spent[1:]),
                'prior': self.prior.mean().item(), 'images': len(self.prior),
                'strata': len(self.terms), 'T': self.edges[-1]}

    def __str__(self) -> str:
        s = self.summary()
        way = f'from {s["strata"]} of {s["T"]} terms'
        way = 'the full sum' if s['strata'] == s['T'] else way
        mean = interval(self.mean, self.se, len(self.prior), 3)
        return (f'bits per dimension {mean} (decoder {s["decoder"]:.3f}, '
                f'steps {s["steps"]:.3f}, prior {s["prior"]:.2g}), {way}, n = {s["images"]}')


@torch.no_grad()
def bits_per_dim(
    model: Model,
    images: ImageSet,
    count: int = 16,            # strata; T or more: the full sum
    batch: int = 250,           # network calls at a time; changes nothing but speed and memory
    group: Group = Group(),     # whose members share the images
) -> Bits:
    """The variational bound on images, from one t in each stratum, with fixed times and noise.

    In fp32 whatever the model's precision: 16 bits cost about .02 bits per dimension.
    """
    model, T = replace(model.eval(), precision='fp32'), model.schedule.T
    edges = list(range(T + 1)) if count >= T else strata(T, count)

    def row(i: range) -> Tensor:            # (len(i), 1 + 2 K): prior; terms; errors
        x0 = to_float(images.pixels[i.start:i.stop])
        columns = [prior_term(x0.double(), model.schedule)]
        errors = []
        for k, within in enumerate(zip(edges, edges[1:])):
            b = heldout_batch(images, i, k, model, within, by_time=True)
            xt = q_sample(b.x0, b.t, b.eps, model.schedule)
            bits, x0_hat = output_bound(model, model.answer(xt, b.t, b.y), b.x0, xt, b.t)
            columns.append(bits.cpu())
            errors.append((x0_hat - b.x0).square().flatten(1).mean(1).cpu())
        return torch.stack([c.double() for c in (*columns, *errors)], 1)

    table, K = group.map(row, len(images), batch).T.contiguous(), len(edges) - 1
    return Bits(edges, table[0], table[1:K + 1], table[K + 1:])


def plot_bits(results: dict[str, Bits]):
    "A figure of bounds by name: bits by stratum of the index, and distortion against rate."
    import matplotlib.pyplot as plt
    with plt.style.context('ddpm_course.assets.course'):
        fig, (left, right) = plt.subplots(1, 2, figsize=(10, 3.2))
        for (name, b), mark in zip(results.items(), 8 * 'os^v'):
            spent = b.widths * b.terms.mean(1)
            later = spent[1:].flip(0).cumsum(0).flip(0)                 # of this stratum and after
            rate = b.prior.mean() + torch.cat([later, torch.zeros(1)])  # before a stratum's steps,
            rate = rate + (b.widths - 1) / 2 * b.terms.mean(1)      # and, on average, those in it
            off = 127.5 * b.x0_mse.mean(1).sqrt()
            curve, = right.plot([b.mean, *rate.tolist()], [0, *off.tolist()], marker=mark,
                                label=name)
            edges = [edge for edge in strata(b.edges[-1], 16) if edge in b.edges]
            ends = torch.cat([torch.zeros(1), spent.cumsum(0)])         # at these the sum so far
            left.stairs(ends[[b.edges.index(edge) for edge in edges]].diff(),
                        [max(edge, 0.7) for edge in edges], label=name,
                        color=curve.get_color(), linestyle=curve.get_linestyle())
        left.set(xscale='log', xlabel='index t (first bar: the decoder)',
                 ylabel='bits per dimension', title='bits of each stratum')
        right.set(xlabel='rate, bits per dimension received',
                  ylabel='distortion, grey levels (RMSE)', title='rate against distortion')
        left.legend()
        right.legend()
        fig.tight_layout()
        plt.close(fig)
        return fig
