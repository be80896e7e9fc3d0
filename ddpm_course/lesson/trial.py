"""What the judge of page 24d sees of a script `ddp.py STEPS FILE`: its losses in one, two and three
processes, killed, stopped, gone on, and with a full disk.

Runs without a signal are forked (`processes`), which is quick; those with one are torchrun's own.
"""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from .cluster import below, kill, listed
from .processes import launch

EVERY = 10                          # FILE is saved after so many steps
QUIET, LONG = 15, 150               # seconds without any sign of life; for a run
FULL = '''
import resource, runpy, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)
sys.argv = sys.argv[2:]
runpy.run_path(sys.argv[0], run_name='__main__')
'''                                 # no file can have more bytes, as on a disk that is full


@dataclass
class Seen:
    "Losses by run, and what lies in the files."
    two: list[float] = field(default_factory=list)          # until one of two processes is killed
    again: list[float] = field(default_factory=list)        # both started again, until SIGTERM
    code: int = 0                                           # with which the first of them ended
    errors: str = ''                                        # ... and what they say last
    one: list[float] = field(default_factory=list)          # one process, never disturbed
    three: list[float] = field(default_factory=list)        # three that go on after SIGTERM
    full: list[float] = field(default_factory=list)         # two more steps on a full disk
    files: dict[str, Any] = field(default_factory=dict)     # what `one` and `three` have saved
    sizes: tuple[int, int] = (0, 0)                         # of FILE, before and after `full`
    whole: bool = True                                      # whether `full` has left it as it was

    @property
    def start(self) -> int:
        "The step of the checkpoint from which `again` begins."
        return len(self.two) // EVERY * EVERY

    @property
    def done(self) -> int:
        "How many steps are done when SIGTERM has ended the run."
        return self.start + len(self.again)

    @property
    def lag(self) -> float:
        "How far the average of `three` is off, by its distance from the network."
        one, three = self.files['one'], self.files['three']
        return apart(three['average'], one['average']) / apart(one['average'], one['network'])


class Watch:
    "Notices processes that for QUIET seconds have neither printed nor computed: a slow one does."

    def __init__(self) -> None:
        self.began = self.looked = self.since = time.monotonic()
        self.state: object = None

    def still(self, printed: int, alive: Callable[[], Sequence[int]]) -> bool:
        now = time.monotonic()
        if now - self.looked < 1:
            return False
        self.looked, times = now, listed('time')            # of the processor, in whole seconds
        state = printed, [times.get(pid) for pid in alive()]
        if state != self.state:
            self.state, self.since = state, now
        return now - self.since > QUIET or now - self.began > LONG


def fail(symptom: str, question: str) -> None:
    "A symptom, and a question that leads to its cause."
    raise AssertionError(f'{symptom}\n{question}')


def losses(texts: Sequence[str]) -> list[float]:
    "The losses in what the processes of a run have printed; one of them may print."
    found = [[json.loads(line)['loss'] for line in re.findall(r'{[^{}]*"loss"[^{}]*}', text)]
             for text in texts]
    speakers = [rank for rank, lines in enumerate(found) if lines]
    if len(speakers) > 1:
        fail(f'each loss is printed {len(speakers)} times, by the processes {speakers}.',
             'Which of them should print?')
    return found[speakers[0]] if speakers else []


def standing(path: Path, errors: Mapping[int, str]) -> str:
    "Where each process stands: the line of the script in its dump."
    lines, places = path.read_text().splitlines(), []
    for rank, text in errors.items():
        found = re.findall(rf'{re.escape(path.name)}", line (\d+) in', text)
        at = f'line {found[0]}, `{lines[int(found[0]) - 1].strip()}`' if found else 'no line of it'
        places.append(f'process {rank}: {at}')
    return '; '.join(places)


def hangs(path: Path, when: str, pids: Sequence[int], errors: Callable[[], list[str]]) -> None:
    "Ask processes that stand still for a dump, which ends them, and say where they stand."
    for pid in pids:
        os.kill(pid, signal.SIGABRT)
    time.sleep(1)
    fail(f'it hangs: {when}. {standing(path, dict(enumerate(errors())))}.',
         'Which of these calls do the other processes never make?')


def why(errors: Sequence[str]) -> str:
    "The last errors of processes, in words."
    found = [line for text in errors
             for line in re.findall(r'^(?:\[rank\d\]: )?(\w*Error\b.*)', text, re.M)[-1:]]
    last = ' '.join(errors).strip().splitlines()[-2:]
    return ' / '.join(dict.fromkeys(found) if found else last) or 'none'


def run(path: Path, world: int, until: int, file: Path, limit: int = 0) -> list[float]:
    "The losses of a run that nobody disturbs. A limit of FILE's size in bytes plays a full disk."
    words: list[object] = [path, until, file]
    if limit:
        (file.parent / 'full.py').write_text(FULL)
        words = [file.parent / 'full.py', limit, *words]
    scripts, watch = launch(path.parent, world, *words), Watch()
    errors = lambda: [script.err.read_text() for script in scripts]
    alive = lambda: [script.process.pid for script in scripts if script.wait(0.02) is None]
    printed = lambda: losses([script.out.read_text() for script in scripts])
    while alive():
        if watch.still(len(found := printed()), alive):
            hangs(path, f'{world} process(es) have printed {len(found)} losses and do not end',
                  alive(), errors)
    codes, found = [script.wait() for script in scripts], printed()
    if any(codes) and not limit:
        fail(f'{world} process(es) ended with the codes {codes}: {why(errors())}',
             'What does the last error say?')
    return found


