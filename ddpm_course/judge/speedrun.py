import hashlib
import inspect
import os
import runpy
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from ..data import sets
from ..data.sets import ASSETS, load_digits, to_uint8
from .evaluation import (
    allot_classes, extract, frechet_distance, load_judge, nearest_distances)


BAR, ASKED = 1.5, 0.95      # Fréchet distance, and share read as asked, that must be reached


@dataclass(frozen=True)
class Lap:
    "What a file reached with one seed."
    seed: int
    seconds: float      # from its first line to the last digit ...
    training: float     # ... of which it trained
    distance: float     # Fréchet, of its digits to the training digits
    asked: float        # share of them that the judge reads as asked
    nearest: float      # mean distance to the nearest training digit; 1: as of held-out ones
    digest: str         # of its digits: a fingerprint


def from_nothing(seen: list[str]) -> None:
    """From now on this process may read the training digits, and nothing else that ships. What is
    tried raises ValueError and is noted in `seen`."""
    reading: list[str] = []                             # while the package reads its digits
    read, door = sets.bundled, safetensors.torch.safe_open

    def refuse(what: str) -> None:
        seen.append(what)
        raise ValueError(f'it may not read {what}')

    def look(path: Any) -> None:
        if isinstance(path, (str, bytes, os.PathLike)):
            real = Path(os.path.realpath(os.fsdecode(path)))
            if ASSETS.resolve() in real.parents and real.suffix == '.safetensors':
                refuse('weights that ship')
            if ASSETS.resolve() in real.parents and real.suffix == '.npz' and not reading:
                refuse('digits past the package, which has those for training')

    def training_only(split: str, size: int) -> Any:
        if split != 'train':
            refuse('the test digits')
        reading.append(split)
        try:
            return read(split, size)
        finally:
            reading.pop()

    def guarded(path: Any, *more: Any, **named: Any) -> Any:
        look(path)
        return door(path, *more, **named)

    sets.bundled = training_only                        # type: ignore[assignment]
    safetensors.torch.safe_open = safetensors.safe_open = guarded       # type: ignore
    sys.addaudithook(lambda event, args: look(args[0]) if event == 'open' else None)


def learn_and_draw(path: str, seed: int, y: Tensor) -> tuple[float, float, Tensor]:
    "What a file does: seconds in all, of training, and its digits."
    began = time.perf_counter()
    file = runpy.run_path(path)
    if missing := [name for name in ('train', 'sample') if name not in file]:
        raise ValueError(f'{path} has no function {missing[0]}')
    own = {'seed': seed} if 'seed' in inspect.signature(file['train']).parameters else {}
    net = file['train'](**own)
    trained = time.perf_counter()
    images = torch.cat([file['sample'](net, part).detach().cpu() for part in y.split(100)])
    return time.perf_counter() - began, trained - began, images


def attempt(path: str, seed: int, y: Tensor) -> tuple[float, float, np.ndarray]:
    """By the rules, in this process: seconds in all, of training, and the digits, bytes
    (len(y), 1, 16, 16). Raises ValueError for what is against the rules."""
    torch.set_num_threads(2)
    if hasattr(os, 'sched_setaffinity'):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
    seen: list[str] = []
    from_nothing(seen)
    usual = torch.manual_seed                           # a seed in the file becomes one of three
    torch.manual_seed = lambda k: usual(k + 1000 * seed)        # type: ignore[assignment]
    torch.manual_seed(0)
    try:
        seconds, training, images = learn_and_draw(path, seed, y)
    except Exception:
        if not seen:                                    # an error of the file's own
            raise
    if seen:                                            # tried, and perhaps hidden
        raise ValueError(f'{path} begins with nothing: it may not read {seen[0]}')
    if images.shape != (len(y), 1, 16, 16) or not images.isfinite().all():
        raise ValueError(f'{path} draws {tuple(images.shape)}, or not finite numbers: expected '
                         f'({len(y)}, 1, 16, 16)')
    return seconds, training, to_uint8(images).numpy()


def report(path: str, seed: str, folder: str) -> None:
    "Attempt, and leave in a folder what came out, or what was wrong."
    try:
        seconds, training, digits = attempt(path, int(seed), torch.load(f'{folder}/y.pt'))
        np.savez(f'{folder}/lap.npz', times=[seconds, training], digits=digits)
    except ValueError as error:
        Path(folder, 'wrong.txt').write_text(str(error))


def alone(path: Path | str, seed: int, y: Tensor) -> tuple[float, float, np.ndarray]:
    "`attempt` in a process of its own. Raises its ValueError, or one where the process ended."
    program = 'import sys; from ddpm_course.judge.speedrun import report; report(*sys.argv[1:])'
    with TemporaryDirectory() as folder:
        torch.save(y, f'{folder}/y.pt')
        done = subprocess.run([sys.executable, '-c', program, str(path), str(seed), folder])
        if (wrong := Path(folder, 'wrong.txt')).exists():
            raise ValueError(wrong.read_text())
        if done.returncode:
            raise ValueError(f'{path} ended with an error')
        with np.load(f'{folder}/lap.npz') as lap:
            return *lap['times'].tolist(), lap['digits']


def laps(path: Path | str, seeds: Sequence[int] = (0, 1, 2), n: int = 1000) -> Iterator[Lap]:
    "Attempts of a file, each in a process of its own, judged. Raises ValueError where one fails."
    train, test, judge = load_digits('train', 16), load_digits('test', 16), load_judge()
    real, y = extract(judge, train.pixels)[0], allot_classes(train.labels, n)
    as_new = nearest_distances(test.pixels, train.pixels).mean().item()
    for seed in seeds:
        seconds, training, digits = alone(path, seed, y)
        features, logits = extract(judge, digits)
        yield Lap(seed, round(seconds, 1), round(training, 1),
                  round(frechet_distance(features, real), 3),
                  round((logits.argmax(1) == y).double().mean().item(), 3),
                  round(nearest_distances(torch.from_numpy(digits), train.pixels).mean().item()
                        / as_new, 2), hashlib.sha256(digits.tobytes()).hexdigest()[:16])


def verdict(found: Sequence[Lap]) -> str:
    "Certified, with the seconds that count, or why not; of three laps, a thousand digits each."
    if len(found) < 3:
        return 'not certified: three seeds are asked for'
    if len({lap.digest for lap in found}) < len(found):
        return 'not certified: two seeds drew the same digits'
    for lap in found:
        if lap.nearest < 0.5:
            return f'not certified: the digits of seed {lap.seed} are copies'
        if lap.distance > BAR:
            return f'not certified: seed {lap.seed} reached {lap.distance:.2f}, more than {BAR}'
        if lap.asked < ASKED:
            return f'not certified: of seed {lap.seed} {lap.asked:.3f} are as asked, not {ASKED}'
    return f'certified: {max(lap.seconds for lap in found):.1f} s'
