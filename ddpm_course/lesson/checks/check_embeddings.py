import torch

from ...embeddings import drop_labels, timestep_embedding
from ..answers import Answer, Checks


def check_later(f: Answer) -> None:
    """A linear layer can do the same, so a network can compute with times.

    Look at one hand. Which two entries belong to it, and by what angle does it turn?

    Hand i turns by k times its speed. The sum formulas of sine and cosine turn it.

    `sines * angles.cos() + cosines * angles.sin()`; for the cosines the second sign is minus.
    """
    t, k = torch.arange(0, 900, 7), 40
    e, right = timestep_embedding(t, 8), timestep_embedding(t + k, 8)
    found = f(e.clone(), k)
    same = lambda a, b: (a - b).abs().max() < 1e-3      # angles reach 1,300 radians, in float32
    neighbours = lambda x: x[:, ::2] ** 2 + x[:, 1::2] ** 2
    lengths = lambda x: x[:, :4] ** 2 + x[:, 4:] ** 2
    assert found.shape == e.shape, f'(B, dim) comes out, as it goes in, not {tuple(found.shape)}'
    assert not same(found, e), f'k is {k}, and nothing has turned'
    assert not same(neighbours(found), neighbours(e)), (
        'neighbours were turned with each other, but neighbours are two sines or two cosines')
    assert same(lengths(found), torch.ones(1)), (
        'a hand has changed its length: a turn keeps it, a sum does not; look at the signs, too')
    assert not same(found, timestep_embedding(t - k, 8)), (
        'the hands turn backwards: look at the signs, and at which half holds the sines')
    assert same(found[:, ::4], right[:, ::4]), (
        'even the fastest hand, entries 0 and 4 of 8, is wrong: its speed is one radian per step')
    assert same(found, right), (
        'the fastest hand is right, another is not: each has its speed, the slowest 1/10000')
    for dim, k in ((4, 400), (32, 400), (32, 1)):
        found = f(timestep_embedding(t, dim), k)
        assert same(found, timestep_embedding(t + k, dim)), (
            f'right at width 8 and k = 40, wrong at {dim} and {k}: what is taken as fixed?')


def check_dropping(f: Answer) -> None:
    """Chapter 11 trains with it, and chapter 12 needs it for guidance.

    Which number means "no class"? And how often does a uniform u lie below the rate?

    Each image is decided by its own u. Make a new tensor: y belongs to the caller.

    `torch.where(u < rate, num_classes, y)`.
    """
    y, u = torch.tensor([3, 0, 9, 0]), torch.tensor([0.05, 0.5, 0.95, 0.01])
    given = y.clone()
    found = f(given, u, 10, 0.1)
    assert torch.equal(given, y), 'y itself has changed: the caller may still need the labels'
    assert found.shape == y.shape, f'one label for each image comes out, not {tuple(found.shape)}'
    assert found.dtype == y.dtype, f'nn.Embedding looks up whole numbers, not {found.dtype}'
    changed = found != y
    assert changed.any() and not changed.all(), (
        'all labels were dropped, or none: each image is decided by its own u')
    assert not (found[changed] == 0).any(), (
        'a dropped label became a 0: that is the class of the digit 0')
    assert (found[changed] == 10).all(), (
        f'classes are 0 to 9 and the null label is the next number, not {found[changed].tolist()}')
    assert changed.tolist() == [True, False, False, True], (
        f'dropped are {changed.tolist()} of four with u = 0.05, 0.5, 0.95 and 0.01: on which '
        'side of the rate, 0.1, does u lie in a tenth of all cases?')
    assert f(torch.tensor([3]), torch.zeros(1), 10, 0.0).tolist() == [3], (
        'a rate of 0 drops nothing, not even where u is 0')
    y, u = torch.arange(1000) % 3, torch.rand(1000, generator=torch.Generator().manual_seed(0))
    assert torch.equal(f(y.clone(), u, 3, 0.5), drop_labels(y, u < 0.5, 3)), (
        'right for ten classes and a rate of 0.1, wrong for three and 0.5: what is taken as fixed?')


check = Checks(check_later, check_dropping)
