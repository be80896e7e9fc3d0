import numpy as np

from ..answers import Answer, Checks
from ...data.sets import batch_indices


def check_steps_for(f: Answer) -> None:
    """Epochs compare runs on data sets of different sizes; steps do not.

    How many images does one step see?

    After k steps `batch * k` images were seen, and `epochs * images` are wanted.

    `-(-epochs * images // batch)`, which rounds up.
    """
    found = f(10, 4, 6)
    for usual, hint in ((40, 'a step sees a batch of images, and not one'),
                        (6, 'after 6 steps 36 images were seen, and not yet 40'),
                        (8, 'an epoch may end inside a batch: round up once, at the end')):
        assert found != usual, hint
    assert isinstance(found, int), f'a run makes whole steps: an int, not {found!r}'

    def average(steps: int) -> float:               # counted, image by image
        seen = np.concatenate([batch_indices(10, 6, step, 0) for step in range(steps)])
        return np.bincount(seen, minlength=10).mean()
    right = next(steps for steps in range(1, 100) if average(steps) >= 4)
    assert found == right, f'the images have been seen four times after {right} steps, not {found}'
    assert f(50_000, 2048, 128) == 800_000, (
        '2,048 epochs of CIFAR-10 are 800,000 steps, and not one more')


check = Checks(check_steps_for)
