"Nothing here may hang for ever."

import os
import signal

import pytest

from helpers import GUARD, children


@pytest.fixture(autouse=True)
def guarded(tmp_path):
    "A test that waits for half an hour waits in vain; whoever it leaves behind, in its own folder, is killed."

    def stop(number, frame):
        raise TimeoutError(f"nothing came of this in {3 * GUARD} s")

    if not hasattr(signal, "SIGALRM"):
        yield
        return
    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(3 * GUARD)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
        for pid in children(tmp_path):
            os.kill(pid, signal.SIGKILL)
