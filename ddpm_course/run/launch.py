"Several processes: torchrun starts them, here they meet and leave word of what went wrong."
import contextlib
import json
import logging
import os
import re
import select
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, get_error_handler
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from ..base.group import Group
from ..base.machine import cores, pick_device
from .distributed import DDPGroup
from .stopping import Drifted, Elsewhere, Lost, NotFinite

TIMEOUTS = {'DDPM_START_TIMEOUT': 300,      # seconds to wait until all have come to the start,
            'DDPM_TIMEOUT': 600}            # and for others in each collective from then on
GRACE = 5                   # seconds in which a process may end by itself, when another has failed
SILENT = 45                 # seconds without a sign of life after which a process is taken for lost
PLACE = ('RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'LOCAL_WORLD_SIZE', 'MASTER_ADDR', 'MASTER_PORT',
         *TIMEOUTS)         # what the environment says: the last are ours, the others torchrun's
TOLD = {kind.__name__: kind for kind in (Drifted, NotFinite, ValueError, FileNotFoundError, Lost,
                                         OSError, MemoryError, Elsewhere, RuntimeError)}
FINAL = {'ValueError': 1, 'FileNotFoundError': 1, 'NotFinite': 2, 'Drifted': 2}
#                                           # in so many attempts: not worth another
FIRST = ' (said first by '                  # behind a sentence, before who that was


def kind_of(error: BaseException) -> type[Exception]:
    "The kind by which others hear of an error."
    return next((kind for kind in TOLD.values() if isinstance(error, kind)), RuntimeError)


def record(error: BaseException) -> None:
    "Leave an error's kind, sentence and traceback where torchrun, and `failure`, look for it."
    get_error_handler().record_exception(kind_of(error)(str(error)))


def end(code: int) -> None:
    "End this process without any farewell: gloo's threads may abort or block an ordinary end."
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):      # closed, full, or none
            stream.flush()
    with contextlib.suppress(KeyError, OSError):        # nobody asks for the log of one that speaks
        os.unlink(os.environ['DDPM_LOG'])
        os.rmdir(os.path.dirname(os.environ['DDPM_LOG']))
    os._exit(code)


def new_log() -> Path:
    """An empty file for what libraries print in this worker, until a run takes it. Others name it
    if this process ends without a word (see `Lost`); `end` takes it away."""
    folder = os.environ.get('DDPM_LAUNCHED') or tempfile.mkdtemp(prefix='ddpm-')
    path = Path(folder, f'rank{os.environ["RANK"]}.txt')
    path.touch()
    os.environ['DDPM_LOG'] = str(path)
    return path


def lost(rank: int, host: str, log: str, how: str) -> Lost:
    "What is said of a process that has ended without a word."
    said = (f'rank {rank} on {host} {how}: what was saved is intact, go on with fewer processes or '
            'a smaller batch')
    return Lost(f'{said}\nwhat it printed last is in {os.path.realpath(log)}' if log else said)


def failure(folder: str, codes: Mapping[int, int] = {}, logs: str = '') -> Exception | None:
    """What went wrong first, as others fail in its wake: what was told, or who was killed, or None.
    `logs` holds what each process printed, see `new_log`."""
    files = sorted(Path(folder).rglob('error.json'), key=lambda path: path.stat().st_mtime_ns)
    last = max((path.parts[-3:-2] for path in files), default='')       # attempt_3/0/error.json
    files = [path for path in files if path.parts[-3:-2] == last]
    errors = []
    for message in (json.loads(path.read_text())['message'] for path in files):
        kind, _, sentence = message['message'].partition(': ')
        errors.append(TOLD[kind](sentence))
        errors[-1].add_note(message['extraInfo']['py_callstack'])       # beside a traceback
    ends = [lost(rank, socket.gethostname(), f'{logs}/rank{rank}.txt' if logs else '',
                 f'was ended by {signal.Signals(-code).name}'
                 + ', as by the system where memory runs out' * (code == -signal.SIGKILL))
            for rank, code in codes.items()
            if code < 0 and code != -signal.SIGTERM]    # with which torchrun ends the others
    wake = (Elsewhere, RuntimeError, Lost)              # an exit code tells more than these
    causes = [error for error in errors if type(error) not in wake] or ends or errors
    return max(causes, key=lambda e: (*wake, type(e)).index(type(e)), default=None)     # the first


