"The command `ddpm`: where it begins, in which processes it runs, and how it ends."
import argparse
import errno
import importlib
import logging
import os
import re
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from types import ModuleType
from typing import Any

from .. import __version__
from .flags import Parser, Processes, add_flags, read
from .terminal import complain, set_aside, steady

COMMANDS = {                            # each is a module here: Request and run
    'train': 'train a model (defaults need no data, network or GPU)',
    'test': 'measure a model on held-out images',
    'compare': 'compare runs on the same held-out images',
    'bench': 'measure what training costs on this machine',
    'doctor': 'find what is wrong with a run, a model or pictures',
    'sample': 'draw a grid of samples, one column per class',
    'genseq': 'film how samples come to be',
    'topology': 'draw the network and the diffusion model',
    'export': 'write a model for other tools',
    'presets': 'list the presets'}


def module_of(command: str) -> ModuleType:
    "The module of a command; most import PyTorch, and `ddpm --help` is quick."
    return importlib.import_module(f'ddpm_course.cli.{command}')


def make_parser(*wanted: str) -> Parser:
    "The parser of `ddpm`; it knows the flags of the commands that are wanted."
    parser = Parser('ddpm', description='Train, test and sample denoising diffusion models.',
                    allow_abbrev=False)
    parser.add_argument('--version', action='version', version=f'ddpm {__version__}')
    commands = parser.add_subparsers(title='commands', metavar='COMMAND', required=True)
    for name, help in COMMANDS.items():
        p = commands.add_parser(name, allow_abbrev=False, help=help, description=f'{help}.')
        p.set_defaults(command=name, plugins=(), words=())
        if name in wanted:
            add_flags(p, module_of(name).Request)
        p.add_argument('--plugin', action='append', default=[], metavar='FILE.py',
                       help='a Python file that adds entries of your own; may be repeated')
        p.add_argument('--debug', action='count', default=0,
                       help='show tracebacks; given twice, log what is done, too')
    return parser


def exit_code(call: Callable[..., object], *given: Any, debug: bool = False) -> int:
    "Call it; how it ended: 0, or 2 after a sentence, or 1 after a traceback."
    launched = 'DDPM_LAUNCHED' in os.environ            # whoever has launched this says it, once
    try:
        call(*given)
        return 0
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    except KeyboardInterrupt:
        if not launched:
            complain('stopped')
        return 130
    except Exception as error:
        said, advice = str(error), ''
        if isinstance(error, MemoryError) or re.search("out of memory|can't allocate memory", said):
            said, advice = said[:200].strip() or 'out of memory', (
                ': train with more slices (--accumulate), a smaller --batch or a smaller network; '
                'sample with a smaller --n')
        elif isinstance(error, OSError) and os.strerror(errno.ENOSPC) in said:
            advice = ': make room and start again, what was saved is intact'
        fault = not (advice or isinstance(error, (ValueError, OSError)))
        if not launched and (debug or fault and type(error).__name__ != 'Elsewhere'):
            traceback.print_exc()
        elif not launched:
            for line in said.splitlines() if type(error).__name__ == 'Lost' else [said + advice]:
                complain(line)
        return 1 if debug or fault else 2


def prepare(words: Sequence[str]) -> argparse.Namespace:
    "Read the words of a command, set how much is shown, and load the plugins; its arguments."
    args = make_parser(*words[:1]).parse_args(words)
    logging.basicConfig(level='INFO' if args.debug >= 2 else 'WARNING')
    args.words = words
    if empty := [name for name, value in vars(args).items() if value == '']:
        raise ValueError(f'{empty[0]} is empty: is a variable of the shell not set?')
    if args.plugin:
        from ddpm_course.run.runs import load_plugin
        args.plugins = tuple(load_plugin(path) for path in args.plugin)
    return args


def warn_shortly() -> None:
    "From now on a warning of this package is a sentence, in one process; others' are for debugging."
    first = os.environ.get('RANK', '0') == '0'
    warnings.simplefilter('ignore')
    warnings.filterwarnings('default', module='ddpm_')         # and of plugins
    warnings.filterwarnings('ignore', message='(?s).*Triggered internally')     # PyTorch's, of ours
    warnings.showwarning = lambda message, *where: complain(message) if first else None


def dispatch(words: Sequence[str], word: Any = None) -> None:
    """Run a command: here, among the others that a worker of torchrun has met, or by torchrun.
    Errors come as they are.
    """
    args = prepare(words)
    command = module_of(args.command)
    request = read(args, command.Request)
    if not isinstance(request, Processes):
        return command.run(request)
    import torch

    from ddpm_course.base.group import Group
    from ddpm_course.base.machine import keep_memory, pick_device
    from ddpm_course.run import launch
    device = pick_device(request.device)
    count = request.nproc or (torch.cuda.device_count() if device.type == 'cuda' else 1)
    if word:
        if request.nproc and 'DDPM_LAUNCHED' not in os.environ:
            raise ValueError('torchrun has started the processes already: leave --nproc out')
        keep_memory()
        with launch.join(request.device, word) as group:
            command.run(request, group)
    elif count > 1:
        launch.torchrun(count, words)
    else:
        keep_memory()
        command.run(request, Group(device))


def work(words: Sequence[str]) -> None:
    "Run a command as a worker of torchrun, which says what went wrong first in any of them."
    from ddpm_course.run import launch
    with launch.meeting() as word:
        dispatch(words, word)


def main(words: Sequence[str] | None = None) -> None:
    "Run `ddpm`; an error that the user can fix is one sentence and exit code 2."
    if words is None:                                   # not where a notebook or a script calls
        os.environ['MPLBACKEND'] = 'Agg'
        if '--debug' not in sys.argv:                   # who waits for a thread hears its error
            threading.excepthook = lambda told: None
    os.environ.setdefault('TORCH_CPP_LOG_LEVEL', 'ERROR')
    if 'OMP_WAIT_POLICY' not in os.environ:
        os.environ.setdefault('GOMP_SPINCOUNT', '10000')    # waiting threads soon leave their core
    words = list(sys.argv[1:] if words is None else words) or ['--help']
    worker, errors = 'RANK' in os.environ, sys.stderr
    if worker and errors and '--debug' not in words:
        from ddpm_course.run import launch
        errors = set_aside(launch.new_log())
    with (redirect_stdout(steady(sys.stdout)), redirect_stderr(steady(errors)),
          warnings.catch_warnings()):
        if '--debug' not in words:
            warn_shortly()
        code = exit_code(work if worker else dispatch, words, debug='--debug' in words)
        if worker:
            from ddpm_course.run import launch
            launch.end(code)                            # at once: others may wait
    if code:
        sys.exit(code)
