import secrets
import warnings
from collections.abc import Callable
from functools import partialmethod
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..base.files import read_whole, write_whole
from ..base.registry import look_up
from ..config import RunConfig, flatten


def curves(line: dict[str, Any]) -> dict[str, float]:
    "A line of the log as one number per curve; lists are split into quarters, None is left out."
    named: dict[str, float] = {}
    for name, value in line.items():
        if isinstance(value, list):
            group = name.removesuffix('_quarters')
            named |= {f'{group} by quarter of t/{k}': v
                      for k, v in enumerate(value, 1) if v is not None}
        elif isinstance(value, dict):
            named |= {f'{name}/{k}': v for k, v in value.items()}
        elif name != 'step':
            named[name] = value
    return named


class TensorBoard:
    "Events in the run's folder `tensorboard/`, for `tensorboard --logdir runs`."

    def __init__(self, folder: Path, config: RunConfig, began: int):
        from torch.utils.tensorboard import SummaryWriter
        # what an earlier start has told of later steps is hidden
        self.writer = SummaryWriter(str(folder / 'tensorboard'), purge_step=began + 1)
        self.close = self.writer.close

    def numbers(self, line: dict[str, Any]) -> None:
        for name, value in curves(line).items():
            self.writer.add_scalar(name, value, line['step'])
        self.writer.flush()

    def picture(self, name: str, image: Image.Image, step: int) -> None:
        pixels = np.asarray(image.convert('RGB'))
        self.writer.add_image(name, pixels, step, dataformats='HWC')


class Wandb:
    "A run of Weights & Biases, with files in the run's folder `wandb/`."

    def __init__(self, folder: Path, config: RunConfig, began: int):
        import wandb
        self.Image, identity = wandb.Image, folder / 'wandb_id.txt'
        if not identity.exists():
            write_whole(identity, secrets.token_hex(4) + '\n')
        self.run = wandb.init(
            project='ddpm_course', name=folder.name, id=read_whole(identity).decode().strip(),
            resume='allow', dir=str(folder), config=flatten(config),
            settings=wandb.Settings(silent=True, console='off'))
        self.run.define_metric('*', step_metric='step')

    def numbers(self, line: dict[str, Any]) -> None:
        self.run.log({'step': line['step'], **curves(line)})

    def picture(self, name: str, image: Image.Image, step: int) -> None:
        self.run.log({'step': step, name: self.Image(image)})

    def close(self) -> None:
        self.run.finish()


TRACKERS: dict[str, Callable[[Path, RunConfig, int], Any]] = {
    'tensorboard': TensorBoard, 'wandb': Wandb}


class Tracker:
    "An entry of TRACKERS: what it raises is said once, and then the run goes on without it."

    def __init__(self, name: str, entry: Any):
        self.name, self.entry = name, entry

    def tell(self, what: str, *told: Any) -> None:
        try:
            if self.entry:
                getattr(self.entry, what)(*told)
        except Exception as error:
            self.entry = None
            warnings.warn(f'the tracker {self.name} has failed, and is told no more: {error}')

    numbers = partialmethod(tell, 'numbers')            # of a line of the log
    picture = partialmethod(tell, 'picture')            # its name, the image, the step
    close = partialmethod(tell, 'close')


def start_tracker(name: str, folder: Path, config: RunConfig, began: int) -> Tracker:
    "The tracker called `name`. Raises ValueError where there is none, or it cannot begin."
    entry = look_up('tracker', TRACKERS, name)
    try:
        return Tracker(name, entry(folder, config, began))
    except Exception as error:
        raise ValueError(f'the tracker {name} cannot begin: {error}') from error
