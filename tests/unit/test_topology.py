"Graphs of the network and of a sampling step, checked against the modules, the numbers that flow, and the gradients."

import re
import sys
import warnings
import xml.etree.ElementTree as ET
from collections import Counter

import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

from ddpm_course import load_model, steps
from ddpm_course.draws import Purpose, normal
from ddpm_course.model import read_answer
from ddpm_course.share import diagram, graphs
from ddpm_course.unet import Stage, UNet

pygraphviz = pytest.importorskip("pygraphviz")
T = torch.tensor([500])


def noise(step, *shape):
    return normal(shape, 0, Purpose.LESSON, step, [0])


def small(**more):
    settings = dict(image_channels=1, size=16, channels=16, multipliers=(1, 2), blocks=1, attention=(8,), num_classes=3)
    return UNet(**{**settings, **more}).eval()


def alive(network):
    "Layers that start at zero get weights, so that something flows through every one of them."
    draws = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in network.parameters():
            if not p.any():
                p.copy_(0.1 * torch.randn(p.shape, generator=draws))
    return network


def of_network(network, size, channels, **more):
    inputs = {"xt": noise(0, channels, size, size), "t": T, **more}
    return graphs.record(network, lambda **given: {"output": network(**given)}, inputs)


@pytest.fixture(scope="module")
def shipped():
    model = load_model()
    network, schedule = model.network, model.schedule

    def step(xt, t, y, z):
        index = int(t)
        output = network(xt, t, y)
        x0_hat = read_answer(output, xt, index, schedule, model.objective).x0
        abars = schedule.alpha_bars[index].item(), schedule.alpha_bars_prev[index].item()
        return {"output": output, "x0_hat": x0_hat, "x_prev": steps.ddpm_step(x0_hat, xt, z, *abars, "large")}

    return network, step, {"xt": noise(1, 1, 16, 16), "t": T, "y": torch.tensor([7]), "z": noise(2, 1, 16, 16)}


def of_kind(graph, kind):
    return [node for node in graph.nodes() if node.attr["kind"] == kind]


def label(node):
    return node.attr["label"]


def behind(graph, node):
    "Everything that a node depends on."
    found, todo = set(), [node]
    while todo:
        for before in graph.predecessors(todo.pop()):
            if before not in found:
                found.add(before)
                todo.append(before)
    return found


def test_arrows_are_those_of_torchviz():
    "The package torchviz walks the same graph in its own way: the same arrows, as names of leaves and operations."
    torchviz = pytest.importorskip("torchviz")
    network = small()
    inputs = {"xt": noise(0, 1, 16, 16).requires_grad_(), "t": T, "y": torch.tensor([1])}
    output, parameters = network(**inputs), dict(network.named_parameters())
    graph = graphs.autograd_graph({"output": output}, inputs, parameters)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it compares versions in an outdated way
        dot = torchviz.make_dot(output, parameters | {"input xt": inputs["xt"]})
    theirs = pygraphviz.AGraph(string=dot.source)
    leaf = {b: a for a, b in theirs.edges() if label(b) == "AccumulateGrad"}  # behind the door of each

    def name(node):
        return re.sub(r"Backward\d*$", "", label(theirs.get_node(leaf.get(node, node))).split("\n")[0].strip())

    def own(node):
        return label(node) if node.attr["kind"] == "operation" else str(node).replace("result output", "")

    ours = Counter((own(a), own(b)) for a, b in graph.edges())
    assert ours == Counter((name(a), name(b)) for a, b in theirs.edges() if b not in leaf) and ours.total() > 100


# -- skips and the contracted graph -----------------------------------------------------------------------------------

NETWORKS = [dict(), dict(num_classes=0, blocks=2, multipliers=(1, 1, 2)), dict(multipliers=(1,), attention=(16,))]


@pytest.mark.parametrize("settings", NETWORKS, ids=str)
def test_skips_are_those_of_the_stack(settings):
    network = small(**settings)
    seen = of_network(network, 16, 1)
    stack, expected = ["conv_in", *(f"down.{i}" for i in range(len(network.down)))], []
    for i, part in enumerate(network.up):
        if isinstance(part, Stage):
            expected.append((stack.pop(), f"up.{i}"))
    assert not stack and graphs.skips(seen) == expected[::-1]


@pytest.mark.parametrize("settings", NETWORKS, ids=str)
def test_edges_of_the_contracted_graph_are_what_flows(settings):
    "An independent way to the same edges: hooks compare the tensors which parts receive with those that parts gave."
    network = alive(small(**settings))
    given, edges = {}, set()

    def flows(gave, x):
        "Whether `x` is what was given, alone or at either end of a concatenation."
        c = gave.shape[1]
        joined = x is not None and x.ndim == gave.ndim == 4 and x.shape[2:] == gave.shape[2:] and x.shape[1] > c
        return x is gave or (joined and (torch.equal(x[:, :c], gave) or torch.equal(x[:, -c:], gave)))

    def hook(name):
        def after(module, args, output):
            edges.update((other, name) for other, gave in given.items() if flows(gave, args[0]))
            given[name] = output

        return after

    for name, part in graphs.parts(network).items():
        part.register_forward_hook(hook(name))
    with torch.no_grad():
        network(noise(0, 1, 16, 16), T)
    graph = graphs.part_graph(of_network(small(**settings), 16, 1))
    images = {name for name, output in given.items() if output.ndim == 4}
    drawn = {(str(a), str(b)) for a, b in graph.edges() if {a, b} <= images}
    assert drawn == {(a, b) for a, b in edges if {a, b} <= images} and len(drawn) >= len(images) - 1


