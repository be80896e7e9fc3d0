import signal
import threading
import time
from typing import Any

import torch

from ..base.group import Group


class NotFinite(FloatingPointError, ValueError):
    "Raised for a loss or a gradient that is no number: where a chip has erred, a restart helps."


class Drifted(FloatingPointError, ValueError):
    "Raised where processes hold other weights than each other: a restart from a checkpoint helps."


class Elsewhere(RuntimeError):
    "Raised where another process has failed, by a fault that only it can show in full."


class Lost(OSError):
    """Raised where a process has ended without a word; a second line names the log of what it and
    its libraries printed."""


class Interrupt:
    """Turns Ctrl-C, SIGTERM and a closing terminal into a wish to stop; two Ctrl-C stop at once.

    Python hears signals in its main thread only; in another one nothing is turned.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self.since = 0.0
        self.steps, self.due, self.asked = 0, 1, time.monotonic()       # of `must_stop`

    def __enter__(self) -> 'Interrupt':
        names = ('SIGINT', 'SIGTERM', 'SIGHUP')                         # Windows lacks the last,
        here = threading.current_thread() is threading.main_thread()
        caught = [getattr(signal, name) for name in names if here and hasattr(signal, name)]
        self.before = {number: signal.signal(number, self.note) for number in caught
                       if number == signal.SIGINT or signal.getsignal(number) != signal.SIG_IGN}
        return self                                                     # nohup ignores it

    def note(self, number: int, frame: Any) -> None:
        now = time.monotonic()
        if number == self.signal == signal.SIGINT and now - self.since > 1:
            raise KeyboardInterrupt         # sooner, it is the same one, passed on by a parent
        if self.signal is None:
            self.signal, self.since = number, now

    def __exit__(self, *error: Any) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)


def must_stop(interrupt: Interrupt, group: Group) -> bool:
    """Whether to stop after this step, the same in every process: to be asked after each step.

    Alone it is said at once. Several processes ask each other about once a second.
    """
    interrupt.steps += 1
    if group.world > 1 and interrupt.steps < interrupt.due:
        return False
    now = time.monotonic()
    mine = [int(bool(interrupt.signal)), round(1000 * (now - interrupt.asked))]
    wishes, ms = group.all_reduce(torch.tensor(mine)).tolist()      # on the CPU: no GPU waits
    in_a_second = 1000 * group.world * interrupt.steps // max(1, ms)
    interrupt.due = min(max(1, in_a_second), 2 * interrupt.due)     # the first steps may be odd
    interrupt.steps, interrupt.asked = 0, now
    return wishes > 0
