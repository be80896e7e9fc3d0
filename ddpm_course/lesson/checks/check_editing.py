import torch
from torch import Tensor

from ...data.faces import load_faces
from ...data.sets import to_float
from ...draws import Purpose, normal
from ...editing import noised
from ..answers import Answer, Checks
from ...model import Model
from ...sampling import class_keys
from ...steps import ddim_step, sampling_indices

ROWS = dict(A=2, B=0, C=3, D=4, E=1)                        # the fault of each row


@torch.no_grad()
def completed(model: Model, picture: Tensor, y: int, fault: int) -> Tensor:
    "Eight faces of class y, whose upper part is drawn anew by a loop with this fault."
    keys, labels = class_keys([y], 8)
    drawn = (torch.arange(16) < 6)[:, None].expand(16, 16) ^ (fault == 1)
    stops = sampling_indices(model.schedule.T, 10)
    tops = [model.schedule.alpha_bars[t].item() for t in stops] + [1.0]

    def noise(purpose: Purpose, t: int, again: int = 0) -> Tensor:
        step = t + 1 + again * 2**32
        return normal(model.shape, 0, purpose, step, keys[:1] * 8 if fault == 3 else keys)
    x = noise(Purpose.SAMPLE, -1)
    for t, abar, abar_next in zip(stops, tops, tops[1:]):
        for again in range(3 if abar_next < 1 else 1):
            if again:
                x = noised(x, abar / abar_next, noise(Purpose.AGAIN, t, again))
            now = model.predict(x, t, labels)
            x = ddim_step(now.x0, now.eps, torch.zeros_like(x), abar, abar_next, 0.0)
            known = noised(picture, abar if fault == 4 else abar_next,
                           noise(Purpose.KNOWN, t, again))
            x = torch.where(drawn, x, x if fault == 2 and abar_next < 1 else known)
    return x


def sick(model: Model) -> Tensor:
    "A face and what is known of it, and below them the rows A to E, eight faces each."
    images = load_faces('test').images.spread(50)
    y = images.classes.index('hat')
    picture = to_float(images.pixels[images.labels == y][4:5])
    part = torch.where((torch.arange(16) < 6)[:, None], 0.3, picture)
    top = torch.cat([picture, part, torch.ones(6, 3, 16, 16)])
    return torch.cat([top, *(completed(model, picture[0], y, fault) for fault in ROWS.values())])


def check_faults(f: Answer) -> None:
    """The same look finds the fault in a loop of yours.

    What must be the same in all eight pictures of a row, and what must differ?

    The known part is exactly the one on top. The other part fits it, and is drawn anew each time.

    Equal pictures: 3. Noise in the known part: 4. Another lower part: 1. A seam: 2.
    """
    found = f()
    assert sorted(found) == list('ABCDE') and sorted(found.values()) == [0, 1, 2, 3, 4], (
        'each of the rows A to E has a number, and each number from 0 to 4 belongs to one row')
    looks = ['nothing is wrong there: the lower part is the known one, and the upper one fits',
             'which part is the known one?', 'do the two parts belong to one picture?',
             'compare the eight pictures with each other', 'look closely at the lower part']
    for row, fault in ROWS.items():
        assert found[row] == fault, f'row {row}: {looks[fault]}'


def check_put_back(f: Answer) -> None:
    """One number for each pixel: part of a picture may change a little, and another a lot.

    A pixel of strength 0.3 changes in the last 0.3 of the steps. May it change when 0.5 are left?

    A pixel waits while `left` is not less than its strength, and waiting pixels have their noise.

    `torch.where(left >= strength, noised(picture, abar, eps), x)`
    """
    strength = torch.linspace(0, 1, 16)[:, None].expand(16, 16)
    picture, x = torch.ones(1, 16, 16), torch.full((2, 1, 16, 16), 7.0)
    eps = normal((1, 16, 16), 0, Purpose.LESSON, 3, range(2))
    found = f(x, picture, strength, 0.5, 0.64, eps)
    assert found.shape == x.shape, f'the shape is that of x, {tuple(x.shape)}'
    waits, moves = found[:, :, :8], found[:, :, 8:]         # the upper rows have less than 0.5
    assert not (waits == 7).all(), 'a strength of 0 keeps a pixel, and yours lets it move'
    assert (moves == 7).all(), 'a pixel that has begun to move is what the sampler made of it'
    assert (waits != 7).all(), 'some pixels move too early: half of the steps are left'
    assert waits.std() > 0.01, 'the waiting pixels are clean: noise them to the level, too'
    assert not torch.equal(waits[0], waits[1]), 'each sample of a batch has noise of its own'
    assert torch.allclose(waits, noised(picture, 0.64, eps)[:, :, :8], atol=1e-6), (
        'the waiting pixels are sqrt(abar) picture + sqrt(1 - abar) eps')
    last = f(x, picture, strength, 0.0, 1.0, eps)
    assert (last[:, :, 0] == 1).all(), 'at the end, left = 0, a pixel of strength 0 is the picture'


check = Checks(check_faults, check_put_back)
