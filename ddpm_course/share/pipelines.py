import dataclasses
import io
import json
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from ..base.files import own_folder, write_whole
from ..base.registry import look_up
from ..config import RunConfig, flatten, override, to_json
from ..model import Model
from ..unet import UNet
from .published import SCHEDULER_NAMES, linear_ends, to_diffusers


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
    """Write a diffusers pipeline: network, scheduler, card, and the whole configuration.
    Raises ValueError for another network than the U-Net, FileExistsError for a folder in use."""
    folder, network, last = Path(folder), model.network, lambda path: Path(path).name
    if not isinstance(network, UNet):
        raise ValueError('diffusers knows our U-Net, not a network of your own')
    if next(folder.glob('*'), None) and not list(folder.glob('ddpm_course.json*')):     # or .new
        raise FileExistsError(f'{folder} holds something else: choose another folder')
    config = override(config, data=last(config.data.data), init=last(config.training.init))
    if not model.can_guide:                             # a student of a guided model, say
        config = override(config, label_drop=0.0)
    config = dataclasses.replace(config, plugins=tuple(map(last, config.plugins)))
    described, state = to_diffusers(network, model.shape[-1])
    weights = {name: weight.contiguous() for name, weight in state.items()}
    files: dict[str, Any] = {
        'ddpm_course.json': to_json(config),
        'model_index.json': {'_class_name': 'DDPMPipeline', 'unet': ['diffusers', 'UNet2DModel'],
                             'scheduler': ['diffusers', 'DDPMScheduler']},
        'README.md': model_card(config),
        'scheduler/scheduler_config.json': scheduler_settings(config),
        'unet/config.json': {'_class_name': 'UNet2DModel', **described},
        'unet/diffusion_pytorch_model.safetensors': save(weights, {'format': 'pt'})}
    for name, content in files.items():
        part = (folder / name).parent
        if part != folder:
            own_folder(part)
        part.mkdir(parents=True, exist_ok=True)
        as_text = json.dumps(content, indent=2) + '\n' if isinstance(content, dict) else content
        write_whole(folder / name, as_text)


def save_onnx(model: Model, path: Path | str) -> None:
    """Write the network as ONNX: xt, t and, with classes, y, to answer; any number of images.
    Raises ValueError without the package onnx, or where that file cannot be written."""
    if find_spec('onnx') is None:
        raise ValueError('ONNX needs: pip install onnx')
    index = torch.zeros(2, dtype=torch.long)
    inputs = {'xt': torch.zeros(2, *model.shape), 't': index, 'y': index}
    if not model.classes:
        del inputs['y']
    network, written = model.eval().network.cpu(), io.BytesIO()
    with warnings.catch_warnings(action='ignore'):      # it is deprecated, and says so at length
        torch.onnx.export(network, tuple(inputs.values()), written,     # type: ignore[arg-type]
                          dynamo=False, input_names=list(inputs), output_names=['answer'],
                          dynamic_axes={name: {0: 'batch'} for name in [*inputs, 'answer']})
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    write_whole(Path(path), written.getvalue())
