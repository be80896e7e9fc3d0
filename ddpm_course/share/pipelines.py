"Diffusers pipelines: names and settings of theirs and ours, reading one, writing one."
import dataclasses
import json
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from ..base.files import naming, read_json, read_whole, write_folder
from ..base.machine import pick_precision
from ..base.registry import look_up
from ..config import RunConfig, flatten, from_json, override, to_json
from ..model import Model, build_model, unet
from ..unet import Stage, UNet

_FIXED = {'time.layers.0': 'time_embedding.linear_1', 'time.layers.2': 'time_embedding.linear_2',
          'classes.table': 'class_embedding', 'conv_in': 'conv_in',
          'out.0': 'conv_norm_out', 'out.2': 'conv_out'}
_INSIDE = {'embed': 'time_emb_proj', 'shortcut': 'conv_shortcut', 'norm': 'group_norm',
           'query': 'to_q', 'key': 'to_k', 'value': 'to_v', 'out': 'to_out.0'}


def diffusers_names(network: UNet) -> dict[str, str]:
    "The name of each of our weights in diffusers' `UNet2DModel`."
    modules = dict(_FIXED)                              # ours -> theirs
    for way in ('down', 'middle', 'up'):
        level = place = 0
        for index, part in enumerate(getattr(network, way)):
            ours = f'{way}.{index}'
            block = 'mid_block' if way == 'middle' else f'{way}_blocks.{level}'
            modules |= {f'{ours}.residual': f'{block}.resnets.{place}',
                        f'{ours}.attention': f'{block}.attentions.{place}',
                        f'{ours}.conv': f'{block}.{way}samplers.0.conv'}
            level, place = (level, place + 1) if isinstance(part, Stage) else (level + 1, 0)
    found = {}
    for name in network.state_dict():                   # 'down.0.residual.embed.weight'
        module = next(ours for ours in modules if name.startswith(f'{ours}.'))
        *inside, kind = name.removeprefix(f'{module}.').split('.')
        found[name] = '.'.join([modules[module], *(_INSIDE.get(p, p) for p in inside), kind])
    return found


_OURS = {                       # what our network computes, in their settings
    'act_fn': 'silu', 'mid_block_scale_factor': 1, 'class_embed_type': None,
    'center_input_sample': False, 'resnet_time_scale_shift': 'default', 'add_attention': True,
    'time_embedding_type': 'positional', 'downsample_type': 'conv', 'upsample_type': 'conv',
    'attn_norm_num_groups': None, 'norm_eps': 1e-6, 'downsample_padding': 0,
    'flip_sin_to_cos': False, 'freq_shift': 1, 'attention_head_dim': None}
_THEIRS = _OURS | {             # and what a file means that leaves them out
    'norm_eps': 1e-5, 'downsample_padding': 1, 'flip_sin_to_cos': True, 'freq_shift': 0,
    'attention_head_dim': 8, 'layers_per_block': 2, 'norm_num_groups': 32, 'dropout': 0.0}


def to_diffusers(network: UNet, size: int) -> tuple[dict, dict[str, Tensor]]:
    """Configuration and weights for diffusers: `UNet2DModel(**config).load_state_dict(state)`, for
    images of this size. Its last class is "no class"."""
    stages = [part for part in network.down if isinstance(part, Stage)]
    blocks = len(stages) // (len(network.down) - len(stages) + 1)       # halvings lie between
    levels = stages[::blocks]
    kinds = ['AttnDownBlock2D' if stage.attention else 'DownBlock2D' for stage in levels]
    table = network.classes.table if network.classes else None
    config = _OURS | {
        'sample_size': size, 'layers_per_block': blocks,
        'in_channels': network.conv_in.in_channels, 'out_channels': network.out[-1].out_channels,
        'block_out_channels': tuple(stage.residual.conv2.out_channels for stage in levels),
        'down_block_types': tuple(kinds),
        'up_block_types': tuple(kind.replace('Down', 'Up') for kind in reversed(kinds)),
        'norm_num_groups': network.out[0].num_groups, 'dropout': stages[0].residual.dropout.p,
        'num_class_embeds': table.num_embeddings if table else None}
    state = network.state_dict()
    return config, {theirs: state[ours] for ours, theirs in diffusers_names(network).items()}


