"""Images a second of training on a quiet machine and beside other work, by how long waiting threads spin.

    python tests/benchmarks/bench_threads.py [--steps 30] [--rounds 3]

The settings take turns. They must be set before PyTorch is imported, so each measurement is a new process. The other
work is one process a core that computes all the time.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys

WORK = """
import sys, time
from ddpm_course import PRESETS, load_digits, override
from ddpm_course.run.training import fit, new_state
steps, began = int(sys.argv[1]), 0.0
config = override(PRESETS["mnist16"], steps=steps, precision="fp32", classes=tuple("0123456789"))
for record in fit(new_state(config), load_digits("train", 16), config):
    if record["step"] == 5:
        began = time.perf_counter()
print((steps - 5) * config.training.batch / (time.perf_counter() - began))
"""
BUSY = "while True: pass"
SETTINGS = {
    "default": {},
    "ddpm": {"GOMP_SPINCOUNT": "10000"},  # what `ddpm` sets
    "passive": {"OMP_WAIT_POLICY": "PASSIVE"},
}


def speed(setting: dict[str, str], steps: int) -> float:
    "Images a second of a new process, with as many threads as PyTorch chooses."
    env = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))} | setting
    done = subprocess.run(
        [sys.executable, "-c", WORK, str(steps)], env=env, stdout=subprocess.PIPE, text=True, check=True
    )
    return float(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    found: dict[str, dict[str, float]] = {}
    for state, others in (("quiet", 0), ("busy", os.cpu_count() or 1)):
        workers = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(others)]
        try:
            rounds = [{name: speed(env, args.steps) for name, env in SETTINGS.items()} for _ in range(args.rounds)]
            found[state] = {name: round(statistics.median(r[name] for r in rounds), 1) for name in SETTINGS}
        finally:
            for worker in workers:
                worker.kill()
        print(state, found[state], flush=True)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
