import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from torch import Tensor

from ..answers import Answer, Checks

CAUSES = {                            # of each letter: its cause, and where it shows
    'A': (4, 'the noise, the same in both processes'),
    'B': (2, 'the gradient, half as large as it should be'),
    'C': (6, 'the noise after the stop, which is that of step 0'),
    'D': (0, 'the averaged weights, which are those of one process'),
    'E': (1, 'the weights, which differ between the processes'),
    'F': (5, 'the average, which has moved in one process only'),
    'G': (3, 'the images, the same in both processes')}


def check_causes(f: Answer) -> None:
    """A few numbers from every process name a mistake that the loss does not show.

    Compare each row with that of D: in which column do you see a difference first?

    Equal in both processes: gradient, weights, average. Not equal: images and noise.

    B halves the gradient, which is mistake 2; so begin `return {'B': 2, 'D': 0, ...}`.
    """
    answer = f()
    assert set(answer) == set(CAUSES), 'a number for each of the letters A to G'
    for letter, (cause, symptom) in CAUSES.items():
        assert answer[letter] == cause, f'{letter}: look at {symptom}'


def check_hanging(f: Answer) -> None:
    """A collective that some do not call makes all others wait; nothing else does.

    Which of the calls are collectives? To print and to save are none.

    For each collective: do all four processes call it, equally often, whatever their data are?

    Three of the five can hang, by rank, by share and by loss: `return 'ACD'`.
    """
    letters = f()
    for letter, why in {'A': 'only rank 0 calls it', 'C': 'rank 3 sends 99 times, the others 100',
                        'D': 'one process may skip a backward that the others wait in'}.items():
        assert letter in letters, f'{letter} hangs: {why}'
    for letter, why in {'B': 'all call it, one prints', 'E': 'to save is no collective'}.items():
        assert letter not in letters, f'{letter} does not hang: {why}'


def losses(path: Path, world: int, until: int, file: str, printed: int) -> list[float]:
    "The losses that `torchrun PATH STEPS FILE` prints, on the CPU: so many."
    told = {'PYTHONPATH': os.pathsep.join(filter(None, sys.path)), 'CUDA_VISIBLE_DEVICES': '',
            'OMP_NUM_THREADS': '1', 'TORCH_CPP_LOG_LEVEL': 'ERROR'}
    command = [sys.executable, '-m', 'torch.distributed.run', '--standalone',
               f'--nproc-per-node={world}', str(path), str(until), file]
    process = subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               cwd=path.parent, env={**os.environ, **told})
    try:
        said, errors = process.communicate(timeout=120)
    except subprocess.TimeoutExpired:
        process.terminate()             # the agent ends its workers
        raise AssertionError('it has not ended after two minutes: do all call the same '
                             'collectives?') from None
    why = [line for line in errors.splitlines() if re.search(r'Error\b.*:', line)]
    assert process.returncode == 0, f'the script ended with: {[*why, errors[-200:]][0]}'
    lines = [json.loads(found)['loss'] for found in re.findall(r'{[^{}]*}', said)]
    assert len(lines) == printed, (f'{printed} lines with a loss were expected, not {len(lines)}: '
                                   'one process prints, once for each step that it trains')
    return lines


def apart(a: list[float], b: list[float]) -> float:
    "The largest relative difference, in percent."
    return 100 * max(abs(x / y - 1) for x, y in zip(a, b, strict=True))


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    "Whether two sets of weights are equal but for rounding."
    return all(torch.allclose(a[name].double(), b[name].double(), 1e-3, 1e-3) for name in b)


def check_script(f: Answer) -> None:
    """One run on 1, 2 or 3 processes, stopped or not: your script trains as it should.

    Which numbers of your script depend on the rank, or on how many processes there are?

    The batch, its t and its noise follow from the step alone; each process keeps its share.

    `loss = each.sum() * world / batch`, with a `torch.Generator` seeded by the step.
    """
    name = f()
    path = Path(name).resolve()
    assert path.is_file(), f'there is no {path}'
    folder = Path(tempfile.mkdtemp())
    place = {world: str(folder / f'{world}.pt') for world in (1, 2, 3)}
    two = losses(path, 2, 6, place[2], 6)
    saved = {2: torch.load(place[2], weights_only=False)}
    assert {'network', 'average'} <= set(saved[2]), "'network' and 'average' belong into FILE"
    assert not same(saved[2]['average'], saved[2]['network']), 'the average is the network itself'
    one = losses(path, 1, 6, place[1], 6)
    saved[1] = torch.load(place[1], weights_only=False)
    far = apart(one, two)
    assert far < 0.01, f'one process and two are {far:.2f} % apart: what depends on the rank?'
    assert same(saved[1]['average'], saved[2]['average']), 'the averages of one and two differ'
    three = losses(path, 3, 3, place[3], 3)
    assert apart(one[:3], three) < 0.01, 'three processes are another run: do shares count alike?'
    rest = losses(path, 1, 6, place[3], 3)
    assert apart(one[3:], rest) < 0.01, 'after a stop the losses are others: what starts anew?'
    last = torch.load(place[3], weights_only=False)['average']
    assert same(saved[1]['average'], last), 'after a stop the average is another: is it loaded?'


check = Checks(check_causes, check_hanging, check_script)
