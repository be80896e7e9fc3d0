import importlib.util
import json
import math
import os
import re
import signal
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from ..base.files import read_whole, write_whole
from ..base.group import Group
from ..base.machine import cores, pick_device, pick_precision, to_device, torch_settings
from ..config import RunConfig, differences, flatten, from_json, override, to_json
from ..data.sets import ASSETS, ImageSet
from ..heldout import heldout_draws
from ..model import Model, build_model
from . import checkpoints
from .stopping import Drifted, Interrupt, NotFinite, must_stop
from .shards import in_parts, is_cut, load_weights
from .training import TrainState, check_slices, fit, new_state
from ..simple import LOSSES


def complete_config(
    config: RunConfig,
    begun: RunConfig | None,        # of the run that is continued
    images: ImageSet,
    device: torch.device,
    group: Group = Group(),
) -> RunConfig:
    "Fill in what the data decide, and what is decided once for a run by the first process."
    t, old = config.training, begun.training if begun else None
    size, shape = config.data.size, images.pixels.shape[1:]
    if shape != (config.data.image_channels or shape[0], size, size):
        raise ValueError(f'size is {size} and image_channels {config.data.image_channels}, the '
                         f'images have size {shape[1]} and {shape[0]} channels')
    wish = old.precision if old and t.precision == 'auto' else t.precision
    usual = torch.get_num_threads() if group.world == 1 else cores()
    precision, threads = group.broadcast(
        (pick_precision(wish, device), t.threads or (old.threads if old else usual)))
    return override(
        config, image_channels=images.channels, classes=images.classes, digest=images.digest,
        init=t.init or (old.init if old else ''), precision=precision, threads=threads)


FREE = {'data', 'accumulate', 'compile', 'shard', 'threads', 'log_every', 'save_every', 'eval_every',
        'grid_every', 'keep'}                       # and steps


def fixed(config: RunConfig) -> dict[str, Any]:
    "The settings that stay as they are as long as a run lives, in the form that JSON has."
    kept = {k: value for k, value in flatten(config).items() if k not in FREE | {'steps'}}
    return json.loads(json.dumps({'preset': config.preset, **kept}))


def check_settings(sentence: str, there: dict[str, Any], here: dict[str, Any]) -> None:
    "Raise ValueError where settings differ, with which; one that `here` lacks is passed over."
    apart = [f'{k} {value!r:.60} there and {here[k]!r:.60} here' for k, value in there.items()
             if here.get(k, value) != value]
    if apart:
        raise ValueError(f'{sentence}: {", ".join(apart)}')


def new_settings(run: Path, begun: RunConfig, config: RunConfig,
                 done: int) -> dict[str, tuple[Any, Any]]:
    """What changes in a run that goes on after `done` steps: name -> (old, new).

    Raises ValueError where that would be another run.
    """
    sentence = (f'{run} holds another run, choose another folder (where one may begin from these '
                'weights)')
    if begun.data.digest != config.data.digest:
        raise ValueError(f'{sentence}, or give it its own pictures: they have changed')
    check_settings(sentence, fixed(begun) | {'steps done': done},
                   fixed(config) | {'steps done': min(done, config.training.steps)})
    changed = differences(begun, config)
    if begun.plugins != config.plugins:
        changed['plugins'] = begun.plugins, config.plugins
    return changed


OWN = ('.lock', 'config.json', 'metrics.jsonl', 'checkpoints', 'samples', 'logs', 'topology',
       'tensorboard', 'wandb')              # of a run, beside single pictures and tables


def check_links(run: Path) -> None:
    "Raise ValueError where a link stands in place of a run's own file: it may lead into another run."
    below = [path for place in ('checkpoints', 'logs') for depth in ('*', '*/*')
             for path in (run / place).glob(depth)]
    for path in (*(run / name for name in OWN), *sorted(below)):
        if path.is_symlink():
            raise ValueError(f'{path} is a link to {os.readlink(path)}: a run holds its own files; '
                             'put them in its place, or link the whole run')


def read_run(run: Path) -> tuple[RunConfig | None, Path | None]:
    """Configuration and newest checkpoint of the run in a folder, None for what there is not.

    Raises ValueError where the folder holds something else, or two things that do not fit, or a
    link in place of its own files.
    """
    check_links(run)
    found = {path.name for path in run.iterdir()} if run.exists() else set()
    if 'config.json' not in found:
        if any(not re.fullmatch(r'\.lock|logs|config\.json\..*new', name) for name in found):
            raise ValueError(f'{run} is not empty and holds no run: choose another folder')
        return None, None
    config = from_json(read_whole(run / 'config.json'), str(run / 'config.json'))
    newest = checkpoints.newest_checkpoint(run)
    if newest:
        check_settings(f'{newest} is of another run than config.json describes',
                       checkpoints.read_meta(newest)['settings'], fixed(config))
    return config, newest


