import hashlib
import io
import json
import platform
import re
import shutil
import warnings
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save
from torch import nn

from .. import __version__
from ..base.files import flush, naming, read_json, read_whole, write_whole
from ..base.group import Group
from ..simple import LOSSES
from .shards import is_cut, like, load_weights, whole, whole_memory
from .training import TrainState


def checksum(content: bytes) -> str:
    "SHA-256 of some bytes, in hexadecimal."
    return hashlib.sha256(content).hexdigest()


def versions() -> dict[str, str]:
    "What a run was made with, for the record."
    return {'ddpm_course': __version__, 'torch': torch.__version__,
            'python': platform.python_version()}


def step_of(checkpoint: Path) -> int:
    "The step that a checkpoint's name says."
    return int(checkpoint.name.removeprefix('step_'))


def every_checkpoint(run: Path) -> list[Path]:
    "The folders of a run's whole checkpoints, in the order of their steps."
    place = run / 'checkpoints'
    found = place.iterdir() if place.is_dir() else ()       # OSError where it may not be read
    return sorted((f for f in found if re.fullmatch('step_[0-9]{8,}', f.name)), key=step_of)


def newest_checkpoint(run: Path) -> Path | None:
    "The folder of a run's last whole checkpoint."
    return next(reversed(every_checkpoint(run)), None)


def weights_of(network: nn.Module) -> bytes:
    "A network's weights as a safetensors file holds them, channels before height and width."
    return save({name: whole(weight).contiguous()
                 for name, weight in network.state_dict().items()})


def contents(state: TrainState) -> dict[str, bytes]:
    "A checkpoint's files as they are now, by name; what changes later does not change them."
    rest = io.BytesIO()
    torch.save({'optimizer': whole_memory(state.optimizer), 'scaler': state.scaler.state_dict(),
                'window': state.window, 'criterion': state.criterion.state_dict(),
                'average': state.average.state_dict()}, rest)
    return {'ema.safetensors': weights_of(state.ema.network),
            'model.safetensors': weights_of(state.network), 'optimizer.pt': rest.getvalue()}


def write_checkpoint(
    run: Path,
    step: int,
    files: dict[str, bytes],        # what `contents` gives
    keep: int = 2,                  # so many checkpoints stay, the newest ones
    **facts: Any,                   # for meta.json, beside the step and the checksums
) -> Path:                          # run/checkpoints/step_00000000
    "Write a checkpoint, whole or not at all."
    folder = run / 'checkpoints'
    final, aside, old = folder / f'step_{step:08d}', folder / '.writing', folder / '.dropped'
    if final.exists():
        return final
    for left in (aside, old):                           # of a process that was killed
        shutil.rmtree(left, ignore_errors=True)
    sums = {name: checksum(data) for name, data in files.items()}
    meta = {'step': step, 'files': sums, 'versions': versions(), **facts}
    with naming(aside):
        aside.mkdir(parents=True)
        flush(run)
        if (run / 'metrics.jsonl').exists():            # the log is there before what it leads to
            flush(run / 'metrics.jsonl')
        for name, data in (files | {'meta.json': json.dumps(meta, indent=2).encode()}).items():
            (aside / name).write_bytes(data)
            flush(aside / name)
        flush(aside)
        aside.rename(final)
        flush(folder)
    for checkpoint in every_checkpoint(run)[:-keep]:
        shutil.rmtree(checkpoint.rename(old))
    return final


class Writer:
    "Writes checkpoints into a run's folder while training goes on, one at a time."

    def __init__(self, run: Path, keep: int = 2, **facts: Any):
        self.write = partial(write_checkpoint, run, keep=keep, **facts)
        self.thread = ThreadPoolExecutor(1)
        self.writing: Future | None = None

    def begin(self, state: TrainState) -> None:
        "Begin to write a state as it is now, when the one before is written."
        self.wait()
        self.writing = self.thread.submit(self.write, state.step, contents(state))

    def wait(self) -> None:
        "Until all is on the disk. Raises what went wrong there."
        writing, self.writing = self.writing, None
        if writing:
            writing.result()


@contextmanager
def damage(path: Path) -> Iterator[None]:
    "Make one ValueError of what goes wrong with a checkpoint's file: its name, and what to do."
    try:
        yield
    except Exception as error:
        unread = isinstance(error, (OSError, MemoryError)) or 'memory' in str(error)
        if unread and not isinstance(error, FileNotFoundError):
            raise                                       # the file may be as it should
        if not path.parent.exists():
            raise FileNotFoundError(f'{path.parent} is there no more: another process is at work '
                                    'there, try again') from error
        raise ValueError(f'{path} is damaged or missing: move the folder {path.parent.name} away '
                         'to go on from the one before') from error


