"""Count what a stranger must read: exported lines, guards, tests, and the rooms that `ddpm train` visits.

python tools/count.py [FOLDER]      # default: this checkout
"""

import ast
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).resolve().parent.parent)


def modules() -> list[Path]:
    "What the notebooks export, without the index of names and what is written by hand."
    by_hand = {"__init__.py", "__main__.py", "_modidx.py"}
    return sorted(p for p in (ROOT / "ddpm_course").rglob("*.py") if p.name not in by_hand)


def lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def guards(path: Path) -> Counter:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return Counter(type(n).__name__ for n in ast.walk(tree) if isinstance(n, (ast.Raise, ast.Try)))


def main() -> None:
    rooms, total, found = Counter(), Counter(), modules()
    for path in found:
        room = path.relative_to(ROOT / "ddpm_course").parent.as_posix()
        rooms["top" if room == "." else room] += lines(path)
        total += guards(path)
    print(f"{len(found)} modules, {sum(rooms.values())} exported lines:", dict(rooms))
    print(f"{total['Raise']} raises and {total['Try']} try blocks: {sum(total.values())}")
    tests = {name: sum(map(lines, (ROOT / name).rglob("*.py"))) for name in ("tests", "tools")}
    print(f"tests, benchmarks and tools: {sum(tests.values())} lines", tests)


if __name__ == "__main__":
    main()
