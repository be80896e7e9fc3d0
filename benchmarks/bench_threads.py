"""Images a second of training on a quiet machine and beside other work, by how long waiting threads spin.

    python benchmarks/bench_threads.py [--steps 30] [--rounds 3]

The settings take turns. They must be set before PyTorch is imported, so each measurement is a new process. The other
work is one process a core that computes all the time.
"""

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

from common import arguments, medians

WORK = """
import sys, torch
from common import Group, pace, settings
config, images = settings("--precision fp32")
print(config.training.batch / pace(Group("cpu"), config, images, int(sys.argv[1]), torch.get_num_threads())[0])
"""
SETTINGS = {
    "default": {},
    "ddpm": {"GOMP_SPINCOUNT": "10000"},  # what `ddpm` sets
    "passive": {"OMP_WAIT_POLICY": "PASSIVE"},
}


def speed(setting: dict[str, str], steps: int) -> float:
    "Images a second of a new process, with as many threads as PyTorch chooses."
    env = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))} | setting
    words = [sys.executable, "-c", WORK, str(steps)]
    return float(subprocess.check_output(words, env=env, cwd=Path(__file__).parent))


def main() -> None:
    args = arguments(__doc__, steps=30, rounds=3)
    for state, others in (("quiet", 0), ("busy", os.cpu_count() or 1)):
        workers = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(others)]
        try:
            works = {name: partial(speed, setting, args.steps) for name, setting in SETTINGS.items()}
            print(state, medians(works, args.rounds, 1), flush=True)
        finally:
            for worker in workers:
                worker.kill()


if __name__ == "__main__":
    main()
