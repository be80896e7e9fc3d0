import json
import math
import platform
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from ..base.files import read_whole, write_whole
from ..base.group import Group
from ..base.intervals import Difference
from ..base.machine import cores
from ..config import RunConfig, SamplingConfig, override, to_json
from ..simple import Simple
from ..data.decoding import Pair
from ..data.sets import ImageSet
from ..heldout import heldout_draws
from .evaluation import allot_classes, draw_samples, extract, load_judge
from .frechet import frechet_distance
from .scores import Inception, are_digits
from ..model import Model, build_schedule
from ..run.checkpoints import versions
from ..run.runs import Run, load_run
from ..schedules import Schedule


def paired(a: np.ndarray, b: np.ndarray) -> Difference:
    """Of losses (seeds, images), for both the same seeds and the same questions; or of one training
    each, (images,); or of one number a training, (seeds, 1), as a distance of all its samples. The
    error counts seeds and images, n the seeds (or, of one, the images)."""
    d = np.atleast_2d(np.subtract(a, b))
    seeds, images = d.shape
    if d.size == 1:
        return Difference(float(d.mean()), math.inf, 1)     # nobody knows by how much it varies
    if images == 1:
        return Difference(float(d.mean()), (d.var(ddof=1) / seeds)**0.5, seeds)
    by_image = d.mean(0).var(ddof=1) / images
    if seeds == 1:
        return Difference(float(d.mean()), by_image**0.5, images)
    by_seed = d.mean(1).var(ddof=1) / seeds
    rest = d - d.mean(1, keepdims=True) - d.mean(0) + d.mean()
    both = (rest**2).sum() / ((seeds - 1) * (images - 1) * d.size)      # what both have counted
    return Difference(float(d.mean()), max(by_seed, by_image, by_seed + by_image - both)**0.5,
                      seeds)


def check_levels(schedules: Mapping[str, Schedule]) -> None:
    """Raise ValueError where schedules differ, given by name. At equal t they have other noise
    levels, and under more noise the noise is easier to name: errors would say nothing."""
    (first, mine), *others = schedules.items()
    for name, other in others:
        if not torch.equal(mine.alpha_bars, other.alpha_bars):
            raise ValueError(f'{name} and {first} have other noise levels, so errors at equal t '
                             'are no comparison: compare bits (ddpm test --bpd) or '
                             'samples (ddpm test --fid)')


def answers(model: Model, held_out: ImageSet, group: Group = Group()) -> np.ndarray:
    """A model's eps mse of each held-out image, (N,): the same questions for every model whose
    schedule is the same, see `check_levels`."""
    return heldout_draws(model, held_out, Simple(), group=group)['eps_mse'].mean(0).numpy()


def race(
    folder: Path | str,
    variants: Mapping[str, Mapping[str, Any]],          # name -> changes to `base`
    base: RunConfig,
    data: Pair,                                         # to train on, and to be asked about
    seeds: Sequence[int] = (0, 1, 2),
    passes: int | None = None,                          # images for each; None: as its steps say
) -> dict[str, np.ndarray]:                             # (seeds, images) held-out losses of each
    """Train all variants with all seeds. What is done already, and kept in the folder, is not done
    again. Raises ValueError where that was another race, and where variants have other noise
    levels: see `check_levels`."""
    check_levels({name: build_schedule(override(base, **changes))
                  for name, changes in variants.items()})
    (images, held_out), folder = data, Path(folder)
    path, kept = folder / 'lab.json', dict[str, Any](plans={}, losses={}, made={})
    kept |= json.loads(read_whole(path)) if path.exists() else {}
    what = {'budget': ['passes', passes] if passes else [],
            'digests': [part.digest for part in data]}
    # a race that is stopped has whole rows
    for seed, (name, changes) in tqdm(list(product(seeds, variants.items())), 'race'):
        key, plan = f'{name}/{seed}', override(base, **changes, seed=seed)
        asked = json.loads(to_json(plan))
        if kept.get('what', what) != what or kept['plans'].get(key, asked) != asked:
            raise ValueError(f'{folder} holds another race: choose another folder')
        if key in kept['losses']:
            continue
        kept['plans'][key], kept['what'] = asked, what
        write_whole(path, json.dumps(kept))
        if passes:
            plan = override(plan, steps=max(1, passes // plan.training.batch))
        with Run.open(folder / name / str(seed), plan, images) as run:
            for _ in run:
                pass
            kept['losses'][key] = answers(run.model, held_out).tolist()
        kept['made'][key] = versions() | {'machine': f'{platform.machine()}, {cores()} cores'}
        write_whole(path, json.dumps(kept))
    return {name: np.array([kept['losses'][f'{name}/{seed}'] for seed in seeds])
            for name in variants}


def distances(
    folder: Path | str,                 # of a race that is done
    names: Sequence[str],               # of its variants ...
    seeds: Sequence[int],               # ... and seeds
    real: ImageSet,                     # what is drawn should be like these
    n: int = 500,
    how: SamplingConfig = SamplingConfig('ddpm', guidance=1),
) -> dict[str, np.ndarray]:             # (seeds, 1) Fréchet distances of each variant
    "How far n samples of each network of a race are from real images, all from the same noise."
    eyes, y = load_judge() if are_digits(real) else Inception(), allot_classes(real.labels, n)
    target, _ = extract(eyes, real.pixels)

    def distance(name: str, seed: int) -> float:
        model, _ = load_run(Path(folder, name, str(seed)))
        return frechet_distance(extract(eyes, draw_samples(model, y, how))[0], target)
    return {name: np.array([[distance(name, seed)] for seed in seeds]) for name in names}
