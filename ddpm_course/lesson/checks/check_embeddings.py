import torch

from ...embeddings import timestep_embedding
from ..answers import Answer, Checks


def check_later(f: Answer) -> None:
    """A linear layer can do the same, so a network can compute with timesteps.

    Look at one frequency. Which two entries belong to it, and by how much does its angle grow?

    The angle of frequency i grows by k times the frequency. Use the sum formulas of sine and cosine.

    `sines * angles.cos() + cosines * angles.sin()`; for the cosines the second sign is minus.
    """
    t, k = torch.arange(0, 900, 7), 40
    e, right = timestep_embedding(t, 8), timestep_embedding(t + k, 8)
    found = f(e.clone(), k)
    same = lambda a, b: (a - b).abs().max() < 1e-3      # angles reach 1,300 radians, in float32
    neighbours = lambda x: x[:, ::2] ** 2 + x[:, 1::2] ** 2
    lengths = lambda x: x[:, :4] ** 2 + x[:, 4:] ** 2
    assert found.shape == e.shape, f'(B, dim) comes out, as it goes in, not {tuple(found.shape)}'
    assert not same(found, e), f'k is {k}, and nothing has changed'
    assert not same(neighbours(found), neighbours(e)), (
        'neighbours were rotated with each other, but neighbours are two sines or two cosines')
    assert same(lengths(found), torch.ones(1)), (
        'sin² + cos² is no longer 1: a rotation keeps it, a sum does not; look at the signs, too')
    assert not same(found, timestep_embedding(t - k, 8)), (
        'these are k timesteps earlier: look at the signs, and at which half holds the sines')
    assert same(found[:, ::4], right[:, ::4]), (
        'even the highest frequency, entries 0 and 4 of 8, is wrong: it is one radian per timestep')
    assert same(found, right), (
        'the highest frequency is right, another is not: they fall from 1 to 1/10000')
    for dim, k in ((4, 400), (32, 400), (32, 1)):
        found = f(timestep_embedding(t, dim), k)
        assert same(found, timestep_embedding(t + k, dim)), (
            f'right at width 8 and k = 40, wrong at {dim} and {k}: what is taken as fixed?')


check = Checks(check_later)
