import torch

from ..answers import Answer, Checks


def check_shares(f: Answer) -> None:
    """Now you can say of any average how old it is.

    Follow the first weights through two steps: what does each step leave of them?

    Step k brings in 1 - d_k of its weights, and every later step j keeps d_j of that.

    `[1, 1 - d_0, 1 - d_1, ...]` times the product of all later decays, a `cumprod` from the end.
    """
    two = f(torch.tensor([0.5, 0.75], dtype=torch.float64))
    two = torch.as_tensor(two, dtype=torch.float64)

    def near(*numbers: float) -> bool:
        return torch.allclose(two, torch.tensor(numbers, dtype=torch.float64))

    assert two.shape == (3,), (
        f'the beginning and two steps have three shares: yours have the shape {tuple(two.shape)}')
    assert abs(two.sum() - 1) < 1e-9, (
        f'shares add up to 1, these to {two.sum():.4g}: what does a step do to the earlier ones?')
    assert not near(0.125, 0.125, 0.75), 'd is what the average keeps, not what it takes in'
    assert not near(0.25, 0.375, 0.375), 'the order: the beginning first, the last step last'
    assert abs(two[0] - 0.375) < 1e-9, (
        'step 0 leaves a half of the beginning, and step 1 leaves 3/4 of that')
    assert near(0.375, 0.375, 0.25), f'of the decays 0.5 and 0.75 you make {two.tolist()}'

    decays = torch.tensor([min(0.9, (1 + k) / (10 + k)) for k in range(100)], dtype=torch.float64)
    rows = torch.eye(101, dtype=torch.float64)          # each step's weights have a place of their
    average = rows[0]                                   # own, so the average shows their shares
    for k, d in enumerate(decays):
        average = d * average + (1 - d) * rows[k + 1]
    many = torch.as_tensor(f(decays), dtype=torch.float64)
    assert torch.allclose(many, average, rtol=1e-9, atol=1e-12), (
        'over a hundred steps with warm-up, the average itself has other shares')


def check_keyed(f: Answer) -> None:
    """Now every draw can be made again, by any process and in any order.

    Make a new generator in each call, and give it one number that seed and step decide together.

    A sum mixes up seed 0, step 1 and seed 1, step 0. And of the number that `manual_seed` gets, a
    generator on the CPU uses the last 32 bits only.

    `torch.Generator().manual_seed(random.Random(f'{seed} {step}').getrandbits(32))`.
    """
    def first(seed: int, step: int) -> tuple[float, ...]:
        return tuple(torch.rand(4, generator=f(seed, step)).tolist())

    state = torch.get_rng_state()
    made = f(0, 3)
    assert isinstance(made, torch.Generator), (
        f'a torch.Generator is asked for, and this is a {type(made).__name__}')
    assert torch.equal(torch.get_rng_state(), state), (
        'the global generator has moved: seed one of your own, `torch.Generator()`')
    assert made is not f(0, 3) and first(0, 3) == first(0, 3), (
        'asked twice for one step, it gives two different answers: make a new one in each call')
    assert first(0, 3) != first(0, 4), 'two steps get the same numbers'
    assert first(0, 1) != first(1, 0), (
        'seed 0, step 1 gets the numbers of seed 1, step 0: is it a sum, or a product?')
    assert first(0, 3) != first(1, 3), (
        'two seeds get the same numbers: of the number that it is seeded with, a generator uses '
        'the last 32 bits only')
    pairs = [(seed, step) for seed in (0, 1, 2, 7) for step in (0, 1, 2, 3, 999, 1000, 1001, 2000)]
    assert len({first(*pair) for pair in pairs}) == len(pairs), (
        'seed 0, step 1000 or the like gets the numbers of another seed: two pairs give one number')


check = Checks(check_shares, check_keyed)
