import dataclasses
import json
import types
from dataclasses import dataclass
from typing import Any

from .base.fields import check, option


@dataclass(frozen=True)
class DataConfig:
    "What is learned from."
    data: str = option('mnist5k', 'mnist5k and faces (bundled), mnist, fashion-mnist, cifar10, '
                       'or a folder; where both have a name, faces: is the set, ./faces the folder')
    size: int = option(16, 'height and width that images are scaled to', low=4, high=1024)
    augment: str = option('none', 'how images are varied: flip mirrors half of them (not digits)',
                          choices=('none', 'flip'))
    image_channels: int = option(0, '1 grey, 3 colour; 0: as the data are', choices=(0, 1, 3))
    classes: tuple[str, ...] = option((), 'names of the classes, found in the data')
    digest: str = option('', 'checksum of the training images, found in the data')

    def __post_init__(self):
        check(self)


@dataclass(frozen=True)
class DiffusionConfig:
    "What is added to the data, and what the network is asked for."
    schedule: str = option('cosine', 'how noise grows: linear, cosine, or your own')
    T: int = option(1000, 'number of diffusion steps', low=2, high=100_000)
    objective: str = option('v', 'what the network predicts: eps, x0, v, or your own')
    variance: str = option('large', 'of the reverse steps', choices=('large', 'small', 'learned'))
    loss: str = option('simple', 'what is minimised: simple, capped, hybrid and vlb (which learn '
                                 'the variance), or your own')

    def __post_init__(self):
        check(self)
        learns = self.loss in ('hybrid', 'vlb')
        if (learns or self.loss in ('simple', 'capped')) and learns != (self.variance == 'learned'):
            raise ValueError('variance learned goes with loss hybrid or vlb, not variance '
                             f'{self.variance} with loss {self.loss}')


