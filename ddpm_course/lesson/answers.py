import html
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from itertools import count
from typing import Any

COLOURS = {'right': '46,125,50', 'hint': '230,140,0', 'waiting': '128,128,128'}


@dataclass(frozen=True)
class Sentence:
    "What a page says; it shows itself in the colour of its kind."
    kind: str                           # right, hint, waiting, or another word
    words: str

    def __repr__(self) -> str:
        return f'{self.kind}: {self.words}'

    def _repr_html_(self) -> str:
        colour = COLOURS.get(self.kind, '0,114,178')
        words = re.sub('`(.+?)`', r'<code>\1</code>', html.escape(self.words, quote=False))
        style = f'border-left: 4px solid rgb({colour}); background: rgba({colour},.12)'
        return f'<div style="{style}; padding: 4px 10px"><b>{self.kind}:</b> {words}</div>'


def say(kind: str, words: str) -> None:
    "Show a sentence below the cell."
    from IPython.display import display
    display(Sentence(kind, words))


@dataclass(frozen=True)
class Table:
    "A table in Markdown, which shows itself."
    markdown: str

    def __repr__(self) -> str:
        return self.markdown

    _repr_markdown_ = __repr__


def table(rows: Mapping[str, Sequence[object]], columns: Sequence[str]) -> Table:
    "A small table: each row has a name; numbers have three digits."
    say = lambda value: f'{value:.3g}' if isinstance(value, float) else str(value)
    lines = [['', *columns], ['---'] * (1 + len(columns))]
    lines += [[name, *map(say, values)] for name, values in rows.items()]
    return Table('\n'.join(f'| {" | ".join(line)} |' for line in lines))


Answer = Callable[..., Any]             # a function that a reader writes


def written(f: Answer) -> Answer:
    "The same, but its first call raises NotImplementedError where it returns None, as yet."
    calls = count()

    @wraps(f)
    def asked(*args: Any, **more: Any) -> Any:
        found = f(*args, **more)
        if next(calls) == 0 and found is None:
            raise NotImplementedError
        return found
    return asked


class Checks:
    """The checks of a page, `check_NAME` for the function NAME that a reader writes. A check
    raises AssertionError, with a hint, for a wrong answer."""

    def __init__(self, *judges: Callable[[Answer], None]) -> None:
        self.judges = {judge.__name__.removeprefix('check_'): judge for judge in judges}
        self.given = dict.fromkeys(self.judges, 0)              # how many hints

    def advice(self, name: str) -> list[str]:
        "What a right answer is good for, and three hints."
        return [' '.join(part.split()) for part in str(self.judges[name].__doc__).split('\n\n')]

    def verdict(self, f: Answer) -> Sentence:
        "What the check says of an answer."
        try:
            self.judges[f.__name__](written(f))
        except NotImplementedError:
            return Sentence('waiting', f'no answer yet. For a hint: `check.hint({f.__name__!r})`')
        except AssertionError as error:
            return Sentence('hint', str(error))
        except Exception as error:                              # any: the answer is the reader's
            return Sentence('hint', f'your function ends with {type(error).__name__}: {error}')
        return Sentence('right', self.advice(f.__name__)[0])

    def __call__(self, f: Answer) -> None:
        say(**vars(self.verdict(f)))

    def hint(self, name: str) -> None:
        "Show the next of three hints: a question, the idea, the line."
        self.given[name] = min(self.given[name] + 1, 3)
        say(f'hint {self.given[name]} of 3', self.advice(name)[self.given[name]])
