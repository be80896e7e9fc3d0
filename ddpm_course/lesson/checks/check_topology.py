import torch
from torch import Tensor

from ..answers import Answer, Checks
from ...run.runs import load_model
from ...share.graphs import AGraph, part_graph, record
from ...unet import ResidualBlock, Stage, UNet


def block_graph() -> AGraph:
    "The graph of a residual block: additions, and no skip."
    block = ResidualBlock(32, 64, dim=128, groups=8)
    given = {'x': torch.ones(1, 32, 8, 8), 'emb': torch.ones(1, 128)}
    return record(block, lambda x, emb: {'output': block(x, emb)}, given).raw


def unet_graph(blocks: int, widths: tuple[int, ...], attention: tuple[int, ...]) -> AGraph:
    "The graph of a small U-Net."
    net = UNet(1, 16, 16, widths, blocks, attention).eval()
    given = {'xt': torch.ones(1, 1, 16, 16), 't': torch.tensor([1])}
    return record(net, lambda xt, t: {'output': net(xt, t)}, given).raw


def guided_graph() -> AGraph:
    "As guidance does it: two images go in side by side, and the two answers are put together."
    net = load_model(precision='fp32').network

    def twice(xt: torch.Tensor, t: torch.Tensor, y: torch.Tensor) -> dict[str, torch.Tensor]:
        labels = torch.cat([y, torch.full_like(y, 10)])
        c, u = net(torch.cat([xt, xt]), torch.cat([t, t]), labels).chunk(2)
        return {'both': torch.cat([c, u], dim=1)}
    given = {'xt': torch.ones(1, 1, 16, 16), 't': torch.tensor([500]), 'y': torch.tensor([7])}
    return record(net, twice, given).raw


NETWORKS = dict(A=2, B=1, C=0, D=3)                         # the fault of each


class Faulty(UNet):
    "A small U-Net with one wire wrong, or with none: fault 0."

    def __init__(self, fault: int):
        super().__init__(1, 16, 16, (1, 2), 1, (), dropout=0.0)
        self.fault = fault

    def forward(self, xt: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        emb, h = self.time(t), self.conv_in(xt)
        skips = [h]
        for part in self.down:
            h = part(h, emb)
            skips.append(h)
        if self.fault == 1:
            skips[0] = skips[1]
        for part in self.middle:
            h = part(h, emb)
        for k, part in enumerate(self.up):
            if isinstance(part, Stage):
                skip = skips.pop()
                h = torch.cat([h, h if self.fault == 3 and k == 0 else skip], dim=1)
            h = part(h, torch.zeros_like(emb) if self.fault == 2 and k == 3 else emb)
        return self.out(h)


def drawings() -> list[AGraph]:
    "The contracted graphs of four networks, A to D."
    found = []
    for name, fault in NETWORKS.items():
        net = Faulty(fault).eval()
        asked = {'xt': torch.ones(1, 1, 16, 16), 't': torch.tensor([500])}
        seen = record(net, lambda xt, t, net=net: {'output': net(xt, t)}, asked)
        found.append(part_graph(seen))
        found[-1].graph_attr.update(label=name, labelloc='t')
    return found


def check_count_skips(f: Answer) -> None:
    """Skips, residual connections and guidance all bring two ways together: which is which?

    By which operation does a skip arrive, and by which a residual connection?

    Of the two tensors that a skip's concatenation joins, one was computed from the other.

    Count the `Cat` of whose two predecessors one is among all that the other was computed from.
    """
    found = f(block_graph())
    assert found == 0, f'the residual block has no skips, not {found}: an addition is no skip'
    for blocks, widths, attention in ((1, (1, 2), ()), (2, (1, 1, 2), (4,)), (2, (1,), (16,))):
        found = f(unet_graph(blocks, widths, attention))
        expected = len(widths) * (blocks + 1)
        assert found == expected, (
            f'{len(widths)} levels of {blocks} stages have {expected} skips, not {found}')
    found = f(guided_graph())
    assert found == 6, f'two answers at once still cross six skips, not {found}'


def check_faults(f: Answer) -> None:
    """Nothing but the drawing told you: the shapes fit, and the loss falls.

    Count the orange arrows of each drawing, and the pale ones. Which boxes have none?

    A stage without a pale arrow is not told the time. A part of the way down without an orange one
    gives no skip: where does the stage that should have it take its second tensor from?

    Two orange arrows from one part: 1. A stage without a pale arrow: 2. No orange one arrives: 3.
    """
    found = f()
    assert sorted(found) == list('ABCD') and sorted(found.values()) == [0, 1, 2, 3], (
        'each of A to D has a number, and each number from 0 to 3 belongs to one of them')
    looks = ['four orange arrows and eight pale ones: nothing is wrong there',
             'how many orange arrows leave each part of the way down?',
             'does a pale arrow arrive at every stage?',
             'does an orange arrow arrive at every stage?']
    for name, fault in NETWORKS.items():
        assert found[name] == fault, f'{name}: {looks[fault]}'


check = Checks(check_count_skips, check_faults)
