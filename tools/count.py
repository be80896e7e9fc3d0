"""Count what a stranger must read: exported lines, guards, tests.

python tools/count.py [FOLDER]      # default: this checkout
"""

import ast
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).resolve().parent.parent)


def lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def main() -> None:
    by_hand = {"__init__.py", "__main__.py", "_modidx.py"}
    found = sorted(p for p in (ROOT / "ddpm_course").rglob("*.py") if p.name not in by_hand)
    rooms, guards = Counter(), Counter()
    for path in found:
        room = path.relative_to(ROOT / "ddpm_course").parent.as_posix()
        rooms["top" if room == "." else room] += lines(path)
        guards.update(type(node) for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    print(f"{len(found)} modules, {sum(rooms.values())} exported lines:", dict(rooms))
    print(f"{guards[ast.Raise]} raises and {guards[ast.Try]} try blocks: {guards[ast.Raise] + guards[ast.Try]}")
    tests = {name: sum(map(lines, (ROOT / name).rglob("*.py"))) for name in ("tests", "tools")}
    print(f"tests, benchmarks and tools: {sum(tests.values())} lines", tests)


if __name__ == "__main__":
    main()
