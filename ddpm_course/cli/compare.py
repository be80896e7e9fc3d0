"`ddpm compare`: compare runs on the same held-out images."
import json
import warnings
from dataclasses import asdict, dataclass
from typing import Any

from ..base.fields import option
from ..base.files import output, write_whole
from ..base.group import Group
from ..config import RunConfig
from ..data.sets import ImageSet
from ..judge.lab import answers, check_levels, paired
from ..run.datasets import pictures_of, trained_on
from ..run.runs import load_run
from .flags import Loaded, Processes
from .terminal import say
from .test import check_numbers


@dataclass(frozen=True)
class Request(Processes, Loaded):
    "Which runs are compared, on what."
    runs: tuple[str, ...] = option((), 'folders; all are compared with the first',
                                   name='runs', nargs='+', metavar='RUN')
    data: str | None = option(None, 'other images than the first run was trained on')
    out: str | None = option(None, 'also write the numbers', ending='.json')


def say_what_was_seen(runs: dict[str, RunConfig], images: ImageSet, held_out: ImageSet) -> None:
    "Warn where runs were trained on other pictures, and where held-out ones are among these."
    for run, config in runs.items():
        if config.data.digest == images.digest:
            continue
        try:
            count: Any = trained_on(held_out, pictures_of(config)[0])
        except (OSError, ValueError):               # they are not there any more, or have changed
            count = 'nobody knows how many'
        warnings.warn(f'{run} was trained on other pictures: {count} of the {len(held_out)} '
                      'held-out images are among them')


def run(request: Request, group: Group) -> None:
    "Runs on the same held-out images: losses, differences to the first, verdicts; also as JSON."
    runs, device = request.runs, group.device or 'cpu'
    loaded = [load_run(run, device, request.plugins, request.precision) for run in runs]
    first, config = loaded[0]
    for run, (model, _) in zip(runs, loaded):
        if (model.shape, model.classes) != (first.shape, first.classes):
            raise ValueError(f'{run} draws other images than {runs[0]}')
        check_levels({runs[0]: first.schedule, run: model.schedule})
    path = output(request.out) if request.out else None
    images, held_out = pictures_of(config, request.data)
    if group.rank == 0:
        say_what_was_seen({run: own for run, (_, own) in zip(runs, loaded)}, images, held_out)
    losses = [answers(model, held_out, group=group) for model, _ in loaded]
    for run, own in zip(runs, losses):
        check_numbers({'eps mse': float(own.mean())}, run)
    found = [paired(own, losses[0]) for own in losses]
    rows = [{'run': run, 'eps_mse': own.mean(), **asdict(d), 'verdict': d.verdict}
            for run, own, d in zip(runs, losses, found)]
    wide = max(map(len, runs))
    say(group, f'{"":{wide}}  eps mse of {len(held_out)} held-out images, minus the first')
    for run, own, d in zip(runs, losses, found):
        say(group, f'{run:{wide}}  {own.mean():.4f}' + (f'  {d}' if d is not found[0] else ''))
    say(group, '± is a 95 % confidence interval, for these trainings; whether what trained '
               'them is better takes several seeds')
    if path and group.rank == 0:
        write_whole(path, json.dumps(rows, indent=2) + '\n')
