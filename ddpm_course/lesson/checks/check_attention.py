from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ...attention import attention
from ..answers import Answer, Checks


def shapes_made(f: Callable) -> list[tuple[int, ...]]:
    "The shapes of all tensors that are computed while `f()` runs."
    shapes: list[tuple[int, ...]] = []

    class Noted(TorchDispatchMode):
        def __torch_dispatch__(
            self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None,
        ) -> Any:
            out = func(*args, **(kwargs or {}))
            shapes.extend(tuple(x.shape) for x in tree_leaves(out) if torch.is_tensor(x))
            return out

    with Noted():
        f()
    return shapes


def random_parts(*shapes: tuple[int, int]) -> list[Tensor]:
    "Queries, keys and values of two images, float64: (2, positions, channels) for each shape."
    random = torch.Generator().manual_seed(0)
    return [torch.randn(2, n, c, generator=random, dtype=torch.float64) for n, c in shapes]


def judge_root(f: Callable) -> None:
    "One query of ones, two keys: head h scores 0 and 2 h before the division, for values 0 and 1."
    keys = torch.tensor([[[0.0] * 8, [0.0, 0, 1, 1, 2, 2, 3, 3]]], dtype=torch.float64)
    values = torch.tensor([[[0.0] * 8, [1.0] * 8]], dtype=torch.float64)
    by_f = f(torch.ones_like(keys[:, :1]), keys, values, 4)[0, 0]
    score = 2 * torch.arange(4, dtype=torch.float64).repeat_interleave(2)
    assert not torch.allclose(by_f, torch.sigmoid(score)), 'the scores are not divided by any root'
    assert not torch.allclose(by_f, torch.sigmoid(score / 8**0.5)), (
        'the root of how many channels? A score is a sum over those of one head')
    wanted = torch.sigmoid(score / 2**0.5)
    assert torch.allclose(by_f, wanted), f'{by_f.tolist()}, not {wanted.tolist()}: divided by what?'


def check_heads(f: Answer) -> None:
    """A block with several heads is this and two linear maps.

    A head sees all positions, but only its own channels. Over which dimensions do the products run?

    Cut the channels into (head, channel of the head), and move the head before the positions.

    `q.unflatten(2, (n, -1)).transpose(1, 2)`; the root is that of the channels of one head.
    """
    q, k, v = random_parts((8, 8), (6, 8), (6, 12))
    found = f(q, k, v, 4)
    assert found.shape == (2, 8, 12), f'(2, 8, 12) was expected, not {tuple(found.shape)}'
    ones = f(q, k, torch.ones_like(v), 4)
    assert torch.allclose(ones, torch.ones_like(ones)), (
        'if all values are 1, so is every mixture: the weights of a query, over the keys, sum to 1')

    moved = q.clone()
    moved[:, :, 0] += 1
    changed = (f(moved, k, v, 4) - found).abs().amax((0, 1)) > 1e-6
    channels = changed.nonzero()[:, 0].tolist()
    assert len(channels) < 12, 'the heads are not apart: channel 0 of all queries moves them all'
    assert channels == [0, 1, 2], (f'channel 0 of the queries belongs to head 0, which makes the '
                                   f'channels [0, 1, 2], and not {channels}')
    moved = v.clone()
    moved[:, 0] += 1
    changed = ((f(q, k, moved, 4) - found).abs() > 1e-6).double().mean().item()
    assert changed == 1, (
        f'only {changed:.0%} of the output depends on place 0: every head sees all positions, so in '
        f'which order do the dimensions stand when you reshape?')

    judge_root(f)
    assert torch.allclose(f(q, k, v, 1), attention(q, k, v)), 'one head is plain attention'


def check_in_tiles(f: Answer) -> None:
    """This is how a fused kernel attends over thousands of positions in little memory.

    Try two tiles by hand. What is wrong with the first sum once a larger score turns up?

    All powers so far were taken with the old maximum. One factor puts both sums right.

    `factor = (top - new).exp()`; multiply both sums by it, and add `(scores - new).exp()`.
    """
    q, k, v = random_parts((5, 3), (6, 3), (6, 4))
    right, one_tile = attention(q, k, v), f(q, k, v, 6)
    assert torch.allclose(one_tile, right), 'one tile that holds all keys is plain attention'
    two_tiles = f(q, k, v, 3)
    halves = [attention(q, keys, values) for keys, values in zip(k.split(3, 1), v.split(3, 1))]
    assert not torch.allclose(two_tiles, torch.stack(halves).mean(0)), (
        'the answers of the tiles were averaged: a tile with larger scores counts for more')

    rising = torch.arange(12, dtype=torch.float64).view(1, 12, 1)
    query = torch.ones_like(rising[:, :1])
    values = random_parts((12, 4))[0][:1]
    for keys, hint in [
        (rising.flip(1), 'wrong even where the largest score comes first: are both sums taken over '
                         'all tiles, and divided at the end?'),
        (rising, 'right while the largest score comes first, wrong when a larger one turns up: '
                 'what becomes of the sums so far?'),
    ]:
        assert torch.allclose(f(query, keys, values, 3), attention(query, keys, values)), hint
    assert torch.allclose(two_tiles, right), 'wrong for several queries: each has its own maximum'
    assert torch.allclose(f(q, k, v, 4), right), 'six keys in tiles of four: a smaller last tile'
    large = f(1e4 * q, k, v, 3)
    assert large.isfinite().all(), 'exp of large scores is inf: what has to be subtracted first?'
    assert torch.allclose(large, attention(1e4 * q, k, v)), 'wrong for very large scores'

    low = f(query, rising - 1e4, values, 3)     # one vector for all keys: nothing may change
    assert torch.allclose(low, attention(query, rising, values)), (
        'wrong where all scores are far below 0: with what does the largest score so far begin?')

    shapes = shapes_made(lambda: f(q, k, v, 2))
    whole = [shape for shape in shapes if {5, 6} <= set(shape)]
    assert not whole, f'a tensor of shape {whole[0]} holds all 5 x 6 scores: two keys at a time'


check = Checks(check_heads, check_in_tiles)
