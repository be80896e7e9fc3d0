"`ddpm export`: write a run's model for other tools."
from dataclasses import dataclass

from ..base.fields import option
from ..run.runs import load_run
from ..share.pipelines import save_pipeline
from ..share.to_onnx import save_onnx


@dataclass(frozen=True)
class Request:
    "Which run is written, and where to."
    run: str = option('', "a run's folder", name='run')
    folder: str | None = option(None, 'where a diffusers pipeline is written',
                                name='folder', nargs='?')
    onnx: str | None = option(None, 'the network as ONNX, for any batch size', ending='.onnx')
    plugins: tuple[str, ...] = ()

    def __post_init__(self):
        if not self.folder and not self.onnx:
            raise ValueError('where to? name a folder for a pipeline, or a file with --onnx')


def run(request: Request) -> None:
    "Write the model as a diffusers pipeline, as ONNX, or as both."
    model, config = load_run(request.run, 'cpu', request.plugins)
    if request.onnx:
        save_onnx(model, request.onnx)
    if request.folder:
        save_pipeline(model, config, request.folder)
    print('wrote', *filter(None, (request.folder, request.onnx)))
