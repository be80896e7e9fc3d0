import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from torch import Tensor, nn

from ..attention import AttentionBlock
from ..base.files import write_whole
from ..unet import Downsample, Stage, Upsample
from .graphs import AGraph, Call, Topology, empty_graph, part_graph, record, skips


def caption(module: nn.Module, call: Call) -> str:
    "What a part does, in a few words: 'residual 128→256'."
    words = {Stage: 'residual', Downsample: 'halve', Upsample: 'double',
             nn.Conv2d: 'convolution', nn.Sequential: 'norm, convolution'}
    channels = dict.fromkeys([call.inputs[0].shape[1], call.output.shape[1]])
    text = f'{words.get(type(module), type(module).__name__)} {"→".join(map(str, channels))}'
    return text + ' + attention' * any(isinstance(m, AttentionBlock) for m in module.modules())


def diagram_rows(seen: Topology) -> dict[str, tuple[str, float]]:
    "Side ('down', 'middle', 'up') and row of each part that makes an image. ValueError: no U."
    images = [call for call in seen.calls if call.output.ndim == 4]
    names = [call.part for call in images]
    pairs = {taker: giver for giver, taker in skips(seen) if giver in names and taker in names}
    if not pairs:
        raise ValueError('this network has no skips, so there is no U to draw')
    first_up, last_down = min(map(names.index, pairs)), max(map(names.index, pairs.values()))
    places: dict[str, tuple[str, float]] = {}
    row, size = -1.0, images[0].output.shape[-1]
    for call in images[:last_down + 1]:
        row += 1 if call.output.shape[-1] == size else 2
        places[call.part], size = ('down', row), call.output.shape[-1]
    for name in names[last_down + 1:first_up]:
        places[name] = ('middle', row + 2)
    for name in names[first_up:]:
        row = places[pairs[name]][1] if name in pairs else row - 1
        places[name] = ('up', row)
    return places


_WIDE, _BOX, _ROW = 800, 200, 24        # of a page, of a box; height of a row: in points


def block_diagram(seen: Topology) -> AGraph:
    "The U-Net as a U: resolutions as bands, skips as arrows. ValueError where there is no U."
    places = diagram_rows(seen)
    calls = {call.part: call for call in seen.calls if call.part in places}
    sizes = list(dict.fromkeys(call.output.shape[2:] for call in calls.values()))
    middle = [part for part, (side, _) in places.items() if side == 'middle']
    vectors = ' + '.join(call.part for call in seen.calls if call.output.ndim == 2)
    graph = empty_graph()
    graph.graph_attr.update(layout='nop', splines='line', labelloc='t', fontsize='9',
                            label=f'{vectors} → every residual block' if vectors else '')
    graph.node_attr.update(fixedsize='true', fontsize='9', margin='0.03',
                           width=f'{_BOX / 72}', height=f'{0.7 * _ROW / 72}')       # in inches
    for k, size in enumerate(sizes):
        rows = [places[part][1] for part in calls if calls[part].output.shape[2:] == size]
        text, colour = '×'.join(map(str, size)), ('#eef3f7', '#f8f8f8')[k % 2]
        graph.add_node(text, label=text + r'\l', fillcolor=colour, color=colour,
                       pos=f'{_WIDE / 2},{-_ROW * (min(rows) + max(rows)) / 2}',
                       width=_WIDE / 72, height=_ROW * (max(rows) - min(rows) + 1) / 72)
    for part, (side, row) in places.items():
        inset = 150 + 26 * min(sizes.index(calls[part].output.shape[2:]), 4)    # levels: further in
        x = {'down': inset, 'up': _WIDE - inset}.get(side, _WIDE / 2)
        if side == 'middle':                                    # side by side
            x += (_BOX + 20) * (middle.index(part) + 0.5 - len(middle) / 2)
        words = caption(seen.modules[part], calls[part])
        fills = {'halve': '#fdd9a0', 'double': '#fdd9a0', 'attention': '#9ecae1'}
        fill = next((fills[word] for word in words.split() if word in fills), '#efefef')
        graph.add_node(part, label=f'{part}: {words}', pos=f'{x},{-_ROW * row}', fillcolor=fill)
    graph.add_edges_from(zip(list(places), list(places)[1:]))       # the way of the image
    for giver, taker in skips(seen):
        graph.add_edge(giver, taker, color='#c44e00', fontcolor='#c44e00', fontsize='9',
                       label=f' {calls[giver].output.shape[1]}')
    return graph


_DRAW = '''
import sys, pygraphviz
graph = pygraphviz.AGraph(string=sys.stdin.buffer.read().decode())
sys.stdout.buffer.write(graph.draw(format=sys.argv[1], prog='dot', args=sys.argv[2]))
'''


def render(graph: AGraph, *paths: Path) -> list[Path]:
    """Draw a graph into files whose names end in .svg or .png; a PNG has at most 4,000 pixels
    a side. Returns the paths. Raises ValueError where Graphviz cannot draw it."""
    for path in paths:
        how = '-q' + ' -Gdpi=144 -Gsize=27,27' * (path.suffix == '.png')
        command = [sys.executable, '-P', '-W', 'ignore', '-c', _DRAW, path.suffix[1:], how]
        done = subprocess.run(command, input=graph.to_string().encode(), capture_output=True)
        if done.returncode:
            raise ValueError(f'Graphviz could not draw {path}')
        write_whole(path, done.stdout)
    return list(paths)


def draw_all(network: nn.Module, step: Callable[..., Mapping[str, Tensor]],
             inputs: Mapping[str, Tensor], out: Path) -> list[Path]:
    """Into a folder: the diagram, and the step around the network (see `record`) with each of its
    parts and with few boxes, as SVG and PNG; what was written. Raises ValueError without
    pygraphviz, or where there is no U."""
    seen = record(network, step, inputs)
    in_few = part_graph(seen, lambda part: part.split('.')[0])      # 'down.3': 'down'
    graphs = {'diagram': block_diagram(seen), 'unet': part_graph(seen), 'diffusion': in_few}
    return [path for name, graph in graphs.items()
            for path in render(graph, out / f'{name}.svg', out / f'{name}.png')]
