"""What page 25 runs its commands in: folders that play machines, and shell scripts that play Slurm.

A machine is a folder: its local disk, with the images in `data/` and a cache. `runs` in it leads to
the disk that all share. A run remembers where its images are, by a path that is the same on all
machines: on Linux /proc/self/cwd is the folder in which a process runs. On the path of its commands
stand `ddpm`, `torchrun`, and stand-ins for Slurm's `srun`, `scancel` and `scontrol`.
"""
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file

from ..data.sets import load_digits
from ..run.checkpoints import newest_checkpoint, read_metrics

IMAGES = '/proc/self/cwd/data' if Path('/proc/self/cwd').exists() else 'data'
SMALL = (f'--data {IMAGES} --batch 8 --channels 8 --T 4 --steps 40 --save-every 10 --log-every 5 '
         '--grid-every 0 --precision fp32 --device cpu')

PROGRAMS = {
    'python': f'exec "{sys.executable}" "$@"',
    'ddpm': f'exec "{sys.executable}" -m ddpm_course "$@"',
    # on a single computer every agent would take itself for FIRST, so it is told
    'torchrun': f'''case $PWD in *machine1) first=1;; *) first=0;; esac
exec "{sys.executable}" -m torch.distributed.run --rdzv-conf=is_host=$first "$@"''',
    'scancel': 'kill -TERM $(cat tasks)',
    'scontrol': 'if [ "$1" = requeue ]; then echo "requeued $2"; else echo 127.0.0.1; fi',
    # starts its command on each machine; its code is the highest one of them
    'srun': r'''
end() { kill -STOP "$1"; for child in $(pgrep -P "$1"); do end "$child"; done; kill -KILL "$1"; }
while [[ $1 == --* ]]; do [ "$1" = --kill-on-bad-exit=1 ] && strict=1; shift; done
export SLURM_STEP_NUM_TASKS=$SLURM_NNODES
for node in $(seq 1 "$SLURM_NNODES"); do
    (cd "$MACHINES/machine$node" && SLURMD_NODENAME=machine$node DDPM_CACHE=$PWD/cache exec "$@") &
    started+=" $!"
done
echo $started > tasks
worst=0
for task in $started; do
    wait -n; code=$?
    [ $code -gt $worst ] && worst=$code
    if [ $code -ne 0 ] && [ "$strict" ]; then
        echo "srun: a task ended with code $code: all others are killed"
        for other in $(jobs -pr); do end "$other"; done 2> /dev/null
        strict=
    fi
done
exit $worst'''}


