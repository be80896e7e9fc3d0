"""Scripts that several processes run at the same time, for page 24.

On Linux all are forked from one process that has imported what they need, since every import of
PyTorch takes seconds.
"""

import faulthandler
import json
import multiprocessing
import os
import runpy
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

CONTEXT: Any = multiprocessing.get_context('forkserver' if sys.platform == 'linux' else 'spawn')
IMPORTED = ('torch._dynamo', 'torch.distributed.nn', 'ddpm_course.data.sets', 'ddpm_course.unet',
            'ddpm_course.forward', 'ddpm_course.schedules')


def work(folder: Path, given: dict[str, str], words: list[str], out: Path, err: Path) -> None:
    "What a process does: `python WORDS`, with what it prints in files."
    for number, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY), number)
    faulthandler.enable()                               # SIGABRT asks where it stands
    os.environ |= given
    os.chdir(folder)
    module = words[0] == '-m'
    sys.argv = words[module:]
    sys.path.insert(0, '')
    (runpy.run_module if module else runpy.run_path)(sys.argv[0], run_name='__main__')


class Script:
    "A process that runs a script. `stdout` yields its lines as soon as they are printed."

    def __init__(self, folder: Path, given: dict[str, str], words: list[str]):
        place = Path(tempfile.mkdtemp())
        self.out, self.err = place / 'out', place / 'err'
        for path in (self.out, self.err):
            path.touch()
        self.process = CONTEXT.Process(target=work, daemon=True,
                                       args=(folder, given, words, self.out, self.err))
        self.process.start()

    @property
    def stdout(self) -> Iterator[str]:
        line = ''
        with self.out.open() as file:
            while True:
                ended = not self.process.is_alive()
                line += file.readline()
                if line.endswith('\n') or ended and line:
                    yield line
                    line = ''
                elif ended:
                    return
                else:
                    time.sleep(0.01)

    def terminate(self) -> None:
        "Send SIGTERM."
        self.process.terminate()

    def wait(self, seconds: float = 1800) -> int | None:
        "Until it ends: its exit code."
        self.process.join(seconds)
        return self.process.exitcode


def launch(folder: Path, world: int, *words: object) -> list[Script]:
    """Start so many processes of `python WORDS` in a folder, on the CPU, one thread each. Each
    finds in its environment what `torchrun --standalone` would give it."""
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port = probe.getsockname()[1]                   # a free one, where all will meet
    early = {                                           # read when PyTorch is imported
        'OMP_NUM_THREADS': '1', 'TORCH_CPP_LOG_LEVEL': 'ERROR', **os.environ,
        'PYTHONPATH': os.pathsep.join(filter(None, sys.path)), 'CUDA_VISIBLE_DEVICES': ''}
    given = {'MASTER_ADDR': '127.0.0.1', 'MASTER_PORT': str(port),
             'WORLD_SIZE': str(world), 'LOCAL_WORLD_SIZE': str(world)}
    with patch.dict(os.environ, early):
        CONTEXT.set_forkserver_preload([*IMPORTED])
        return [Script(folder, given | {'RANK': str(rank), 'LOCAL_RANK': str(rank)},
                       [*map(str, words)]) for rank in range(world)]


def printed(run: list[Script]) -> list[Any]:
    "Wait for the processes of a run; the lines that they printed, read as JSON, rank after rank."
    codes = [script.wait() for script in run]
    assert not any(codes) and None not in codes, (codes, [script.err.read_text() for script in run])
    return [json.loads(line) for script in run for line in script.stdout]
