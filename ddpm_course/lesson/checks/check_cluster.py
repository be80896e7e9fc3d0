from math import isclose

import numpy as np

from ..answers import Answer, Checks


def check_diagnosis(f: Answer) -> None:
    """What one process decides by itself, the others must learn before anybody acts on it.

    Which of the three stands in another call than the other two?

    One has left the loop. By which `if`, and do all processes see the same number in it?

    The one in `barrier` left by its own loss. All must decide by the same, averaged one.
    """
    answer = f()
    rank, letter = answer
    assert rank in (0, 1, 2), f'there are the ranks 0, 1 and 2, and not {rank!r}'
    assert rank == 1, f'rank {rank} stands where another one stands as well: look for the odd one'
    assert letter != 'A', 'rank 1 is not slow, it waits: an hour later it stands there, too'
    assert letter != 'B', 'the same numbers come back with the processes, and the same hang'
    assert letter != 'D', 'rank 1 has left the loop: in a barrier within it, it would be missing'
    assert letter == 'C', f'one of the letters A, B, C, D, and not {letter!r}'


def check_budget(f: Answer) -> None:
    """A cluster counts GPU-hours: many GPUs at low efficiency are dear, and hardly faster.

    How many images does the run train in all, and how many a second do all GPUs together?

    Hours are images over images a second, over 3600. GPU-hours are hours times GPUs.

    `hours = steps * batch / (gpus * rate * efficiency) / 3600`; of `hours / limit` round up.
    """
    answer = f(90_000, 64, 4, 500, 0.5, 1)
    assert len(answer) == 4, f'four numbers are asked for, not {answer!r}'
    images, hours, gpu_hours, jobs = answer
    assert images == 16, f'64 images on 4 GPUs are 16 for each, not {images}'
    assert not isclose(hours, 6.4), 'the four GPUs share the work, but at half of the ideal speed'
    assert not isclose(hours, 0.8), '0.8 hours would be at the ideal speed, and with half of it?'
    assert isclose(hours, 1.6), (
        f'5,760,000 images at 1,000 a second are 1.6 hours, not {hours}')
    assert isclose(gpu_hours, 6.4), f'four GPUs for 1.6 hours are 6.4 GPU-hours, not {gpu_hours}'
    assert jobs == 2, f'1.6 hours need two jobs of an hour, not {jobs}'
    jobs = f(90_000, 64, 4, 500, 0.5, 2)[3]
    assert jobs == 1, f'1.6 hours fit into one job of two hours, and need not {jobs}'


def check_slices_for(f: Answer) -> None:
    """With slices the same batch runs on fewer GPUs: slower, and the same run.

    How many images does a GPU hold at a time, with `accumulate` slices of its part?

    The largest slice has batch / (gpus * accumulate) images, rounded up: at most `fits`.

    `-(-batch // (gpus * fits))`, which rounds up.
    """
    for batch, gpus, fits in ((2048, 16, 128), (2048, 8, 128), (100, 3, 8), (64, 4, 100)):
        found = f(batch, gpus, fits)
        case = f'{batch} images on {gpus} GPUs, {fits} fit: '
        assert isinstance(found, int) and found >= 1, f'{case}{found!r} is no number of slices'
        largest = {k: max(map(len, np.array_split(range(batch), gpus * k)))
                   for k in {found, max(1, found - 1)}}
        assert largest[found] <= fits, f'{case}with {found} slices a GPU holds {largest[found]}'
        assert found == 1 or largest[found - 1] > fits, f'{case}{found - 1} slices are enough'


check = Checks(check_diagnosis, check_budget, check_slices_for)
