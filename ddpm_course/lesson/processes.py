"Scripts that several processes run at the same time, for pages 24 and 25."

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

Run = list[subprocess.Popen[str]]


def launch(folder: Path, world: int, *words: object) -> Run:
    """Start so many processes of `python WORDS` in a folder, on the CPU, one thread each. Each
    finds in its environment what `torchrun --standalone` would give it."""
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port = probe.getsockname()[1]                   # a free one, where all will meet
    given = {
        'OMP_NUM_THREADS': '1', 'TORCH_CPP_LOG_LEVEL': 'ERROR', **os.environ,
        'PYTHONPATH': os.pathsep.join(filter(None, sys.path)), 'CUDA_VISIBLE_DEVICES': '',
        'MASTER_ADDR': '127.0.0.1', 'MASTER_PORT': str(port),
        'WORLD_SIZE': str(world), 'LOCAL_WORLD_SIZE': str(world)}
    command = [sys.executable, *map(str, words)]
    return [subprocess.Popen(command, cwd=folder, text=True, stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE,
                             env=given | {'RANK': str(rank), 'LOCAL_RANK': str(rank)})
            for rank in range(world)]


def printed(run: Run) -> list[Any]:
    "Wait for the processes of a run; the lines that they printed, read as JSON, rank after rank."
    ends = [process.communicate(timeout=1800) for process in run]
    assert not any(process.returncode for process in run), ends
    return [json.loads(line) for lines, _ in ends for line in lines.splitlines()]