@dataclass(frozen=True)
class NetworkConfig:
    "The U-Net of page 08, or another network."
    network: str = option('unet', 'which network: unet, or your own')
    channels: int = option(16, 'channels at full resolution', low=4, high=8192)
    multipliers: tuple[int, ...] = option((1, 2, 4), 'times channels, by level', low=1, high=64)
    blocks: int = option(1, 'residual blocks per level', low=1, high=64)
    attention: tuple[int, ...] = option((), 'resolutions with attention; the middle has it', low=1)
    dropout: float = option(0.0, 'share of features dropped in training', low=0, high=0.9)
    groups: int = option(0, 'groups of GroupNorm; 0: min(32, channels / 4)', low=0)
    conditional: bool = option(True, 'tell the network the class, where the data have classes')

    def __post_init__(self):
        check(self)
        if self.network != 'unet':                      # another network judges its own settings
            return
        groups = self.groups or min(32, self.channels // 4)
        divisible = self.multipliers and not any(self.channels * m % groups
                                                 for m in self.multipliers)
        if self.channels % 2 or not divisible:
            raise ValueError(f'{self.channels} channels are odd, or times {self.multipliers} not '
                             f'divisible into {groups} groups')


@dataclass(frozen=True)
class TrainingConfig:
    "How long, how fast, how exactly."
    steps: int = option(650, 'training steps', low=1, high=10**12)
    batch: int = option(64, 'images per step, over all processes', low=1, high=10**6)
    optimizer: str = option('muon', 'muon, adamw, or your own')
    lr: float = option(8e-3, 'learning rate after warm-up', low=0, high=1e6)
    warmup: int = option(50, 'steps of linear warm-up', low=0)
    decay: str = option('cosine', 'learning rate after warm-up', choices=('constant', 'cosine'))
    weight_decay: float = option(0.0, 'decoupled, as in AdamW; 0: none', low=0, high=1e6)
    clip: float = option(1.0, 'largest norm of the gradient', low=1e-12, high=1e12)
    average: str = option('ema', 'of the weights, to sample with: ema, or your own')
    ema: float = option(0.995, 'decay of the averaged weights', low=0, high=1)
    ema_warmup: bool = option(True, 'average over a shorter past at first')
    label_drop: float = option(0.1, 'share of labels dropped, for guidance', low=0, high=1)
    seed: int = option(0, 'of all random draws', low=0, high=2**64 - 1)
    init: str = option('', 'a run or published weights to start from, in place of random ones')
    accumulate: int = option(1, 'slices in which a process computes its batch', low=1)
    precision: str = option('auto', 'of the network', choices=('auto', 'fp32', 'bf16', 'fp16'))
    compile: bool = option(False, 'compile the network first (torch.compile): minutes, and slower '
                           'on a CPU; on a GPU measure it')
    shard: bool = option(False, 'weights and optimizer in parts, one a process, for networks that do '
                         'not fit: slower; needs --optimizer adamw')
    threads: int = option(0, 'CPU threads of all processes together; 0: all', low=0, high=4096)
    log_every: int = option(10, 'steps between two lines of metrics.jsonl', low=1)
    save_every: int = option(200, 'steps between two checkpoints', low=1)
    eval_every: int = option(0, 'steps between two losses of 500 held-out images; 0: only at the '
                             'end, of all', low=0)
    grid_every: int = option(400, 'steps between two sample grids; 0: none on the way', low=0)
    keep: int = option(2, 'checkpoints kept', low=1)
    own: tuple[str, ...] = option((), 'a setting of an entry of your own; may be repeated',
                                  name='--set', action='append', metavar='NAME=VALUE')

    def __post_init__(self):
        check(self)


@dataclass(frozen=True)
class RunConfig:
    "Everything needed to repeat a run."
    preset: str = option('mnist16', 'what is read first, and other flags change; see ddpm presets')
    data: DataConfig = DataConfig()
    diffusion: DiffusionConfig = DiffusionConfig()
    network: NetworkConfig = NetworkConfig()
    training: TrainingConfig = TrainingConfig()
    plugins: tuple[str, ...] = ()           # Python files that register entries of your own

    def __post_init__(self):
        check(self)
        if self.network.network != 'unet':
            return
        halvings, size = len(self.network.multipliers) - 1, self.data.size
        if size % 2**halvings:
            raise ValueError(f'{halvings + 1} levels need a size divisible by {2**halvings}, '
                             f'not {size}')
        sizes = [size >> level for level in range(halvings + 1)]
        if wrong := [a for a in self.network.attention if a not in sizes]:
            raise ValueError(f'attention at {wrong[0]} is not among the resolutions '
                             f'{", ".join(map(str, sizes))}')

    @property
    def num_classes(self) -> int:
        "How many classes the network is told; 0 where it is told none."
        return len(self.data.classes) if self.network.conditional else 0

    @property
    def loss_name(self) -> str:
        "What is minimised, in words."
        d = self.diffusion
        return f'{d.objective if d.loss == "simple" else d.loss} loss'


SECTIONS = ('data', 'diffusion', 'network', 'training')


def flatten(config: RunConfig) -> dict[str, Any]:
    "All settings by name, without their sections."
    sections = (vars(getattr(config, section)) for section in SECTIONS)
    return {name: value for section in sections for name, value in section.items()}


def override(config: RunConfig, **changes: Any) -> RunConfig:
    "A copy with settings changed by name. Raises ValueError for an unknown name or a bad value."
    parts = {}
    for name in SECTIONS:
        section = getattr(config, name)
        mine = {k: changes.pop(k) for k in vars(section) if k in changes}
        parts[name] = dataclasses.replace(section, **mine)
    if changes:
        raise ValueError(f'no setting is called {", ".join(sorted(changes))}')
    return dataclasses.replace(config, **parts)


# the defaults above, spelt out: tests/unit/test_flags.py sees to it that the two agree
_MNIST16: dict[str, Any] = dict(
    data='mnist5k', size=16, schedule='cosine', objective='v', channels=16, multipliers=(1, 2, 4),
    blocks=1, attention=(), dropout=0.0, conditional=True, steps=650, batch=64, optimizer='muon',
    lr=8e-3, warmup=50, decay='cosine', ema=0.995, ema_warmup=True, label_drop=0.1, log_every=10,
    save_every=200, grid_every=400)
_CIFAR10: dict[str, Any] = dict(
    data='cifar10', size=32, augment='flip', image_channels=3, schedule='linear', objective='eps',
    channels=128, multipliers=(1, 2, 2, 2), blocks=2, attention=(16,), dropout=0.1,
    conditional=False, steps=800_000, batch=128, optimizer='adamw', lr=2e-4, warmup=5000,
    decay='constant', ema=0.9999, ema_warmup=False, label_drop=0.0, log_every=100, save_every=5000,
    grid_every=5000)
_PHOTOS32: dict[str, Any] = dict(
    data='photos', size=32, augment='flip', image_channels=3, channels=64,
    multipliers=(1, 2, 2, 2), blocks=2, attention=(16,), dropout=0.1, lr=5e-4, steps=100_000,
    optimizer='adamw', warmup=1000, ema=0.9995, log_every=100, save_every=2000, grid_every=2000)
_TABLE: dict[str, tuple[dict[str, Any], int, str]] = {
    # what it changes; parameters, with the classes of its data; what to expect
    'mnist16': (_MNIST16, 637_169,
                '1 to 1.5 minutes on two CPU cores with bf16, 2 to 4 without'),
    'mnist32': (_MNIST16 | dict(size=32, channels=32, multipliers=(1, 2, 2, 2), attention=(8,),
                                steps=1500, optimizer='adamw', lr=2e-3, warmup=100, ema=0.998),
                1_525_665, 'about 12 minutes on two CPU cores with bf16'),
    'faces16': (_MNIST16 | dict(data='faces', image_channels=3, objective='x0', loss='capped',
                                steps=6000, lr=4e-3, ema=0.998, log_every=50, save_every=1000,
                                grid_every=1000),
                637_427, 'about 7 minutes on two CPU cores with bf16'),
    'cifar10': (_CIFAR10, 35_746_307, 'days on one GPU; Ho et al. report 10.6 hours on a TPU v3-8'),
    'cifar10-class': (_CIFAR10 | dict(conditional=True, label_drop=0.1), 35_751_939, 'as cifar10'),
    'cifar10-cosine': (_CIFAR10 | dict(schedule='cosine'), 35_746_307, 'as cifar10'),
    'cifar10-hybrid': (_CIFAR10 | dict(schedule='cosine', variance='learned', loss='hybrid',
                                       dropout=0.3, lr=1e-4, steps=500_000),
                       35_749_766, 'as cifar10'),
    'photos32': (_PHOTOS32, 8_954_883, 'a 64th of the arithmetic of cifar10'),
    'photos64': (_PHOTOS32 | dict(size=64, multipliers=(1, 2, 3, 4)),
                 20_764_739, 'a 13th of the arithmetic of cifar10'),
    'mnist16-hybrid': (_MNIST16 | dict(variance='learned', loss='hybrid'), 637_314,
                       'more than mnist16'),
    'mnist16-vlb': (_MNIST16 | dict(variance='learned', loss='vlb'), 637_314,
                    'more than mnist16')}
PRESETS = types.MappingProxyType({name: override(RunConfig(preset=name), **changes)
                                  for name, (changes, _, _) in _TABLE.items()})
COSTS = types.MappingProxyType({name: (parameters, cost)
                                for name, (_, parameters, cost) in _TABLE.items()})


def differences(a: RunConfig, b: RunConfig) -> dict[str, tuple[Any, Any]]:
    "The settings in which two runs differ: name -> (in a, in b)."
    flat_a, flat_b = flatten(a), flatten(b)
    return {name: (old, flat_b[name]) for name, old in flat_a.items() if old != flat_b[name]}


def to_json(config: RunConfig, **extra: Any) -> str:
    "The configuration as JSON; `extra` is written beside it, for the record."
    return json.dumps({**dataclasses.asdict(config), **extra}, indent=2) + '\n'


_LATER = {'average': 'ema', 'own': (), 'eval_every': 0, 'shard': False}    # where a setting is missing


def from_json(text: str | bytes, where: str = 'config.json') -> RunConfig:
    "Read what `to_json` wrote. Raises ValueError naming `where` when it does not fit."
    def plain(part: dict) -> dict:      # JSON knows no tuples
        return {k: tuple(v) if isinstance(v, list) else v for k, v in part.items()}
    try:
        stored = json.loads(text, object_hook=plain)
        found = _LATER | {k: v for part in SECTIONS for k, v in stored[part].items()}
        config = RunConfig(stored['preset'], plugins=stored.get('plugins', ()))
        every = {name: found[name] for name in flatten(config)}     # none is missing
        return override(config, **every | found)
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f'{where} is damaged or from another version ({error})') from error


