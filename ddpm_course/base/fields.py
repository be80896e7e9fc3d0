import argparse
import dataclasses
import math
from collections.abc import Sequence
from dataclasses import field
from typing import Any, NoReturn, get_args, get_origin, get_type_hints


def option(default: Any, help: str, low: float = -math.inf, high: float = math.inf,
           choices: tuple = ()) -> Any:
    "A dataclass field with what it means, and its limits, included, or the only choices."
    limits = {'limits': (low, high), 'choices': choices}
    return field(default=default, metadata={'help': help, **limits})


def accepted(hint: Any) -> tuple[tuple[type, ...], bool]:
    "The types that a field's values may have (of each item, for a tuple); whether it is a tuple."
    many = get_origin(hint) is tuple
    kinds = get_args(hint)[:1] if many else get_args(hint) or (hint,)   # `int | None` has two
    return ((*kinds, int) if float in kinds else kinds), many


def check(section: Any) -> None:
    "Raise ValueError with one sentence where a field has the wrong type or leaves its limits."
    hints = get_type_hints(type(section))
    for f in dataclasses.fields(section):
        value, hint, choices = getattr(section, f.name), hints[f.name], f.metadata.get('choices')
        low, high = f.metadata.get('limits', (-math.inf, math.inf))
        kinds, many = accepted(hint)
        values, expected = value if many else (value,), ''
        if not isinstance(values, tuple) or any(type(v) not in kinds for v in values):
            expected = f'of type {hint.__name__ if isinstance(hint, type) else hint}'
        elif choices and value not in choices:
            expected = f'one of {", ".join(str(c) for c in choices if c is not None)}'
        elif not all(low <= v <= high for v in values if isinstance(v, (int, float))):
            expected = f'at least {low}' if high == math.inf else f'between {low} and {high}'
        if expected:
            raise ValueError(f'{f.name} must be {expected}, not {value!r}')


def numbers(text: str) -> tuple[int, ...]:
    "`'16,8'` to (16, 8), `''` to (). Raises ValueError, of which `argparse` makes a sentence."
    return tuple(int(part) for part in text.split(',') if part)


def add_fields(parser: argparse.ArgumentParser, section: Any,
               leave_out: Sequence[str] = ()) -> None:
    "One flag for each field of a section of `option`s; one that is not given stays None."
    hints = get_type_hints(type(section))
    group = parser.add_argument_group(type(section).__name__.removesuffix('Config').lower())
    for f in [f for f in dataclasses.fields(section) if f.name not in leave_out]:
        kinds, many = accepted(hints[f.name])
        choices = '|'.join(str(c) for c in f.metadata['choices'] if c is not None)
        how: dict[str, Any] = {'action': argparse.BooleanOptionalAction}
        if kinds[0] is not bool:
            how = {'type': numbers if many else kinds[0], 'metavar': choices or f.name.upper()}
        default: Any = f.default
        standard = ','.join(map(str, default)) if many else default
        how['help'] = f.metadata['help'] + ('' if standard in (None, '') else f' ({standard})')
        group.add_argument('--' + f.name.replace('_', '-'), default=None, **how)


def given_fields(args: argparse.Namespace, *sections: Any) -> dict[str, Any]:
    "The fields of sections that flags gave, by name."
    names = [f.name for section in sections for f in dataclasses.fields(section)]
    found = {name: value for name in names if (value := getattr(args, name, None)) is not None}
    # a flag that may be repeated makes a list, whose order means nothing
    return {name: tuple(sorted(v)) if isinstance(v, list) else v for name, v in found.items()}


class Parser(argparse.ArgumentParser):
    "An argument parser that raises its complaints."

    def error(self, message: str) -> NoReturn:
        "Raise ValueError in place of ending the process."
        raise ValueError(message)
