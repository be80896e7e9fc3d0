import torch
from torch import nn

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


def check_rate(f: Answer) -> None:
    """A schedule without an off-by-one: the first step moves, the last one is at the floor.

    Write the first and the last step of each part on paper, with their rates.

    The rise counts from 1, so that no step has the rate 0. The cosine counts from 0 and has done
    all in step `steps - 1`.

    `lr * (step + 1) / warmup` while `step < warmup`; after it
    `floor + (lr - floor) * 0.5 * (1 + cos(pi * (step - warmup) / (steps - 1 - warmup)))`.
    """
    got = [f(k, 16, 5, 0.4, 0.1) for k in range(16)]

    def near(a: float, b: float) -> bool:
        return abs(a - b) < 1e-9

    optimizer, fall = torch.optim.SGD([nn.Parameter(torch.zeros(1))], 0.4), []
    plan = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10, 0.1)   # PyTorch's own
    for _ in range(11):
        fall.append(optimizer.param_groups[0]['lr'])
        optimizer.step()
        plan.step()

    assert got[0] > 0, 'the first step has the rate 0: it changes nothing'
    assert near(got[4], 0.4), f'the last step of the warm-up, index 4, has {got[4]:.3g}, not lr'
    assert all(near(got[k], 0.08 * (k + 1)) for k in range(5)), 'the rise is not in equal amounts'
    assert near(got[5], 0.4), (
        f'step 5, the first after the warm-up, has {got[5]:.3g}: where does the cosine begin?')
    assert got[15] > 0.1 - 1e-9, f'the last step has {got[15]:.3g}, less than the floor'
    assert near(got[15], 0.1), f'the last step has {got[15]:.3g}, and is not yet at the floor'
    assert near(got[10], 0.25), (
        f'in the middle of the fall the rate is {got[10]:.3g}, not half-way from lr to the floor')
    assert all(near(a, b) for a, b in zip(got[5:], fall)), 'half a cosine is slow at both ends'
    try:
        cold = [f(k, 11, 0, 0.4, 0.1) for k in range(11)]
    except ZeroDivisionError:
        raise AssertionError(
            'without a warm-up its length is 0, and nothing can be divided by that') from None
    assert all(near(a, b) for a, b in zip(cold, fall)), 'without a warm-up step 0 has lr'


def check_clipped(f: Answer) -> None:
    """One factor for all: the step becomes shorter, and points where it pointed before.

    What is the length of all gradients together, if you lay them end to end as one vector?

    The root of the sum of all squares, over all tensors; then one factor, at most 1, for all.

    `factor = min(1, most / torch.stack([g.square().sum() for g in gradients]).sum().sqrt())`.
    """
    gradients = [torch.tensor([2.0, 4.0]), torch.tensor([[4.0]])]
    found = f([g.clone() for g in gradients], 3.0)
    assert [g.shape for g in found] == [g.shape for g in gradients], 'the shapes have changed'
    before, after = (torch.cat([g.flatten() for g in some]) for some in (gradients, found))
    assert not torch.allclose(after, before.clamp(-3, 3)), (
        'every number was cut by itself: together they point another way than before')
    assert not all(abs(g.norm() - 3) < 1e-3 for g in found), (
        'every tensor was shortened by itself: the norm is that of all of them together')
    assert abs(after.norm() - 3) < 1e-3, (
        f'the norm of all is {after.norm():.3g} and not 3: is it the root of a sum of squares?')
    assert torch.allclose(after, before / 2, rtol=1e-3), 'the direction has changed'
    short = f([g.clone() for g in gradients], 12.0)
    assert all(torch.allclose(a, b) for a, b in zip(short, gradients)), (
        'the norm 6 is less than 12, and yet the gradient was changed')

    layer, draws = nn.Linear(3, 2), torch.Generator().manual_seed(0)
    given = [torch.randn(weights.shape, generator=draws) for weights in layer.parameters()]
    ours = f([g.clone() for g in given], 0.1)
    for weights, g in zip(layer.parameters(), given):
        weights.grad = g
    nn.utils.clip_grad_norm_(layer.parameters(), 0.1)       # in place
    assert all(torch.allclose(a, g, rtol=1e-3) for a, g in zip(ours, given)), (
        'for a layer of a network clip_grad_norm_ finds something else')


check = Checks(check_shares, check_rate, check_clipped)
