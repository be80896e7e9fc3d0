"Flags that follow from a dataclass of `option`s, and what they gave; needs no PyTorch."
import argparse
import dataclasses
from dataclasses import dataclass, is_dataclass
from typing import Any, NoReturn, get_type_hints

from ..base.fields import accepted, check, option
from ..base.registry import look_up
from ..config import PRESETS, SECTIONS, RunConfig, override


class Parser(argparse.ArgumentParser):
    "An argument parser that raises its complaints."

    def error(self, message: str) -> NoReturn:
        "Raise ValueError in place of ending the process."
        raise ValueError(message)


def numbers(text: str) -> tuple[int, ...]:
    "`'16,8'` to (16, 8), `''` to ()."
    return tuple(int(part) for part in text.split(',') if part)


def add_flag(parser: Any, f: dataclasses.Field, hint: Any) -> None:
    "The flag of one `option`, or the word in its place; one that is not given stays None."
    kinds, many = accepted(hint)
    choices = '|'.join(str(c) for c in f.metadata['choices'] if c is not None)
    how: dict[str, Any] = {'action': argparse.BooleanOptionalAction}
    if kinds[0] is not bool:
        kind = numbers if many and kinds[0] is int else kinds[0]
        how = {'type': kind, 'metavar': choices or f.name.upper()}
    how |= f.metadata['flag']
    name = how.pop('name', '--' + f.name.replace('_', '-'))
    if name.startswith('-'):
        how['dest'] = f.name
    default: Any = f.default
    standard = ','.join(map(str, default)) if many else default
    said = f.metadata['help'] + ('' if standard in (None, '') else f' ({standard})')
    parser.add_argument(name, default=None, help=said, **how)


FOUND_IN_DATA = ('classes', 'digest')          # no flags of a configuration


def add_flags(parser: argparse.ArgumentParser, kind: type, leave_out: tuple[str, ...] = (),
              title: str = '') -> None:
    "Flags for the `option`s of a dataclass; each dataclass inside it has a group of flags."
    group: Any = parser.add_argument_group(title) if title else parser
    hints = get_type_hints(kind)
    for f in dataclasses.fields(kind):
        if is_dataclass(f.default):
            name = type(f.default).__name__.removesuffix('Config').lower()
            add_flags(parser, type(f.default), f.metadata.get('leave_out', leave_out), name)
        elif 'help' in f.metadata and f.name not in leave_out:
            add_flag(group, f, hints[f.name])


def given_fields(args: argparse.Namespace, *sections: Any) -> dict[str, Any]:
    "The fields of sections that flags gave, by name."
    names = [f.name for section in sections for f in dataclasses.fields(section)]
    found = {name: value for name in names if (value := getattr(args, name, None)) is not None}
    found |= {name: tuple(value) for name, value in found.items() if isinstance(value, list)}
    if 'own' in found:                  # of two values for a name the last; their order is no setting
        last = {text.partition('=')[0]: text for text in found['own']}
        found['own'] = tuple(sorted(last.values()))
    return found


def fitting_preset(data: str | None, channels: int | None) -> str:
    "The preset where none is named: the smallest in colour for a folder of colour, else the usual."
    if data is None or channels == 1:
        return RunConfig().preset
    from ..run.datasets import in_colour
    colour = (name for name, preset in PRESETS.items() if preset.data.image_channels == 3)
    smallest = min(colour, key=lambda name: PRESETS[name].data.size)
    return smallest if in_colour(data) else RunConfig().preset


def read_settings(args: argparse.Namespace) -> RunConfig:
    "The preset with the given flags laid over it. Raises ValueError for what cannot be."
    name = args.preset or fitting_preset(getattr(args, 'data', None), args.image_channels)
    preset = look_up('preset', PRESETS, name)
    given = given_fields(args, *(getattr(preset, section) for section in SECTIONS))
    return dataclasses.replace(override(preset, **given), plugins=args.plugins)


def settle_data(args: argparse.Namespace) -> None:
    "Raise ValueError where a name of pictures could mean two things; NAME: becomes NAME."
    given = {name: value for name in ('data', 'thing') if (value := getattr(args, name, None))}
    if given:                           # what follows brings PyTorch in
        from ..data.sources import DATA, check_meant
        for value in given.values():
            check_meant(value)
        if given.get('data', '').removesuffix(':') in DATA:
            args.data = given['data'].removesuffix(':')


def read(args: argparse.Namespace, kind: type) -> Any:
    "A dataclass of what flags gave, see `add_flags`. Raises ValueError for what cannot be."
    settle_data(args)
    found = given_fields(args, kind)
    for f in dataclasses.fields(kind):
        if isinstance(f.default, RunConfig):
            found[f.name] = read_settings(args)
        elif is_dataclass(f.default):
            section: Any = f.default
            found[f.name] = dataclasses.replace(section, **given_fields(args, section))
            check(found[f.name])
    request = kind(**found)
    check(request)
    return request


# what several commands are asked

@dataclass(frozen=True)
class Processes:
    "Where a command runs, and in how many processes."
    device: str = option('auto', 'auto, cpu, cuda or mps')
    nproc: int | None = option(None, 'processes on this machine (default: one for each GPU)',
                               low=1, high=256)


@dataclass(frozen=True)
class Loaded:
    "What a model computes in, and the plugins that its run may need."
    precision: str = option('auto', 'of the network; auto: what the machine is good at',
                            choices=('auto', 'fp32', 'bf16', 'fp16'))
    plugins: tuple[str, ...] = ()
