import torch
from torch import nn
from torch.nn import functional as F

from ..answers import Answer, Checks
from ...unet import Downsample, way_down, way_up


def right(widths: list[int], blocks: int) -> list[tuple[int, int]]:
    "Channels in and out of each stage going up, as `way_up` lays them out."
    pairs = []

    def stage(level: int, c_in: int, c_out: int) -> nn.Module:
        pairs.append((c_in, c_out))
        return nn.Identity()
    _, skips = way_down(stage, widths, blocks, 2 ** len(widths))
    pairs.clear()                                   # only those of the way up are asked for
    way_up(stage, widths, blocks, [widths[0], *skips])
    return pairs


def check_up_channels(f: Answer) -> None:
    """This list is all that has to be right for the skips to fit.

    Write down what the way down puts on the stack, from the bottom, for 10, 20 and 40.

    The stack: first convolution, then of each level its stages and its halving layer. Take the top.

    `skips = [widths[0]]`, then `[width] * (blocks + halves)` a level; in goes `c + skips.pop()`.
    """
    try:
        found = f([10, 20, 40], 1)
    except IndexError:
        found = 'empty'
    assert found != 'empty', (                          # IndexError: no skip was left
        'the stack ran empty (or an index ran over): stages, halving layers and the first '
        'convolution all fill it')
    found = [tuple(pair) for pair in found]
    ins, outs = [pair[0] for pair in found], [pair[1] for pair in found]
    assert len(found) == 6, (
        f'{len(found)} stages; three levels have six going up, each one more than going down')
    assert outs == [40, 40, 20, 20, 10, 10], (
        f'two stages per level, from the lowest level up, do not put out {outs}')
    assert ins[0] != 40, 'into the first stage go 40 channels from below and those of a skip'
    assert ins[0] == 80, (
        f'the first stage takes the newest skip, of 40 channels: not {ins[0] - 40}')
    assert (ins[1], ins[3]) == (60, 30), (
        f'stages 2 and 4 take skips of halving layers, not of {ins[1] - 40} and {ins[3] - 20} '
        'channels: a halving layer keeps the channels of the level that it leaves')
    assert (ins[2], ins[4]) == (60, 30), (
        f'{ins[2]} and {ins[4]} into the first stages of the upper levels: what comes from below '
        'still has the channels of the lower level')
    assert ins[5] == 20, f'the last stage takes the skip of the first convolution: not {ins[5]} in'
    for widths, blocks in (([128, 256, 256, 256], 2), ([16, 32, 64], 1), ([8], 3)):
        assert [tuple(pair) for pair in f(list(widths), blocks)] == right(widths, blocks), (
            f'right for 10, 20, 40 and one block, wrong for {widths} and {blocks}')


def check_same_padding(f: Answer) -> None:
    """With it you can load weights that were trained in TensorFlow.

    How many pixels does the last output need, and how many are there?

    The last kernel begins at pixel (outputs - 1) * stride. What is missing at the end are zeros.

    `zeros = max((outputs - 1) * stride + kernel - size, 0)`; half before, the rest after.
    """
    for size, kernel, stride in ((16, 3, 2), (7, 3, 2), (32, 3, 1), (8, 1, 2), (17, 5, 3)):
        before, after = f(size, kernel, stride)
        case = f'{size} pixels, kernel {kernel}, stride {stride}: {before} and {after} zeros'
        made = lambda zeros, room=size - kernel, step=stride: (room + zeros) // step + 1
        wanted = -(-size // stride)                     # rounded up
        assert min(before, after) >= 0, f'{case}: no pixels are taken away'
        assert made(before + after) == wanted, (
            f'{case} make {made(before + after)} outputs, SAME makes {wanted}')
        assert before + after == 0 or made(before + after - 1) < wanted, (
            f'{case}: one zero fewer makes as many outputs, and SAME adds no more than it needs')
        assert after - before in (0, 1), (
            f'{case}: half stand on each side, and an odd one stands after the pixels')
    down, (before, after) = Downsample(2), f(16, 3, 2)
    x = torch.randn(1, 2, 16, 16, generator=torch.Generator().manual_seed(0))
    padded = F.pad(x, (before, after, before, after))
    with torch.no_grad():
        ours = F.conv2d(padded, down.conv.weight, down.conv.bias, stride=2)
        assert torch.allclose(ours, down(x, None), atol=1e-5), '`Downsample` finds something else'


check = Checks(check_up_channels, check_same_padding)
