"`ddpm train`: train a model, or go on where a run in the same folder stopped."
import logging
import math
import os
import shlex
import sys
import time
from collections.abc import Generator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ..base.fields import option
from ..base.files import write_by
from ..base.group import Group
from ..base.intervals import interval
from ..base.registry import look_up
from ..config import PRESETS, RunConfig, SamplingConfig, override, to_json
from ..data.sets import ImageSet
from ..data.sources import from_anywhere, load_data
from ..film import column_titles, grid_image, sequence
from ..heldout import heldout_loss, loss_floor, plot_losses
from ..judge.checks import examine
from ..judge.patient import UNKNOWN, Patient
from ..run.checkpoints import newest_checkpoint, read_log
from ..run.runs import Run, load_run
from ..run.trackers import TRACKERS, Tracker, start_tracker
from ..sampling import columns_of, sample
from ..share.pipelines import load_published
from .flags import FOUND_IN_DATA, Processes
from .genseq import save_film
from .terminal import log_to, say


@dataclass(frozen=True)
class Request(Processes):
    "What is trained, where, and who is told."
    config: RunConfig = field(default=RunConfig(), metadata={'leave_out': FOUND_IN_DATA})
    out: str | None = option(None, 'a folder (default: runs/PRESET; with --data runs/DATA, or '
                             'runs/PRESET-DATA)')
    log: tuple[str, ...] = option((), 'also tell tensorboard, wandb, or your own; may be repeated',
                                  action='append', metavar='TRACKER')
    preset: str | None = None       # that was named
    words: tuple[str, ...] = ()     # that the command was given

    def __post_init__(self):
        for name in self.log:
            look_up('tracker', TRACKERS, name)          # complains before anything is read

    @property
    def folder(self) -> Path:
        "Where the run goes."
        parts, data = [self.config.preset], self.config.data.data
        if data != PRESETS[self.config.preset].data.data:
            named = self.preset not in (None, RunConfig().preset)
            parts = parts * named + [Path(data).resolve().name]
        return Path(self.out or Path('runs', '-'.join(parts)))


def draw_grid(run: Run, name: str, rows: int, trackers: Sequence[Tracker] = (),
              how: SamplingConfig = SamplingConfig()) -> None:
    "Draw a grid of samples, one column a class, into the run's folder; trackers are shown it, too."
    images, path = sample(run.model, None, rows, how, group=run.group), run.folder / name
    if run.group.rank == 0:
        grid = grid_image(images, len(columns_of(run.model)), column_titles(run.model))
        write_by(path, grid.save, 'PNG')
        for tracker in trackers:
            tracker.picture('samples', grid, run.state.step)


def watched(run: Run, trackers: Sequence[Tracker] = ()) -> Generator[dict, None, None]:
    "The run's records, with a progress bar, and grids of samples on the way; trackers are told."
    t, quick = run.config.training, SamplingConfig(steps=min(25, run.config.diffusion.T))
    form = '{percentage:3.0f}%|{bar:20}| {n}/{total} [{elapsed}<{remaining}{postfix}]'
    with tqdm(total=t.steps, initial=run.began, disable=run.group.rank > 0, bar_format=form,
              mininterval=0.5 if sys.stderr.isatty() else 30, maxinterval=30) as bar:
        for record in run:
            if line := record.get('logged'):
                speed = f'{line["images_per_s"]:.0f} images/s'
                bar.set_postfix_str(f'loss {line["loss"]:.3f}, {speed}', refresh=False)
                for tracker in trackers:
                    tracker.numbers(line)
            if found := record.get('heldout'):
                for tracker in trackers:
                    tracker.numbers({'step': record['step'], 'heldout': found})
            bar.update(record['step'] - bar.n)
            step = run.state.step
            if t.grid_every and step % t.grid_every == 0 and not run.finished:
                draw_grid(run, f'samples/step_{step:08d}.png', 4, trackers, quick)
            yield record


DONE = ('samples.png', 'denoising.gif', 'loss.png')         # the last says that all is done


def finish(run: Run, held_out: ImageSet, trackers: Sequence[Tracker] = (),
           ) -> Generator[str, None, None]:
    "Write pictures and film of a run, print its held-out loss and what to do next, part by part."
    model, group, out = run.model, run.group, run.folder
    draw_grid(run, 'samples.png', 8, trackers)
    yield 'grid'
    film = sequence(model, None, 4, group=group)
    if group.rank == 0:
        save_film(film, out / 'denoising.gif')
    yield 'film'
    found = heldout_loss(model, held_out, run.state.criterion, group=group)
    yield 'held-out loss'
    if group.rank == 0:
        log, small = read_log(out), run.images.pixels.nbytes < 2e8
        metrics, asked = ([line for line in log if key in line] for key in ('loss', 'heldout'))
        simple = run.config.diffusion.loss == 'simple'
        floor = loss_floor(run.images, run.config) if simple and small else ()
        write_by(out / 'loss.png', plot_losses(metrics, floor, asked).savefig, dpi=100)
        last = metrics[-1]['loss'] if metrics else math.nan
        say(group, summary(run, found, len(held_out), last))


