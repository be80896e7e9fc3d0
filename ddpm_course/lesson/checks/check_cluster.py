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


check = Checks(check_diagnosis, check_slices_for)
