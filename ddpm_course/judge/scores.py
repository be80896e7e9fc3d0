import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..base.files import read_whole
from ..base.group import Group
from ..base.intervals import interval
from ..config import SamplingConfig
from ..data.sets import ImageSet, epoch_order, load_digits
from .evaluation import Judge, allot_classes, draw_samples, extract, load_judge
from .evaluation import nearest_distances, real_floor, real_subset
from .frechet import frechet_distance
from .kernel import can_fit, kernel_distance
from ..model import Model
from ..sampling import plan


def inception_score(logits: Tensor, seed: int = 0, splits: int = 10) -> tuple[float, float]:
    """Inception Score of (N, K) logits (Salimans et al. 2016), over shuffled splits: the mean, and
    the standard deviation among splits, which is 0 for one split."""
    order = torch.randperm(len(logits), generator=torch.Generator().manual_seed(seed))
    scores = []
    for part in logits[order].chunk(splits):
        p, log_p = part.softmax(1), part.log_softmax(1)
        scores.append((p * (log_p - p.mean(0).log())).sum(1).mean().exp())
    found = torch.stack(scores)
    return found.mean().item(), found.std().item() if len(found) > 1 else 0.0


WEIGHTS = 'weights-inception-2015-12-05-6726825d.pth'       # torch-fidelity's, with its SHA-256


class Inception(nn.Module):
    """Inception-v3 as in published FIDs: 2,048 features and the logits of 1,008 classes.
    Its weights are fetched, or read from a file. Raises ValueError where torch-fidelity is not
    installed or the file holds other weights, FileNotFoundError where they cannot be had."""
    name = 'Inception-v3'
    num_features = 2048
    batch = 100                         # images at a time: changes nothing but speed and memory

    def __init__(self, weights: str | Path | None = None):
        super().__init__()
        if weights is not None:
            found = hashlib.sha256(read_whole(Path(weights), 1 << 27)).hexdigest()
            if not WEIGHTS.endswith(f'-{found[:8]}.pth'):
                raise ValueError(f'{weights} holds other weights than {WEIGHTS} of torch-fidelity')
        try:
            from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
            path = None if weights is None else str(weights)
            self.net = FeatureExtractorInceptionV3(
                'inception-v3-compat', ['2048', 'logits_unbiased'], path).eval()
        except ImportError:
            raise ValueError('FID needs torch-fidelity: pip install torch-fidelity') from None
        except (OSError, RuntimeError) as error:
            raise FileNotFoundError('the Inception weights that FID needs could not be fetched '
                                    f'({type(error).__name__}): fetch {WEIGHTS} elsewhere, and '
                                    'name its file') from error

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return self.net(images.expand(-1, 3, -1, -1))           # grey as three equal channels


def are_digits(images: ImageSet) -> bool:
    "Whether these are the digits that ship, or other grey ones that the judge of digits can read."
    named = [name.startswith(str(k)) for k, name in enumerate(images.classes)]
    if images.channels != 1 or len(named) != 10 or not all(named) or images.labels is None:
        return False
    size = images.pixels.shape[-1]
    if images.digest in [load_digits(split, size).digest for split in ('train', 'test')]:
        return True
    rows = epoch_order(len(images), 0, 0)[:500]
    _, logits = extract(load_judge(), images.pixels[rows])
    return bool((logits.argmax(1).numpy() == images.labels[rows]).mean() > 0.8)


def pick_extractor(images: ImageSet, n: int, weights: str | Path | None = None) -> Any:
    """The digits judge for training images that it can read, Inception for all others, if n
    images are to be judged; `weights`: a file of Inception's. Raises what `Inception` and then
    `can_fit` raise, and ValueError for weights where the judge looks."""
    digits = are_digits(images)
    if digits and weights is not None:
        raise ValueError('these images are grey digits, and the judge of digits looks at them: '
                         'it needs no Inception weights')
    judge = load_judge() if digits else Inception(weights)
    can_fit(n, judge.num_features, len(images))
    return judge


@dataclass(frozen=True)
class Scores:
    "What was measured of a set of samples, with everything needed to read it."
    n: int                          # samples
    extractor: str                  # the network that looks at the images
    features: int                   # that it gives
    distance: float | None          # Fréchet, samples against all training images; None: too few
    reference: int                  # training images
    floor: float | None             # Fréchet, real against real ...
    floor_n: int                    # ... at this n
    held_out: float | None          # Fréchet, test against training images; None: too few ...
    held_out_n: int                 # ... test images
    inception_score: float
    inception_sd: float             # among ten splits
    real_score: float               # Inception Score of real images at `floor_n`
    nearest: float                  # mean distance of samples to the nearest training image
    nearest_held_out: float         # of test images
    accuracy: float | None          # share of samples that the judge finds of the class asked for
    guidance: float
    seed: int
    how: str                        # sampler and steps; '' where not known
    kernel: float                   # kernel distance, samples against all training images;
    kernel_se: float                # its standard error
    kernel_floor: float             # real against real at `floor_n`

    def __str__(self) -> str:
        "What was measured, in lines that can be read alone."
        inception = self.extractor == Inception.name
        fid, kid = ('FID', 'KID') if inception else ('Fréchet distance', 'Kernel distance')
        apart = 'too few images' if self.distance is None else f'{self.distance:.2f}'
        lines = [f'{fid} ({self.extractor}, {self.features:,} features) {apart}, '
                 f'n = {self.n:,} against {self.reference:,} training images']
        if self.floor is not None:
            lines[0] += f'; real against real {self.floor:.2f} at n = {self.floor_n:,}'
        if self.held_out is not None:
            lines[0] += f', held-out images {self.held_out:.2f} at n = {self.held_out_n:,}'
        lines.append(f'{kid} {interval(self.kernel, self.kernel_se, self.n)}; '
                     f'real against real {self.kernel_floor:.4f} at n = {self.floor_n:,}')
        right = '' if self.accuracy is None else f'; class as asked {self.accuracy:.3f}'
        how = f', {self.how}' if self.how else ''
        lines.append(f'Inception Score {self.inception_score:.2f} (its ten splits scatter by '
                     f'{self.inception_sd:.2f}; real {self.real_score:.2f}); '
                     f'nearest training image {self.nearest:.2f} '
                     f'(held-out images {self.nearest_held_out:.2f}){right}; '
                     f'guidance {self.guidance:g}, seed {self.seed}{how}')
        return '\n'.join(lines)