class Cluster:
    "Two machines, played by folders, whose disk with `runs` is shared."

    def __init__(self, machines: int = 2):
        self.folder, self.started = Path(tempfile.mkdtemp()), list[subprocess.Popen]()
        (self.folder / 'runs').mkdir()
        for k in range(1, machines + 1):
            self.furnish(self.folder / f'machine{k}')
        (self.folder / 'bin').mkdir()
        for name, text in PROGRAMS.items():
            (self.folder / 'bin' / name).write_text(f'#!/bin/bash\n{text}\n')
            (self.folder / 'bin' / name).chmod(0o755)
        with socket.socket() as probe:
            probe.bind(('127.0.0.1', 0))                    # a port that nobody uses
            self.port = probe.getsockname()[1]

    def furnish(self, machine: Path) -> None:
        "A machine's disk: ninety zeros and ones, and the way to the shared disk."
        digits = load_digits('train', 16)
        labels = digits.labels_at().numpy()
        for k in np.flatnonzero(labels < 2)[::9]:
            place = machine / 'data' / digits.classes[labels[k]]
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(digits.pixels[k, 0]).save(place / f'{k}.png')
        (machine / 'runs').symlink_to(self.folder / 'runs')

    def environment(self, machine: int) -> dict[str, str]:
        "What a command finds: our programs, $SMALL and $PORT, and what Slurm would set."
        around = {name: value for name, value in os.environ.items()
                  if name not in ('RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'LOCAL_WORLD_SIZE')}
        return around | {
            'PATH': f'{self.folder / "bin"}{os.pathsep}{os.environ["PATH"]}',
            'PYTHONPATH': os.pathsep.join(filter(None, sys.path)),
            'DDPM_CACHE': str(self.folder / f'machine{machine}' / 'cache'),
            'TORCH_DISABLE_SHARE_RDZV_TCP_STORE': '1', 'TORCH_CPP_LOG_LEVEL': 'ERROR',
            'OMP_NUM_THREADS': '1', 'SMALL': SMALL, 'PORT': str(self.port), 'PER_NODE': '1',
            'MACHINES': str(self.folder), 'SLURM_NNODES': '2', 'SLURM_CPUS_PER_TASK': '1',
            'SLURM_JOB_NODELIST': 'machine[1-2]', 'SLURM_JOB_ID': str(self.port)}

    def start(self, line: str, machine: int = 1) -> subprocess.Popen:
        "Begin a line of the shell on a machine; an own session keeps signals for others away."
        self.started.append(subprocess.Popen(
            ['bash', '-c', f'exec {line}'], cwd=self.folder / f'machine{machine}',
            env=self.environment(machine), text=True, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, start_new_session=True))
        return self.started[-1]

    def run(self, line: str, machine: int = 1) -> str:
        "A line of the shell from beginning to end; what it printed."
        return self.printed(self.start(line, machine))

    def printed(self, process: subprocess.Popen) -> str:
        "What a process printed, once it has ended."
        return process.communicate()[0].replace(str(self.folder), '.')

    def losses(self, name: str) -> dict[int, float]:
        "The log of a run: step -> loss."
        return {line['step']: line['loss'] for line in read_metrics(self.folder / 'runs' / name)}

    def wait_for(self, step: int, name: str) -> None:
        "Until a run has saved the checkpoint of a step, or a later one."
        at_work = True
        while at_work:
            at_work = any(job.poll() is None for job in self.started)   # asked before the look
            saved = newest_checkpoint(self.folder / 'runs' / name)
            if saved and saved.name >= f'step_{step:08}':
                return
            time.sleep(0.05)
        raise ChildProcessError(f'all have ended, and {name} has not come to step {step}')

    def agents(self, job: subprocess.Popen) -> list[int]:
        "The `torchrun` that a job has started, and that still run."
        running = listed('args')
        return [pid for pid in below(job.pid) if 'torch.distributed.run' in running.get(pid, '')]

    def same_bits(self, one: str, other: str) -> bool:
        "Whether two runs ended with the same weights, bit for bit."
        a, b = (load_file(f'{newest_checkpoint(self.folder / "runs" / name)}/model.safetensors')
                for name in (one, other))
        return all(torch.equal(a[name], b[name]) for name in a)


def listed(column: str) -> dict[int, str]:
    "All processes, with a column of `ps`."
    said = subprocess.run(['ps', '-axo', f'pid=,{column}='], capture_output=True, text=True).stdout
    rows = [line.split(None, 1) for line in said.splitlines()]
    return {int(row[0]): row[1] for row in rows if len(row) > 1}


def below(pid: int) -> list[int]:
    "The processes that a process has started, and those that they have started."
    parents = {child: int(parent) for child, parent in listed('ppid').items()}
    found = [pid]
    for above in found:
        found += [child for child, parent in parents.items() if parent == above]
    return found[1:]


def kill(pid: int) -> None:
    "Kill a process, and all that it has started, as a power cut would; then they are gone."
    doomed: set[int] = set()
    while new := {pid, *below(pid)} - doomed:       # who stands still starts nobody any more
        doomed |= new
        for each in new:
            with suppress(ProcessLookupError):
                os.kill(each, signal.SIGSTOP)
    for each in doomed:
        with suppress(ProcessLookupError):
            os.kill(each, signal.SIGKILL)
    while any(state[0] != 'Z' for each, state in listed('stat').items() if each in doomed):
        time.sleep(0.02)                # a signal takes a moment
