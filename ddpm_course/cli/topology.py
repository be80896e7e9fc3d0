"`ddpm topology`: draw the network and the diffusion model."
import argparse
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from .. import steps
from ..base.files import output
from ..base.group import Group
from ..base.registry import check_own
from ..config import RunConfig, override
from ..model import Model, build_model
from ..run.runs import load_run
from ..run.training import entries
from ..share.diagram import draw_all
from .flags import FOUND_IN_DATA, add_preset, read_settings
from .terminal import say


@dataclass(frozen=True)
class Request:
    "What is drawn, and where to."
    run: str | None                 # None: a new network
    config: RunConfig               # of the new network
    out: Path | None                # a folder; None: the run's own


def add_flags(p: argparse.ArgumentParser) -> None:
    "Flags that name a run, or make a configuration, and say where the drawings go."
    p.add_argument('run', nargs='?', help="a run's folder (default: what --preset says)")
    add_preset(p, ('data', 'diffusion', 'network'), 'topology/PRESET, topology in the run',
               (*FOUND_IN_DATA, 'data', 'augment'))


def read(args: argparse.Namespace) -> Request:
    "Flags as values. Raises ValueError where a run is given settings."
    config = read_settings(args)
    if args.run and config != RunConfig(plugins=config.plugins):
        raise ValueError('a run has settings of its own: leave other flags than --out out')
    usual = Path('topology', args.preset)
    return Request(args.run, config, Path(args.out) if args.out else None if args.run else usual)


def new_model(config: RunConfig) -> Model:
    "An untrained model."
    check_own(config.training.own, entries(config))
    if config.network.conditional:
        config = override(config, classes=tuple('0123456789'))     # all presets' data have ten
    return build_model(config).eval()


def run(request: Request) -> None:
    "Draw a network as SVG and PNG: its diagram, all its parts, a step of the diffusion model."
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
    out = request.out or Path(request.run or '', 'topology')
    output(out / 'diagram.png')
    say(Group(), 'wrote', *draw_all(model.network, step, inputs, out))
