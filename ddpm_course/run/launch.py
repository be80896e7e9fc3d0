"Several processes: torchrun starts them, here they meet and leave word of what went wrong."
import contextlib
import json
import logging
import os
import signal
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, get_error_handler
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from ..base.group import Group
from ..base.machine import cores, pick_device
from .distributed import DDPGroup
from .stopping import Drifted, NotFinite

TIMEOUT = 600               # seconds to wait for others, in each collective
PLACE = ('RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'LOCAL_WORLD_SIZE', 'MASTER_ADDR', 'MASTER_PORT',
         'DDPM_TIMEOUT')    # what the environment says: the last is ours, the others torchrun's
TOLD = {kind.__name__: kind for kind in (Drifted, NotFinite, ValueError, OSError, MemoryError,
                                         RuntimeError)}
FINAL = {'ValueError': 1, 'NotFinite': 2, 'Drifted': 2}       # in so many attempts: not worth another


def record(error: BaseException) -> None:
    "Leave an error's kind, sentence and traceback where torchrun, and `failure`, look for it."
    kind = next((k for k in TOLD.values() if isinstance(error, k)), RuntimeError)
    get_error_handler().record_exception(kind(str(error)))


def end(code: int) -> None:
    "End this process without any farewell: gloo's threads may abort or block an ordinary end."
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):      # closed, full, or none
            stream.flush()
    os._exit(code)


def failure(folder: str, codes: Mapping[int, int] = {}) -> Exception | None:
    "What went wrong first, as others fail in its wake: what was told, or who was killed, or None."
    files = sorted(Path(folder).rglob('error.json'), key=lambda path: path.stat().st_mtime_ns)
    errors = []
    for message in (json.loads(path.read_text())['message'] for path in files):
        kind, _, sentence = message['message'].partition(': ')
        errors.append(TOLD[kind](sentence))
        errors[-1].add_note(message['extraInfo']['py_callstack'])       # beside a traceback
    for rank, code in codes.items():
        if code < 0 and code != -signal.SIGTERM:        # with which torchrun ends the others
            why = ', as by the system where memory runs out' * (code == -signal.SIGKILL)
            errors.append(OSError(
                f'rank {rank} was ended by {signal.Signals(-code).name}{why}: what was saved is '
                'intact, go on with fewer processes or a smaller batch'))
    return min(errors, key=lambda error: type(error) is RuntimeError, default=None)     # the wake


def torchrun(count: int, words: Sequence[str]) -> None:
    """`ddpm WORDS` in so many processes of this machine, by the documented line of torchrun.

    Raises what went wrong first; where a signal or a code ended them, ends this process likewise.
    """
    names = [name for name in ('SIGTERM', 'SIGINT', 'SIGHUP', 'SIGQUIT') if hasattr(signal, name)]
    heard = [name for name in names if signal.getsignal(getattr(signal, name)) != signal.SIG_IGN]
    before = dict(os.environ)                       # whose words go on to the processes
    os.environ |= {'DDPM_LAUNCHED': '1', 'TORCH_DISABLE_SHARE_RDZV_TCP_STORE': '1',
                   'PYTHONPATH': os.pathsep.join(filter(None, sys.path))}
    logging.disable(logging.CRITICAL)               # what went wrong is said once, by the caller
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
                raise failure(folder, codes) or SystemExit(abs(code) + 128 * (code < 0)) from None
    finally:
        logging.disable(logging.NOTSET)
        os.environ.clear()
        os.environ |= before


def meet(kind: str) -> tuple[torch.device, int]:
    """Wait for the processes that the environment tells of; own device, and how many are here.

    Raises ConnectionError where that cannot be, or not all come in time.
    """
    e = os.environ
    try:
        rank, world = int(e['RANK']), int(e['WORLD_SIZE'])
        local_rank, here = int(e.get('LOCAL_RANK', rank)), int(e.get('LOCAL_WORLD_SIZE', world))
        if not (0 <= rank < world and 0 <= local_rank < here):
            raise ValueError('a rank is below the number of processes, there and on its machine')
        if kind != 'cpu' and here > torch.cuda.device_count():
            raise ValueError(f'{here} processes need as many GPUs of CUDA; this machine has '
                             f'{torch.cuda.device_count()}')
        device = torch.device('cuda', local_rank) if kind != 'cpu' else torch.device('cpu')
        if kind != 'cpu':
            torch.cuda.set_device(device)
        seconds = float(e.get('DDPM_TIMEOUT', TIMEOUT))
        dist.init_process_group('gloo' if kind == 'cpu' else 'cpu:gloo,cuda:nccl',
                                rank=rank, world_size=world, timeout=timedelta(seconds=seconds))
        dist.all_reduce(torch.zeros(1))                     # nobody leaves before all have met
    except (KeyError, ValueError, RuntimeError) as error:
        told = ' '.join(f'{name}={e[name]}' for name in PLACE if name in e)
        raise ConnectionError('this process could not meet the others that it was told of '
                              f'({told}): {str(error).splitlines()[0]}') from error
    return device, here


def check_restart() -> None:
    "Raise ValueError in a worker that torchrun restarts, or could, where that would be in vain."
    e = os.environ
    shared = e.get('TORCHELASTIC_USE_AGENT_STORE') == 'True'
    if shared and e.get('TORCHELASTIC_MAX_RESTARTS', '0') != '0':
        raise ValueError('restarted workers would find only old addresses in the store that they '
                         'share with torchrun: start it with TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1, '
                         'and with --rdzv-backend=c10d or --standalone')
    own = Path(e.get('TORCHELASTIC_ERROR_FILE') or '-/-/-/-')           # RUN/attempt_1/0/error.json
    attempts: dict[str, set[str]] = {}                                  # what was said, in which
    for path in set(own.parents[2].glob('attempt_*/*/error.json')) - set(own.parents[1].glob('*/*')):
        said = json.loads(path.read_text())['message']['message']
        attempts.setdefault(said, set()).add(path.parts[-3])
    for said, where in attempts.items():
        kind, _, sentence = said.partition(': ')
        if len(where) >= FINAL.get(kind, 10**6):
            raise ValueError(sentence)


@contextmanager
def join(device: str = 'auto') -> Iterator[Group]:
    """This process alone or, as a worker of torchrun, among the others, while a block runs; device:
    'auto', 'cpu' or 'cuda'. Collectives wait DDPM_TIMEOUT seconds for others, or 600.

    Raises ConnectionError where they cannot meet. A ValueError of the block is final: a worker that
    torchrun starts again raises it at once.
    """
    kind, threads, failed = pick_device(device).type, torch.get_num_threads(), True
    if 'RANK' not in os.environ:
        yield Group(kind)
        return
    check_restart()
    try:
        own, here = meet(kind)
        torch.set_num_threads(max(1, cores() // here))          # torchrun: one
        yield DDPGroup(here, own)
        failed = False
    except ValueError as error:
        record(error)
        raise
    finally:
        torch.set_num_threads(threads)
        if dist.is_initialized() and not (failed and kind == 'cuda'):
            dist.destroy_process_group()        # NCCL's farewell would wait for all the others