def our_settings(u: dict) -> dict[str, Any]:
    "The settings of ours that come closest to the config.json of a `UNet2DModel`."
    widths, size = u['block_out_channels'], u.get('sample_size') or 32
    return {'size': size, 'image_channels': u['in_channels'], 'channels': widths[0],
            'multipliers': tuple(width // widths[0] for width in widths),
            'blocks': u.get('layers_per_block', 2), 'groups': u.get('norm_num_groups', 32),
            'attention': tuple(size >> level for level, kind in enumerate(u['down_block_types'])
                               if kind == 'AttnDownBlock2D'),
            'dropout': u.get('dropout', 0.0),
            'classes': tuple(map(str, range(min(u.get('num_class_embeds') or 0, 10**6))))}


def computes_ours(u: dict, network: UNet) -> bool:
    "Whether a `UNet2DModel` with this config.json computes what such a network of ours does."
    plain = lambda value: tuple(value) if isinstance(value, list) else value
    return all(plain(u.get(name, _THEIRS.get(name))) == value
               for name, value in to_diffusers(network, 0)[0].items()
               if name not in ('sample_size', 'num_class_embeds'))      # theirs lacks "no class"


class TheirUNet(nn.Module):
    "A diffusers `UNet2DModel` that is asked as ours are. Raises ValueError without diffusers."

    def __init__(self, u: dict):
        super().__init__()
        if find_spec('diffusers') is None:
            raise ValueError('another network than ours needs: pip install diffusers')
        from diffusers import UNet2DModel
        self.unet: Any = UNet2DModel.from_config(u)

    def forward(self, xt: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        return self.unet(xt, t, class_labels=y).sample


_OLD = {'query': 'to_q', 'key': 'to_k', 'value': 'to_v', 'proj_attn': 'to_out.0'}   # before 2023


def from_diffusers(
    u: dict,                        # of a `UNet2DModel`, as in its config.json
    state: dict[str, Tensor],       # its weights by name
    config: RunConfig,              # of the network of ours that comes closest
) -> nn.Module:                     # that one where it computes the same, else a `TheirUNet`
    """The same network with the same weights. Raises ValueError where it needs diffusers, or its
    answers are no images; RuntimeError where the weights do not fit."""
    today = lambda name: '.'.join(_OLD.get(part, part) for part in name.split('.'))
    state = {today(name): weight for name, weight in state.items()}
    if u['out_channels'] not in (u['in_channels'], 2 * u['in_channels']):
        raise ValueError('a network whose answers have other channels than its images')
    n, sizes = config.network, [weight.numel() for weight in state.values()]
    if 9 * n.blocks * sum((n.channels * m)**2 for m in n.multipliers) > sum(sizes):
        raise ValueError('the weights do not belong to its settings')   # before memory is asked for
    network = unet(config)
    if not computes_ours(u, network):
        with torch.device('meta'):
            theirs = TheirUNet(u)
        theirs.unet.load_state_dict(state, assign=True)
        return theirs
    table = state.get('class_embedding.weight')
    if table is not None and len(table) == config.num_classes:      # it has no row for "no class"
        state['class_embedding.weight'] = torch.cat([table, torch.zeros_like(table[:1])])
    ours = {theirs: name for name, theirs in diffusers_names(network).items()}
    network.load_state_dict({ours.get(name, name): weight for name, weight in state.items()})
    return network


SCHEDULER_NAMES = {             # a setting of theirs: their value -> ours; the first is the usual
    'beta_schedule': {'linear': 'linear', 'squaredcos_cap_v2': 'cosine'},
    'prediction_type': {'epsilon': 'eps', 'sample': 'x0', 'v_prediction': 'v'},
    'variance_type': {'fixed_small': 'small', 'fixed_small_log': 'small', 'fixed_large': 'large',
                      'learned_range': 'learned'}}
_PLAIN = {'trained_betas': None, 'rescale_betas_zero_snr': False, 'thresholding': False,
          'clip_sample_range': 1.0}


def linear_ends(T: int) -> dict[str, float]:
    "First and last beta of our linear schedule, as diffusers calls them."
    return {'beta_start': 1e-4 * 1000 / T, 'beta_end': 0.02 * 1000 / T}


def published_diffusion(scheduler: dict) -> dict[str, Any]:
    "Our settings of a diffusers scheduler. Raises ValueError where we have none such."
    theirs: dict[str, Any] = {name: next(iter(known)) for name, known in SCHEDULER_NAMES.items()}
    theirs |= _PLAIN | {'num_train_timesteps': 1000} | linear_ends(1000)
    theirs |= {name: value for name, value in scheduler.items() if value is not None}
    T = theirs['num_train_timesteps']
    usual = _PLAIN | (linear_ends(T) if theirs['beta_schedule'] == 'linear' else {})
    odd = [name for name, known in SCHEDULER_NAMES.items() if theirs[name] not in known]
    odd += [name for name, value in usual.items() if theirs[name] != value]
    if odd:
        raise ValueError(f'a scheduler with {odd[0]} {theirs[odd[0]]} (T = {T}) is not one of ours')
    schedule, objective, variance = (known[theirs[name]] for name, known in SCHEDULER_NAMES.items())
    return {'schedule': schedule, 'T': T, 'objective': objective, 'variance': variance,
            'loss': 'hybrid' if variance == 'learned' else 'simple'}


def find_published(source: str) -> Path:
    """The folder of a diffusers model, fetched from the hub where `source` is a name there.
    Raises FileNotFoundError where there is neither."""
    if Path(source).is_dir():
        return Path(source)
    try:
        from huggingface_hub import snapshot_download
        wanted = ['*.json', '**/*.json', '*diffusion_pytorch_model.safetensors']
        return Path(snapshot_download(source, allow_patterns=wanted))
    except Exception as error:              # no network, no such name, no huggingface_hub, ...
        raise FileNotFoundError(f'{source} is no folder and could not be fetched from the hub '
                                f'({type(error).__name__})') from error


def read_pipeline(folder: Path) -> tuple[dict[str, Any], dict[str, Any], dict[str, Tensor]]:
    """Settings of network and scheduler, and the weights, of a diffusers pipeline's folder.
    Raises FileNotFoundError for what is missing, ValueError for what is damaged."""
    parts = (folder / 'unet', folder / 'scheduler') if (folder / 'unet').is_dir() else (folder,) * 2
    words, scheduler = parts[0] / 'config.json', parts[1] / 'scheduler_config.json'
    weights = parts[0] / 'diffusion_pytorch_model.safetensors'
    for path in (words, scheduler, weights):
        if not path.is_file():
            raise FileNotFoundError(f'{folder} is no diffusers pipeline: there is no {path.name}')
    settings, content = (read_json(words), read_json(scheduler)), weights.read_bytes()
    with suppress(Exception):               # the library has classes of its own for damage
        state = {name: weight.float() for name, weight in load(content).items()}
        if all(weight.isfinite().all() for weight in state.values()):
            return *settings, state
    raise ValueError(f'{weights} is damaged')


def load_published(source: str, device: torch.device | str = 'cpu',
                   precision: str = 'auto') -> tuple[Model, RunConfig]:
    """A diffusers pipeline in a folder or on the hub: the model, ready to sample, and what
    configuration would train such a one. Raises FileNotFoundError or ValueError."""
    folder = find_published(source)
    u, scheduler, state = read_pipeline(folder)
    said = folder / 'ddpm_course.json'
    own = from_json(read_whole(said), str(said)) if said.exists() else None
    with naming(folder):
        try:
            config = own or override(RunConfig(preset=source), data=source, label_drop=0.0,
                                     **our_settings(u), **published_diffusion(scheduler))
            network = from_diffusers(u, state, config)
        except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError) as error:
            raise ValueError('the weights do not belong to its settings') from error
        if isinstance(network, TheirUNet):
            config = override(config, network='diffusers')
    network.to(device).eval().requires_grad_(False)
    model = build_model(config, network)
    return dataclasses.replace(model, precision=pick_precision(precision, model.device)), config


def scheduler_settings(config: RunConfig) -> dict[str, Any]:
    "A `DDPMScheduler` with our noise. Raises ValueError for a schedule or objective it lacks."
    d, settings = config.diffusion, {}
    for setting, name in zip(SCHEDULER_NAMES, (d.schedule, d.objective, d.variance)):
        theirs = {ours: theirs for theirs, ours in reversed(SCHEDULER_NAMES[setting].items())}
        settings[setting] = look_up(f'{setting} of diffusers', theirs, name)
    return {'_class_name': 'DDPMScheduler', **settings, 'num_train_timesteps': d.T,
            **linear_ends(d.T), 'clip_sample': True, 'timestep_spacing': 'trailing'}


_CARD = '''---
library_name: diffusers
tags: [ddpm]
---

# A denoising diffusion model ({preset})

A U-Net trained for {steps:,} steps on {data}, images of {size}x{size}. Classes that it is told:
{told}. It predicts {objective} under the {schedule} schedule with T = {T}; all settings are in
`ddpm_course.json`.

With ddpm_course: `ddpm sample --weights FOLDER`. With diffusers, where it is told none:
`DDPMPipeline.from_pretrained('FOLDER')(batch_size=4).images`.
'''


def model_card(config: RunConfig) -> str:
    "A page that says what the model is and how to use it."
    return _CARD.format(preset=config.preset, told=config.num_classes, **flatten(config))


def save_pipeline(model: Model, config: RunConfig, folder: Path | str) -> None:
    """Write a diffusers pipeline: network, scheduler, card, and the whole configuration; all of it
    or nothing. Raises ValueError for another network than the U-Net, FileExistsError for a folder
    that holds anything but such a pipeline."""
    folder, network, last = Path(folder), model.network, lambda path: Path(path).name
    if not isinstance(network, UNet):
        raise ValueError('diffusers knows our U-Net, not a network of your own')
    config = override(config, data=last(config.data.data), init=last(config.training.init))
    if not model.can_guide:                             # a student of a guided model, say
        config = override(config, label_drop=0.0)
    config = dataclasses.replace(config, plugins=tuple(map(last, config.plugins)))
    described, state = to_diffusers(network, model.shape[-1])
    weights = {name: weight.contiguous() for name, weight in state.items()}
    as_json = lambda content: (json.dumps(content, indent=2) + '\n').encode()
    files = {
        'ddpm_course.json': to_json(config).encode(),
        'model_index.json': as_json({
            '_class_name': 'DDPMPipeline', 'unet': ['diffusers', 'UNet2DModel'],
            'scheduler': ['diffusers', 'DDPMScheduler']}),
        'README.md': model_card(config).encode(),
        'scheduler/scheduler_config.json': as_json(scheduler_settings(config)),
        'unet/config.json': as_json({'_class_name': 'UNet2DModel', **described}),
        'unet/diffusion_pytorch_model.safetensors': save(weights, {'format': 'pt'})}
    there = {str(path.relative_to(folder)) for path in folder.rglob('*') if not path.is_dir()}
    if other := min(there - {*files}, default=''):
        raise FileExistsError(f'{folder} holds something else, {other}: choose another folder')
    if there and 'ddpm_course.json' not in there:
        raise FileExistsError(f'{folder} holds something else, a pipeline that was not written '
                              'here: choose another folder')
    write_folder(folder, files)