def torchrun(count: int, words: Sequence[str]) -> None:
    """`ddpm WORDS` in so many processes of this machine, by the documented line of torchrun.

    Raises what went wrong first; where a signal or a code ended them, ends this process likewise.
    """
    names = [name for name in ('SIGTERM', 'SIGINT', 'SIGHUP', 'SIGQUIT') if hasattr(signal, name)]
    heard = [name for name in names if signal.getsignal(getattr(signal, name)) != signal.SIG_IGN]
    before = dict(os.environ)                       # whose words go on to the processes
    logs = tempfile.mkdtemp(prefix='ddpm-')
    os.environ |= {'DDPM_LAUNCHED': logs, 'TORCH_DISABLE_SHARE_RDZV_TCP_STORE': '1',
                   'PYTHONPATH': os.pathsep.join(filter(None, sys.path))}
    logging.disable(logging.CRITICAL)               # what went wrong is said once, by the caller
    said = None
    try:
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(action='ignore'):
            config = LaunchConfig(
                min_nodes=1, max_nodes=1, nproc_per_node=count, run_id='ddpm', max_restarts=0,
                rdzv_backend='c10d', rdzv_endpoint='localhost:0', local_addr='127.0.0.1',
                signals_to_handle=','.join(heard), logs_specs=DefaultLogsSpecs(folder))
            try:
                elastic_launch(config, sys.executable)('-P', '-m', 'ddpm_course', *words)
            except SignalException as stop:
                raise failure(folder) or SystemExit(128 + stop.sigval) from None
            except ChildFailedError as error:
                codes = {rank: ended.exitcode for rank, ended in error.failures.items()}
                code = error.get_first_failure()[1].exitcode
                said = failure(folder, codes, logs)
                raise said or SystemExit(abs(code) + 128 * (code < 0)) from None
    finally:
        if f'{os.path.realpath(logs)}{os.sep}' not in str(said):     # which names no file in there
            shutil.rmtree(logs, ignore_errors=True)
        logging.disable(logging.NOTSET)
        os.environ.clear()
        os.environ |= before


def seconds(name: str) -> timedelta:
    "A time limit that the environment sets, or its default. Raises ValueError for what is none."
    text = os.environ.get(name) or str(TIMEOUTS[name])
    if not (re.fullmatch(r'[0-9.]+', text) and text.count('.') < 2 and 0 < float(text) < 1e7):
        raise ValueError(f'{name} is {text!r:.40}: expected seconds, such as {TIMEOUTS[name]}')
    return timedelta(seconds=float(text))


