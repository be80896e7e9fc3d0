"`ddpm compare`: compare runs on the same held-out images."
import argparse
import json
from dataclasses import asdict, dataclass

from ..base.files import output, write_whole
from ..base.group import Group
from ..data.sources import load_data
from ..judge.lab import answers, paired
from ..run.runs import load_run
from .flags import add_precision, add_processes, file
from .terminal import say


@dataclass(frozen=True)
class Request:
    "Which runs are compared, on what."
    runs: tuple[str, ...]           # all with the first
    data: str | None                # None: what the first was trained on
    plugins: tuple[str, ...]
    precision: str
    out: str | None


def add_flags(p: argparse.ArgumentParser) -> None:
    "Flags that say which runs are compared, and on what."
    add_processes(p)
    p.add_argument('runs', nargs='+', metavar='RUN',
                   help='folders; all are compared with the first')
    p.add_argument('--data', help='other images than the first run was trained on')
    add_precision(p)
    p.add_argument('--out', type=file('.json'), help='also write the numbers')


def read(args: argparse.Namespace) -> Request:
    "Flags as values."
    return Request(tuple(args.runs), args.data, args.plugins, args.precision, args.out)


def run(request: Request, group: Group) -> None:
    "Runs on the same held-out images: losses, differences to the first, verdicts; also as JSON."
    runs, device = request.runs, group.device or 'cpu'
    loaded = [load_run(run, device, request.plugins, request.precision) for run in runs]
    first, data = loaded[0][0], loaded[0][1].data
    for run, (model, _) in zip(runs, loaded):
        if (model.shape, model.classes) != (first.shape, first.classes):
            raise ValueError(f'{run} draws other images than {runs[0]}')
    path = output(request.out) if request.out else None
    held_out = load_data(request.data or data.data, data.size, data.image_channels or None)[1]
    losses = [answers(model, held_out, group=group) for model, _ in loaded]
    found = [paired(own, losses[0]) for own in losses]
    rows = [{'run': run, 'eps_mse': own.mean(), **asdict(d), 'verdict': d.verdict}
            for run, own, d in zip(runs, losses, found)]
    wide = max(map(len, runs))
    say(group, f'{"":{wide}}  eps mse of {len(held_out)} held-out images, less the first')
    for row in rows:
        say(group, f'{row["run"]:{wide}}  {row["eps_mse"]:.4f}' + (
            f'  {row["mean"]:+.5f} ± {row["error"]:.5f}, {row["verdict"]}' * (row is not rows[0])))
    say(group, 'of these trainings; whether what trained them is better takes several seeds')
    if path and group.rank == 0:
        write_whole(path, json.dumps(rows, indent=2) + '\n')
