import re
from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn


def nodes_between(outputs: Collection[Tensor], inputs: Collection[Tensor] = ()) -> list[Any]:
    "Autograd nodes behind `outputs` and not behind `inputs`, each once, leaves left aside."
    end, todo = {x.grad_fn for x in inputs}, [x.grad_fn for x in outputs]
    found: dict[Any, None] = {}                         # a dict keeps the order and finds fast
    while todo:
        node = todo.pop()
        if not (node is None or node in end or node in found or hasattr(node, 'variable')):
            found[node] = None
            todo += [before for before, _ in node.next_functions]
    return list(found)


AGraph = Any            # a graph of pygraphviz, which is imported where one is drawn
FILLS = {'input': '#fbe3a6', 'parameter': '#d6eaf8', 'operation': '#ffffff',
         'part': '#e4e4e4', 'result': '#bfe5d3'}
FONT = {'fontname': 'Helvetica,Arial,sans-serif', 'fontsize': '11'}


def empty_graph() -> AGraph:
    "A directed graph in the style of page 23, with nothing in it. ValueError: no pygraphviz."
    if find_spec('pygraphviz') is None:
        raise ValueError('drawing needs: pip install pygraphviz')
    import pygraphviz
    graph = pygraphviz.AGraph(directed=True, strict=True, ranksep='0.25', nodesep='0.12', **FONT)
    graph.node_attr.update(shape='box', style='filled', color='#777777', height='0.25',
                           margin='0.08,0.04', **FONT)
    graph.edge_attr.update(color='#555555', arrowsize='0.6', **FONT)
    return graph


def add_node(graph: AGraph, name: str, kind: str, text: str, owner: str = '') -> None:
    "Add a node of one of the kinds in `FILLS`. `owner`: the part of a network that it belongs to."
    style = {'style': 'filled,rounded'} if kind == 'part' else {}
    graph.add_node(name, label=text, fillcolor=FILLS[kind], kind=kind, owner=owner, **style)


def describe(name: str, x: Tensor) -> str:
    "Name and shape, for a label: `t (1,)`, since `t 1` would look like a value."
    shape = '×'.join(map(str, x.shape)) if x.ndim != 1 else f'({len(x)},)'
    return f'{name}\n{shape}'.strip()


def autograd_graph(
    results: Mapping[str, Tensor],              # what was computed, by name
    inputs: Mapping[str, Tensor],               # leaves by name; only those with gradients appear
    parameters: Mapping[str, Tensor],           # leaves too: `dict(network.named_parameters())`
    owners: Mapping[Any, str] = {},             # of a node or a parameter: part it belongs to
) -> AGraph:
    "What autograd recorded. Nodes: 'input x', 'conv1.weight', '#7' (an operation), 'result out'."
    known = {x: (name, 'parameter', name) for name, x in parameters.items()}
    known |= {x: (f'input {name}', 'input', name) for name, x in inputs.items()}
    graph, nodes = empty_graph(), nodes_between(results.values())
    names = {node: f'#{number}' for number, node in enumerate(nodes)}
    for node in nodes:
        text = re.sub(r'Backward\d*$', '', type(node).__name__)
        add_node(graph, names[node], 'operation', text, owners.get(node, ''))
    for node in nodes:
        for before in [before for before, _ in node.next_functions if before is not None]:
            if before not in names:                         # a leaf, met for the first time
                leaf = before.variable
                names[before], kind, name = known.get(leaf, (f'#{len(names)}', 'input', ''))
                add_node(graph, names[before], kind, describe(name, leaf), owners.get(leaf, ''))
            graph.add_edge(names[before], names[node])
    for name, x in results.items():
        add_node(graph, f'result {name}', 'result', describe(name, x))
        graph.add_edge(names[x.grad_fn], f'result {name}')
    return graph


def parts(module: nn.Module) -> dict[str, nn.Module]:
    "The modules that a person would name: the children, and for a ModuleList what is in it."
    found: dict[str, nn.Module] = {}
    for name, child in module.named_children():
        inside = parts(child) if isinstance(child, nn.ModuleList) else {'': child}
        found |= {f'{name}.{inner}'.strip('.'): part for inner, part in inside.items()}
    return found


@dataclass(frozen=True)
class Call:
    "One call of a part."
    part: str                       # its name
    inputs: tuple[Tensor, ...]
    output: Tensor
    nodes: list[Any]


