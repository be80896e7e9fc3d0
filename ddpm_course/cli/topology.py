"`ddpm topology`: draw the network and the diffusion model."
from dataclasses import dataclass, field, fields
from pathlib import Path

import torch
from torch import Tensor

from .. import steps
from ..base.fields import option
from ..base.files import output
from ..base.group import Group
from ..base.registry import check_own
from ..config import RunConfig, TrainingConfig, override
from ..model import Model, build_model
from ..run.runs import load_run
from ..run.training import entries
from ..share.diagram import draw_all
from .flags import FOUND_IN_DATA
from .terminal import say


LEFT_OUT = (*FOUND_IN_DATA, 'data', 'augment',          # what nothing that is drawn depends on
            *(f.name for f in fields(TrainingConfig) if f.name != 'own'))


@dataclass(frozen=True)
class Request:
    "What is drawn, and where to."
    run: str | None = option(None, "a run's folder (default: what --preset says)",
                             name='run', nargs='?')
    config: RunConfig = field(default=RunConfig(), metadata={'leave_out': LEFT_OUT})
    out: str | None = option(None, 'a folder (default: topology/PRESET, topology in the run)')

    def __post_init__(self):
        if self.run and self.config != RunConfig(plugins=self.config.plugins):
            raise ValueError('a run has settings of its own: leave other flags than --out out')


def new_model(config: RunConfig) -> Model:
    "An untrained model."
    check_own(config.training.own, entries(config))
    if config.network.conditional:
        config = override(config, classes=tuple('0123456789'))     # all presets' data have ten
    return build_model(config).eval()


def run(request: Request) -> None:
    "Draw as SVG and PNG: a network as a U (diagram), and one step of sampling (diffusion)."
    model = (load_run(request.run, 'cpu', request.config.plugins, 'fp32')[0] if request.run
             else new_model(request.config))
    s, index, x = model.schedule, model.schedule.T // 2, torch.zeros(1, *model.shape)

    def step(x_t: Tensor, t: Tensor, z: Tensor, y: Tensor | None = None) -> dict[str, Tensor]:
        "Algorithm 2, one turn."
        seen = model.predict(x_t, t, y)
        levels = s.alpha_bars[index].item(), s.alpha_bars_prev[index].item()
        variance = 'large' if seen.v is None else seen.v
        return {'x_0 predicted': seen.x0,
                'x_t-1': steps.ddpm_step(seen.x0, x_t, z, *levels, variance)}

    inputs = {'x_t': x, 't': torch.full((1,), index), 'z': torch.ones_like(x)}
    if model.classes:
        inputs['y'] = torch.zeros(1, dtype=torch.long)
    given = x, inputs['t'], inputs.get('y')
    usual = ('topology', request.config.preset) if request.run is None else (request.run, 'topology')
    out = Path(request.out) if request.out else Path(*usual)
    output(out / 'diagram.png')
    say(Group(), 'wrote', *draw_all(model.network, given, step, inputs, out))
