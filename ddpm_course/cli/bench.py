"`ddpm bench`: measure what a training step costs here, and where its time goes."
import json
from dataclasses import dataclass, field
from typing import Any

import torch

from ..base.fields import option
from ..base.files import output, write_whole
from ..base.group import Group
from ..base.machine import cores, pick_precision, torch_settings
from ..config import RunConfig, override
from ..run.speed import measure
from .flags import FOUND_IN_DATA, Processes
from .terminal import say

LEFT_OUT = (*FOUND_IN_DATA, 'data', 'augment', 'init')


@dataclass(frozen=True)
class Request(Processes):
    "What is measured, for how long."
    config: RunConfig = field(default=RunConfig(), metadata={'leave_out': LEFT_OUT})
    seconds: float = option(60.0, 'to measure for, about', low=1, high=3600)
    out: str = option('bench.json', 'the file of what was found', ending='.json')


def short(found: dict[str, Any]) -> dict[str, Any]:
    "With four digits of each number, on the screen as in the file: rounded twice, they may differ."
    return json.loads(json.dumps(found), parse_float=lambda x: float(f'{float(x):.4g}'))


def table(found: dict[str, Any]) -> str:
    "What was found, in a few lines."
    speed, parts = found['images/s'], found['ms']
    lines = [f'{name:22} {"no memory" if each is None else f"{each:9,.1f} images/s"}'
             for name, each in speed.items()]
    lines += [f'{name:22} {each:9.2f} ms alone' for name, each in parts.items()]
    lines += [f'{"share of the peak":22} {found["share of the peak"]:9.1%} of what a product of large '
              'matrices reaches here']
    if ring := found.get('ring'):
        lines += [f'{"sum of " + f"{n / 1e3:,.0f} kB":22} {1000 * took:9.2f} ms, by the formula '
                  f'{1000 * said:.2f}' for n, took, said in
                  zip(ring['bytes'], ring['seconds'], ring['formula'])]
    return '\n'.join(lines)


def run(request: Request, group: Group) -> None:
    "Measure, print, write."
    where = group.device or torch.device('cpu')
    path, t = output(request.out), request.config.training
    threads = t.threads or max(1, cores() // group.local_world)
    classes = tuple('0123456789') if request.config.network.conditional else ()
    config = override(request.config, classes=classes, threads=threads,
                      precision=pick_precision(t.precision, where))
    with torch_settings(threads, config.training.precision):
        found = short(measure(config, group, where, request.seconds))
    say(group, table(found))
    if group.rank == 0:
        write_whole(path, json.dumps(found, indent=1) + '\n')
    say(group, f'wrote {path}')
