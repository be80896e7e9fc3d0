"""Post-hoc EMA (Karras et al. 2024): two averages by powers of time, kept on the way; any third one afterwards.

    ddpm train --plugin examples/post_hoc.py --average post-hoc --set length=0.1

At the last step the network to sample with is the average that would have had this relative length.
"""

import copy

import numpy as np
import torch
from torch import Tensor, nn

from ddpm_course import EMAS, Average
from ddpm_course.config import TrainingConfig

LENGTHS, KEPT = (0.05, 0.1), 16  # the two averages (sigma_rel, section 3); how often they are kept


def power(length: float) -> float:
    "The gamma of a relative length, eq. 127 of the paper: (gamma + 1)^(1/2) (gamma + 2)^-1 (gamma + 3)^(-1/2)."
    return float(np.roots([1, 7, 16 - length**-2, 12 - length**-2]).real.max())


def product(t: np.ndarray, gamma: np.ndarray, t_2: np.ndarray, gamma_2: np.ndarray) -> np.ndarray:
    "Of two profiles, t^gamma up to their ends, each of integral one (algorithm 3)."
    exponent = np.where(t < t_2, gamma_2, -gamma)
    return (gamma + 1) * (gamma_2 + 1) * (t / t_2) ** exponent / ((gamma + gamma_2 + 1) * np.maximum(t, t_2))


class PostHoc(Average):
    def __init__(self, network: nn.Module, training: TrainingConfig, *, length: float = 0.1):
        super().__init__(network, training)
        self.length, self.every = length, max(1, training.steps // KEPT)
        self.two = [copy.deepcopy(self.network) for _ in LENGTHS]
        self.kept: list[tuple[int, int, Tensor]] = []  # (steps done, which of the two, its weights)

    def update(self, network: nn.Module, step: int) -> None:
        super().update(network, step)
        theirs = list(network.parameters())
        for k, (average, length) in enumerate(zip(self.two, LENGTHS)):
            keep = (1 - 1 / (step + 1)) ** (power(length) + 1)
            with torch.no_grad():
                torch._foreach_lerp_(list(average.parameters()), theirs, 1 - keep)
            if (step + 1) % self.every == 0 or step + 1 == self.training.steps:
                self.kept.append((step + 1, k, nn.utils.parameters_to_vector(average.parameters())))
        if step + 1 == self.training.steps:
            nn.utils.vector_to_parameters(self.combine(step + 1, self.length), self.network.parameters())

    def combine(self, steps: int, length: float) -> Tensor:
        "The kept averages, mixed so that their profile is nearest to that of this length."
        t, which = np.array([(t, k) for t, k, _ in self.kept], float).T
        gamma, end, wanted = (
            np.array([power(LENGTHS[int(k)]) for k in which]),
            np.array([steps]),
            np.array([power(length)]),
        )
        A = product(t[:, None], gamma[:, None], t[None], gamma[None])
        weights = np.linalg.solve(A, product(t, gamma, end, wanted))
        return sum(float(w) * v for w, (_, _, v) in zip(weights, self.kept))

    def state_dict(self) -> dict[str, Tensor]:
        state = {f"kept {t} {k}": v for t, k, v in self.kept}
        return state | {f"now {k}": nn.utils.parameters_to_vector(a.parameters()) for k, a in enumerate(self.two)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.kept = [(*map(int, name.split()[1:]), v) for name, v in state.items() if name.startswith("kept")]
        for k, average in enumerate(self.two):
            nn.utils.vector_to_parameters(state[f"now {k}"].clone(), average.parameters())


EMAS["post-hoc"] = PostHoc
