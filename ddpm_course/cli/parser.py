import argparse
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from .. import __version__
from ..base.fields import Parser, add_fields, given_fields
from ..base.registry import look_up
from ..config import PRESETS, SECTIONS, RunConfig, SamplingConfig, override


def whole(low: int, high: int) -> Callable[[str], int]:
    "What reads a whole number within limits, both included."
    def integer(text: str) -> int:
        if not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f'must be between {low} and {high}, not {text}')
        return int(text)
    return integer


def file(ending: str) -> Callable[[str], str]:
    "What reads the name of a file to write, which has this ending."
    def name(text: str) -> str:
        if text and not text.lower().endswith(ending):          # an empty one is refused later
            raise argparse.ArgumentTypeError(f'must name a {ending} file, not {text}')
        return text
    return name


FOUND_IN_DATA = ('classes', 'digest')   # no flags


def add_own(p: argparse.ArgumentParser) -> None:
    "The flag for settings that only an entry of one's own has."
    p.add_argument('--set', dest='own', action='append', metavar='NAME=VALUE',
                   help='a setting of an entry of your own; may be repeated')


def add_precision(p: argparse.ArgumentParser) -> None:
    "The flag for what a network computes in."
    p.add_argument('--precision', default='auto', choices=('auto', 'fp32', 'bf16', 'fp16'),
                   help='of the network: what the machine is good at (auto), fp32, bf16 or fp16')


def add_preset(p: argparse.ArgumentParser, sections: Sequence[str], out: str,
               leave_out: Sequence[str] = FOUND_IN_DATA) -> None:
    "Flags that make a configuration."
    p.add_argument('--preset', default='mnist16',
                   help=f'one of {", ".join(PRESETS)}; read first, other flags change it')
    p.add_argument('--out', help=f'a folder (default: {out})')
    for section in sections:
        add_fields(p, getattr(RunConfig(), section), (*leave_out, 'own'))
    add_own(p)


def add_model(p: argparse.ArgumentParser) -> None:
    "Flags that name a model and how to sample from it."
    either = p.add_mutually_exclusive_group()
    either.add_argument('run', nargs='?', help="a run's folder (default: the model that ships)")
    either.add_argument('--weights', metavar='FOLDER_OR_HUB_ID',
                        help='a diffusers pipeline, for example google/ddpm-cifar10-32')
    add_precision(p)
    add_fields(p, SamplingConfig(), ('own',))
    add_own(p)


def add_grid(p: argparse.ArgumentParser, n: int, ending: str, out: str) -> None:
    "Flags that say what to draw, and where to."
    p.add_argument('--classes', help='names, with commas (default: all)')
    p.add_argument('--n', type=whole(1, 100_000), default=n, help=f'samples of each class ({n})')
    p.add_argument('--out', type=file(ending), help=f'where it goes (default: {out})')


def add_beginning(p: argparse.ArgumentParser) -> None:
    "Flags that say where samples begin; without them, at the noise of their seed."
    group = p.add_argument_group('another beginning')
    either = group.add_mutually_exclusive_group()
    either.add_argument('--to-seed', type=whole(0, 2**64 - 1), metavar='SEED',
                        help='the rows lead from --seed to this one')
    either.add_argument('--from', dest='picture', metavar='FILE',
                        help='a picture to begin with, noised, in place of pure noise')
    group.add_argument('--strength', type=float, metavar='SHARE',
                       help='with --from: share of the walk that is done anew, above 0 and at '
                            'most 1, which keeps nothing (0.6; 1 with --mask)')
    group.add_argument('--mask', metavar='FILE',
                       help='with --from: a picture, white where it is drawn anew; all else stays')
    group.add_argument('--rounds', type=whole(1, 1000), metavar='R',
                       help='with --mask: how often each step is taken, so that new fits old (1)')


def add_measures(p: argparse.ArgumentParser) -> None:
    "Flags that say what is measured, and on which images."
    p.add_argument('--data', help='other images than the run was trained on')
    p.add_argument('--bpd', nargs='?', const='estimate', choices=('estimate', 'full'),
                   help='bits per dimension; full: all T terms')
    p.add_argument('--fid', type=whole(2, 10**6), metavar='N',
                   help='Frechet distance, KID, Inception Score of N samples; usual guidance 1')
    p.add_argument('--inception', metavar='FILE', help='Inception weights, where --fid needs any')
    p.add_argument('--out', type=file('.json'),
                   help='where the numbers go (default: test.json in the run, or here)')


def add_comparison(p: argparse.ArgumentParser) -> None:
    "Flags that say which runs are compared."
    p.add_argument('runs', nargs='+', metavar='RUN',
                   help='folders; all are compared with the first')
    p.add_argument('--data', help='other images than the first run was trained on')
    add_precision(p)
    p.add_argument('--out', type=file('.json'), help='also write the numbers')


def add_files(p: argparse.ArgumentParser) -> None:
    "Flags that say which files race."
    p.add_argument('files', nargs='+', metavar='FILE.py',
                   help='with train() and sample(net, y), as mine.py of page 10')
    p.add_argument('--out', type=file('.json'), help='also write the numbers')