class Word:
    """Word of what went wrong first, kept by rank 0: all processes say it, and end. Whoever waits
    for the lost one all the same is ended some seconds later. Each also watches the next one, as
    a lost machine says nothing: a slow process gives signs of life, from a thread of its own.
    """

    def __init__(self, rank: int, world: int):
        e, limit = os.environ, seconds('DDPM_START_TIMEOUT')
        self.rank, self.world, self.first, self.over = rank, world, '', threading.Event()
        self.asked = False                      # by SIGTERM
        self.host = e.get('SLURMD_NODENAME') or socket.gethostname()
        self.next, self.signs, self.due, self.quiet = (rank + 1) % world, 0, 0.0, 0
        self.store, _, _ = next(dist.rendezvous('env://', rank, world, timeout=limit))
        self.line = dist.TCPStore(              # of its own: who waits in the other blocks it
            e['MASTER_ADDR'], int(e['MASTER_PORT']), is_master=False, wait_for_workers=False,
            timeout=limit)
        self.line.set(f'process {rank}', json.dumps([self.host, os.getpid(), e.get('DDPM_LOG', '')]))
        self.keeper = json.loads(self.line.get('process 0'))   # of the store
        self.line.add(f'sign {rank}', 1)        # from now on it is missed
        self.thread = threading.Thread(target=self.listen, daemon=True)
        self.thread.start()

    def listen(self) -> None:
        "Look for word twice a second, until this process ends by itself or has to be ended."
        with contextlib.suppress(RuntimeError):             # rank 0 is gone
            while not (heard := self.line.check(['first'])) and not self.over.wait(0.5):
                self.watch()
            if heard:
                self.first = self.line.get('first').decode()
            self.line.set(f'left {self.rank}', '')
            self.line.add('heard', 1)
        if self.first and not self.over.wait(GRACE):
            self.end_with(self.heard())

    def watch(self) -> None:
        "Give a sign of life, and tell where the next process gives none any more."
        now = time.monotonic()
        if now < self.due:
            return
        self.due = now + SILENT / 12                        # so seldom that a thousand may ask
        self.line.add(f'sign {self.rank}', 1)
        signs = self.line.add(f'sign {self.next}', 0)
        self.quiet = self.quiet + 1 if signs == self.signs else 0   # no clock: who was suspended
        self.signs = signs                                          # would take all others for lost
        if signs and self.quiet >= 12 and not self.line.check([f'left {self.next}']):
            host, _, _ = json.loads(self.line.get(f'process {self.next}'))
            said = f'nothing has been heard of rank {self.next} on {host} for {SILENT} seconds'
            self.line.compare_set('first', '', json.dumps(['OSError', said + self.who()]))

    def neighbours(self) -> dict[int, list]:
        "Host, process number and log of the others of this machine that have come, and not left."
        local, here = (int(os.environ.get(f'LOCAL_{name}', value)) for name, value in
                       (('RANK', self.rank), ('WORLD_SIZE', self.world)))
        found = {0: self.keeper}
        with contextlib.suppress(RuntimeError):                 # rank 0 is gone
            found = {rank: json.loads(self.line.get(f'process {rank}'))
                     for rank in range(self.rank - local, self.rank - local + here)
                     if self.line.check([f'process {rank}'])
                     and not self.line.check([f'left {rank}'])}
        return {k: found[k] for k in found if k != self.rank and found[k][0] == self.host}

    def gone(self, patience: float) -> Lost | None:
        """Who of this machine has ended without a word, or does so within some seconds, as its
        connections end just before. None where nobody has, or the system cannot tell."""
        waiting, handles = select.poll(), {}
        try:
            for rank, (host, pid, log) in self.neighbours().items():
                said = lost(rank, host, log, 'has ended without a word, as where memory runs out')
                try:
                    handles[os.pidfd_open(pid)] = said
                except ProcessLookupError:
                    return said
                except AttributeError:                          # only Linux has it
                    return None
            for handle in handles:
                waiting.register(handle, select.POLLIN)         # of a process: it has ended
            ended = waiting.poll(1000 * patience) if handles else ()
            return next((handles[handle] for handle, _ in ended), None)
        finally:
            for handle in handles:
                os.close(handle)

    def who(self) -> str:
        "This process, as it is named behind a sentence that it said first."
        return f'{FIRST}rank {self.rank} on {self.host})'

    def heard(self) -> Exception:
        "What went wrong first, in another process."
        kind, sentence = json.loads(self.first)
        return (Elsewhere if kind == 'RuntimeError' else TOLD[kind])(sentence)

    def tell(self, error: Exception) -> Exception:
        "Tell all of an error, unless another one was first; what this process should say."
        if isinstance(error, RuntimeError) and not self.word_is_there():    # a lost connection?
            error = self.gone(GRACE * (not self.asked)) or error
            if self.asked and not isinstance(error, Lost):      # as all have been told to end
                self.end_silently()
        kind, said = kind_of(error).__name__, str(error)
        if kind == 'RuntimeError' != type(error).__name__:
            said = f'{type(error).__name__}: {said}'
        if FIRST not in said and kind != 'Lost':
            said += self.who()
        mine = json.dumps([kind, said])
        with contextlib.suppress(RuntimeError):
            self.first = self.first or self.line.compare_set('first', '', mine).decode()
            self.leave()
            most = self.world - (kind == 'Lost')                    # that one will not hear
            until = time.monotonic() + GRACE * (self.rank == 0)     # with it the store would go
            while self.line.add('heard', 0) < most and time.monotonic() < until:
                time.sleep(0.05)
        ours = kind == 'RuntimeError' and self.first == mine        # shown in full
        return self.heard() if self.first and not ours else error

    def word_is_there(self) -> bool:
        "Whether somebody has told what went wrong; not where that cannot be asked any more."
        with contextlib.suppress(RuntimeError):
            return bool(self.first) or self.line.check(['first'])
        return False

    def end_with(self, error: Exception) -> None:
        "Say what went wrong first, and end."
        record(error)
        if 'DDPM_LAUNCHED' not in os.environ:
            print(*(f'ddpm: {line}' for line in str(error).splitlines()), sep='\n', file=sys.stderr)
        end(1 + isinstance(error, (ValueError, OSError)))

    def end_silently(self) -> None:
        "As SIGTERM asks for."
        with contextlib.suppress(RuntimeError):
            self.line.set(f'left {self.rank}', '')
        end(128 + signal.SIGTERM)

    def sigterm(self, number: int, frame: Any) -> None:
        "Torchrun ends the others of a lost one: it is named; and an error on its way is told first."
        self.asked = True
        if sys.exc_info()[1] is None:
            if found := self.gone(0):
                self.end_with(self.tell(found))
            self.end_silently()

    def leave(self) -> None:
        "This process ends by itself, and the others need not wait for it."
        self.over.set()
        self.thread.join(GRACE)


