import torch

from ..answers import Answer, Checks


def check_tinted(f: Answer) -> None:
    """A check that names one illness, and leaves the healthy alone, is worth having.

    What is one independent value here: a pixel, or a picture?

    The mean of each picture and channel first; then the difference of the means, and its error
    from the spread among pictures.

    `apart = (a.mean(0) - b.mean(0)).abs()`, and
    `error = (a.var(0) / len(a) + b.var(0) / len(b)).sqrt()`
    """
    dice = torch.Generator().manual_seed(0)

    def pictures(n: int, shift: tuple[float, ...] = (0, 0, 0), spread: float = 0.2) -> torch.Tensor:
        each = spread * torch.randn(n, 3, 1, 1, generator=dice)
        each = each - each.mean(0)                              # no chance among the means
        return each + torch.tensor(shift).view(3, 1, 1) + 0.1 * torch.randn(n, 3, 8, 8,
                                                                             generator=dice)
    real = pictures(500)
    assert not f(pictures(200), real), 'there is no tint, and it finds one'
    assert f(pictures(200, (0.3, 0.3, 0.3)), real), 'all three channels are too bright, and it '\
        'finds nothing'
    assert f(pictures(200, (-0.3, -0.3, -0.3)), real), 'too dark is a tint, too'
    assert f(pictures(200, (0.3, -0.3, 0)), real), 'red is up and green is down: do not take the '\
        'mean over channels'
    assert not f(pictures(5000, (0.05, 0, 0), 0.02), pictures(5000, (0, 0, 0), 0.02)), '0.05 is '\
        'far beyond chance with so many pictures, and nobody sees it: more than 0.1 is asked for'
    assert not f(pictures(6, (0.15, 0, 0), 0.5), real), 'six pictures that differ much among each '\
        'other: this may be chance. The pixels of one picture are not independent'


def check_rounds(f: Answer) -> None:
    """Most runs that are brought to you will have one of these.

    Begin with what you can say for certain: which of them do not know their class? Which have no
    black in them?

    Mirrored digits: look at 2, 5 and 7. Which rows are noise, and is there a digit in it?

    a flips, b last step, c average, d labels, e tint, f [0, 1], g place, h copies, i clip, j T
    """
    found = f()
    right = ['flips on digits', 'noise in the last step', 'an average that lags',
             'labels shuffled', 'a tint', 'data in [0, 1]', 'loop counter passed as timestep',
             'copies', 'no clip', 'T trained and T drawn differ']
    assert len(found) == 10, 'ten names are asked for'
    wrong = [letter for letter, mine, true in zip('abcdefghij', found, right) if mine != true]
    assert not wrong, f'{10 - len(wrong)} of ten; look again at {", ".join(wrong)}'


check = Checks(check_tinted, check_rounds)