def test_diffusion_step(shipped):
    network, step, inputs = shipped
    seen = graphs.record(network, step, inputs)
    raw = seen.raw
    assert set(of_kind(raw, "input")) == {"input xt", "input z"}  # t and y have no gradient
    assert set(of_kind(raw, "result")) == {"result output", "result x0_hat", "result x_prev"}
    (clamp,) = [node for node in of_kind(raw, "operation") if label(node) == "Clamp"]
    assert clamp in behind(raw, "result x_prev") and raw.has_edge(clamp, "result x0_hat")
    assert len(raw.successors("input xt")) == 3  # network, x_0 hat, x_{t-1}
    graph = graphs.part_graph(seen)
    dashed = [graph.get_edge(*pair).attr["style"] for pair in (("input t", "time"), ("input y", "classes"))]
    assert dashed == ["dashed", "dashed"]
    results = step(**seen.inputs)
    for name, result in results.items():  # dependencies are those of autograd
        for given in ("xt", "z"):
            (grad,) = torch.autograd.grad(result.sum(), seen.inputs[given], retain_graph=True, allow_unused=True)
            assert (grad is not None) == (f"input {given}" in behind(raw, f"result {name}"))


def test_the_network_is_left_as_it_was(shipped):
    network, step, inputs = shipped
    with torch.no_grad():
        before = step(**inputs)["x_prev"]
        graphs.record(network, step, inputs)
        assert torch.equal(step(**inputs)["x_prev"], before)
    with pytest.raises(RuntimeError):
        graphs.record(network, lambda **_: F.linear(torch.ones(2), torch.ones(3)), inputs)
    assert not any(p.requires_grad or p.grad is not None for p in network.parameters())
    assert not inputs["xt"].requires_grad
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())


# -- files ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def written(shipped, tmp_path_factory):
    folder = tmp_path_factory.mktemp("topology") / "new"
    return {path.name: path for path in diagram.draw_all(*shipped, folder)}


def test_draw_all_writes(written, shipped):
    "Each picture twice; the SVG of the network has the arrows of its graph."
    assert set(written) == {f"{name}.{kind}" for name in ("unet", "diffusion", "diagram") for kind in ("svg", "png")}
    for path in written.values():
        if path.suffix == ".png":
            with Image.open(path) as picture:
                assert max(picture.size) <= 4000 and len(picture.convert("RGB").getcolors(10**6)) > 5
    graph = graphs.part_graph(graphs.record(*shipped))
    titles = [node.text for node in ET.parse(written["unet.svg"]).iter("{http://www.w3.org/2000/svg}title")]
    assert sorted(t for t in titles if "->" in t) == sorted(f"{a}->{b}" for a, b in graph.edges())


def test_the_index_is_drawn_as_a_model_passes_it_on():
    "`Model.predict` expands t to the batch: another tensor, of the same memory."
    model = load_model()
    step = lambda xt, t, y: {"x0": model.predict(xt, t, y).x0}
    inputs = {"xt": torch.zeros(1, 1, 16, 16), "t": T, "y": torch.zeros(1, dtype=torch.long)}
    graph = graphs.part_graph(graphs.record(model.network, step, inputs))
    assert graph.get_edge("input t", "time").attr["style"] == "dashed"


@pytest.mark.parametrize("settings", NETWORKS, ids=str)
def test_diagram(settings):
    "Every part that makes an image has its place, beside the skip that it receives, whose arrow has its channels."
    seen = of_network(small(**settings), 16, 1)
    places, pairs, graph = diagram.diagram_rows(seen), graphs.skips(seen), diagram.block_diagram(seen)
    images = {call.part: call.output.shape for call in seen.calls if call.output.ndim == 4}
    assert places.keys() == images.keys()
    assert all(places[a][1] == places[b][1] and (places[a][0], places[b][0]) == ("down", "up") for a, b in pairs)
    arrows = {(str(a), str(b)): graph.get_edge(a, b).attr["label"].strip() for a, b in graph.edges()}
    assert {pair: arrows[pair] for pair in pairs} == {(a, b): str(images[a][1]) for a, b in pairs}
    assert len(arrows) == len(places) - 1 + len(pairs)


def test_no_u_no_diagram(tmp_path):
    plain = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), nn.Conv2d(2, 1, 3, padding=1))
    with pytest.raises(ValueError, match="no skips"):
        diagram.draw_all(plain, lambda x: {"out": plain(x)}, {"x": noise(0, 1, 8, 8)}, tmp_path)


def test_missing_package_is_one_sentence(shipped, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pygraphviz", None)
    with pytest.raises(ValueError) as caught:
        diagram.draw_all(*shipped, tmp_path / "new")
    assert str(caught.value) == "drawing needs: pip install pygraphviz" and not (tmp_path / "new").exists()
