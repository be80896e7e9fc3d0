import torch
from torch import Tensor

from ..answers import Answer, Checks
from ...share.graphs import wiring
from ...unet import Stage, UNet

FAULTS = {'A': 'time', 'B': 'skip', 'C': '', 'D': 'itself'}
GIVEN = torch.zeros(1, 1, 16, 16), torch.tensor([500]), torch.tensor([3])


class Miswired(UNet):
    "One of page 23's four networks: one is as page 08 builds it, and in three a connection is wrong."

    def __init__(self, name: str, seed: int = 0):
        super().__init__(1, 16, 16, (1, 2, 4), 1, (), dropout=0.0, num_classes=10, seed=seed)
        self.fault = FAULTS[name]

    def forward(self, xt: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        assert self.classes is not None
        time, label, h = self.time(t), self.classes(y, len(xt)), self.conv_in(xt)
        emb, skips = time + label, [h]
        for part in self.down:
            h = part(h, emb)
            skips.append(h)
        if self.fault == 'skip':
            skips[0] = skips[1]
        for part in self.middle:
            h = part(h, emb)
        for k, part in enumerate(self.up):
            if isinstance(part, Stage):
                skip = skips.pop()
                h = torch.cat([h, h if self.fault == 'itself' and k == 0 else skip], dim=1)
            h = part(h, label if self.fault == 'time' and k == 6 else emb)
        return self.out(h)


def of_images(name: str) -> dict[str, list[str]]:
    "What each part of a network reads, without the vectors."
    _, reads = wiring(Miswired(name), *GIVEN)
    vectors = {'time', 'classes'}
    return {part: [a for a in found if a not in vectors]
            for part, found in reads.items() if part not in vectors}


def check_skips(f: Answer) -> None:
    """One line now guards your network: `assert set(skips(reads)) == meant`.

    Of two parts that a stage reads, which one is the skip?

    A skip leads past parts that were computed from its beginning.

    The pair (a, b) is a skip if a is behind c for some c in `reads[b]`. What is behind c: each part
    that c reads, and all that is behind that.
    """
    diamond = {'a': [], 'b': ['a'], 'c': ['a'], 'd': ['b', 'c']}
    assert not f(diamond), f'{diamond} has two branches, and no skip leads past a part'
    right = set(zip(['conv_in', *(f'down.{k}' for k in range(5))],
                    ['up.7', 'up.6', 'up.4', 'up.3', 'up.1', 'up.0']))
    for name, expected in (('C', right), ('D', right - {('down.4', 'up.0')}),
                           ('B', right - {('conv_in', 'up.7')} | {('down.0', 'up.7')})):
        found = set(map(tuple, f(of_images(name))))
        assert found == expected, (
            f'network {name} has the skips {sorted(expected)}: yours lack '
            f'{sorted(expected - found)} and have {sorted(found - expected)} besides')


check = Checks(check_skips)
