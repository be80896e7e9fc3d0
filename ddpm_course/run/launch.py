import contextlib
import logging
import os
import pickle
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from torch.distributed import TCPStore
from torch.distributed.elastic.multiprocessing import (
    DefaultLogsSpecs, PContext, RunProcsResult, SignalException, Std, start_processes)
from torch.distributed.elastic.multiprocessing.errors import get_error_handler

from .meeting import join
from .stopping import Stop

BAD_INPUT = (ValueError, OSError, MemoryError, Stop)    # arrive as they are; others as RuntimeError


def record(error: BaseException) -> None:
    "Leave an error's kind, sentence and traceback where `launch`, or torchrun, looks for it."
    kind = next((k for k in BAD_INPUT if isinstance(error, k)), RuntimeError)
    get_error_handler().record_exception(kind(str(error)))


def end(code: int) -> None:
    "End this process without any farewell: gloo's threads may abort or block an ordinary end."
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):      # closed, full, or none
            stream.flush()
    os._exit(code)


@contextlib.contextmanager
def ending() -> Iterator[None]:
    "An error of the block is recorded, and ends this process at once."
    try:
        yield
    except SystemExit as stop:
        end(stop.code if isinstance(stop.code, int) else 1)
    except BaseException as error:
        record(error)
        end(2)


CHILD = 'import sys; from ddpm_course.run.launch import child; child(sys.argv[1])'


def child(folder: str) -> None:
    "What a process of `launch` runs: meet, work, leave a result or an error."
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:           # who loses a parent gets another
            time.sleep(0.5)
        os._exit(1)
    threading.Thread(target=watch, daemon=True).start()
    with ending():
        worker, args, device = pickle.loads((Path(folder) / 'work').read_bytes())
        with join(device) as group:
            with ending():                      # before it leaves the group, and others fail, too
                result = pickle.dumps(worker(group, *args))
        (Path(folder) / f'result_{group.rank}').write_bytes(result)
    end(0)


def start(folder: str, world: int, port: int, timeout: float | None) -> PContext:
    "Start the processes of `launch`. The first prints here, the others into files in the folder."
    told = {'PYTHONPATH': os.pathsep.join(filter(None, sys.path)), 'WORLD_SIZE': str(world),
            'LOCAL_WORLD_SIZE': str(world), 'MASTER_ADDR': '127.0.0.1', 'MASTER_PORT': str(port),
            'TORCHELASTIC_USE_AGENT_STORE': 'True', 'TORCHELASTIC_MAX_RESTARTS': '0'}
    if timeout:
        told['DDPM_TIMEOUT'] = str(timeout)
    places = {k: told | {'RANK': str(k), 'LOCAL_RANK': str(k)} for k in range(world)}
    words = '-P', '-c', CHILD, folder                       # -P: no code from the current folder
    logs = DefaultLogsSpecs(folder, dict.fromkeys(range(1, world), Std.ALL))
    return start_processes('ddpm', sys.executable, dict.fromkeys(places, words), places, logs)


def failure(ended: RunProcsResult) -> Exception:
    "What went wrong first, as others fail in its wake: a process's sentence, or how it ended."
    failures = ended.failures
    said = [k for k, f in failures.items() if Path(f.error_file).is_file()]
    first = min(said, key=lambda k: os.stat(failures[k].error_file).st_mtime_ns,
                default=min(failures))
    how = f'rank {first} ended with code {failures[first].exitcode}'
    if said:
        message: Any = failures[first].message
        kind, _, text = message['message'].partition(': ')
        trace = f'{how}\n{message["extraInfo"]["py_callstack"]}'
        how = f'{text}\n{trace}'
        for known in BAD_INPUT:
            if known.__name__ == kind:
                error = known(text)
                error.add_note(trace)           # printed with a traceback, not with the sentence
                return error
    noticed = min(f.timestamp for f in failures.values())
    for rank, f in failures.items():            # those that would not end are killed much later
        if f.signal_name() == 'SIGKILL' and f.timestamp < noticed + 10:
            return OSError(f'rank {rank} was ended by SIGKILL, as by the system where memory runs '
                           'out: what was saved is intact, go on with fewer processes or a '
                           'smaller batch')
    log = ended.stderrs[first]
    return RuntimeError(how + (Path(log).read_text() if log else ''))


def supervise(begin: Callable[[], PContext]) -> tuple[RunProcsResult, int]:
    "Start processes, wait until all have ended: how they did, and the signal that came, or 0."
    main = threading.current_thread() is threading.main_thread()    # only there can they be
    names = ('SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT') if main else ()
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in numbers}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)
    context = None
    try:
        context = begin()                                           # handles signals from here on
        for number, handler in before.items():
            if handler == signal.SIG_IGN:                           # but not those of nohup
                signal.signal(number, handler)
        return context.wait(period=0.05) or RunProcsResult(), 0
    except SignalException as told:
        restore()                                                   # a second one stops at once
        if context:
            context.close(signal.SIGTERM, timeout=30)               # time to save
        return (context and context.wait(0)) or RunProcsResult(), told.sigval
    finally:
        restore()
        if context:
            context.close(timeout=2)


def launch(
    worker: Callable[..., Any],         # worker(group, *args), a function of an importable module
    world: int,                         # processes
    *args: Any,
    kind: str = 'cpu',                  # 'cuda': one GPU each
    timeout: float | None = None,       # seconds to wait for others; None: DDPM_TIMEOUT, or 600
) -> list[Any]:                         # what each returned
    """Run a function in several new processes of this machine.

    Raises what the first that failed raised (ValueError, OSError, MemoryError and Stop as they are,
    others as RuntimeError); the other processes are ended. Ctrl-C and SIGTERM reach the workers as
    SIGTERM, and end this process with code 130 or 143.
    """
    if worker.__module__ == '__main__':
        raise ValueError(f'{worker.__name__} is defined in a script or a notebook, where new '
                         'processes cannot find it: put it into a module')
    logging.getLogger(PContext.__module__).setLevel(logging.CRITICAL)       # failures are raised
    store = TCPStore('127.0.0.1', 0, is_master=True, wait_for_workers=False)    # where they meet
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / 'work').write_bytes(pickle.dumps((worker, args, kind)))
        ended, stop = supervise(lambda: start(folder, world, store.port, timeout))
        if stop and not any(Path(f.error_file).is_file() for f in ended.failures.values()):
            sys.exit(128 + stop)
        if ended.failures:
            raise failure(ended)
        return [pickle.loads((Path(folder) / f'result_{k}').read_bytes()) for k in range(world)]
