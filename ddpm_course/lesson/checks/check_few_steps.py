from ..answers import Answer, Checks


def check_pays_from(f: Answer) -> None:
    """For a few digits it does not pay; for a service that draws all day it pays at once.

    What is spent before the first digit, and what does each digit save?

    Pairs: 40 each. Training: 3 for each image of each batch. A digit saves 40 minus `few`.

    `math.ceil((40 * walks + 3 * steps * batch) / (40 - few))`
    """
    found = f(600, 100, 64, 4)
    assert found != 1080, 'a digit of the student costs something, too'
    assert found != 667, 'the training is missing'
    assert found != 534, "the teacher's pairs are missing"
    assert found != 845, 'a training step goes forward and backward: three evaluations an image'
    assert found == 1200, f'for 600 pairs and 100 steps of 64 images it is not {found}'
    assert f(1, 0, 1, 1) == 2, 'round up: 40 evaluations, saved at 39 a digit, take two digits'


check = Checks(check_pays_from)