@contextmanager
def meeting() -> Iterator[Word]:
    """Wait for the processes that the environment tells of. What then goes wrong in one of them is
    raised in all. Raises ConnectionError where not all come in time.
    """
    e = os.environ
    try:
        rank, world = int(e['RANK']), int(e['WORLD_SIZE'])
        local_rank, here = int(e.get('LOCAL_RANK', rank)), int(e.get('LOCAL_WORLD_SIZE', world))
        if not (0 <= rank < world and 0 <= local_rank < here):
            raise ValueError('a rank is below the number of processes, there and on its machine')
        word = Word(rank, world)
    except (KeyError, ValueError, RuntimeError) as error:
        told = ' '.join(f'{name}={e[name]}' for name in PLACE if name in e)
        raise ConnectionError('this process could not meet the others that it was told of '
                              f'({told}): {str(error).splitlines()[0]}') from error
    main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, word.sigterm) if main else None
    try:
        check_restart()
        yield word
    except Exception as error:
        told_all = word.tell(error)
        record(told_all)
        if told_all is error:
            raise
        raise told_all from error
    else:
        if main:
            signal.signal(signal.SIGTERM, before)
    finally:
        word.leave()


def check_restart() -> None:
    "Raise ValueError in a worker that torchrun restarts, or could, where that would be in vain."
    e = os.environ
    shared = e.get('TORCHELASTIC_USE_AGENT_STORE') == 'True'
    if shared and e.get('TORCHELASTIC_MAX_RESTARTS', '0') != '0':
        raise ValueError('restarted workers would find only old addresses in the store that they '
                         'share with torchrun: start it with TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1, '
                         'and with --rdzv-backend=c10d or --standalone')
    own = Path(e.get('TORCHELASTIC_ERROR_FILE') or '-/-/-/-')           # RUN/attempt_1/0/error.json
    attempts: dict[str, dict[str, str]] = {}        # what was said: in which, and by whom first
    for path in set(own.parents[2].glob('attempt_*/*/error.json')) - set(own.parents[1].glob('*/*')):
        said, _, who = json.loads(path.read_text())['message']['message'].partition(FIRST)
        attempts.setdefault(said, {})[path.parts[-3]] = FIRST * bool(who) + who
    for said, where in attempts.items():
        kind, _, sentence = said.partition(': ')
        if len(where) >= FINAL.get(kind, 10**6):
            raise ValueError(sentence + min(where.items())[1])


@contextmanager
def join(device: str = 'auto', word: Word | None = None) -> Iterator[Group]:
    """This process alone or, as a worker of torchrun, among the others, while a block runs; device:
    'auto', 'cpu' or 'cuda'. What goes wrong in one of them is raised in all. Until all have come
    they wait DDPM_START_TIMEOUT seconds, or 300, and in collectives DDPM_TIMEOUT, or 600.

    Raises ConnectionError where they cannot meet. A ValueError of the block is final: a worker that
    torchrun starts again raises it at once.
    """
    if 'RANK' not in os.environ:
        yield Group(pick_device(device).type)
        return
    threads, failed, kind = torch.get_num_threads(), True, 'cpu'
    with nullcontext(word) if word else meeting() as met:
        try:
            kind, limit = pick_device(device).type, seconds('DDPM_TIMEOUT')
            local_rank, here = (int(os.environ.get(f'LOCAL_{name}', value)) for name, value in
                                (('RANK', met.rank), ('WORLD_SIZE', met.world)))
            if kind != 'cpu' and here > torch.cuda.device_count():
                raise ValueError(f'{here} processes need as many GPUs of CUDA; this machine has '
                                 f'{torch.cuda.device_count()}')
            own = torch.device('cuda', local_rank) if kind != 'cpu' else torch.device('cpu')
            if kind != 'cpu':
                torch.cuda.set_device(own)
            dist.init_process_group('gloo' if kind == 'cpu' else 'cpu:gloo,cuda:nccl',
                                    rank=met.rank, world_size=met.world, store=met.store,
                                    timeout=limit)
            dist.all_reduce(torch.zeros(1))                 # nobody leaves before all have met
            torch.set_num_threads(max(1, cores() // here))  # torchrun: one
            yield DDPGroup(here, own)
            failed = False
        except Exception as error:
            met.tell(error)                     # before the others lose their connections
            raise
        finally:
            torch.set_num_threads(threads)
            if dist.is_initialized() and not (failed and kind == 'cuda'):
                dist.destroy_process_group()    # NCCL's farewell would wait for all the others


def why(folder: str) -> int:
    "Say what went wrong first in a job of several machines: 2 where that is final, else 1."
    error = failure(folder)
    if error:
        print(f'ddpm: {error}', file=sys.stderr)
    return 1 + (kind_of(error).__name__ in FINAL if error else False)


if __name__ == '__main__':              # with the folder that torchrun was given as --log-dir
    sys.exit(why(sys.argv[1]))
