"`ddpm export`: write a run's model for other tools."
import argparse
from dataclasses import dataclass

from ..run.runs import load_run
from ..share.pipelines import save_onnx, save_pipeline
from .flags import file


@dataclass(frozen=True)
class Request:
    "Which run is written, and where to."
    run: str
    plugins: tuple[str, ...]
    folder: str | None              # for a diffusers pipeline
    onnx: str | None


def add_flags(p: argparse.ArgumentParser) -> None:
    "Flags that say which run is written, and where to."
    p.add_argument('run', help="a run's folder")
    p.add_argument('folder', nargs='?', help='where a diffusers pipeline is written')
    p.add_argument('--onnx', type=file('.onnx'), metavar='FILE',
                   help='the network as ONNX, for any batch size')


def read(args: argparse.Namespace) -> Request:
    "Flags as values. Raises ValueError where nothing is asked for."
    if not args.folder and not args.onnx:
        raise ValueError('where to? name a folder for a pipeline, or a file with --onnx')
    return Request(args.run, args.plugins, args.folder, args.onnx)


def run(request: Request) -> None:
    "Write the model as a diffusers pipeline, as ONNX, or as both."
    model, config = load_run(request.run, 'cpu', request.plugins)
    if request.onnx:
        save_onnx(model, request.onnx)
    if request.folder:
        save_pipeline(model, config, request.folder)
    print('wrote', *filter(None, (request.folder, request.onnx)))
