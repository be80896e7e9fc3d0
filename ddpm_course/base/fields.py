import dataclasses
import math
from dataclasses import field
from typing import Any, get_args, get_origin, get_type_hints


def option(default: Any, help: str, low: float = -math.inf, high: float = math.inf,
           choices: tuple = (), ending: str = '', **flag: Any) -> Any:
    """A dataclass field with what it means, and its limits, included, the only choices, or how a
    file's name ends; `flag` holds what argparse is told beside what follows from these."""
    limits = {'limits': (low, high), 'choices': choices, 'ending': ending}
    return field(default=default, metadata={'help': help, 'flag': flag, **limits})


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
        elif value and not str(value).lower().endswith(f.metadata.get('ending', '')):
            expected = f'the name of a {f.metadata["ending"]} file'
        if expected:
            raise ValueError(f'{f.name} must be {expected}, not {value!r}')