def distances(features: Tensor, real: Tensor, unseen: Tensor, labels: np.ndarray | None,
              seed: int = 0) -> dict[str, Any]:
    """Fields of `Scores`: both distances of features from those of the training images, beside
    those of real images and of held-out ones; the Fréchet distance where there are enough."""
    width, n = features.shape[1], min(len(features), len(real) // 2)
    found: dict[str, Any] = dict.fromkeys(('distance', 'floor', 'held_out')) | {'floor_n': n}
    mask = torch.from_numpy(real_subset(labels, len(real), n, seed))
    found['kernel'], found['kernel_se'] = kernel_distance(features, real)
    found['kernel_floor'] = kernel_distance(real[mask], real[~mask])[0]
    if n > width:
        found['distance'] = frechet_distance(features, real)
        found['floor'] = real_floor(real, labels, n, seed)
        if len(unseen) > width:
            found['held_out'] = frechet_distance(unseen, real)
    return found


def evaluate_images(
    images: Tensor,                         # (n, C, H, W) uint8, to be judged
    y: Tensor,                              # (n,) classes that were asked for, -1 for none
    data: tuple[ImageSet, ImageSet],        # training and held-out images
    eyes: Any,                              # an extractor: its name, num_features, and batch
    how: SamplingConfig | None = None,      # how they were drawn, for the record, where known
    group: Group = Group(),                 # whose members share the images; the first measures
) -> Any:                                   # its `Scores`; None in the others
    """Judge images against a data set. Raises ValueError where there are too few for any distance,
    and where features are not finite."""
    (train, test), seed = data, how.seed if how else 0
    (features, logits), (real, real_logits), (unseen, _) = (
        extract(eyes, pixels, eyes.batch, group) for pixels in (images, train.pixels, test.pixels))
    near, near_held_out = (nearest_distances(pixels, train.pixels, group)
                           for pixels in (images, test.pixels))
    if group.rank:
        return None
    asked = int(y.min()) >= 0
    labels = train.labels if asked else None
    found = distances(features, real, unseen, labels, seed)
    fair = torch.from_numpy(real_subset(labels, len(train), found['floor_n'], seed))
    score, sd = inception_score(logits, seed)
    right = (logits.argmax(1) == y).double().mean().item()
    return Scores(
        **found, n=len(images), extractor=eyes.name, features=eyes.num_features,
        reference=len(train), held_out_n=len(test), inception_score=score, inception_sd=sd,
        real_score=inception_score(real_logits[fair], seed)[0],
        nearest=near.mean().item(), nearest_held_out=near_held_out.mean().item(),
        accuracy=right if asked and isinstance(eyes, Judge) else None,
        guidance=1.0 if how is None or how.guidance is None else how.guidance,
        seed=seed, how=describe(how))


def describe(how: SamplingConfig | None) -> str:
    "Sampler, steps, and what else is not as usual, in a few words; nothing where nothing is known."
    if how is None:
        return ''
    usual, names = SamplingConfig(), ('variance', 'eta', 'spacing', 'clip')
    more = [f'{name} {getattr(how, name)}' for name in names
            if getattr(how, name) != getattr(usual, name)]
    return ', '.join([how.sampler, f'{how.steps or "default"} steps', *more])


def evaluate_samples(
    model: Model,
    data: tuple[ImageSet, ImageSet],        # training and held-out images
    n: int,                                 # samples to draw
    how: SamplingConfig = SamplingConfig(),
    extractor: Any = None,                  # None: see `pick_extractor`
    group: Group = Group(),                 # whose members share the samples; the first measures
) -> Any:                                   # its `Scores`; None in the others
    """Draw n samples, classes as often as in training, and judge them; guidance 1 where not given.
    Raises ValueError where n is too small, or where the model cannot be sampled like that."""
    route = plan(replace(how, guidance=1.0) if how.guidance is None else how, model)
    how = replace(how, guidance=route.guidance, steps=len(route.indices) - 1,
                  variance=route.variance if how.sampler == 'ddpm' else how.variance)
    eyes = (extractor or pick_extractor(data[0], n)).to(model.device)
    y = allot_classes(data[0].labels if model.classes else None, n)
    images = draw_samples(model, y, how, eyes.batch, group)
    return evaluate_images(images, y, data, eyes, how, group)
