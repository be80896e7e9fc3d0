"""The script of page 24, as it is and broken in six ways: what its loss shows after many steps.

    python benchmarks/bench_ddp_faults.py [--seeds 3] [--steps 100] [--out ddp_faults]

Each of the seven trains in two processes on the CPU, stops half-way and goes on. One line of JSON a run: the letter,
the seed of its batches, t and noise, and the loss of the averaged weights of rank 0 on 500 test digits. Last, the right
script in one process with half the batch.
"""

import json
from pathlib import Path
from tempfile import mkdtemp

from common import arguments, keep

from ddpm_course.lesson.processes import launch, printed

PAGE = Path(__file__).resolve().parents[1] / "nbs/24_distributed.ipynb"


def script() -> str:
    "The cell of page 24 that writes it."
    cells = ["".join(cell["source"]) for cell in json.loads(PAGE.read_text(encoding="utf-8"))["cells"]]
    (found,) = [cell for cell in cells if cell.startswith("%%writefile {folder}/train_ddp.py")]
    return found.partition("\n")[2]


def main() -> None:
    args = arguments(__doc__, seeds=3, steps=100, out="")
    folder = Path(mkdtemp())
    (folder / "train_ddp.py").write_text(script(), encoding="utf-8")
    words = ["-m", "ddpm_course.lesson.ddp_faults", folder / "train_ddp.py", folder, args.seeds, args.steps]
    (half,) = printed(launch(folder, 1, *words, 16))
    printed(launch(folder, 1, *words))
    runs = printed(launch(folder, 2, *words))
    runs += [{"letter": "D, batch of 16", "seed": seed, "loss": loss} for seed, loss in enumerate(half["losses"])]
    lines = [{"letter": run["letter"], "seed": run["seed"], "loss": round(run["loss"], 6)} for run in runs]
    print(*lines, sep="\n")
    if args.out:
        keep(lines, Path(f"{args.out}.json"), "torch")


if __name__ == "__main__":
    main()
