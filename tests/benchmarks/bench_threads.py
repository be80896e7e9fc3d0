"""Images a second of training with threads that spin while they wait, and with threads that sleep, on a quiet machine
and beside other work.

    python tests/benchmarks/bench_threads.py [--steps 30] [--rounds 3]

The two take turns. OMP_WAIT_POLICY must be set before PyTorch is imported, so each measurement is a new process. The
other work is one process a core that computes all the time.
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
from ddpm_course.training import fit, new_state
steps, began = int(sys.argv[1]), 0.0
config = override(PRESETS["mnist16"], steps=steps, precision="fp32", classes=tuple("0123456789"))
for record in fit(new_state(config), load_digits("train", 16), config):
    if record["step"] == 5:
        began = time.perf_counter()
print((steps - 5) * config.training.batch / (time.perf_counter() - began))
"""
BUSY = "while True: pass"


def speed(policy: str | None, steps: int) -> float:
    "Images a second of a new process, with as many threads as PyTorch chooses."
    env = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    env |= {"OMP_WAIT_POLICY": policy} if policy else {}
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
            speeds: dict[str, list[float]] = {"default": [], "PASSIVE": []}
            for _ in range(args.rounds):
                for name, policy in (("default", None), ("PASSIVE", "PASSIVE")):
                    speeds[name].append(speed(policy, args.steps))
            found[state] = {name: round(statistics.median(values), 1) for name, values in speeds.items()}
        finally:
            for worker in workers:
                worker.kill()
        print(state, found[state], flush=True)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
