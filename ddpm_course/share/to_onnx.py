"A network as an ONNX file."
import io
import warnings
from importlib.util import find_spec
from pathlib import Path

import torch

from ..base.files import write_whole
from ..model import Model


def save_onnx(model: Model, path: Path | str) -> None:
    """Write the network as ONNX: xt, t and, with classes, y, to answer; any number of images.
    Raises ValueError without the package onnx, or where that file cannot be written."""
    if find_spec('onnx') is None:
        raise ValueError('ONNX needs: pip install onnx')
    index = torch.zeros(2, dtype=torch.long)
    inputs = {'xt': torch.zeros(2, *model.shape), 't': index, 'y': index}
    if not model.classes:
        del inputs['y']
    network, written = model.eval().network.cpu(), io.BytesIO()
    with warnings.catch_warnings(action='ignore'):      # it is deprecated, and says so at length
        torch.onnx.export(network, tuple(inputs.values()), written,     # type: ignore[arg-type]
                          dynamo=False, input_names=list(inputs), output_names=['answer'],
                          dynamic_axes={name: {0: 'batch'} for name in [*inputs, 'answer']})
    write_whole(Path(path), written.getvalue())