def read_meta(checkpoint: Path) -> dict[str, Any]:
    "What its meta.json says, settings {} where it has none. Raises ValueError where it is damaged."
    with damage(checkpoint / 'meta.json'):
        meta = read_json(checkpoint / 'meta.json')
        meta['settings'] = dict(meta.get('settings', {}))
        if meta['step'] != step_of(checkpoint):
            raise ValueError('it says another step than its folder')
        return meta


def read_file(checkpoint: Path, name: str) -> bytes:
    "What a checkpoint's file holds. Raises ValueError where it is not what meta.json describes."
    meta = read_meta(checkpoint)
    with damage(checkpoint / name):
        content = read_whole(checkpoint / name, 1 << 40)
        if checksum(content) != meta['files'][name]:
            raise ValueError('another checksum')
        return content


def set_weights(network: nn.Module, content: bytes) -> None:
    "Give a network the weights in the bytes of a safetensors file. Raises ValueError for NaN."
    weights = load(content)
    if not all(weight.isfinite().all() for weight in weights.values()):
        raise ValueError('some weights are NaN or infinite')
    load_weights(network, weights)


def set_rest(state: TrainState, content: bytes) -> None:
    "Give a state all but its weights, from the bytes of optimizer.pt. Nothing in them is run."
    with warnings.catch_warnings(action='ignore'):      # of a pickle that is then refused
        kept = torch.load(io.BytesIO(content), map_location='cpu', weights_only=True)
    state.optimizer.load_state_dict(kept['optimizer'])
    parts = is_cut(state.network)
    for weight, memory in state.optimizer.state.items():        # laid out in memory as its weight:
        for name, value in memory.items():                      # a GPU's, with channels last, too
            if isinstance(value, torch.Tensor) and value.ndim == 4 and not parts:
                memory[name] = torch.empty_like(weight).copy_(value)
            elif isinstance(value, torch.Tensor):
                memory[name] = like(value, weight)
    state.scaler.load_state_dict(kept['scaler'])
    state.criterion.load_state_dict(kept['criterion'])
    state.average.load_state_dict(kept.get('average', {}))          # 0.1.0 has none
    state.window = kept['window']


def load_checkpoint(checkpoint: Path, state: TrainState, group: Group = Group()) -> dict[str, Any]:
    """Set `state` to what a checkpoint holds, read by the first process alone; its meta.json.

    Raises ValueError, naming the file, for one that is damaged or does not fit: `state` is then of
    no use any more.
    """
    takers = {'model.safetensors': partial(set_weights, state.network),
              'ema.safetensors': partial(set_weights, state.ema.network),
              'optimizer.pt': partial(set_rest, state)}
    for name, take in takers.items():
        content = group.broadcast(read_file(checkpoint, name) if group.rank == 0 else None)
        with damage(checkpoint / name):
            take(content)
    if group.rank:                                  # the sums of all are with the first process
        state.window = torch.zeros_like(state.window)
    state.step = step_of(checkpoint)
    return group.broadcast(read_meta(checkpoint) if group.rank == 0 else None)


def read_log(run: Path) -> list[dict]:
    "All lines of a run's metrics.jsonl: losses, and changes of its settings ('changed')."
    path = run / 'metrics.jsonl'
    lines: list[dict] = []
    whole = read_whole(path, 1 << 30).split(b'\n')[:-1] if path.exists() else []
    try:
        for text in whole:
            line = json.loads(text)
            found = [line['loss'], *line['loss_quarters']] if 'loss' in line else []
            if len(found) not in (0, 5):
                raise ValueError('a loss has four quarters')
            sum([line['step'], *(value for value in found if value is not None)])       # numbers
            lines.append(line)
        return lines
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ValueError(f'{path} is damaged in line {len(lines) + 1}: mend it, or move it away '
                         'to go on without its lines') from error


def read_metrics(run: Path) -> list[dict]:
    "The losses in a run's metrics.jsonl, one dict per logged step; not an unfinished last line."
    return [line for line in read_log(run) if 'loss' in line]


def cut_metrics(run: Path, step: int) -> None:
    "Drop the lines after `step`."
    kept = [line for line in read_log(run) if line['step'] <= step]
    write_whole(run / 'metrics.jsonl', ''.join(json.dumps(line) + '\n' for line in kept))


def append_line(run: Path, line: dict) -> None:
    "Add a line to a run's metrics.jsonl."
    path = run / 'metrics.jsonl'
    with naming(path), open(path, 'a', encoding='utf-8') as file:
        file.write(json.dumps(line) + '\n')


def read_window(state: TrainState, group: Group = Group()) -> dict[str, Any]:
    """Means since the last call, over all processes, overall and by quarter of t.

    A quarter without a sample is None. Afterwards the sums begin anew.
    """
    sums, counts = group.all_reduce(state.window).cpu().unbind(1)
    state.window = torch.zeros_like(state.window)
    line = {}
    for name, s, n in zip(LOSSES, sums, counts):
        line[name] = (s.sum() / n.sum()).item()
        line[f'{name}_quarters'] = [(a / b).item() if b else None for a, b in zip(s, n)]
    return line
