"`ddpm doctor`: find what is wrong with a run, a model or pictures."
import json
import sys
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from ..base.fields import option
from ..base.files import output, read_json, write_whole
from ..base.group import Group
from ..base.machine import keep_memory, pick_device
from ..config import SamplingConfig
from ..data.sets import ASSETS
from ..data.sources import DATA, batch_source, load_data
from ..judge.folders import Album, look_through
from ..judge.checks import CHECKS, Finding, examine, missing
from ..judge.patient import Patient
from ..judge.scores import Scores
from ..run.checkpoints import newest_checkpoint, read_metrics, step_of
from ..run.datasets import pictures_of
from ..run.runs import load_run
from ..sampling import plan
from ..share.pipelines import load_published
from .flags import Loaded
from .terminal import say


@dataclass(frozen=True)
class Request(Loaded):
    "What is examined, and how samples of it are drawn."
    thing: str | None = option(None, 'a run, a diffusers pipeline, or pictures (default: the model '
                               'that ships)', name='thing', nargs='?', metavar='RUN|MODEL|DATA')
    data: str | None = option(None, 'pictures to ask a model about (default: those of the run)')
    size: int = option(32, 'of pictures given alone', low=4, high=1024)
    n: int = option(100, 'samples to draw', low=20, high=10_000)
    how: SamplingConfig = SamplingConfig(guidance=1.0)
    device: str = option('auto', 'auto, cpu, cuda or mps')
    out: str | None = option(None, 'also write what was found', ending='.json')


def kind_of(thing: str) -> str:
    "What was given: 'run', 'model' (a diffusers pipeline) or 'pictures'."
    there = {path.name for path in Path(thing).iterdir()} if Path(thing).is_dir() else set()
    if there & {'unet', 'model_index.json', 'diffusion_pytorch_model.safetensors'}:
        return 'model'
    if 'config.json' in there:
        return 'run'
    return 'pictures' if Path(thing).exists() or thing.partition(':')[0] in DATA else 'model'


def of_run(run: Path, r: Request, device: torch.device | str) -> dict[str, Any]:
    "What is known of a run, but for its pictures, as fields of a `Patient`."
    found: dict[str, Any] = {'log': read_metrics(run), 'scores': read_scores(run / 'test.json')}
    found['model'], found['config'] = load_run(run, device, r.plugins, r.precision)
    if newest := newest_checkpoint(run):                            # a run that ships has none
        found['step'] = step_of(newest)
    if list(run.glob('checkpoints/*/model.safetensors')):
        found['raw'], _ = load_run(run, device, None, r.precision, 'model.safetensors')
    return found


def read_scores(tested: Path) -> dict[str, Any]:
    "What `ddpm test --fid` has kept of a run's samples. Raises ValueError where that is damaged."
    found = read_json(tested) if tested.exists() else {}
    try:
        return asdict(Scores(**found['samples'])) if 'samples' in found else {}
    except TypeError as error:
        raise ValueError(f'{tested} is damaged: its samples are no scores; test again') from error


def admit(r: Request, device: torch.device | str = 'cpu') -> Patient:
    """Everything that can be known of what was given, as a patient. Raises FileNotFoundError for
    what is not there, and ValueError for what is damaged or does not fit."""
    thing = r.thing or str(ASSETS / 'mnist16')
    kind = kind_of(thing)
    if kind == 'pictures':
        if r.data or r.how != Request.how:
            raise ValueError(f'{thing} holds pictures: --data and sampling belong to a model')
        return Patient(*load_data(thing, r.size))
    found: dict[str, Any] = {}
    if kind == 'run':
        found = of_run(Path(thing), r, device)
    else:
        found['model'], found['config'] = load_published(thing, device, r.precision)
    plan(r.how, found['model'])
    try:
        if r.data or kind == 'run':
            found['images'], found['held_out'] = pictures_of(found['config'], r.data)
    except FileNotFoundError as error:
        if r.data:
            raise
        warnings.warn(f"the run's pictures are not found ({error}): name them with --data")
    return Patient(**found, how=r.how, n=r.n)


LACKING = {     # what is not known of a patient -> why a check could not run
    'images': 'without pictures (name some with --data)',
    'held_out': 'without pictures (name some with --data)',
    'model': 'without a model', 'config': 'without its settings',
    'raw': 'without weights as they were trained, not averaged', 'log': 'without a log',
    'scores': 'without judged samples (ddpm test --fid)'}


def report(patient: Patient, found: Mapping[str, Finding], files: int = 0) -> str:
    """What the checks say, as text: first what is ill, causes before consequences, each with what
    may follow from it; last, which could not run (of pictures alone: none but those of a model),
    and how many files are named."""
    lines, ill = [], [name for name, f in found.items() if f.ill and not f.follows]
    for name in ill:
        f, check = found[name], CHECKS[name]
        lines += [name, f'    {f.looked}: {f.found}',
                  f'    {f.value:.3g}, ill {"below" if check.below else "above"} {f.limit:g} '
                  f'({check.why})', f'    {f.do} ({f.sure})']
        if later := [after for after, other in found.items() if other.follows == name]:
            lines.append(f'    may follow from it: {", ".join(later)}')
    well = [f'{name:24} {f}' for name, f in found.items() if not f.ill]
    left: dict[str, list[str]] = {}
    alone = not (patient.model or patient.config)   # pictures
    for name, check in CHECKS.items():
        for need in () if alone else missing(patient, check)[:1]:
            left.setdefault(LACKING[need], []).append(name)
    unseen = [f'not looked for {why}: {", ".join(names)}' for why, names in left.items()]
    named = f'; {files:,} file{"s" * (files > 1)} to look at, named above' if files else ''
    return '\n'.join([*lines, *([''] if lines else []), *well, '', *unseen,
                      f'{len(found)} checks, {len(ill) or "nothing"} found{named}'])


def name_files(thing: str | None, size: int) -> Album | None:
    """Print which files of a folder of pictures stand out, before too many of them end the command.
    None where no folder of pictures was given."""
    folder = Path(thing or '').expanduser()
    if thing in (None, *DATA) or not folder.is_dir() or kind_of(str(folder)) != 'pictures':
        return None
    if batch_source(folder) is not None:
        return None
    album = look_through(folder, size)
    if album:
        say(Group(), '\n'.join([*album.lines(), '']))
    return album


def run(request: Request) -> None:
    "Examine a run, a model or pictures, and print what was found; exit code 3 where something was."
    path = output(request.out) if request.out else None
    keep_memory()
    album = name_files(request.thing, request.size)
    rows: dict[str, Any] = {} if album is None else {'files': asdict(album)}
    if path and album:                                      # also where the next line raises
        write_whole(path, json.dumps(rows, indent=1) + '\n')
    patient = admit(request, pick_device(request.device))
    found = examine(patient)
    say(Group(), report(patient, found, 0 if album is None else len(album)))
    if path:
        rows |= {name: asdict(finding) for name, finding in found.items()}
        write_whole(path, json.dumps(rows, indent=1) + '\n')
    if any(finding.ill for finding in found.values()):
        sys.exit(3)
