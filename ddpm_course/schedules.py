"""Schedules as objects: noise variances, and the tables that follow from them, for batches.

Page 02 makes the variances themselves (`betas`). Index `t` is the paper's step t + 1.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch
from torch import Tensor

from .base.registry import look_up
from .betas import alpha_bars_of, cosine_betas, linear_betas


@lru_cache(maxsize=64)
def placed(table: Tensor, kind: torch.dtype, device: torch.device) -> Tensor:
    """A table cast and copied to a device; a GPU's program waits for each such copy, so those of
    the last 64 tables are kept. A table made anew for each call is another table."""
    return table.to(kind).to(device)


def gather(
    table: Tensor,              # (T,) float64
    t: Tensor | int,            # (B,) indices, or one index for all
    like: Tensor,               # what the values will be multiplied with, (B, ...)
) -> Tensor:                    # (B, 1, ...) with like's type and device
    "Entries `t` of a table, ready to broadcast over `like`. The cast comes last."
    t = t.to(like.device) if isinstance(t, Tensor) else t
    return placed(table, like.dtype, like.device)[t].reshape(-1, *[1] * (like.ndim - 1))


@dataclass(frozen=True, eq=False)
class Schedule:
    """The noise variances of a forward process and what follows from them.

    All tables are (T,) float64. Raises ValueError for betas that are not, or not inside (0, 1).
    """
    betas: Tensor                           # (T,) float64, each in (0, 1)

    def __post_init__(self):
        if self.betas.dtype != torch.float64 or not ((self.betas > 0) & (self.betas < 1)).all():
            raise ValueError('betas must be float64 and lie strictly between 0 and 1')

    @property
    def T(self) -> int:
        "How many steps."
        return len(self.betas)

    @cached_property
    def alphas(self) -> Tensor:
        "The share of the variance that one step leaves."
        return 1 - self.betas

    @cached_property
    def alpha_bars(self) -> Tensor:
        "The share of the image's variance that all steps so far leave."
        return alpha_bars_of(self.betas)

    @cached_property
    def alpha_bars_prev(self) -> Tensor:
        "`alpha_bars` one step earlier; 1 before the first step."
        return torch.cat([torch.ones(1, dtype=torch.float64), self.alpha_bars[:-1]])

    @cached_property
    def snr(self) -> Tensor:
        "The signal-to-noise ratio, abar / (1 - abar)."
        return self.alpha_bars / (1 - self.alpha_bars)

    @cached_property
    def roots(self) -> tuple[Tensor, Tensor]:
        "sqrt(abar) and sqrt(1 - abar): the factors of the image and of the noise."
        return self.alpha_bars.sqrt(), (1 - self.alpha_bars).sqrt()

    def scales(self, t: Tensor | int, like: Tensor) -> tuple[Tensor, Tensor]:
        "The two `roots` at `t`, shaped to broadcast over `like`."
        signal, noise = self.roots
        return gather(signal, t, like), gather(noise, t, like)


def linear(
    T: int = 1000,                  # steps, at least 21 with the default ends
    start: float | None = None,     # beta_1, by default 1e-4 * 1000 / T
    end: float | None = None,       # beta_T, by default 0.02 * 1000 / T
) -> Schedule:
    """Betas that grow linearly. The default ends follow T, as in the code of Improved DDPM, since
    50 steps between those of 1,000 add too little noise. Raises ValueError if one leaves (0, 1)."""
    start = 1e-4 * 1000 / T if start is None else start
    end = 0.02 * 1000 / T if end is None else end
    if not (0 < start < 1 and 0 < end < 1):
        raise ValueError(f'linear betas from {start:g} to {end:g} leave (0, 1): '
                         f'T = {T} is too short (at least 21)')
    return Schedule(linear_betas(T, start, end))


def cosine(T: int = 1000) -> Schedule:
    "Betas that make alpha-bar a squared cosine. Raises ValueError for fewer than 2 steps."
    if T < 2:
        raise ValueError(f'a cosine schedule needs at least 2 steps, not {T}')
    return Schedule(cosine_betas(T))


SCHEDULES: dict[str, Callable[[int], Schedule]] = {'linear': linear, 'cosine': cosine}


def make_schedule(name: str, T: int, own: Sequence[str] = ()) -> Schedule:
    "The schedule of T steps called `name` in SCHEDULES. Raises ValueError for other names."
    schedule = look_up('schedule', SCHEDULES, name, own)(T)
    if not isinstance(schedule, Schedule):
        raise ValueError(f'the schedule {name} gives no Schedule: expected Schedule(betas)')
    if schedule.T != T:
        raise ValueError(f'the schedule {name} has {schedule.T} steps where {T} were asked for')
    return schedule