def trace(modules: Mapping[str, nn.Module], run: Callable[[], Any]) -> tuple[Any, list[Call]]:
    "What `run()` returns, and the calls that gave a tensor. The innermost call owns a node."
    names, taken = {module: name for name, module in modules.items()}, set()
    calls: list[Call] = []

    def after(module: nn.Module, args: tuple, kwargs: dict, output: Any) -> None:
        if isinstance(output, Tensor):
            inputs = tuple(x for x in (*args, *kwargs.values()) if isinstance(x, Tensor))
            nodes = [node for node in nodes_between([output], inputs) if node not in taken]
            taken.update(nodes)
            calls.append(Call(names[module], inputs, output, nodes))
    with ExitStack() as hooks:
        for module in names:
            hooks.enter_context(module.register_forward_hook(after, with_kwargs=True))
        return run(), calls


@dataclass(frozen=True)
class Topology:
    "A computation with a network in it, as autograd recorded it."
    modules: dict[str, nn.Module]       # the parts of the network
    inputs: dict[str, Tensor]           # copies, as leaves
    calls: list[Call]                   # of the parts, in order
    raw: AGraph                       # every node, with its owner


def record(network: nn.Module, step: Callable[..., Mapping[str, Tensor]],
           inputs: Mapping[str, Tensor]) -> Topology:
    "What autograd records of `step(**inputs)`, which calls the network and returns named results."
    modules = parts(network)
    leaves = {name: x.detach().clone().requires_grad_(x.is_floating_point())
              for name, x in inputs.items()}
    with torch.enable_grad(), ExitStack() as afterwards:
        for p in network.parameters():
            afterwards.callback(p.requires_grad_, p.requires_grad)
            p.requires_grad_(True)
        results, calls = trace(modules, lambda: step(**leaves))
    owners = {p: name for name, module in modules.items() for p in module.parameters()}
    owners |= {node: call.part for call in calls for node in call.nodes}
    raw = autograd_graph(results, leaves, dict(network.named_parameters()), owners)
    for node in raw.nodes():
        if node.attr['label'] == 'Cat' and not node.attr['owner']:
            takers = {after.attr['owner'] for after in raw.successors(node)}
            node.attr['owner'] = takers.pop() if len(takers) == 1 else ''   # that it feeds
    return Topology(modules, leaves, calls, raw)


def contract(graph: AGraph, group: Callable[[str], str] = lambda owner: owner) -> AGraph:
    "Each group of owned nodes as one 'part'; the parameters of a part are inside it."
    small, place = empty_graph(), {}
    for node in graph.nodes():
        owner = group(node.attr['owner'] or '')
        place[node] = owner or str(node)
        kind, text = ('part', owner) if owner else (node.attr['kind'], node.attr['label'])
        add_node(small, place[node], kind, text, owner)
    for a, b in graph.edges():
        giver = graph.get_node(a).attr
        hidden = giver['kind'] == 'parameter' and giver['owner']    # it disappears into its part
        if place[a] != place[b] and not hidden:
            small.add_edge(place[a], place[b])
    return small


def skips(seen: Topology) -> list[tuple[str, str]]:
    "Pairs (from, to) of parts: what a concatenation takes, not from the part called just before."
    before = {call.part: previous.part for previous, call in zip(seen.calls, seen.calls[1:])}
    found = []
    for node in seen.raw.nodes():
        taker = node.attr['owner']
        if node.attr['label'] == 'Cat' and taker:
            givers = {giver.attr['owner'] for giver in seen.raw.predecessors(node)}
            found += [(giver, taker) for giver in givers - {taker, before.get(taker), ''} if giver]
    order = [call.part for call in seen.calls]
    return sorted(found, key=lambda pair: order.index(pair[0]))


def part_graph(seen: Topology, group: Callable[[str], str] = lambda part: part) -> AGraph:
    "The contracted graph, with shapes; dashed arrows from inputs without a gradient."
    graph = contract(seen.raw, lambda owner: owner and group(owner))
    for name, x in seen.inputs.items():
        for call in seen.calls:
            received = {given.data_ptr() for given in call.inputs}  # expanded: same memory
            if not x.requires_grad and x.data_ptr() in received:
                add_node(graph, f'input {name}', 'input', describe(name, x))
                graph.add_edge(f'input {name}', group(call.part), style='dashed')
    for giver, taker in {(group(a), group(b)) for a, b in skips(seen)}:
        graph.get_edge(giver, taker).attr['color'] = '#c44e00'
    outputs = {group(call.part): call.output[0] for call in seen.calls}     # of the last in a group
    for node in graph.nodes():
        text = describe(node, outputs[node]) if node in outputs else node.attr['label']
        node.attr['label'] = text.replace('\n', '  ')       # low boxes: a graph is tall
        if graph.out_degree(node) > 6:
            for after in graph.successors(node):
                graph.get_edge(node, after).attr.update(color='#cccccc', weight='0')
    return graph
