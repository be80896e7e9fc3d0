"Flags that several commands share, and the values that they become; needs no PyTorch."
import argparse
import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NoReturn, get_type_hints

from ..base.fields import accepted
from ..base.registry import look_up
from ..config import PRESETS, SECTIONS, RunConfig, SamplingConfig, override


class Parser(argparse.ArgumentParser):
    "An argument parser that raises its complaints."

    def error(self, message: str) -> NoReturn:
        "Raise ValueError in place of ending the process."
        raise ValueError(message)


# what one flag reads; argparse makes a sentence of a ValueError

def numbers(text: str) -> tuple[int, ...]:
    "`'16,8'` to (16, 8), `''` to ()."
    return tuple(int(part) for part in text.split(',') if part)


def whole(low: int, high: int) -> Callable[[str], int]:
    "What reads a whole number within limits, both included."
    def integer(text: str) -> int:
        if not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f'must be between {low} and {high}, not {text}')
        return int(text)
    return integer


def file(ending: str) -> Callable[[str], str]:
    "What reads the name of a file to write, which has this ending."
    def name(text: str) -> str:
        if text and not text.lower().endswith(ending):          # an empty one is refused later
            raise argparse.ArgumentTypeError(f'must name a {ending} file, not {text}')
        return text
    return name


# groups of flags

def add_fields(parser: argparse.ArgumentParser, section: Any,
               leave_out: Sequence[str] = ()) -> None:
    "One flag for each field of a section of `option`s; one that is not given stays None."
    hints = get_type_hints(type(section))
    group = parser.add_argument_group(type(section).__name__.removesuffix('Config').lower())
    for f in [f for f in dataclasses.fields(section) if f.name not in (*leave_out, 'own')]:
        kinds, many = accepted(hints[f.name])
        choices = '|'.join(str(c) for c in f.metadata['choices'] if c is not None)
        how: dict[str, Any] = {'action': argparse.BooleanOptionalAction}
        if kinds[0] is not bool:
            how = {'type': numbers if many else kinds[0], 'metavar': choices or f.name.upper()}
        default: Any = f.default
        standard = ','.join(map(str, default)) if many else default
        how['help'] = f.metadata['help'] + ('' if standard in (None, '') else f' ({standard})')
        group.add_argument('--' + f.name.replace('_', '-'), default=None, **how)


def add_own(p: argparse.ArgumentParser) -> None:
    "The flag for settings that only an entry of one's own has."
    p.add_argument('--set', dest='own', action='append', metavar='NAME=VALUE',
                   help='a setting of an entry of your own; may be repeated')


def add_precision(p: argparse.ArgumentParser) -> None:
    "The flag for what a network computes in."
    p.add_argument('--precision', default='auto', choices=('auto', 'fp32', 'bf16', 'fp16'),
                   help='of the network: what the machine is good at (auto), fp32, bf16 or fp16')


def add_processes(p: argparse.ArgumentParser) -> None:
    "Flags that say where a command runs, and in how many processes."
    p.add_argument('--device', default='auto', help='auto, cpu, cuda or mps')
    p.add_argument('--nproc', type=whole(1, 256),
                   help='processes on this machine (default: one for each GPU)')


FOUND_IN_DATA = ('classes', 'digest')   # no flags


def add_preset(p: argparse.ArgumentParser, sections: Sequence[str], out: str,
               leave_out: Sequence[str] = FOUND_IN_DATA) -> None:
    "Flags that make a configuration."
    p.add_argument('--preset', default='mnist16',
                   help=f'one of {", ".join(PRESETS)}; read first, other flags change it')
    p.add_argument('--out', help=f'a folder (default: {out})')
    for section in sections:
        add_fields(p, getattr(RunConfig(), section), leave_out)
    add_own(p)


def add_sampling(p: argparse.ArgumentParser) -> None:
    "Flags that say how samples are drawn, and what the network computes in."
    add_precision(p)
    add_fields(p, SamplingConfig())
    add_own(p)


def add_model(p: argparse.ArgumentParser) -> None:
    "Flags that name a model and how to sample from it."
    either = p.add_mutually_exclusive_group()
    either.add_argument('run', nargs='?', help="a run's folder (default: the model that ships)")
    either.add_argument('--weights', metavar='FOLDER_OR_HUB_ID',
                        help='a diffusers pipeline, for example google/ddpm-cifar10-32')
    add_sampling(p)


def add_grid(p: argparse.ArgumentParser, n: int, ending: str, out: str) -> None:
    "Flags that say what to draw, and where to."
    p.add_argument('--classes', help='names, with commas (default: all)')
    p.add_argument('--n', type=whole(1, 100_000), default=n,
                   help=f'rows: samples of each class, of ten where there are none ({n})')
    p.add_argument('--out', type=file(ending), help=f'where it goes (default: {out})')


# values

def given_fields(args: argparse.Namespace, *sections: Any) -> dict[str, Any]:
    "The fields of sections that flags gave, by name."
    names = [f.name for section in sections for f in dataclasses.fields(section)]
    found = {name: value for name in names if (value := getattr(args, name, None)) is not None}
    if 'own' in found:                  # of two values for a name the last; their order is no setting
        last = {text.partition('=')[0]: text for text in found['own']}
        found['own'] = tuple(sorted(last.values()))
    return found


def read_settings(args: argparse.Namespace) -> RunConfig:
    "The preset with the given flags laid over it. Raises ValueError for what cannot be."
    preset = look_up('preset', PRESETS, args.preset)
    given = given_fields(args, *(getattr(preset, section) for section in SECTIONS))
    return dataclasses.replace(override(preset, **given), plugins=args.plugins)


def read_sampling(args: argparse.Namespace, **usual: Any) -> SamplingConfig:
    "How samples are drawn; `usual` holds where no flag says otherwise."
    return SamplingConfig(**usual | given_fields(args, SamplingConfig()))


def read_loader(args: argparse.Namespace) -> Callable[..., Any]:
    "What loads the model that flags name: given a device, it returns model and configuration."
    from ..data.sets import ASSETS  # and PyTorch with it
    from ..run.runs import load_run
    from ..share.published import load_published
    if args.weights:
        return partial(load_published, args.weights, precision=args.precision)
    if args.run and Path(args.run, 'model_index.json').exists():
        raise ValueError(f'{args.run} holds published weights: name them with --weights')
    return partial(load_run, args.run or ASSETS / 'mnist16', plugins=args.plugins,
                   precision=args.precision)