def add_patient(p: argparse.ArgumentParser) -> None:
    "Flags that say what is examined, and how samples of it are drawn."
    p.add_argument('thing', nargs='?', metavar='RUN|MODEL|DATA',
                   help='a run, a diffusers pipeline, or pictures (default: the model that ships)')
    p.add_argument('--data', help='pictures to ask a model about (default: those of the run)')
    p.add_argument('--size', type=whole(4, 1024), default=32, help='of pictures given alone (32)')
    p.add_argument('--n', type=whole(20, 10_000), default=100, help='samples to draw (100)')
    add_precision(p)
    p.add_argument('--out', type=file('.json'), help='also write what was found')
    add_fields(p, SamplingConfig(), ('own',))
    add_own(p)


def add_targets(p: argparse.ArgumentParser) -> None:
    "Flags that say which run is written for other tools, and where to."
    p.add_argument('run', help="a run's folder")
    p.add_argument('folder', nargs='?', help='where a diffusers pipeline is written')
    p.add_argument('--onnx', type=file('.onnx'), metavar='FILE',
                   help='the network as ONNX, for any batch size')


def new_command(commands: Any, name: str, help: str, parallel: bool = True) -> Parser:
    "The parser of one command; `parallel`: it runs in any number of processes."
    p = commands.add_parser(name, allow_abbrev=False, help=help, description=f'{help}.')
    p.set_defaults(command=name, plugins=(), words=())
    if parallel:
        p.add_argument('--device', default='auto', help='auto, cpu, cuda or mps')
        p.add_argument('--nproc', type=whole(1, 256),
                       help='processes on this machine (default: one for each GPU)')
    p.add_argument('--plugin', action='append', default=[], metavar='FILE.py',
                   help='a Python file that adds entries of your own; may be repeated')
    p.add_argument('--debug', action='count', default=0,
                   help='show tracebacks; given twice, log what is done, too')
    return p


def make_parser() -> Parser:
    "The parser of `ddpm` with all its commands."
    parser = Parser('ddpm', description='Train, test and sample denoising diffusion models.',
                    allow_abbrev=False)
    parser.add_argument('--version', action='version', version=f'ddpm {__version__}')
    commands = parser.add_subparsers(title='commands', metavar='COMMAND', required=True)
    p = new_command(commands, 'train', 'train a model (defaults need no data, network or GPU)')
    add_preset(p, SECTIONS, 'runs/PRESET, runs/PRESET-DATA with --data')
    p.add_argument('--log', metavar='TRACKER', action='append', default=[],
                   help='also tell tensorboard, wandb, or your own; may be repeated')
    p = new_command(commands, 'test', 'measure a model on held-out images')
    add_model(p)
    add_measures(p)
    p = new_command(commands, 'compare', 'compare runs on the same held-out images')
    add_comparison(p)
    p = new_command(commands, 'doctor', 'find what is wrong with a run, a model or pictures')
    add_patient(p)
    p = new_command(commands, 'sample', 'draw a grid of samples, one column per class')
    add_model(p)
    add_grid(p, 8, '.png', 'drawn.png in the run, samples.png here')
    add_beginning(p)
    p.add_argument('--npz', type=file('.npz'), help='also keep the images as an array')
    p.add_argument('--images', metavar='DIR', help='also keep each image as a PNG')
    p = new_command(commands, 'genseq', 'film how samples come to be')
    add_model(p)
    add_grid(p, 4, '.gif', 'denoising.gif, and a strip, in the run or here')
    p.add_argument('--frames', default='auto', choices=('auto', 'all'),
                   help='auto, where the picture changes, or all')
    p = new_command(commands, 'topology', 'draw the network and the diffusion model', False)
    p.add_argument('run', nargs='?', help="a run's folder (default: what --preset says)")
    add_preset(p, ('data', 'diffusion', 'network'), 'topology/PRESET, topology in the run',
               (*FOUND_IN_DATA, 'data', 'augment'))
    p = new_command(commands, 'export', 'write a model for other tools', False)
    add_targets(p)
    p = new_command(commands, 'speedrun', 'time how fast a file learns to draw digits', False)
    add_files(p)
    p = new_command(commands, 'presets', 'list the presets', parallel=False)
    p.add_argument('--entries', action='store_true',
                   help='list the entries of all registries, and the settings that these have')
    return parser


def read_settings(args: argparse.Namespace) -> RunConfig:
    "The preset with the given flags laid over it. Raises ValueError for what cannot be."
    preset = look_up('preset', PRESETS, args.preset)
    given = given_fields(args, *(getattr(preset, section) for section in SECTIONS))
    return dataclasses.replace(override(preset, **given), plugins=tuple(args.plugins))


def printable(text: str) -> str:
    "A text whose control characters, but for the ends of lines, are written out."
    return ''.join(c if c.isprintable() or c == '\n' else repr(c)[1:-1] for c in text)
