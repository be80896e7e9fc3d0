"What a command says: results on one stream, complaints on the other, whoever listens."
import io
import os
import sys
from pathlib import Path
from typing import Any, TextIO


def printable(text: str) -> str:
    "A text whose control characters, but for the ends of lines, are written out."
    return ''.join(c if c.isprintable() or c == '\n' else repr(c)[1:-1] for c in text)


def say(group: Any, *words: object) -> None:
    "Print, in one process of a group."
    if group.rank == 0:
        print(printable(' '.join(map(str, words))), flush=True)


def complain(sentence: object) -> None:
    "Print a complaint on the error stream: its first line."
    print('ddpm:', printable((str(sentence).splitlines() or ['?'])[0]), file=sys.stderr)


def set_aside(path: Path) -> TextIO:
    """From now on what libraries print below Python goes to the end of a file; a stream to where
    it went before, for what is said."""
    kept = os.dup(2)
    with open(path, 'ab', 0) as file:
        os.dup2(file.fileno(), 2)
    return open(kept, 'w')                                  # noqa: SIM115


def log_to(path: Path, heading: str, everything: bool) -> None:
    """From now on what was set aside goes to the end of a file, with what is there already; or
    everything that this process prints."""
    aside = Path(os.environ['DDPM_LOG'])
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, 'ab', 0) as file:
        file.write(f'-- {heading}\n'.encode() + aside.read_bytes())
        for stream in (1, 2, sys.stderr.fileno()) if everything else (2,):
            os.dup2(file.fileno(), stream)
    link = aside.with_suffix('.link')
    link.symlink_to(path.resolve())
    link.replace(aside)                                     # so that who looks there finds it


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
