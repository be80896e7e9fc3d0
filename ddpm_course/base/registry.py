"Names that a string resolves: entries of a registry, and the settings that they have for themselves."
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any


def own_settings(entry: Callable) -> dict[str, Any]:
    "The settings that an entry has for itself, keyword-only arguments with a default: its default."
    return {p.name: p.default for p in inspect.signature(entry).parameters.values()
            if p.kind is p.KEYWORD_ONLY and p.default not in (None, p.empty)}


def as_type(default: Any, text: str) -> Any:
    "What a text says, of a default's type. Raises ValueError where it says no such thing."
    if isinstance(default, bool):
        words = dict(zip(('false', 'no', '0', 'true', 'yes', '1'), [False] * 3 + [True] * 3))
        if text.lower() not in words:
            raise ValueError(f'{text} is neither true nor false')
        return words[text.lower()]
    if isinstance(default, tuple):
        return tuple(as_type(default[0] if default else '', part)
                     for part in text.split(',') if part)
    return type(default)(text)


def look_up(kind: str, registry: Mapping[str, Any], name: str, own: Sequence[str] = ()) -> Any:
    """The entry called `name`, given those of its own settings that `own` names, as ('patch=2',).

    Raises ValueError, saying of what `kind` it is, where there is none, or a value is of no use.
    """
    if name not in registry:
        names = ', '.join(registry)
        raise ValueError(f'no {kind} is called {name!r}: expected one of {names}')
    entry, values = registry[name], {}
    given = dict(text.partition('=')[::2] for text in own)
    for setting, default in own_settings(entry).items() if given else ():
        if setting in given:
            try:
                values[setting] = as_type(default, given[setting])
            except ValueError:
                raise ValueError(f'{setting} of the {kind} {name} must be of type '
                                 f'{type(default).__name__}, not {given[setting]!r}') from None
    return partial(entry, **values) if values else entry


def check_own(own: Sequence[str], entries: Iterable[Callable]) -> None:
    "Raise ValueError where none of these entries has a setting that `own` gives."
    known = [name for entry in entries for name in own_settings(entry)]
    for text in own:
        if '=' not in text or text.partition('=')[0] not in known:
            raise ValueError(f'no entry has a setting for {text!r}: expected NAME=VALUE, NAME one '
                             f'of {", ".join(known) or "none"}')
