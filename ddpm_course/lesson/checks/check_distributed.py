import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import Tensor

from ..answers import Answer, Checks

SYMPTOMS = {                            # of each letter: its cause, and where it shows
    'A': (6, 'the gradient, half of the healthy one'),
    'B': (3, 'the noise, the same on both ranks'),
    'C': (5, 'the average, which has moved on one rank only'),
    'D': (1, 'the images, in the same order again'),
    'E': (2, 'the weights, which differ between the ranks'), 'F': (4, 'the steps, half as many')}


def check_causes(f: Answer) -> None:
    """A few numbers from every rank name a fault that the loss does not show.

    Compare each row with the healthy one: in which column do you see it first?

    What should be equal on both ranks: weights and average. What should not: noise, images.

    A halves the gradient, which is cause 6; so begin `return {'A': 6, ...}`.
    """
    answer = f()
    assert set(answer) == set(SYMPTOMS), 'a number for each of the letters A to F'
    for letter, (cause, symptom) in SYMPTOMS.items():
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


def check_bucketed(f: Answer) -> None:
    """A few large messages that travel together cost less than many small ones in a row.

    When is a bucket full? Before the gradient that would bring it over `most`.

    First all vectors are on their way; then wait for one, cut it up, and put its parts back.

    `handles = [send(v) for v in vectors]`; later `g.copy_(part.view_as(g) / world)`.
    """
    shapes = [(3,), (2, 2), (2,), (3, 3), (1,)]
    gradients = [torch.full(s, float(k + 1)) for k, s in enumerate(shapes)]
    sent, calls = [], []

    def send(vector: Tensor) -> SimpleNamespace:
        "To a second process, whose gradients are three times ours; the sum is there after `wait`."
        sent.append(vector.numel())
        calls.append('send')

        def wait() -> None:
            calls.append('wait')
            vector.mul_(4)
        return SimpleNamespace(wait=wait)
    f(gradients, send, 2, 8)
    assert sent == [7, 2, 9, 1], f'messages of [7, 2, 9, 1] numbers were expected, not {sent}'
    assert calls == ['send'] * 4 + ['wait'] * 4, (
        f'send everything before you wait for anything, and wait for each: {calls}')
    means = [g.unique().tolist() for g in gradients]    # ours and three times ours: twice ours
    assert means == [[2 * k + 2.0] for k in range(5)], f'2, 4, 6, 8, 10 are right, not {means}'
    assert [tuple(g.shape) for g in gradients] == shapes, 'the shapes have changed'


def losses(path: Path, world: int, until: int, file: str, printed: int) -> list[float]:
    "The losses that `torchrun PATH UNTIL FILE` prints, on the CPU: so many."
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
                                   'one process prints, once for each epoch that it trains')
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

    The batch, its t and its noise follow from epoch and step; each process keeps its share.

    `loss = each.sum() * world / len(chosen)`, with a `torch.Generator` seeded by epoch and step.
    """
    name = f()
    path = Path(name).resolve()
    assert path.is_file(), f'there is no {path}'
    folder = Path(tempfile.mkdtemp())
    place = {world: str(folder / f'{world}.pt') for world in (1, 2, 3)}
    two = losses(path, 2, 2, place[2], 2)
    saved = {2: torch.load(place[2], weights_only=False)}
    assert {'network', 'average'} <= set(saved[2]), "'network' and 'average' belong into FILE"
    assert not same(saved[2]['average'], saved[2]['network']), 'the average is the network itself'
    one = losses(path, 1, 2, place[1], 2)
    saved[1] = torch.load(place[1], weights_only=False)
    far = apart(one, two)
    assert far < 0.01, f'one process and two are {far:.2f} % apart: what depends on the rank?'
    assert same(saved[1]['average'], saved[2]['average']), 'the averages of one and two differ'
    three = losses(path, 3, 1, place[3], 1)
    assert apart(one[:1], three) < 0.01, 'three processes are another run: do shares count alike?'
    rest = losses(path, 1, 2, place[3], 1)
    assert apart(one[1:], rest) < 0.01, 'after a stop the losses are others: what starts anew?'
    last = torch.load(place[3], weights_only=False)['average']
    assert same(saved[1]['average'], last), 'after a stop the average is another: is it loaded?'


check = Checks(check_causes, check_hanging, check_bucketed, check_script)