def summary(run: Run, found: dict[str, Any], images: int, last: float) -> str:
    "A run's held-out loss, its last training loss, what was written, and what to do next."
    loss, where = found['loss'], shlex.quote(str(run.folder))
    quarters = ' '.join(f'{q:.3f}' for q in found['eps_mse']['quarters'])
    known = len(run.model.classes)          # without classes a row has ten
    some = '--classes 3,7' if known > 7 else '--n 20' if known else '--n 2'
    return (f'test {run.config.loss_name} {interval(loss["mean"], loss["se"], images, 3)} '
            f'(train {last:.3f}); eps mse by quarter of t {quarters}\n'
            f'wrote {run.folder}: samples.png loss.png denoising.gif '
            f'checkpoints/step_{run.state.step:08d}\n'
            f'next:  ddpm sample {where} {some}      ddpm test {where} --bpd')


def headline(run: Run) -> str:
    "What is trained, on what, and with what."
    c, t = run.config, run.config.training
    million = sum(p.numel() for p in run.state.network.parameters()) / 1e6
    name = 'U-Net' if c.network.network == 'unet' else c.network.network
    processes = f' in {run.group.world} processes' if run.group.world > 1 else ''
    return (f'{c.preset}: {len(run.images):,} images of {c.data.size}x{c.data.size}, '
            f'{c.num_classes or "no"} class{"es" * (c.num_classes != 1)}; '
            f'{name} of {million:.2f} M parameters; {run.model.device.type}, {t.precision}, '
            f'{t.threads} thread{"s" * (t.threads > 1)}{processes}')


def look_first(run: Run, held_out: ImageSet) -> None:
    "Say what the doctor finds in the data and settings of a run that begins."
    if run.began or run.group.rank:
        return
    trained = replace(run.state.model, network=run.state.network)
    t = run.config.training
    raw = UNKNOWN if t.compile or t.shard else trained      # to ask would compile it, or need all
    mine = run.group.world if run.model.device.type == 'cuda' else 1    # a GPU has its share only
    config = override(run.config, batch=-(-run.config.training.batch // mine))
    patient = Patient(run.images, held_out, config, run.model, raw)
    for name, finding in examine(patient, early=True).items():
        if finding.ill and not finding.follows:
            say(run.group, f'doctor: {name}: {finding}')


def run(request: Request, group: Group) -> None:
    "Train with a progress bar; continue where a run in the same folder stopped."
    config, out, d = request.config, request.folder, request.config.data
    trackers: list[Tracker] = []
    if request.preset is None and config.preset != RunConfig().preset:
        say(group, f'{d.data} holds pictures in colour: preset {config.preset} is taken, as none is '
            'named; on a GPU try photos32 or photos64')
    images, held_out = load_data(d.data, d.size, d.image_channels or None)
    config = override(config, data=from_anywhere(d.data))       # `ddpm test` may stand elsewhere
    group.barrier()                     # one may decode for minutes what others have in a cache
    source, init = config.training.init, None
    if source and not newest_checkpoint(out):
        load = load_run if Path(source, 'checkpoints').is_dir() else load_published
        init, _ = load(source, group.device or 'cpu')
    with ExitStack() as last, Run.open(out, config, images, group, init, held_out) as run:
        run.again = f'go on with:  {shlex.join(["ddpm", *request.words])}'
        logging.info('settings of the run: %s', to_json(run.config))
        if run.finished and all((out / n).exists() and (out / n).stat().st_size for n in DONE):
            return say(group, f'{out} is finished; nothing to do (more --steps train it longer)')
        if 'DDPM_LOG' in os.environ:            # what the first one says is what one sees
            log_to(out / f'logs/rank{group.rank}.txt', f'{time.ctime()}, step {run.began}',
                   everything=group.rank > 0)
        for name in request.log if group.rank == 0 else ():
            trackers.append(start_tracker(name, out, run.config, run.began))
            last.callback(trackers[-1].close)
        began = [f'continuing {out} from step_{run.began:08d}'] if run.began else []
        notes = [f'changed: {note}' for note in run.notes]
        say(group, '\n'.join([headline(run), *began, *notes]))
        look_first(run, held_out)
        with closing(watched(run, trackers)) as steps:           # however it ends, the bar does
            for _ in steps:
                pass
        run.interrupt.due = 1                                   # from now on, ask after each part
        for _ in finish(run, held_out, trackers):
            run.stop_if_asked()
