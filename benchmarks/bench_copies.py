"""How far do faces lie from the nearest training face: samples, held-out faces, and copies?

    python benchmarks/bench_copies.py [--n 500] [--faces 100] [--steps 1500] [--out benchmarks/results/copies]

`copies` are samples of a network that has seen only so many of the training faces, in so many steps of the preset
faces16; they are compared with those. `samples` are of the model that ships. Both are drawn without a class, in the
default number of steps. OUT.npz holds, for each of the three, all distances to the nearest training face, the median
distance to all training faces, and the five that lie nearest, beside those training faces. Ten minutes on two cores.
"""

import numpy as np
import torch
from common import arguments, settings

from ddpm_course.config import SamplingConfig
from ddpm_course.data.faces import load_faces
from ddpm_course.data.sets import ASSETS, to_float
from ddpm_course.judge.evaluation import allot_classes, draw_samples
from ddpm_course.run.runs import load_run
from ddpm_course.run.training import fit, new_state


def nearest(pixels: np.ndarray, training: np.ndarray) -> dict[str, np.ndarray]:
    "What OUT.npz holds of one kind."
    far = torch.cdist(*(to_float(x).flatten(1) for x in (pixels, training)))
    least, face = far.min(1)
    best = least.argsort()[:5]
    return {
        "distances": least.numpy(),
        "to all": far.median().numpy(),
        "faces": pixels[best],
        "nearest": training[face[best]],
    }


def main() -> None:
    args = arguments(__doc__, n=500, faces=100, steps=1500, out="benchmarks/results/copies")
    train, test = load_faces("train").images, load_faces("test").images
    few = train.spread(args.faces)
    config, few = settings(f"--preset faces16 --steps {args.steps}", few)
    state = new_state(config)
    for _ in fit(state, few, config):
        pass
    free, y = SamplingConfig(guidance=0), allot_classes(train.labels, args.n)
    ships, _ = load_run(ASSETS / "faces16", precision="fp32")
    kinds = {
        "samples": (draw_samples(ships, y, free).numpy(), train.pixels),
        "held-out faces": (test.spread(args.n).pixels, train.pixels),
        "copies": (draw_samples(state.ema, y, free).numpy(), few.pixels),
    }
    found = {kind: nearest(*pair) for kind, pair in kinds.items()}
    for kind, values in found.items():
        print(kind, np.median(values["distances"]), values["to all"])
    arrays = {f"{kind}, {name}": value for kind, values in found.items() for name, value in values.items()}
    np.savez_compressed(f"{args.out}.npz", **arrays)


if __name__ == "__main__":
    main()
