"""Count what a stranger must read: lines of code, guards, tests, notebooks, words of the README.

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
    left_out = {"__init__.py", "__main__.py", "_modidx.py"}
    found = sorted(p for p in (ROOT / "ddpm_course").rglob("*.py") if p.name not in left_out)
    rooms, guards = Counter(), Counter()
    for path in found:
        room = path.relative_to(ROOT / "ddpm_course").parent.as_posix()
        rooms["top" if room == "." else room] += lines(path)
        guards.update(type(node) for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    lesson = sum(count for room, count in rooms.items() if room.startswith("lesson"))
    print(f"{len(found)} modules, {rooms.total()} lines, {rooms.total() - lesson} without lesson/:", dict(rooms))
    print(f"{guards[ast.Raise]} raises and {guards[ast.Try]} try blocks: {guards[ast.Raise] + guards[ast.Try]}")
    others = {
        name: sum(map(lines, (ROOT / name).rglob("*.py"))) for name in ("tests", "tools", "benchmarks", "examples")
    }
    print(f"tests and tools: {others['tests'] + others['tools']} lines", others)
    notebooks = [p for p in (ROOT / "nbs").rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts]
    words = len((ROOT / "README.md").read_text(encoding="utf-8").split())
    print(f"{len(notebooks)} notebooks; README.md has {words} words")


if __name__ == "__main__":
    main()
