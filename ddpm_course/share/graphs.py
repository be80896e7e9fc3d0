import re
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

Node = Any                              # of the graph that autograd records


def parts(module: nn.Module) -> dict[str, nn.Module]:
    "The modules that a person would name: the children, and for a ModuleList what is in it."
    found: dict[str, nn.Module] = {}
    for name, child in module.named_children():
        inside = parts(child) if isinstance(child, nn.ModuleList) else {'': child}
        found |= {f'{name}.{inner}'.strip('.'): part for inner, part in inside.items()}
    return found


@dataclass(frozen=True)
class Call:
    "One call of a part: what went in, and what came out."
    module: nn.Module
    inputs: tuple[Tensor, ...]
    output: Tensor


@contextmanager
def calls(modules: Mapping[str, nn.Module]) -> Iterator[dict[str, Call]]:
    "In the block, notes the last call of each part. Its parameters ask for gradients."
    names, found = {module: name for name, module in modules.items()}, {}

    def after(module: nn.Module, args: tuple, more: dict, output: Any) -> None:
        if isinstance(output, Tensor):
            given = tuple(x for x in (*args, *more.values()) if isinstance(x, Tensor))
            found[names[module]] = Call(module, given, output)
    with torch.enable_grad(), ExitStack() as afterwards:
        for module in modules.values():
            afterwards.enter_context(module.register_forward_hook(after, with_kwargs=True))
            for p in module.parameters():
                afterwards.callback(p.requires_grad_, p.requires_grad)
                p.requires_grad_(True)
        yield found


def node_of(x: Tensor) -> Node:
    "The node that made a tensor; for a leaf, the one where its gradient is added up."
    return torch.autograd.graph.get_gradient_edge(x).node if x.requires_grad else None


def sources(node: Node, known: Collection[Node]) -> list[Node]:
    "Of the known nodes those that a node was computed from, without another one in between."
    found: list[Node] = []
    seen, todo = set(), [node]
    while todo:
        for before, _ in todo.pop().next_functions:
            if before is not None and before not in seen:
                seen.add(before)
                (found if before in known else todo).append(before)
    return found


def wiring(network: nn.Module,
           *inputs: Tensor | None) -> tuple[dict[str, Call], dict[str, list[str]]]:
    "The calls of a network's parts; and the parts that each was computed from, directly."
    with calls(parts(network)) as seen:
        network(*inputs)
    names = {node_of(call.output): name for name, call in seen.items()}
    return seen, {name: [names[before] for before in sources(node, names)]
                  for node, name in names.items()}


AGraph = Any            # a graph of pygraphviz, which is imported where one is drawn
FILLS = {'input': '#fbe3a6', 'operation': '#ffffff', 'network': '#d6eaf8', 'result': '#bfe5d3'}


def empty_graph() -> AGraph:
    "A directed graph from left to right, with nothing in it. ValueError: no pygraphviz."
    if find_spec('pygraphviz') is None:
        raise ValueError('drawing needs: pip install pygraphviz')
    import pygraphviz
    font = {'fontname': 'Helvetica,Arial,sans-serif', 'fontsize': '11'}
    graph = pygraphviz.AGraph(directed=True, rankdir='LR', ranksep='0.25', nodesep='0.15')
    graph.node_attr.update(shape='box', style='filled', color='#777777', height='0.3',
                           margin='0.08,0.04', **font)
    graph.edge_attr.update(color='#555555', arrowsize='0.6')
    return graph


def operation(node: Node) -> str:
    "What a node did: 'add', or '× 0.866' where it multiplied by a number."
    name = re.sub(r'Backward\d*$', '', type(node).__name__)
    saved = [node._saved_self, node._saved_other] if name == 'Mul' else []
    factors = [f'× {x.item():.3g}' for x in saved if x is not None and x.numel() == 1]
    return factors[0] if factors else name.lower()


def step_graph(network: nn.Module, step: Callable[..., Mapping[str, Tensor]],
               inputs: Mapping[str, Tensor]) -> AGraph:
    """The operations of `step(**inputs)`, which calls the network and returns named results. The
    network is one box, and dashed arrows lead to it from inputs that have no gradient."""
    graph = empty_graph()
    names: dict[Node, str] = {}
    leaves = {name: x.detach().clone().requires_grad_(x.is_floating_point())
              for name, x in inputs.items()}
    with calls({'network': network}) as seen:
        results = step(**leaves)
    answer, given = node_of(seen['network'].output), seen['network'].inputs
    known = {node_of(x): (name, 'input') for name, x in leaves.items()}
    known |= {answer: ('network', 'network')}

    def box(name: str, kind: str, text: str) -> str:
        graph.add_node(name, label=text, kind=kind, fillcolor=FILLS[kind])
        return name

    def add(node: Node) -> str:
        "Draw a node and all that is before it; its name."
        if type(node).__name__.startswith('Alias'):             # the same tensor
            return add(node.next_functions[0][0])
        if node not in names:
            name, kind = known.get(node, (f'#{len(names)}', 'operation'))
            names[node] = box(name, kind, operation(node) if kind == 'operation' else name)
            befores = (sources(node, {node_of(x) for x in given}) if node is answer else
                       [before for before, _ in node.next_functions if before is not None])
            for before in befores:
                graph.add_edge(add(before), name)
        return names[node]
    for name, x in results.items():
        graph.add_edge(add(node_of(x)), box(f'result {name}', 'result', name))
    for name, x in leaves.items():                      # an expanded index has the same memory
        if not x.requires_grad and x.data_ptr() in {y.data_ptr() for y in given}:
            graph.add_edge(box(name, 'input', name), 'network', style='dashed')
    return graph
