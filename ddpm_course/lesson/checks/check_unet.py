from ..answers import Answer, Checks


def right(widths: list[int], blocks: int) -> list[tuple[int, int]]:
    "Channels in and out of each stage going up, as `UNetParts` lays them out."
    skips = [widths[0]]
    for width in widths:
        skips += [width] * (blocks + 1)                 # its stages, and its halving layer
    skips.pop()                                         # the lowest level has none
    pairs, c = [], widths[-1]
    for width in reversed(widths):
        for _ in range(blocks + 1):
            pairs.append((c + skips.pop(), width))
            c = width
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


check = Checks(check_up_channels)
