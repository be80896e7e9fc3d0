from dataclasses import replace

import numpy as np
import torch

from ...config import PRESETS, RunConfig, SamplingConfig, override
from ...data.sets import batch_indices
from ..answers import Answer, Checks
from ...losses import OBJECTIVES
from ...model import Model
from ...sampling import sample
from ...schedules import cosine


def check_steps_for(f: Answer) -> None:
    """Epochs compare runs on data sets of different sizes; steps do not.

    How many images does one step see, in all processes together?

    After k steps `batch * k` images were seen, and `epochs * n` are wanted. Slices add none.

    `-(-epochs * n // config.training.batch)`, which rounds up.
    """
    found = f(override(RunConfig(), batch=6, accumulate=2), 10, 4, 3)
    for usual, hint in (((40,), 'a step sees a batch of images, and not one'),
                        ((2, 3), '`batch` is already that of all processes together'),
                        ((20,), 'what one process does not see, the others do'),
                        ((4, 13, 14), 'slices are parts of the batch: they add no images'),
                        ((6,), 'after 6 steps 36 visits are made, and not yet 40')):
        assert found not in usual, hint
    assert isinstance(found, int), f'a run makes whole steps: an int, not {found!r}'

    def average(steps: int) -> float:               # counted, image by image
        seen = np.concatenate([batch_indices(10, 6, step, 0) for step in range(steps)])
        return np.bincount(seen, minlength=10).mean()
    right = next(steps for steps in range(1, 100) if average(steps) >= 4)
    assert found == right, f'the images have been seen four times after {right} steps, not {found}'
    assert f(PRESETS['cifar10'], 50_000, 2048, 1) == 800_000, (
        '2,048 epochs of cifar10 are 800,000 steps, and not one more')


def check_refuse_long_average(f: Answer) -> None:
    """A run of your own that is too short for its average is refused before it starts.

    The average is over how many steps? Only a number of steps compares with steps.

    It is over 1 / (1 - ema) steps. Where ema is 1 that is no number: compare without dividing.

    `if not t.ema_warmup and (1 - t.ema) * t.steps < 1: raise ValueError(...)`, `t` the training.
    """
    def run(ema: float, steps: int) -> RunConfig:
        return override(RunConfig(), ema=ema, steps=steps, ema_warmup=False)

    def answer(config: RunConfig) -> RunConfig | str | None:
        "What f gives back; its sentence, where it refuses."
        try:
            return f(config)
        except ValueError as error:
            return str(error)
        except ZeroDivisionError:
            raise AssertionError('for ema = 1 there is no 1 / (1 - ema): that average never moves, '
                                 'and is to be refused as the others are') from None

    fits, long = run(0.995, 650), run(0.9999, 650)
    refused = answer(long)                          # asked first: what is written raises here
    assert isinstance(answer(fits), str | RunConfig), 'where it fits, give the RunConfig back'
    assert answer(fits) == fits, '0.995 averages over 200 steps: they fit into 650'
    assert isinstance(refused, str), (
        '0.9999 averages over 10,000 steps, and passes in a run of 650: what was compared?')
    assert all(name in refused for name in ('ema', 'steps')), (
        f'{refused!r} does not say which two settings do not fit: name ema and steps')
    assert answer(PRESETS['cifar10']) == PRESETS['cifar10'], (
        'cifar10 has 0.9999 as well, but 800,000 steps: 10,000 fit')
    assert answer(run(0.75, 4)) == run(0.75, 4), 'an average over 4 steps fits into 4'
    assert isinstance(answer(run(0.75, 3)), str), 'an average over 4 steps does not fit into 3'
    assert isinstance(answer(run(1.0, 650)), str), 'ema = 1 passes: that average never moves'
    warm = override(long, ema_warmup=True)
    assert answer(warm) == warm, 'with the warm-up the average begins short: it should pass'


def check_compare(f: Answer) -> None:
    """A comparison in which one thing changes shows what that thing does.

    Which settings must stay as they are from row to row? All but one.

    `sample(model, [digit], n, how)` draws by keys: the same seed and class are the same noise.

    `torch.cat([sample(model, [digit], n, replace(how, guidance=s)) for s in numbers])`, and a
    ValueError of `float` becomes one that names --scales.
    """
    def network(x: torch.Tensor, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x * (0.8 + 0.1 * y.view(-1, 1, 1, 1))            # another answer for each class

    model = Model(network, cosine(10), OBJECTIVES['eps'], (1, 2, 2), classes=('a', 'b'),
                  can_guide=True)
    how = SamplingConfig(steps=3, seed=5)
    found = f(model, '1,2,4', 1, 2, how)
    assert found.shape == (6, 1, 2, 2), f'three rows of two images, not {tuple(found.shape)}'
    rows = [sample(model, [1], 2, replace(how, guidance=scale)) for scale in (1.0, 2.0, 4.0)]
    right = torch.cat(rows)
    alike = lambda a, b: torch.allclose(a, b, atol=1e-5)
    assert not alike(found[:2], found[2:4]), 'the rows are all alike: is each scale passed on?'
    assert not alike(found, torch.stack(rows, 1).flatten(0, 1)), (
        'row by row: all images of the first scale come first')
    assert alike(found[:2], right[:2]), (
        'the first row is what `sample` draws of this class at scale 1, with the seed of `how`')
    assert alike(found, right), 'from row to row more than the scale has changed: the seed is one'
    for typed in ('1,x', '', '1;2'):
        try:
            f(model, typed, 1, 2, how)
        except ValueError as error:
            assert '--scales' in str(error) and '\n' not in str(error), (
                f'{str(error)!r}: one sentence, in which --scales is named')
        else:
            raise AssertionError(f'{typed!r} is no list of numbers, and nothing was raised')


check = Checks(check_steps_for, check_refuse_long_average, check_compare)