@contextmanager
def only_one(run: Path, newest: Path | None = None) -> Iterator[None]:
    """Hold a run's folder, made where it is missing.

    Raises BlockingIOError where another process does, or `newest` is not its newest checkpoint.
    """
    run.mkdir(parents=True, exist_ok=True)
    lock = FileLock(run / '.lock', fallback_to_soft=False)      # refuses a link of that name
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise BlockingIOError(f'another process is training in {run}') from None
    except (OSError, NotImplementedError):
        pass                                # a disk without locks: nobody can be kept out there
    try:
        if checkpoints.newest_checkpoint(run) != newest:
            raise BlockingIOError(f'another process has just trained in {run}')
        yield
    finally:
        lock.release()


def start_from(state: TrainState, init: Model) -> None:
    "Give a new state another model's weights. Raises ValueError where they are of another network."
    try:
        for network in (state.network, state.ema.network):
            load_weights(network, init.network.state_dict())
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise ValueError(f'weights of another network than the run has ({reason})') from error


def sum_of_bytes(network: torch.nn.Module) -> int:
    "The sum of all bytes of a network's weights, of whatever type: one other bit, another sum."
    sums = [p.detach().reshape(-1).view(torch.uint8).sum() for p in network.parameters()]
    return int(torch.stack(sums).sum())


BACK = 3        # so many times a start goes back to a checkpoint, where a number is none


def check_saved(state: TrainState, group: Group) -> None:
    "Raise NotFinite, in all processes, where weights or their average are no numbers: none is saved."
    parts = {'weights are': state.network.state_dict(),
             'average of the weights is': {**state.ema.network.state_dict(),
                                           **state.average.state_dict()}}
    mine = lambda x: x.to_local() if in_parts(x) else x         # this process's part
    bad = torch.tensor([sum(not mine(x).isfinite().all() for x in part.values())
                        for part in parts.values()])
    for name, count in zip(parts, group.all_reduce(bad).tolist()):
        if count:
            raise NotFinite(f'the {name} not finite at step {state.step}: nothing of it is saved, the '
                            'last checkpoint is intact')


def check_finite(name: str, values: list[float], step: int) -> None:
    "Raise NotFinite where one of the losses or gradients up to a step is no number."
    for k, value in enumerate(values, step + 1 - len(values)):
        if not math.isfinite(value):
            raise NotFinite(f'the {name} is {value:g} at step {k}: try a smaller lr, in another '
                            'folder')