USUAL_STEPS, USUAL_GUIDANCE = 20, 1.75    # of samples, where nothing else is asked for


@dataclass(frozen=True)
class SamplingConfig:
    "How samples are drawn. None: decided by the model, in one place (`sampling.plan`)."
    sampler: str = option('dpm', 'dpm (DPM-Solver++), heun, ddim, ddpm, or your own')
    steps: int | None = option(
        None, f'steps of the walk (default: {USUAL_STEPS}, or all if there are fewer)')
    guidance: float | None = option(
        None, f'1 is none (default: {USUAL_GUIDANCE}; 1 where not trained for)', low=-1000, high=1000)
    variance: str | None = option(None, 'of ddpm (default: as trained at full length, else small)',
                                  choices=(None, 'large', 'small', 'learned'))
    eta: float = option(0.0, 'noise of ddim: 0 none, 1 as much as ddpm', low=0, high=1)
    spacing: str = option('trailing', 'which steps are taken: trailing, uniform or quadratic')
    clip: bool = option(True, 'keep the predicted image in [-1, 1]')
    seed: int = option(0, 'of all random draws', low=0, high=2**64 - 1)
    own: tuple[str, ...] = option((), 'a setting of an entry of your own; may be repeated',
                                  name='--set', action='append', metavar='NAME=VALUE')

    def __post_init__(self):
        check(self)
        no_eta = self.eta and self.sampler in ('ddpm', 'dpm', 'heun')
        if no_eta or (self.variance and self.sampler in ('ddim', 'dpm', 'heun')):
            raise ValueError('variance belongs to the ddpm sampler and eta to ddim')
