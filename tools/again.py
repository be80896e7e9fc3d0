"""README's test line, again and again, under three loads: a test that is red once without a fault is mended.

    python tools/again.py                            # 20 runs: 7 alone, 7 beside two processes that never sleep, and
                                                     # 6 on one core; the last alone and the last beside: random order
    python tools/again.py --alone 1 --busy 0 --one-core 0 -- tests/unit/test_data.py
    python tools/again.py --order random             # each in another order: a test that leans on another is red

Each run is a process of its own; what it found stands in its JUnit file. At the end one table says which test was red,
under which load, how often, and why; the code is 1 if any was. What a red run printed is kept. Two cores take hours.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parent.parent
NEVER_SLEEPS = f"import os\nwhile os.getppid() == {os.getpid()}: pass"  # nor does it outlive this process


@contextmanager
def beside(count: int) -> Iterator[None]:
    "So many processes at work on something else."
    others = [subprocess.Popen([sys.executable, "-c", NEVER_SLEEPS]) for _ in range(count)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def found(report: Path, code: int) -> tuple[int, dict[str, str]]:
    "How many tests ran, and the red ones with the first line of their reason."
    try:
        cases = list(ElementTree.parse(report).iter("testcase"))
    except (OSError, ElementTree.ParseError):
        return 0, {"(no report)": f"ended with code {code}"}
    red = {}
    for case in cases:
        for kind in ("failure", "error"):
            if (what := case.find(kind)) is not None:
                name = f"{case.get('classname', '').replace('.', '/')}.py::{case.get('name')}"
                red[name] = (what.get("message", "").splitlines() or ["?"])[0]
    return len(cases), red or ({"(no test)": f"ended with code {code}"} if code else {})


def once(load: str, seed: int | None, words: list[str], log: Path) -> dict[str, str]:
    "One run of the line; what was red. Its order is that of the files, or, with a seed, random."
    order = [] if seed is None else ["-p", "randomly", f"--randomly-seed={seed}"]
    report, began = log.with_suffix(".xml"), time.monotonic()
    command = [sys.executable, "-m", "pytest", *order, f"--junitxml={report}", *words]
    core = {min(os.sched_getaffinity(0))} if load == "one core" else os.sched_getaffinity(0)
    with beside(2 * (load == "busy")), open(log, "w") as file:
        code = subprocess.run(
            command, cwd=ROOT, stdout=file, stderr=file, preexec_fn=lambda: os.sched_setaffinity(0, core)
        ).returncode
    count, red = found(report, code)
    how = "" if seed is None else f", random order {seed}"
    minutes = (time.monotonic() - began) / 60
    print(f"{load}{how}: {count} tests, {len(red)} red, {minutes:.1f} min", *[f"({log})"] * bool(red), flush=True)
    return red


def plan(args: argparse.Namespace) -> list[tuple[str, int | None]]:
    "Load and order of each run."
    loads = ["alone"] * args.alone + ["busy"] * args.busy + ["one core"] * args.one_core
    if args.order == "random":
        return [(load, k) for k, load in enumerate(loads, 1)]
    last = {args.alone - 1: 1, args.alone + args.busy - 1: 2} if args.alone and args.busy else {}
    return [(load, last.get(k)) for k, load in enumerate(loads)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for load, count in (("alone", 7), ("busy", 7), ("one-core", 6)):
        parser.add_argument(f"--{load}", type=int, default=count, metavar="N", help=f"runs (default: {count})")
    parser.add_argument("--order", choices=("file", "random"), default="file", help="random: in each run")
    parser.add_argument("words", nargs="*", help="of pytest, after --")
    args = parser.parse_args()
    runs, folder = plan(args), Path(tempfile.mkdtemp(prefix="again-"))
    times, reasons = Counter(load for load, _ in runs), {}
    seen: Counter[tuple[str, str]] = Counter()
    for k, (load, seed) in enumerate(runs, 1):
        for test, reason in once(load, seed, args.words, folder / f"{k:02d}.txt").items():
            seen[test, load] += 1
            reasons.setdefault((test, load), reason)
    print(
        f"\n{len(runs)} runs", "test | load | red | first reason" if seen else ": all green", sep="\n" if seen else ""
    )
    for (test, load), count in sorted(seen.items()):
        print(f"{test} | {load} | {count} of {times[load]} | {reasons[test, load]:.120}")
    return bool(seen)


if __name__ == "__main__":
    sys.exit(main())
