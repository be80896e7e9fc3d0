"""Make ddpm_course/assets/mnist16/ or faces16/, models that ship with the package, from a finished run of that name.

    ddpm train --out runs/mnist16 && python tools/make_model.py runs/mnist16
    ddpm train --preset faces16 && python tools/make_model.py runs/faces16

Only the averaged weights are kept, in bfloat16; config.json and metrics.jsonl are copied as they are.
"""

import json
import shutil
import sys
from pathlib import Path

import torch
from safetensors.torch import load, save

from ddpm_course.run.checkpoints import checksum, newest_checkpoint, read_file, read_meta

ASSETS = Path(__file__).resolve().parent.parent / "ddpm_course/assets"


def main() -> None:
    run = Path(sys.argv[1] if len(sys.argv) == 2 else sys.exit(__doc__)).resolve()
    checkpoint = newest_checkpoint(run) or sys.exit(f"{run} holds no checkpoint")
    weights, meta = load(read_file(checkpoint, "ema.safetensors")), read_meta(checkpoint)
    path = ASSETS / run.name
    shutil.rmtree(path, ignore_errors=True)
    folder = path / "checkpoints" / checkpoint.name
    folder.mkdir(parents=True)
    content = save({name: weight.to(torch.bfloat16) for name, weight in weights.items()})
    (folder / "ema.safetensors").write_bytes(content)
    meta["files"] = {"ema.safetensors": checksum(content)}
    (folder / "meta.json").write_text(json.dumps(meta, indent=2) + "\n")
    for name in ("config.json", "metrics.jsonl"):
        shutil.copy(run / name, path / name)
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    print(f"{path}: {size / 1e6:.2f} MB from {checkpoint}")


if __name__ == "__main__":
    main()