@dataclass
class Run:
    """A folder, its configuration, and the state that training changes: see `open`.

    Iterating trains and gives one record per step: {'step', 'lr', 'grad_norm'}, and where a line of
    the log was written 'logged', a dict of what it holds; 'heldout', where `eval_every` asks for
    it. Checkpoints are saved on the way. Where a signal asks for it (see `Interrupt`), iterating
    ends after the same step in every process, saved: SystemExit with 128 + the signal's number.
    Where a gradient is no number, iterating goes on from the last checkpoint, as a chip may have
    erred; NotFinite where that step fails again, or the fourth one.
    """
    folder: Path
    config: RunConfig
    state: TrainState
    images: ImageSet
    group: Group
    began: int                                          # steps done when it was opened
    changed: dict[str, tuple] = field(default_factory=dict)     # settings: name -> (old, new)
    held_out: ImageSet | None = None                    # for `eval_every`
    interrupt: Interrupt = field(default_factory=Interrupt)     # what signals ask for
    again: str = 'the same start goes on'               # said to who stops it ...
    stopped: bool = False                               # ... by a signal

    def __post_init__(self) -> None:
        self.writer = checkpoints.Writer(self.folder, self.config.training.keep,
                                         processes=self.group.world, settings=fixed(self.config))

    @classmethod
    @contextmanager
    def open(
        cls,
        folder: Path | str,
        config: RunConfig,
        images: ImageSet,               # to train on
        group: Group = Group(),         # who takes part; the first of them reads and writes
        init: Model | None = None,      # start from its weights, unless the run has begun
        held_out: ImageSet | None = None,       # what `eval_every` is measured on
    ) -> Iterator['Run']:
        """Begin a run in an empty folder, or continue the one there, for as long as a block runs.

        Raises ValueError and writes nothing where folder, names, images or weights do not fit.
        """
        folder, device = Path(folder), group.device or pick_device()
        begun, newest = group.broadcast(read_run(folder) if group.rank == 0 else None)
        begun = begun if newest else None           # nothing is saved: nothing has begun
        config = complete_config(config, begun, images, device, group)
        changed = new_settings(folder, begun, config, checkpoints.step_of(newest)) if begun else {}
        check_slices(config, group.world)
        if config.training.eval_every and held_out is None:
            raise ValueError('eval_every needs held-out images')
        if held_out and config.num_classes:
            held_out = held_out.by_names(images.classes)
        group.check_same('the configuration', to_json(config, versions=checkpoints.versions()))
        threads = max(1, config.training.threads // group.local_world)
        with Interrupt() as interrupt, torch_settings(threads, config.training.precision):
            state = new_state(config, device, group)
            if init is not None and not begun:
                start_from(state, init)
            with only_one(folder, newest) if group.rank == 0 else nullcontext():
                if newest:
                    meta = checkpoints.load_checkpoint(newest, state, group)
                    if (before := meta.get('processes', group.world)) != group.world:
                        changed['processes'] = before, group.world
                elif group.rank == 0:
                    text = to_json(config, versions=checkpoints.versions())
                    write_whole(folder / 'config.json', text)
                run = cls(folder, config, state, images, group, state.step, changed, held_out,
                          interrupt)
                try:
                    yield run
                finally:
                    run.writer.wait()               # before another may have the folder
                    if run.stopped and group.rank == 0:     # a progress bar has ended by now
                        print(f'stopped and saved step_{state.step:08d}; {run.again}', flush=True)
                group.all_reduce(torch.zeros(1))    # all wait until the last checkpoint is there
                state.model = replace(state.model, network=state.network)   # DDP holds a group

    @property
    def model(self) -> Model:
        "With the averaged network, ready to sample."
        return self.state.ema

    @property
    def notes(self) -> list[str]:
        "What has changed in a run that goes on, in words."
        return [f'{name} {old} -> {new}' for name, (old, new) in self.changed.items()]

    @property
    def finished(self) -> bool:
        "Whether all steps are done."
        return self.state.step >= self.config.training.steps

    def save(self, wait: bool = True) -> None:
        """Save a checkpoint of this step, in every process; if not waited for, soon. The first
        process writes it, and takes the sums of all others.

        Raises NotFinite or Drifted, and saves nothing, where weights or averages are no numbers, or
        processes hold other ones than each other.
        """
        check_saved(self.state, self.group)
        if self.group.world > 1:
            networks = {'weights': self.state.network, 'averages': self.state.ema.network}
            sums = '\n'.join(f'{name} {sum_of_bytes(net):x}' for name, net in networks.items()
                             if not is_cut(net))        # each process has another part
            self.group.check_same(f'step {self.state.step} (the last checkpoint is intact; these '
                                  'are sums of all bytes)', sums, Drifted)
        total = self.group.all_reduce(self.state.window)
        self.state.window = torch.zeros_like(total) if self.group.rank else total
        if self.group.rank == 0:
            self.writer.begin(self.state)
        elif is_cut(self.state.network):
            checkpoints.contents(self.state)                # its parts are needed
        if wait:
            self.writer.wait()
            self.group.all_reduce(torch.zeros(1))           # all wait until it is there

    def stop_if_asked(self) -> None:
        "Where a signal has asked for it: save, and end the process. See `Run`."
        if must_stop(self.interrupt, self.group):
            if not self.finished:
                self.save()
            self.stopped = True
            raise SystemExit(128 + (self.interrupt.signal or signal.SIGTERM))

    def heldout_means(self) -> dict[str, Any]:
        "Mean losses of the average on up to 500 held-out images, with fixed times and noise."
        assert self.held_out                                # without images `open` refuses
        some = self.held_out.spread(500)
        found = heldout_draws(self.model, some, self.state.criterion, 1, group=self.group)
        return {'images': len(some), **{name: found[name].mean().item() for name in LOSSES}}

    def __iter__(self) -> Iterator[dict]:
        met: list[str] = []
        while True:
            try:
                yield from self.steps()
                return
            except NotFinite as error:
                self.writer.wait()
                newest = self.group.broadcast(checkpoints.newest_checkpoint(self.folder))
                if newest is None or len(met) == BACK or str(error) in met:
                    raise
                met.append(str(error))
                checkpoints.load_checkpoint(newest, self.state, self.group)
                if self.group.rank == 0:
                    print(f'{met[-1].partition(":")[0]}: once more from {newest.name}', flush=True)

    def steps(self) -> Iterator[dict]:
        "One pass over the steps that are left: see `Run`."
        plan, state, writes = self.config.training, self.state, self.group.rank == 0
        if writes and not self.finished:
            checkpoints.cut_metrics(self.folder, state.step)
            if self.changed and state.step == self.began:
                changed = {'step': state.step, 'changed': self.changed}
                checkpoints.append_line(self.folder, changed)
                text = to_json(self.config, versions=checkpoints.versions())
                write_whole(self.folder / 'config.json', text)
        since, done = time.perf_counter(), state.step               # of the last line of the log
        norms: list[torch.Tensor] = []                              # since they were last read
        for record in fit(state, self.images, self.config, self.group):
            last, saves = state.step == plan.steps, state.step % plan.save_every == 0
            norms.append(record['grad_norm'])
            if last or saves or state.step % plan.log_every == 0:
                if plan.precision != 'fp16':            # which leaves out such a step
                    check_finite('gradient', torch.stack(norms).tolist(), state.step)
                norms.clear()
            if state.step % plan.log_every == 0 or last:
                speed = (state.step - done) * plan.batch / (time.perf_counter() - since)
                line = {'step': state.step, **checkpoints.read_window(state, self.group),
                        'lr': record['lr'], 'grad_norm': float(record['grad_norm']),
                        'images_per_s': round(speed, 1)}
                check_finite('loss', [line['loss']], state.step)
                if writes:
                    checkpoints.append_line(self.folder, line)
                record['logged'] = line
                since, done = time.perf_counter(), state.step
            if plan.eval_every and (state.step % plan.eval_every == 0 or last):
                began = time.perf_counter()
                record['heldout'] = self.heldout_means()
                if writes:
                    line = {'step': state.step, 'heldout': record['heldout']}
                    checkpoints.append_line(self.folder, line)
                since += time.perf_counter() - began        # no time of training
            if saves or last:
                self.save(wait=last)
            yield record
            self.stop_if_asked()


def read_weights(run: Path, name: str) -> tuple[RunConfig, Path, bytes]:
    "A run's configuration, and its newest weights of a name: the file, and what it holds."
    config, checkpoint = read_run(run)
    if config is None or checkpoint is None:
        raise FileNotFoundError(f'{run} holds no run that has a checkpoint')
    return config, checkpoint / name, checkpoints.read_file(checkpoint, name)


def load_run(run: Path | str, device: torch.device | str = 'cpu',
             plugins: Sequence[str] | None = None,      # those that are loaded; None: unknown
             precision: str = 'auto',
             weights: str = 'ema.safetensors') -> tuple[Model, RunConfig]:
    """The averaged model of a run's newest checkpoint, ready to sample, and its configuration;
    'model.safetensors' are the weights that are trained.

    Its network computes in `precision`: 'auto' is what suits the machine, see `pick_precision`.
    Raises FileNotFoundError without one, ValueError for damage, for a checkpoint of another run or
    a missing plugin.
    """
    run = Path(run)
    try:
        config, file, content = read_weights(run, weights)
    except FileNotFoundError:                   # dropped meanwhile, by a training that goes on
        config, file, content = read_weights(run, weights)
    loaded = dict(plugin.rpartition(':')[::2] for plugin in plugins or ())      # name -> checksum
    for name, text in (plugin.rpartition(':')[::2] for plugin in config.plugins):
        if plugins is not None and name not in loaded:
            raise ValueError(f'{run} was made with the plugin {name}: load it first, if you trust '
                             'that file')
        if loaded.get(name, text) != text:
            warnings.warn(f'{run} was made with another text of the plugin {name}', stacklevel=2)
    model = build_model(config)
    with checkpoints.damage(file):
        checkpoints.set_weights(model.network, content)
    to_device(model.network, device).eval().requires_grad_(False)
    return replace(model, precision=pick_precision(precision, torch.device(device))), config


def load_model(run: Path | str | None = None, device: torch.device | str = 'cpu',
               precision: str = 'auto') -> Model:
    "The averaged model of a run; without one, the model that ships. See `load_run`."
    return load_run(ASSETS / 'mnist16' if run is None else run, device, None, precision)[0]


def load_plugin(path: Path | str) -> str:
    "Run a Python file that adds entries to registries; its name and checksum, for config.json."
    path = Path(path)
    if path.suffix != '.py' or not path.is_file():
        raise FileNotFoundError(f'there is no plugin {path}: expected a Python file, FILE.py')
    name = f'ddpm_plugin_{path.stem}'
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec and spec.loader                             # there is one for each .py
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return f'{path.name}:{checkpoints.checksum(path.read_bytes())[:16]}'