class Torchrun:
    "A script under torchrun in two processes, without an end; its logs by attempt and rank."

    def __init__(self, path: Path, file: Path):
        self.path, self.logs = path, Path(tempfile.mkdtemp())
        around = {name: value for name, value in os.environ.items()
                  if name not in ('RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'LOCAL_WORLD_SIZE')}
        given = {'PYTHONPATH': os.pathsep.join(filter(None, sys.path)), 'OMP_NUM_THREADS': '1',
                 'CUDA_VISIBLE_DEVICES': '', 'TORCH_CPP_LOG_LEVEL': 'ERROR',
                 'PYTHONUNBUFFERED': '1', 'PYTHONFAULTHANDLER': '1',
                 'TORCH_DISABLE_SHARE_RDZV_TCP_STORE': '1', 'TORCH_ELASTIC_SHUTDOWN_TIMEOUT': '5'}
        with (self.logs / 'agent').open('w') as errors:
            self.agent = subprocess.Popen(
                [sys.executable, '-m', 'torch.distributed.run', '--standalone',
                 '--nproc-per-node=2', '--max-restarts=1', f'--log-dir={self.logs}',
                 '--redirects=3', str(path), str(10**6), str(file)],
                cwd=path.parent, env={**around, **given}, stdout=errors, stderr=errors)

    def read(self, attempt: int, name: str) -> list[str]:
        "What each process has printed, `stdout` or `stderr`."
        files = [*self.logs.glob(f'*/attempt_{attempt}/*/{name}.log')]
        return [file.read_text() for file in sorted(files, key=lambda file: file.parent.name)]

    def losses(self, attempt: int) -> list[float]:
        return losses(self.read(attempt, 'stdout'))

    def workers(self) -> list[int]:
        return below(self.agent.pid)[:2]

    def alive(self) -> list[int]:
        return [self.agent.pid, *self.workers()]

    def hangs(self, attempt: int, when: str) -> None:
        workers = self.workers()
        self.agent.kill()                                   # or it would start them again
        hangs(self.path, when, workers, lambda: self.read(attempt, 'stderr'))

    def wait_for(self, count: int, attempt: int) -> None:
        "Until so many losses are printed."
        watch = Watch()
        while (now := len(self.losses(attempt))) < count:
            if self.agent.poll() is not None:
                last = self.read(attempt, 'stderr') or [(self.logs / 'agent').read_text()]
                fail(f'two processes ended after {now} losses: {why(last)}',
                     'What does the last error say?')
            if watch.still(now, self.alive):
                self.hangs(attempt, f'two processes have printed {now} losses, and then nothing '
                                    f'for {QUIET} seconds')
            time.sleep(0.01)

    def stop(self, attempt: int) -> int:
        "Send SIGTERM to process 1 alone. Out: the exit code of the process that ended first."
        before, watch = len(self.losses(attempt)), Watch()
        os.kill(self.workers()[1], signal.SIGTERM)
        while self.agent.poll() is None:
            more = len(self.losses(attempt)) - before
            if more > 50:
                fail(f'after SIGTERM to process 1 both have trained {more} more steps, and still '
                     'do.', 'Who hears the signal, and how do the others hear of it?')
            if watch.still(more, self.alive):
                self.hangs(attempt, f'{QUIET} seconds after SIGTERM to process 1 they have not '
                                    'ended')
            time.sleep(0.02)
        report = re.findall(r'exitcode *: (-?\d+)', (self.logs / 'agent').read_text())
        return int(report[-1]) if self.agent.returncode else 0      # the last one is the root cause


def observe(path: Path) -> Seen:
    "All runs of the judge. Raises AssertionError where it cannot go on."
    folder, seen = Path(tempfile.mkdtemp()), Seen()
    one, three = folder / 'one.pt', folder / 'three.pt'
    check_file(run(path, 1, 3, folder / 'first.pt'), folder / 'first.pt')
    job = Torchrun(path, three)
    try:
        job.wait_for(EVERY + 3, 0)
        os.kill(job.workers()[1], signal.SIGKILL)
        job.wait_for(3, 1)
        seen.code = job.stop(1)
        seen.errors = why(job.read(1, 'stderr'))
        seen.two, seen.again = job.losses(0), job.losses(1)
    finally:
        kill(job.agent.pid)
        job.agent.wait()
    until = seen.done + 3
    seen.one = run(path, 1, until, one)
    seen.three = run(path, 3, until, three)
    seen.files = {file.stem: torch.load(file, weights_only=False) for file in (one, three)}
    before = one.read_bytes()
    seen.full = run(path, 1, until + 2, one, limit=len(before) // 2)
    after = one.read_bytes() if one.exists() else b''
    seen.sizes, seen.whole = (len(before), len(after)), before == after
    return seen


def check_file(printed: list[float], file: Path) -> None:
    "Whether one process has printed three losses and saved what is asked for."
    if len(printed) != 3:
        fail(f'three steps in one process print {len(printed)} losses.',
             'Is a line printed for each step, as json.dumps writes it?')
    if not file.exists():
        fail('after three steps in one process there is no FILE.', 'When is it saved?')
    saved = torch.load(file, weights_only=False)
    if not {'network', 'average'} <= set(saved):
        fail(f"FILE holds {[*saved]}: 'network' and 'average' are asked for.", 'What is missing?')
    if set(saved['network']) != set(saved['average']):
        fail('the weights of network and average have different names.',
             'Do both come from `state_dict()` of such a network?')
    if apart(saved['average'], saved['network']) == 0:
        fail('the average is the network itself.', 'Is it a copy, and does it lag behind?')


def apart(a: dict[str, Any], b: dict[str, Any]) -> float:
    "The distance of two sets of weights."
    return sum((a[name].double() - b[name].double()).square().sum().item() for name in b) ** 0.5
