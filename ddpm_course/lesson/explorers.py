import base64
import io
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:                       # imported where a figure is drawn or shown
    from ipywidgets import VBox, Widget
    from matplotlib.figure import Figure
    from PIL.Image import Image


def picture_of(figure: 'Figure', dpi: float = 100) -> 'Image':
    "The figure as a picture, drawn once; `savefig` would lay it out once more before."
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image
    usual = figure.dpi
    figure.set_dpi(dpi)
    canvas = figure.canvas              # kept if it only draws: it knows each text's size
    if type(canvas) is not FigureCanvasAgg:                     # one that shows itself in a window
        canvas = FigureCanvasAgg(figure)
    canvas.draw()
    figure.set_dpi(usual)
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert('RGB')


def png_of(figure: 'Figure') -> bytes:
    "The figure as a PNG file."
    out = io.BytesIO()
    picture_of(figure).save(out, 'PNG', compress_level=1)      # quickly rather than small
    return out.getvalue()


def palette(pictures: 'list[Image]', colors: int) -> 'list[Image]':
    "The pictures in few colours, the same for all, chosen from some of them, rare ones too."
    from PIL.Image import Dither, Quantize, fromarray
    some = pictures[::max(1, len(pictures) // 6)]
    together = fromarray(np.concatenate([np.asarray(picture) for picture in some]))
    chosen = together.quantize(colors, method=Quantize.MAXCOVERAGE)
    return [picture.quantize(palette=chosen, dither=Dither.NONE) for picture in pictures]


STYLE = '''<style>
.jp-OutputArea:has(.explorer) .explorer-copy {display: none}
.jp-OutputArea-output.jupyter-widgets:not(:has(*)) {font-size: 0}
.jp-OutputArea-output.jupyter-widgets:not(:has(*))::after {
  font-size: 13px; content: 'Run this cell to get the controls.'}
[data-jp-theme-light=false] :is(.explorer, .explorer-copy) {filter: brightness(.85)}
</style>'''


class Explorer:
    "A figure whose artists `update(name=value, ...)` changes, with one control for each name."

    def __init__(self, figure: 'Figure', update: Callable[..., None], **controls: 'Widget') -> None:
        self.figure, self.update, self.controls = figure, update, controls

    def still(self, **values: Any) -> 'Figure':
        "The figure at these values; what is not named keeps its control's."
        self.update(**{name: control.value for name, control in self.controls.items()} | values)
        return self.figure

    def show(self) -> 'VBox':
        "The controls and, under them, the picture that follows; and a copy for other pages."
        from IPython.display import display
        from ipywidgets import Image, VBox
        picture = Image(format='png', layout={'width': 'max-content', 'max_width': '100%'})
        picture.add_class('explorer')

        def follow(change: object = None) -> None:
            picture.value = png_of(self.still())
        for name, control in self.controls.items():
            control.observe(follow, 'value')
            control.description = control.tooltip = control.description or name
            control.style.description_width = 'initial'
            control.layout.width = f'{100 * self.figure.get_figwidth():.0f}px'
            control.layout.max_width = '100%'
        follow()
        copy = base64.b64encode(picture.value).decode()
        html = f'{STYLE}<img class="explorer-copy" src="data:image/png;base64,{copy}">'
        display({'text/plain': 'a figure', 'text/html': html, 'image/png': copy}, raw=True)
        return VBox([*self.controls.values(), picture])

    def film(self, name: str, values: Iterable[Any], ms: int = 120, dpi: float = 72) -> Any:
        "An animated GIF (of IPython.display): control `name` walks through the values."
        from IPython.display import Image as Shown
        frames = palette([picture_of(self.still(**{name: v}), dpi) for v in values], 64)
        out, times = io.BytesIO(), [ms] * (len(frames) - 1) + [10 * ms]      # it rests at the end
        frames[0].save(out, 'GIF', save_all=True, append_images=frames[1:], duration=times, loop=0)
        return Shown(data=out.getvalue(), format='gif')
