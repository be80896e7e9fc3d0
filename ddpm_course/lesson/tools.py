import inspect
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from .answers import Sentence

if TYPE_CHECKING:                       # matplotlib itself is imported where a figure is drawn
    from IPython.display import Markdown
    from ipywidgets import Text
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def show_images(images: Tensor | np.ndarray, titles: Sequence[str] = (), columns: int = 10,
                size: float = 0.9, labels: Sequence[str] = (),
                after: Sequence[str] = ()) -> 'Figure':
    """Show images (N, C, H, W), float in [-1, 1] or uint8, C = 1 or 3, as a grid: so many columns,
    `size` inches an image, with a title each or none, and words left and right of rows or none."""
    import matplotlib.pyplot as plt
    pixels = torch.as_tensor(images).detach().cpu()
    if pixels.dtype != torch.uint8:
        pixels = (pixels.float().clamp(-1, 1) + 1) / 2
    white = 255 if pixels.dtype == torch.uint8 else 1
    rows = -(-len(pixels) // columns)
    columns = min(columns, len(pixels))
    height = size * (1.35 if len(titles) else 1.05)
    beside = sum(0.08 * max((len(line) for label in words for line in label.split('\n')), default=0)
                 for words in (labels, after))
    fig, axes = plt.subplots(rows, columns, squeeze=False,
                             figsize=(columns * size * 1.05 + beside, rows * height))
    for ax in axes.flat:
        ax.axis('off')
    for ax, image in zip(axes.flat, pixels):
        ax.imshow(image.permute(1, 2, 0).numpy(), cmap='gray', vmin=0, vmax=white)
    for ax, title in zip(axes.flat, titles):
        ax.set_title(title, fontsize=9)
    for words, column, x, side in ((labels, 0, -0.1, 'right'), (after, -1, 1.1, 'left')):
        for ax, label in zip(axes[:, column], words):
            ax.text(x, 0.5, label, transform=ax.transAxes, ha=side, va='center', fontsize=9)
    fig.tight_layout(pad=0.3)
    plt.close(fig)                      # shown once, as the value of the cell
    return fig


@contextmanager
def expect_error(kind: type[BaseException], words: str = '') -> Iterator[None]:
    "Pass when the block raises `kind` with `words` in its message; fail when it does not."
    try:
        yield
    except kind as error:
        assert words in str(error), f'{words!r} is not in {str(error)!r}'
    else:
        raise AssertionError(f'{kind.__name__} was expected, and nothing was raised')


def slow() -> bool:
    "Whether cells that take minutes shall run: DDPM_SLOW=1 in the environment."
    return os.environ.get('DDPM_SLOW', '0') not in ('', '0')


def code(*things: Callable) -> 'Markdown':
    "The source of functions and classes, as it stands in the package."
    from IPython.display import Markdown
    source = '\n\n'.join(inspect.getsource(thing) for thing in things)
    return Markdown(f'```python\n{source}```')


GUESSES = Path('.guesses.json')         # beside the notebook; yours alone, never committed


TRUTHS: dict[str, float] = {}           # those that a cell has asked for while there was no guess


@dataclass(frozen=True, repr=False)
class Replaceable(Sentence):
    "A sentence on a page that `update_display` can replace later, by its key."
    key: str

    def _ipython_display_(self) -> None:
        from IPython.display import display
        display(Sentence(self.kind, self.words), display_id=self.key)


def read_guesses(path: Path) -> dict:
    "All guesses so far, each with its truth, by name."
    return json.loads(path.read_text()) if path.exists() else {}


def predict(name: str, value: float | None = None, path: Path = GUESSES) -> None:
    """Keep your guess of what `reveal` will show under this name; None keeps the question open,
    and shows a field for it."""
    from IPython.display import display
    if value is not None:
        keep_guess(name, value, path)
        return display(noted(name, value))
    guess = read_guesses(path).get(name, {}).get('guess')
    words = f'for your guess ({name}): write a number in place of `None`'
    display(Replaceable('waiting', words, key=f'guess: {name}') if guess is None
            else noted(name, guess))
    display(guess_field(name, path))


def noted(name: str, guess: float) -> Replaceable:
    "The sentence of `predict` once there is a guess."
    return Replaceable('noted', f'{guess:g} ({name})', key=f'guess: {name}')


def keep_guess(name: str, value: float, path: Path) -> None:
    "Write a guess down, in place of an earlier one."
    guesses = read_guesses(path)
    guesses[name] = {'guess': float(value), 'truth': None}
    path.write_text(json.dumps(guesses, indent=1))


def guess_field(name: str, path: Path = GUESSES) -> 'Text':
    """A field for a guess, noted when Enter is pressed or the field is left. The sentence of
    `predict` says so, and that of a `reveal` which waited shows the answer."""
    from IPython.display import update_display
    from ipywidgets import Text
    field = Text(placeholder='a number', description='or here:', continuous_update=False)

    def note(change: object) -> None:
        try:
            guess = float(field.value)
        except ValueError:
            field.description = 'a number:'
            return
        keep_guess(name, guess, path)
        field.description = 'noted:'
        update_display(Sentence('noted', f'{guess:g} ({name})'), display_id=f'guess: {name}')
        if name in TRUTHS:
            answer = reveal(name, TRUTHS[name], path=path)
            update_display(answer, display_id=f'answer: {name}')
    field.observe(note, 'value')
    return field


def in_kernel() -> bool:
    "Whether this runs in a notebook that somebody reads, who may still guess."
    from IPython import get_ipython
    return hasattr(get_ipython(), 'kernel')


def distance(truth: float, guess: float) -> str:
    "How far off a guess is, in words."
    if guess == truth or guess * truth <= 0:
        return 'exactly' if guess == truth else f'{abs(guess - truth):g} off'
    ratio, way = guess / truth, 'high' if guess > truth else 'low'
    if 1 / 1.1 < ratio < 1.1:
        return 'close'
    if 0.5 < ratio < 2:
        return f'{100 * abs(ratio - 1):.0f} % too {way}'
    return f'{max(ratio, 1 / ratio):.2g} times too {way}'


def reveal(name: str, truth: float, ax: 'Axes | None' = None, path: Path = GUESSES) -> Sentence:
    """The truth beside the guess that `predict` asked for. Remembers both, and draws them on `ax`,
    whose x is in the question's units, as a dotted and a dashed line. In a notebook, without a
    guess, the truth is held back until one is typed or the cell has run again."""
    guesses = read_guesses(path)
    guess = guesses.get(name, {}).get('guess')
    if guess is None and name not in TRUTHS and in_kernel():
        TRUTHS[name] = truth
        words = f'no guess yet: type one, or run this cell again to see ({name})'
        return Replaceable('waiting', words, key=f'answer: {name}')
    if ax is not None:
        ax.axvline(truth, color='0.4', linestyle=':', linewidth=1)
    if guess is None:
        return Sentence('answer', f'{truth:g} ({name}); no guess')
    guesses[name] = {'guess': guess, 'truth': float(truth)}
    path.write_text(json.dumps(guesses, indent=1))
    if ax is not None:
        ax.axvline(guess, color='0.4', linestyle='--', linewidth=1)
        side = 'right' if guess > sum(ax.get_xlim()) / 2 else 'left'        # towards the middle
        height = 0.04 + 0.12 * sum(text.get_gid() == 'guess' for text in ax.texts)
        ax.text(guess, height, f' you: {guess:g} ', ha=side, gid='guess', zorder=5,
                transform=ax.get_xaxis_transform(),
                bbox={'facecolor': 'white', 'edgecolor': 'none', 'pad': 0.5})
    return Sentence('answer', f'{truth:g} ({name}); you said {guess:g}: {distance(truth, guess)}')


def calibration(path: Path = GUESSES) -> 'Figure | None':
    "A figure of the reader's guesses, each over its truth; None while there is none to show."
    import matplotlib.pyplot as plt
    with plt.style.context('ddpm_course.assets.course'):
        kept = read_guesses(path)
        known = {name: (g['guess'], g['truth'])
                 for name, g in kept.items() if g['truth'] is not None}
        if not known:
            return None
        ratios = [1 if guess == truth else guess / truth if truth else 8
                  for guess, truth in known.values()]
        fig, ax = plt.subplots(figsize=(6, 0.6 + 0.3 * len(known)))
        ax.axvline(1, color='0.4', linestyle=':')
        ax.plot(np.clip(ratios, 1 / 8, 8), range(len(ratios)), 'o')     # 0 is at the edge
        ax.set(xscale='log', xlim=(0.1, 10), xlabel='your guess / the truth')
        names = [f'{name}: {guess:g} for {truth:g}' for name, (guess, truth) in known.items()]
        ax.set_yticks(range(len(known)), names)
        ax.set_xticks([1 / 8, 1 / 4, 1 / 2, 1, 2, 4, 8],
                      ['1/8 or less', '1/4', '1/2', '1', '2', '4', '8 or more'])
        ax.minorticks_off()
        ax.margins(y=0.2)
        plt.close(fig)
        return fig
