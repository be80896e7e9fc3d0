import numpy as np

from ..answers import Answer, Checks


def check_my_difference(f: Answer) -> None:
    """You can compare two models on the same images, with an error that counts only chance.

    What was fixed is not chance: both sides see the same image, and the number of each class
    was chosen.

    Subtract image by image, then look at the scatter of the differences inside each class.

    With `x` the differences of one class, `len(x) * x.var(ddof=1)`; the root of their sum, over n.
    """
    dice, labels = np.random.default_rng(0), np.repeat([0, 1, 2], [4, 12, 24])
    a = 1 + 0.3 * dice.standard_normal(40)
    found = f(a, a - 0.5, labels)
    d, error = found
    assert abs(d - 0.5) < 1e-9, (
        f'b is lower by 0.5 everywhere, so a - b is 0.5 on average, not {d:.4f}')
    assert abs(error) < 1e-9, (
        f'b is lower by exactly 0.5 for every image, and your error is {error:.3f}: that is the '
        'error of two runs added as if independent. The images are the same on both sides')
    d, error = f(a, a - 0.5 * labels, labels)
    assert abs(d - 0.75) < 1e-9, (
        f'0, 0.5 and 1 for 4, 12 and 24 images are 0.75 on average, not {d:.4f}')
    assert abs(error) < 1e-9, (
        f'inside each class all differences are equal, and your error is {error:.3f}: how many '
        'images a class has was fixed, so the scatter between classes is no chance')
    b = a - 0.1 - 0.2 * labels - (0.1 + 0.2 * labels) * dice.standard_normal(40)
    within = [(a - b)[labels == c] for c in range(3)]
    right = sum(len(x) * x.var(ddof=1) for x in within)**0.5 / 40
    d, error = f(a, b, labels)
    mean = (a - b).mean()
    assert abs(d - mean) < 1e-9, f'the mean over all images is {mean:.4f}, not {d:.4f}'
    assert abs(error - right) < 1e-9, (
        f'three classes of 4, 12 and 24 images: the error is {right:.4f}, not {error:.4f}. '
        'A class counts as often as it has images, and its variance is over n - 1')


check = Checks(check_my_difference)
