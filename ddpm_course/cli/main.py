import argparse
import errno
import io
import logging
import os
import re
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from typing import Any, TextIO

from .parser import make_parser, printable
from ..config import COSTS, PRESETS


def presets(args: argparse.Namespace) -> None:
    "Print the presets with their parameters, data and expected cost; or the entries."
    if args.entries:
        return print_entries()
    print(f'{"preset":15} {"parameters":>10}  {"data":8} {"size":>5} {"steps":>8}  cost')
    for name, config in PRESETS.items():
        parameters, cost = COSTS[name]
        d, t = config.data, config.training
        print(f'{name:15} {parameters / 1e6:8.2f} M  {d.data:8} {d.size:>5} {t.steps:>8,}  {cost}')


def print_entries() -> None:
    "Print each registry with its entries, and in brackets the settings that one has for itself."
    import ddpm_course
    from ddpm_course.base.registry import own_settings
    for registry in ('DATA', 'AUGMENTATIONS', 'SCHEDULES', 'OBJECTIVES', 'CRITERIA', 'NETWORKS',
                     'OPTIMIZERS', 'RATES', 'EMAS', 'TRACKERS', 'SAMPLERS', 'SPACINGS', 'CHECKS'):
        entries = getattr(ddpm_course, registry).items()
        known = {name: own_settings(entry) if callable(entry) else {} for name, entry in entries}
        said = [name + (f' ({", ".join(f"{k}={v}" for k, v in own.items())})' if own else '')
                for name, own in known.items()]
        print(f'{registry:14} {", ".join(said)}')


def find_command(name: str) -> Callable[..., None]:
    "The function of a command, imported only now, as `--help` is instant; memory is kept for it."
    if name == 'presets':
        return presets
    from ddpm_course.base.machine import keep_memory
    from ddpm_course.cli import commands, doctor, train
    from ddpm_course.share import export
    keep_memory()
    modules: dict[str, Any] = {'train': train, 'doctor': doctor, 'export': export}
    return getattr(modules.get(name, commands), name)


class Steady(io.FileIO):
    "An open file that takes everything: what a full disk or a closed terminal refuses is lost."

    def write(self, data: Any) -> int:
        "Write some bytes, or pretend to; how many."
        try:
            return super().write(data)
        except OSError:
            return len(data)


def steady(stream: TextIO | None) -> TextIO:
    "A stream to print to that does not fail; None, as where it was closed before, prints nowhere."
    if stream is None:
        return open(os.devnull, 'w')                        # noqa: SIM115
    if not isinstance(getattr(stream, 'buffer', None), (io.BufferedWriter, io.FileIO)):
        return stream                                       # a notebook's, a test's
    file = io.BufferedWriter(Steady(stream.fileno(), 'w', closefd=False))
    return io.TextIOWrapper(file, stream.encoding, 'replace', line_buffering=True)


def tell(sentence: object) -> None:
    "Print a complaint on the error stream: its first line."
    print('ddpm:', printable((str(sentence).splitlines() or ['?'])[0]), file=sys.stderr)


def exit_code(call: Callable[..., object], *given: Any, debug: bool = False) -> int:
    "Call it; how it ended: 0, or 2 after a sentence, or 1 after a traceback."
    try:
        call(*given)
        return 0
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    except KeyboardInterrupt:
        tell('stopped')
        return 130
    except Exception as error:
        said, advice = str(error), ''
        if isinstance(error, ValueError) and 'TORCHELASTIC_ERROR_FILE' in os.environ:
            from ddpm_course.run import launch
            launch.record(error)                        # for the workers that torchrun starts next
        if isinstance(error, MemoryError) or re.search("out of memory|can't allocate memory", said):
            said, advice = said[:200].strip() or 'out of memory', (
                ': train with more slices (--accumulate), a smaller --batch or a smaller network; '
                'sample with a smaller --n')
        elif isinstance(error, OSError) and error.errno == errno.ENOSPC:
            advice = ': make room and start again, what was saved is intact'
        if debug or not (advice or isinstance(error, (ValueError, OSError))):
            traceback.print_exc()
            return 1
        tell(said + advice)
        return 2


def prepare(words: Sequence[str]) -> argparse.Namespace:
    "Read the words of a command, set how much is shown, and load the plugins; its arguments."
    args = make_parser().parse_args(words)
    logging.basicConfig(level='INFO' if args.debug >= 2 else 'WARNING')
    if not args.debug:
        first = os.environ.get('RANK', '0') == '0'
        warnings.showwarning = lambda message, *where: tell(message) if first else None
    args.words = words
    if empty := [name for name, value in vars(args).items() if value == '']:
        raise ValueError(f'{empty[0]} is empty: is a variable of the shell not set?')
    if args.plugin:
        from ddpm_course.run.runs import load_plugin
        args.plugins = tuple(load_plugin(path) for path in args.plugin)
    return args


def run_in_process(group: Any, words: Sequence[str]) -> None:
    "What each of several processes does with the words of a command."
    with redirect_stdout(steady(sys.stdout)), redirect_stderr(steady(sys.stderr)):
        args = prepare(words)
        find_command(args.command)(args, group)


def dispatch(words: Sequence[str]) -> None:
    "Call a command: here, in new processes, or as a worker of torchrun. Errors come as they are."
    args = prepare(words)
    call = find_command(args.command)
    if not hasattr(args, 'nproc'):
        return call(args)
    import torch

    from ddpm_course.base.group import Group
    from ddpm_course.base.machine import pick_device
    from ddpm_course.run import launch, meeting
    device = pick_device(args.device)
    meeting.check_srun()
    if 'RANK' in os.environ:
        if args.nproc:
            raise ValueError('torchrun has started the processes already: leave --nproc out')
        with meeting.join(args.device) as group:            # at its end at once: others may wait
            launch.end(exit_code(call, args, group, debug=args.debug > 0))
    count = args.nproc or (torch.cuda.device_count() if device.type == 'cuda' else 1)
    if count == 1:
        return call(args, Group(device))
    launch.launch(run_in_process, count, words, kind=device.type)


def main(words: Sequence[str] | None = None) -> None:
    "Run `ddpm`; an error that the user can fix is one sentence and exit code 2."
    if words is None:                                   # not where a notebook or a script calls
        os.environ['MPLBACKEND'] = 'Agg'
    os.environ.setdefault('TORCH_CPP_LOG_LEVEL', 'ERROR')
    if 'OMP_WAIT_POLICY' not in os.environ:
        os.environ.setdefault('GOMP_SPINCOUNT', '10000')    # waiting threads soon leave their core
    words = list(sys.argv[1:] if words is None else words) or ['--help']
    with (redirect_stdout(steady(sys.stdout)), redirect_stderr(steady(sys.stderr)),
          warnings.catch_warnings()):
        code = exit_code(dispatch, words, debug='--debug' in words)
    if code:
        sys.exit(code)
