import html
import importlib.util
import inspect
import json
import subprocess
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from ..data.sets import load_digits, to_float
from .answers import Sentence


class Mistake(Exception):
    "What a probe has found: a nudge, the idea, and the line."


def need(fine: Any, nudge: str, idea: str, line: str) -> None:
    "Raise `Mistake` where something is not fine."
    if not fine:
        raise Mistake(nudge, idea, line)


def about(found: Any, right: Any, within: float = 1e-3) -> bool:
    "Whether all numbers are nearly right."
    found, right = torch.as_tensor(found).double(), torch.as_tensor(right).double()
    return bool(((found - right).abs() <= within).all())


PROBES: dict[str, Callable[[Any], None]] = {}
NEEDS: dict[str, tuple[str, ...]] = {}      # the names that a file must have for a probe


def probe(*needs: str) -> Callable[[Callable[[Any], None]], Callable[[Any], None]]:
    "Register a probe under its own name. Its draws are the same at each call."
    def keep(f: Callable[[Any], None]) -> Callable[[Any], None]:
        @wraps(f)
        def seeded(m: Any) -> None:
            torch.manual_seed(0)
            f(m)
        PROBES[f.__name__], NEEDS[f.__name__] = seeded, needs
        return seeded
    return keep


@probe('T', 'alpha_bars')
def schedule(m: Any) -> None:
    "alpha-bar falls from nearly 1 to nearly 0"
    abar = torch.as_tensor(m.alpha_bars(m.T)).double()
    need(abar.shape == (m.T,), f'alpha_bars(T) has the shape {tuple(abar.shape)}, not ({m.T},)',
         'There is one alpha-bar for each index, and the clean image has none.',
         'betas = 1 - f[1:] / f[:-1]')
    need(((abar > 0) & (abar < 1)).all(), 'some alpha-bars are not between 0 and 1',
         'Each step keeps a share of the variance, and none keeps all or nothing of it.',
         'betas.clamp(max=0.999)')
    need(abar[m.T // 2] < 0.9,
         f'in the middle of the chain {abar[m.T // 2]:.2f} of the image is left',
         'Alpha-bar is the product of all alphas so far, not one of them.',
         '(1 - betas).cumprod(0)')
    need((abar.diff() < 0).all() and abar[0] > 0.99 and abar[-1] < 0.01,
         f'alpha-bar goes from {abar[0]:.3f} to {abar[-1]:.3f}',
         'It has to fall at every index, from nearly 1 to nearly 0.',
         'f = torch.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2, with t from 0 to 1')


def factors(m: Any, t: Tensor) -> tuple[Tensor, Tensor]:
    "The roots of alpha-bar and of the rest to 1, (B, 1, 1, 1), by the file's own alpha-bars."
    abar = torch.as_tensor(m.alpha_bars(m.T)).double()[t].view(-1, 1, 1, 1)
    return abar.sqrt().float(), (1 - abar).sqrt().float()


@probe('T', 'alpha_bars', 'q_sample')
def jump(m: Any) -> None:
    "an image and noise are mixed by the roots of alpha-bar and of 1 - alpha-bar"
    t = torch.tensor([0, m.T // 4, m.T // 2, m.T - 1])
    one, zero = torch.ones(4, 1, 4, 4), torch.zeros(4, 1, 4, 4)
    image, noise = m.q_sample(one, t, zero), m.q_sample(zero, t, one)
    signal, sigma = factors(m, t)
    need(image.shape == one.shape, f'x_t has the shape {tuple(image.shape)}, x_0 {(4, 1, 4, 4)}',
         'Each image keeps its shape.', 'abar = ABARS[t].view(-1, 1, 1, 1)')
    need(about(image, image[:, :, :1, :1]), 'the pixels of one image are treated differently',
         'The (B,) numbers meet the last axis of a batch, not the first. Give them more axes.',
         'abar = ABARS[t].view(-1, 1, 1, 1)')
    need(not about(image, signal**2), 'the image is multiplied by alpha-bar itself',
         'Alpha-bar is a share of the variance. The image is multiplied by its square root.', 'abar.sqrt() * x0')
    need(not about(noise, sigma**2), 'the noise is multiplied by 1 - alpha-bar itself',
         'That is a variance. A factor is its root.', '(1 - abar).sqrt() * eps')
    need(about(image, signal) and about(noise, sigma), 'image or noise has another factor',
         'Equation 4: the root of alpha-bar for the image, the root of the rest for the noise.',
         'abar.sqrt() * x0 + (1 - abar).sqrt() * eps')


@probe('T', 'alpha_bars', 'velocity', 'to_x0')
def question(m: Any) -> None:
    "v is made of noise and image, and the image comes back from it"
    x0, eps = torch.rand(50, 1, 4, 4) * 2 - 1, torch.randn(50, 1, 4, 4)
    t = torch.randint(m.T, (50,))
    signal, sigma = factors(m, t)
    v, right = m.velocity(x0, t, eps), signal * eps - sigma * x0
    idea, line = 'v is signal times noise, minus sigma times image.', 'signal * eps - sigma * x0'
    need(not about(v, -right), 'v has the opposite sign', idea, line)
    need(about(v, right), 'velocity gives something else than v', idea, line)
    need(about(m.to_x0(signal * x0 + sigma * eps, t, right), x0),
         'to_x0 does not give the image back that v was made of',
         'Put x_t and v into signal * x_t - sigma * v: the noise cancels.',
         'signal * xt - sigma * v')


@probe('embed')
def embedding(m: Any) -> None:
    "each index has a vector of its own, no number of which is large"
    found = m.embed(torch.tensor([0, 10, 11, 500, 501, 999]), 64)
    need(found.shape == (6, 64), f'six indices give the shape {tuple(found.shape)}, not (6, 64)',
         'One row for each index: half of it sines, half of it cosines.',
         'torch.cat([angles.sin(), angles.cos()], dim=1)')
    need(found.abs().max() <= 1.001, f'a number as large as {found.abs().max():.0f} is in it',
         'A network wants numbers of about 1: take sines and cosines of the angles.',
         'torch.cat([angles.sin(), angles.cos()], dim=1)')
    need(about(found.square().sum(1), 32), 'the squares of a row do not add up to 32',
         'Each angle needs its sine and its cosine, and sin² + cos² is 1. Any order will do, as '
         'your network learns its own weights.',
         'torch.cat([angles.sin(), angles.cos()], dim=1)')
    need(torch.pdist(found.double()).min() > 0.5, 'two different times look nearly the same',
         'The highest frequency is one radian a timestep, so that neighbours differ.',
         'frequencies = torch.logspace(0, -4, dim // 2)')


class Oracle(nn.Module):
    "A network for `loss` and `sample` that knows: an image of label y is grey, `worth(y)`."

    def __init__(self, m: Any, worth: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.m, self.worth, self.weight = m, worth, nn.Parameter(torch.zeros(1))
        self.asked: list[tuple[Tensor, Tensor, Tensor]] = []        # x, t, y of each call
        self.trained = self.graded = False          # was it asked in train mode, with gradients?

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        t = torch.as_tensor(t).reshape(-1)
        self.asked.append((x.detach(), t.clone(), y.clone()))
        self.trained |= self.training
        self.graded |= torch.is_grad_enabled()
        x0 = self.worth(y).view(-1, 1, 1, 1)
        signal, sigma = factors(self.m, t.long().clamp(0, self.m.T - 1))
        eps = (x - signal * x0) / sigma
        answer = signal * eps - sigma * x0 if hasattr(self.m, 'velocity') else eps
        return answer + 0 * self.weight


def ask_loss(m: Any, n: int = 20_000) -> tuple[Oracle, Tensor, Tensor]:
    "The loss of a network that knows the images: the network, its loss, the labels given."
    net, y = Oracle(m, lambda y: torch.full(y.shape, 0.5)), torch.arange(n) % 10
    value = m.loss(net, torch.full((n, 1, 2, 2), 0.5), y.clone())
    return net, torch.as_tensor(value), y


@probe('T', 'alpha_bars', 'q_sample', 'loss')
def times(m: Any) -> None:
    "each image of a batch has its own t, from all indices"
    net, _, y = ask_loss(m)
    need(net.asked, 'the network was never asked', 'Line 5 of Algorithm 1 asks it about x_t.',
         'net(q_sample(x0, t, eps), t, y)')
    t = net.asked[0][1]
    line = 't = torch.randint(T, (len(x0),))'
    need(len(t.unique()) > 1, 'all images of a batch have the same t',
         'Line 3 of Algorithm 1 draws a t for each image, so the shape is (B,).', line)
    low, high = int(t.min()), int(t.max())
    need((low, high) == (0, m.T - 1), f't was drawn from {low} to {high}, not 0 to {m.T - 1}',
         'randint(T) gives 0 to T - 1. An index that was never trained is one that fails.', line)
    need(len(t) == len(y), f'{len(y)} images have {len(t)} times', 'Each image has its own.', line)


@probe('T', 'alpha_bars', 'q_sample', 'loss')
def objective(m: Any) -> None:
    "the loss is 0 for a network that knows the answer, and about 1 for one that says 0"
    net, value, _ = ask_loss(m)
    x, t, _ = net.asked[0]
    signal, sigma = factors(m, t.long())
    x0 = torch.full_like(x, 0.5)
    need(not about(x, x0), 'the network is shown the clean image',
         'It sees x_t, and never x_0.', 'net(q_sample(x0, t, eps), t, y)')
    eps = (x - signal * x0) / sigma
    size = eps.square().mean()
    need(0.9 < size < 1.1, f'the noise in x_t has the variance {size:.2f}',
         'Noise is drawn from a standard normal: randn, not rand.', 'eps = torch.randn_like(x0)')
    need(value.numel() == 1 and value.requires_grad, 'the loss is no single number to learn from',
         'Take the mean over everything, and keep the gradient.', 'F.mse_loss(answer, right)')
    asks_v = hasattr(m, 'velocity')
    right = signal * eps - sigma * x0 if asks_v else eps
    of = lambda wrong: about(value.detach(), (right - wrong).square().mean(), 0.02)
    line = 'F.mse_loss(net(...), velocity(x0, t, eps))' if asks_v else 'F.mse_loss(net(...), eps)'
    idea = f'Compare with {"v" if asks_v else "the noise"}, made of the same image and noise.'
    need(not of(-right), 'what it is compared with has the opposite sign', idea, line)
    need(not (asks_v and of(eps)), 'the answer is compared with the noise, not with v', idea, line)
    need(not of(x0), 'the answer is compared with the image', idea, line)
    need(value < 1e-3, f'a network that knows the answer has the loss {value:.2f}, not 0',
         'The noise in the target must be the noise in x_t: draw it once.', line)
    nothing = m.loss(lambda x, t, y: 0 * x, x0, torch.zeros(len(x), dtype=torch.long))
    need(0.2 < float(nothing) < 1.5, f'a network that says 0 has the loss {float(nothing):.1f}',
         'Take the mean of the squares, not the sum.', line)


@probe('T', 'alpha_bars', 'q_sample', 'loss', 'NULL')
def labels(m: Any) -> None:
    "about a tenth of the labels become the null label, each by its own draw"
    need(m.NULL == 10, f'NULL is {m.NULL}', 'The classes are 0 to 9, so "no class" is 10.',
         'NULL = 10')
    net, _, y = ask_loss(m)
    line = 'y = torch.where(torch.rand(len(y)) < 0.1, NULL, y)'
    given = net.asked[0][2]
    changed, dropped = given != y, given == m.NULL
    need(not (changed & (given == 0)).any(), 'dropped labels become 0, the class of the digit 0',
         '"No class" needs a number of its own.', line)
    shares = [float(dropped.float().mean())]
    for _ in range(60 if shares[0] in (0, 1) else 0):
        shares.append(float((ask_loss(m, 10)[0].asked[0][2] == m.NULL).float().mean()))
    need(max(shares) > 0, 'no label is ever dropped',
         'Guidance compares the answer for a class with the answer for none. '
         'The second must be learned, too.', line)
    need(0 < shares[0] < 1, 'either all labels of a batch are dropped or none',
         'Each image is decided by its own number.', line)
    need(0.05 < shares[0] < 0.25, f'{shares[0]:.0%} of the labels are dropped',
         'A tenth is usual: most of the training is for the classes.', line)
    need((changed == dropped).all(), 'some labels were changed into other classes',
         'A label is kept or becomes NULL.', line)


@probe('T', 'UNet')
def network(m: Any) -> None:
    "the network answers like x, and listens to time and label"
    net = m.UNet().eval()
    x, t, y = torch.randn(4, 1, 16, 16), torch.tensor([0, 10, 500, m.T - 1]), torch.arange(4)
    with torch.no_grad():
        for weight in net.parameters():
            weight += 0.05 * torch.randn_like(weight)
        out = net(x, t, y)
        need(out.shape == x.shape, f'the answer has the shape {tuple(out.shape)}',
             'The answer is an image like x.', 'nn.Conv2d(a, 1, 3, padding=1)')
        need(not about(net(x, t.flip(0), y), out), 'the answer does not depend on t',
             'How much noise is in x has to reach every block.', 'self.time(embed(t, 64))')
        need(not about(net(x, t, y + 5), out), 'the answer does not depend on the label',
             'The label goes the same way as the time: add the two.', '+ self.label(y)')
        try:
            net(x, t, torch.full_like(y, 10))
        except IndexError:
            raise Mistake('the label 10 is out of range',
                          'There are ten classes and "no class", eleven rows.',
                          'nn.Embedding(11, dim)') from None


def slope_past(net: nn.Module, side: int, *given: Tensor) -> Tensor | None:
    """The gradient of the answer by what `net` makes first at side x side, where everything that
    it makes at smaller sizes is cut off; None if it makes nothing at this size."""
    begin: list[Tensor] = []

    def cut(module: nn.Module, inputs: Any, out: Any) -> Tensor | None:
        if not isinstance(out, Tensor) or out.ndim != 4 or out.shape[-1] > side:
            return None
        if out.shape[-1] < side:
            return out.detach()
        if not begin:
            begin.append(out.detach().requires_grad_())
            return begin[0]
        return None
    hooks = [part.register_forward_hook(cut) for part in net.modules()]
    answer = net(*given)
    for hook in hooks:
        hook.remove()
    if not begin:
        return None
    slope, = torch.autograd.grad(answer.square().sum(), begin, allow_unused=True)
    return torch.zeros(1) if slope is None else slope


@probe('T', 'UNet')
def skips(m: Any) -> None:
    "what the way down makes at 16x16 and at 8x8 is handed to the way up"
    net = m.UNet().eval()
    with torch.no_grad():
        for weight in net.parameters():
            weight += 0.05 * torch.randn_like(weight)
    x, t, y = torch.randn(4, 1, 16, 16), torch.tensor([0, 10, 500, m.T - 1]), torch.arange(4)
    for side, name in ((16, 'h1'), (8, 'h2')):
        slope = slope_past(net, side, x, t, y)
        need(slope is None or slope.any(),
             f'what the way down made at {side}x{side} does not reach the way up',
             'A small picture cannot hold the details of a large one. Keep what each level makes, '
             'and concatenate it at the same size on the way up.',
             f'torch.cat([F.interpolate(h, scale_factor=2), {name}], dim=1)')


class Tiny(nn.Module):
    "A network of a few weights, in place of the U-Net."

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__()
        self.conv, self.label = nn.Conv2d(1, 1, 3, padding=1), nn.Embedding(11, 1)

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        return self.conv(x) + self.label(y)[:, :, None, None]


def watch_training(m: Any, steps: int = 20) -> tuple[list[tuple[Any, ...]], Any]:
    "Train a tiny network: (net, x0, y, gradient, weights before) of each step; the result."
    usual, seen = (m.loss, m.UNet), []

    def loss(net: Any, x0: Tensor, y: Tensor) -> Tensor:
        value = usual[0](net, x0, y)
        slope = torch.autograd.grad(value, net.conv.weight, retain_graph=True)[0]
        seen.append((net, x0, y, slope, flat(net)))
        return value
    m.loss, m.UNet = loss, Tiny
    try:
        result = m.train(steps=steps, log=lambda *line: None)
    finally:
        m.loss, m.UNet = usual
    return seen, result


def flat(net: nn.Module) -> Tensor:
    "All weights in one row."
    return torch.cat([weight.detach().flatten().double() for weight in net.parameters()])


@probe('loss', 'UNet', 'train')
def data(m: Any) -> None:
    "the images are digits from -1 to 1, each with its own label"
    seen, _ = watch_training(m, 3)
    need(seen, 'no step was taken', 'Each step asks for the loss of a batch.',
         'value = loss(net, images[rows], labels[rows])')
    x0, y = torch.cat([s[1] for s in seen]), torch.cat([s[2] for s in seen])
    low, high = float(x0.min()), float(x0.max())
    need(abs(low + 1) < 0.02 and abs(high - 1) < 0.02, f'the images go from {low:g} to {high:g}',
         'Noise is centred at 0, and so should the images be: from -1 to 1.', 'pixels / 127.5 - 1')
    need(x0.shape[1:] == (1, 16, 16), f'a batch has the shape {tuple(x0.shape)}',
         'Images have a channel: (B, 1, 16, 16).', "load_digits('train', 16).pixels")
    digits = load_digits('train', 16)
    known = to_float(digits.pixels).flatten(1)
    rows = torch.cdist(x0.flatten(1).float(), known).argmin(1)
    need((torch.as_tensor(digits.labels)[rows] == y).float().mean() > 0.95,
         'images come with the labels of others', 'Draw the rows once, and use them for both.',
         'loss(net, images[rows], labels[rows])')


@probe('loss', 'UNet', 'train')
def gradient(m: Any) -> None:
    "each step follows the gradient of its own batch"
    seen, _ = watch_training(m)
    need(not about(flat(seen[-1][0]), seen[0][4], 1e-6), 'the weights do not change',
         'backward() finds the gradient, and the optimizer takes the step.', 'optimizer.step()')
    kept, own = seen[-1][0].conv.weight.grad, seen[-1][3]
    same = kept is None or torch.cosine_similarity(kept.flatten(), own.flatten(), dim=0) > 0.999
    need(same, 'the gradients of earlier steps are still there',
         'PyTorch adds to what is there. Clear it in each step.', 'optimizer.zero_grad()')


@probe('loss', 'UNet', 'train')
def average(m: Any) -> None:
    "what comes out of training is the average of the weights"
    seen, result = watch_training(m, 200)
    line = 'mean.lerp_(weight, 1 - decay), for all weights, after each step'
    need(isinstance(result, nn.Module), 'train returns no network', 'Return the average.',
         'return average')
    path = torch.stack([before for *_, before in seen] + [flat(seen[-1][0])])
    mean = flat(result)
    need(not about(mean, path[-1], 1e-7), 'nothing but the last step is in what train returns',
         'Each step follows one batch. The average of many steps jumps about less. '
         'It moves towards the network by 1 - decay.', line)
    need(not about(mean, path[0], 1e-7), 'the average is still the first network',
         'Move it a little towards the network after each step.', line)
    share = float((mean - path[0]).norm() / (path[-1] - path[0]).norm())
    need(share > 0.25, f'after 200 steps the average has come {share:.0%} of the way',
         'With 0.999 and 650 steps half of the average is still the random first network. '
         'Let it forget sooner.', 'decay = min(0.99, (1 + step) / (10 + step))')
    need(int((path - mean).norm(dim=1).argmin()) < 198, 'only the last steps are in the average',
         'It moves towards the network by 1 - decay, not by decay.', line)


def walk_of(m: Any, value: float, steps: int = 10, **more: Any) -> tuple[Oracle, Tensor]:
    "Sample 64 images with a network that always knows: the network, and the images."
    net = Oracle(m, lambda y: torch.full(y.shape, value)).train()
    out = m.sample(net, torch.arange(64) % 10, guidance=1.0, steps=steps, **more)
    need(net.asked, 'the network was never asked', 'Each step begins with a question to it.',
         'net(x, t, y)')
    need(isinstance(out, Tensor) and out.shape == (64, 1, 16, 16),
         '64 labels do not give 64 images of 16x16', 'One image for each label.',
         'x = torch.randn(len(y), 1, 16, 16)')
    return net, out


def places(net: Oracle) -> dict[int, Tensor]:
    "The x_t at each index where the network was asked, in the order of the walk."
    return {int(t[0]): x[:64] for x, t, _ in net.asked}


def follows(m: Any, net: Oracle, value: float, idea: str, line: str) -> None:
    """Whether each x_t has the mean that it has in the forward process, and a spread from that of
    the forward process (sigma^2 = beta-tilde, or DDIM) up to that of sigma^2 = beta."""
    abars, widest = torch.as_tensor(m.alpha_bars(m.T)).double(), 1.0
    abar: float | None = None
    for t, x in places(net).items():
        before, abar = abar, float(abars[t])
        if before is not None:                      # the variance of the next x if sigma^2 = beta
            beta = 1 - before / abar
            widest = (1 - beta) * ((1 - abar) / (1 - before))**2 * widest + beta
        middle, least, most = abar**0.5 * value, (1 - abar)**0.5, widest**0.5
        mean, spread = float(x.mean()), float(x.std())
        need(abs(mean - middle) < 0.05 and least - 0.05 < spread < most + 0.05,
             f'at index {t} x has mean {mean:.2f} and spread {spread:.2f}, '
             f'not {middle:.2f} and {least:.2f}', idea, line)


@probe('T', 'alpha_bars', 'sample', 'velocity')
def walk(m: Any) -> None:
    "sampling visits falling indices of the whole chain, and adds the right noise"
    net, _ = walk_of(m, 0.5)
    visited = list(places(net))
    line = 'indices = [T * k // steps - 1 for k in range(steps, 0, -1)]'
    need(max(visited) >= 10, f'the network was given the times {visited[:3]} and so on',
         'It has learned the indices of the chain of T steps, and not the number of the stride.',
         line)
    need(visited == sorted(visited, reverse=True) and visited[0] > 0.9 * m.T,
         f'the walk begins at index {visited[0]} and goes on to {visited[1:3]}',
         'It begins with pure noise, at T - 1, and the index falls.', line)
    need(len(visited) == 10, f'10 steps were asked for, and {len(visited)} taken',
         'With steps=10 the walk visits ten of the T indices.', line)
    follows(m, net, 0.5, 'With strides beta is 1 - abar / next_abar. The spread is the root of '
            "the posterior's variance; next_abar belongs to the index where the walk goes.",
            'spread = (beta * (1 - next_abar) / (1 - abar)).sqrt()')


@probe('T', 'alpha_bars', 'sample', 'velocity')
def ending(m: Any) -> None:
    "the last step adds no noise"
    _, out = walk_of(m, 0.5)
    mean, spread = float(out.mean()), float(out.std())
    need(spread < 0.005, f'a plain grey image has noise of standard deviation {spread:.3f}',
         'The last step leads to the image itself, so no noise is added there.',
         'spread is 0 where next_abar is 1')
    need(abs(mean - 0.5) < 0.01, f'the network said 0.5, and the walk ends at {mean:.2f}',
         'After the last index comes the clean image, with alpha-bar 1.',
         'next_abar = ABARS[after] if after >= 0 else torch.tensor(1.0)')


@probe('T', 'alpha_bars', 'sample', 'velocity')
def clip(m: Any) -> None:
    "the predicted image is clipped before each step"
    net, out = walk_of(m, 3.0)
    idea = 'No image has a pixel beyond 1. Clip what the network says, before the step is taken.'
    need(float(out.max()) < 1.01, f'a pixel of {float(out.max()):.1f} came out', idea,
         'to_x0(x, t, v).clamp(-1, 1)')
    follows(m, net, 1.0, idea, 'to_x0(x, t, v).clamp(-1, 1)')


@probe('T', 'alpha_bars', 'sample', 'velocity')
def mode(m: Any) -> None:
    "the network is asked in eval mode and without gradients"
    net, _ = walk_of(m, 0.5)
    need(not net.trained, 'the network was asked in train mode',
         'In train mode dropout is on, and norms may look at the batch.', 'net.eval()')
    need(not net.graded, 'gradients were kept all along the walk',
         'They cost memory, and nobody needs them here.', '@torch.no_grad()')


@probe('T', 'alpha_bars', 'sample', 'velocity', 'NULL')
def guidance(m: Any) -> None:
    "guidance goes from the answer for no class through that for the class, and beyond"
    def drawn(scale: float) -> float:
        worth = lambda y: torch.where(y == m.NULL, 0.1, torch.where(y == 3, 0.2, -0.5))
        y = torch.full((8,), 3)
        return float(m.sample(Oracle(m, worth), y, guidance=scale, steps=5).mean())
    idea = 'Begin at the answer without a class, and go twice as far as to the one with it.'
    line = 'uncond + guidance * (cond - uncond)'
    found, one = drawn(2.0), drawn(1.0)
    need(not about(found, 0.1, 0.01), 'the label that was asked for has no effect', idea, line)
    need(not about(found, 0.2, 0.01), 'guidance 2 does the same as guidance 1', idea, line)
    need(not about(found, 0.0, 0.01), 'guidance leads away from the class', idea, line)
    need(about(found, 0.3, 0.01) and about(one, 0.2, 0.01),
         f'0.1 without and 0.2 with the class give {found:.2f} at guidance 2, not 0.30, '
         f'and {one:.2f} at guidance 1, not 0.20', idea, line)


@probe('T', 'alpha_bars', 'sample', 'velocity')
def ddim(m: Any) -> None:
    "with eta=0 all noise is that of the beginning"
    need('eta' in inspect.signature(m.sample).parameters, 'sample takes no eta yet',
         'Give it an argument, 1 by default, so that Algorithm 2 stays what it was.',
         'def sample(net, y, guidance=2.0, steps=50, eta=1.0)')
    net, _ = walk_of(m, 0.5, eta=0.0)
    begin, *others = [x.flatten() for x in places(net).values()]
    alike = min(float(torch.corrcoef(torch.stack([begin, x]))[0, 1]) for x in others)
    need(alike > 0.99, 'with eta=0 fresh noise still comes in',
         'All that is left is the noise that belongs to the clipped image.',
         'fresh = eta**2 * (1 - next_abar) / (1 - abar) * (1 - abar / next_abar)')
    idea = 'Clip first. Then find the noise anew that makes x of the clipped image.'
    line = 'eps = (x - signal * x0) / sigma, with the clipped x0'
    follows(m, net, 0.5, idea, line)
    follows(m, walk_of(m, 3.0, eta=0.0)[0], 1.0, idea, line)


class Killed(Exception):
    "What ends a training in its midst."


@probe('loss', 'UNet', 'train')
def resume(m: Any) -> None:
    "a training that was killed goes on as if nothing had happened"
    need('save' in inspect.signature(m.train).parameters, 'train takes no file to save to yet',
         'Give it an argument, None by default. Where the file is there, go on from it.',
         'def train(steps=650, log=print_line, save=None)')

    def kill(step: int, *more: Any) -> None:
        if step == 70:
            raise Killed

    later: list[int] = []
    usual, m.UNet = m.UNet, Tiny
    try:
        with TemporaryDirectory() as folder:
            whole, killed = Path(folder, 'whole.pt'), Path(folder, 'killed.pt')
            right = m.train(steps=120, log=lambda *line: None, save=str(whole))
            with suppress(Killed):
                m.train(steps=120, log=kill, save=str(killed))
            need(killed.exists(), 'nothing was saved before step 70', 'Save every 50 steps.',
                 'if save and (step + 1) % 50 == 0')
            found = m.train(steps=120, log=lambda step, *more: later.append(step), save=str(killed))
    finally:
        m.UNet = usual
    need(later and later[0] > 1, 'after a kill it begins again at step 1',
         'Keep the step, and begin the loop there.', "for step in range(kept['step'], steps)")
    need(torch.equal(flat(found), flat(right)), 'after a kill it ends with other weights',
         'Keep all that changes: network, average, optimizer, step, and the random numbers.',
         "'optimizer': optimizer.state_dict(), 'random': torch.get_rng_state()")


def load_file(path: Path) -> Any:
    "The reader's file as a module, as if it was imported."
    spec = importlib.util.spec_from_file_location('mine', path)
    module = importlib.util.module_from_spec(spec)              # type: ignore[arg-type]
    spec.loader.exec_module(module)                             # type: ignore[union-attr]
    return module


def where(error: BaseException, path: Path) -> str:
    "An error in the reader's file as one sentence with the line."
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return f'line {error.lineno}: {error.msg}'
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path)]
    place = f'line {lines[-1]}: ' if lines else ''
    return f'{place}{type(error).__name__}: {error}'


FIRST = ('schedule', 'jump', 'question', 'walk')        # where one is wrong, later ones only follow


def report(path: str, names: list[str]) -> None:
    "Print what the probes of these names find, [name, state, hints], as one line of JSON."
    found, file = [], Path(path)
    try:
        m = load_file(file)
    except BaseException as error:
        print('\n' + json.dumps([[names[0], 'hint', [where(error, file), '', '']]]))
        return
    for name in names:
        missing = [need for need in NEEDS[name] if not hasattr(m, need)]
        try:
            state, hints = ('waiting', missing) if missing else ('right', [PROBES[name].__doc__])
            missing or PROBES[name](m)
        except Mistake as mistake:
            state, hints = 'hint', list(mistake.args)
        except Exception as error:
            state, hints = 'hint', [where(error, file), '', '']
        found.append([name, state, hints])
        if state == 'hint' and name in FIRST:
            break
    print('\n' + json.dumps(found))


Finding = tuple[str, str, list[str]]            # a probe's name; right, waiting or hint; the words


def examine(names: list[str], path: str | Path = 'mine.py', limit: float = 120) -> list[Finding]:
    "What each of these probes finds in a file, within `limit` seconds altogether."
    if not Path(path).exists():
        return [(name, 'waiting', [str(path)]) for name in names]
    program = 'import sys; from ddpm_course.lesson.mine import report; report(sys.argv[1], '
    words = [sys.executable, '-c', program + f'{names})', str(Path(path).resolve())]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=limit)
    except subprocess.TimeoutExpired:
        return [(names[0], 'hint', [
            f'the file was not done after {limit:g} seconds', 'Does it train as soon as it is '
            'imported?', "the training stands under the line with __name__ == '__main__'"])]
    try:
        return [(name, state, hints) for name, state, hints in
                json.loads(done.stdout.strip().splitlines()[-1])]
    except (IndexError, ValueError):
        said = (done.stderr.strip().splitlines() or ['without a word'])[-1]
        return [(names[0], 'hint', [f'the file ended early: {said}', '', ''])]


@dataclass(frozen=True)
class Report:
    "What `check_mine` shows: sentences in colour on a page, plain lines elsewhere."
    findings: list[Finding]
    path: str

    def sentence(self, finding: Finding) -> Sentence:
        name, state, words = finding
        file = Path(self.path).name
        text = {'right': f'{words[0]}.', 'hint': f'{words[0]} ({name}).',
                'waiting': f'no answer yet: there is no {file} in this folder.'
                           if words == [self.path] else
                           f'no answer yet: {file} has no {" and no ".join(words)}.'}[state]
        return Sentence(state, text)

    def __repr__(self) -> str:
        return '\n'.join(repr(self.sentence(finding)) for finding in self.findings)

    def _repr_html_(self) -> str:
        return ''.join(self.sentence(finding)._repr_html_() + folded(*finding[1:])
                       for finding in self.findings)


def folded(state: str, words: list[str]) -> str:
    "The idea of a hint, and the line, behind a click each."
    if state != 'hint' or not words[1]:
        return ''
    line = f'<details><summary>the line</summary><code>{html.escape(words[2])}</code></details>'
    return f'<details><summary>the idea</summary>{html.escape(words[1])}{line}</details>'


def check_mine(*names: str, path: str | Path = 'mine.py', limit: float = 120) -> None:
    """Show what probes find in the reader's file, as one sentence: the first mistake, what is
    missing, or that all is right. Without names, all probes, a line for each."""
    from IPython.display import display
    found = examine(list(names or PROBES), path, limit)
    order = {'hint': 0, 'waiting': 1, 'right': 2}
    first = min(found, key=lambda finding: order[finding[1]])
    if names and first[1] == 'right':
        first = (names[0], 'right', ['; '.join(words[0] for _, _, words in found)])
    lines = [first] if names or found[0][2] == [str(path)] else found
    display(Report(lines, str(path)))
