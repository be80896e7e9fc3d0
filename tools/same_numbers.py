"""Compare what two commits compute, bit for bit, on this machine.

    python tools/same_numbers.py HEAD~1              # that commit against the checkout as it is
    python tools/same_numbers.py HEAD~2 HEAD         # two commits

Sixty steps of mnist16 in float32 with one thread (log, weights, optimizer), then from the shipped model: samples of
every sampler, guided and not, a film, edits, a way between two seeds, the held-out losses and the bits per dimension,
all of it in float32. Another processor gives other last bits, so both sides run here. It takes two minutes a side.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

PROBE = r"""
import contextlib, hashlib, json, os
from pathlib import Path
import numpy as np, torch
from ddpm_course import SamplingConfig, load_model, sample, sequence
from ddpm_course.cli.main import main
from ddpm_course.editing import Edit, sample_edits
from ddpm_course.flow import sample_between
from ddpm_course.run import runs
from safetensors.torch import load_file
runs.pick_precision = lambda name, device: "fp32"

def ddpm(*words):
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        main(list(words))
    torch.set_num_threads(1)

def digest(*tensors):
    total = hashlib.sha256()
    for x in tensors:
        total.update(np.ascontiguousarray(x.detach().cpu().numpy()).tobytes())
    return total.hexdigest()[:16]

found = {}
steps = "--steps 60 --precision fp32 --threads 1 --grid-every 0 --save-every 30 --log-every 10".split()
for loss, more in {"simple": "", "vlb": "--preset mnist16-vlb --T 50 --accumulate 2",
                   "hybrid": "--preset mnist16-hybrid --dropout 0.1"}.items():
    ddpm("train", *more.split(), *steps, "--out", loss)
    lines = [json.loads(line) for line in Path(loss, "metrics.jsonl").read_text().splitlines()]
    found[f"{loss}: log"] = [{k: v for k, v in line.items() if k != "images_per_s"} for line in lines]
    end = Path(loss, "checkpoints/step_00000060")
    for name in ("model", "ema"):
        weights = load_file(end / f"{name}.safetensors")
        found[f"{loss}: {name}"] = digest(*(weights[key] for key in sorted(weights)))
    state = torch.load(end / "optimizer.pt", weights_only=True)["optimizer"]["state"]
    found[f"{loss}: optimizer"] = digest(*(state[i][key] for i in sorted(state) for key in sorted(state[i])))
for name, run in {"shipped": [], "vlb": ["vlb"]}.items():
    ddpm("test", *run, "--bpd", "--out", f"{name}.json")
    tested = json.loads(Path(f"{name}.json").read_text())
    found[f"{name}: test"] = tested["losses"], tested["bits_per_dim"]

cases = {"ddim": dict(sampler="ddim"), "eta": dict(sampler="ddim", eta=0.5), "dpm": dict(sampler="dpm"),
         "ddpm": dict(sampler="ddpm"), "large": dict(sampler="ddpm", variance="large"),
         "uniform": dict(sampler="ddim", spacing="uniform"), "free": dict(sampler="ddim", clip=False),
         "heun": dict(sampler="heun")}
model = load_model(precision="fp32")
def draw(scale, steps, how):
    return sample(model, [3, 7], 2, SamplingConfig(guidance=scale, steps=steps, seed=1, **how))
for name, how in cases.items():
    for scale in (1.0, 2.0):
        found[f"sample: {name}, guidance {scale:g}"] = digest(draw(scale, 10, how))
five = SamplingConfig(steps=5)
film = sequence(model, [3], 2, five)
found["film"] = film.levels, digest(film.xs, film.x0s)
found["between"] = digest(sample_between(model, 4, [3], 3, five))
picture, lower = draw(1.0, 5, {})[0], torch.arange(16).view(16, 1).expand(16, 16) > 7
for name, edit in {"drawing": Edit(picture, 0.6), "mask": Edit(picture, 1.0, lower, 2)}.items():
    found[f"edit: {name}"] = digest(sample_edits(model, edit, [5], 2, five))
found["sample: ddpm, all steps"] = digest(draw(1.0, 1000, dict(sampler="ddpm", variance="large")))
print(json.dumps(found))
"""


def probe(source: Path) -> dict:
    "What the package in a folder computes."
    environment = {**os.environ, "PYTHONPATH": str(source), "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    with tempfile.TemporaryDirectory() as folder:
        said = subprocess.check_output([sys.executable, "-c", PROBE], cwd=folder, env=environment, text=True)
    return json.loads(said.splitlines()[-1])


def main() -> None:
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    with tempfile.TemporaryDirectory() as folder:
        sides = [Path(folder) / str(k) for k in range(len(sys.argv) - 1)]
        for commit, side in zip(sys.argv[1:], sides):
            side.mkdir()
            archive = subprocess.check_output(["git", "archive", commit], cwd=ROOT)
            subprocess.run(["tar", "-x", "-C", side], input=archive, check=True)
        one, other = (probe(side) for side in [*sides, ROOT][:2])
    differing = [name for name in one | other if one.get(name) != other.get(name)]
    print(f"{len(one)} results, {len(differing)} differ" + "".join(f"\n  {name}" for name in differing))
    sys.exit(bool(differing))


if __name__ == "__main__":
    main()
