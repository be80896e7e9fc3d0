"Graphs of the network and of a sampling step, checked against the modules, the numbers that flow, and the gradients."

import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections import Counter

import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

from ddpm_course import load_model, sampling
from ddpm_course.attention import AttentionBlock
from ddpm_course.draws import Purpose, normal
from ddpm_course.model import read_answer
from ddpm_course.share import diagram, topology
from ddpm_course.unet import ResidualBlock, Stage, UNet

pytest.importorskip("pygraphviz")
pytest.importorskip("torchviz")
T = torch.tensor([500])


def noise(step, *shape):
    return normal(shape, 0, Purpose.LESSON, step, [0])


def small(**more):
    settings = dict(
        image_channels=1, size=16, channels=16, multipliers=(1, 2), blocks=1, attention=(8,), dropout=0.1, num_classes=3
    )
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
    return diagram.record_module(network, lambda: network(noise(0, channels, size, size), T, **more))


@pytest.fixture(scope="module")
def paper():
    return of_network(UNet(3, 32, 128, (1, 2, 2, 2), 2, (16,)).eval(), 32, 3)


@pytest.fixture(scope="module")
def shipped():
    model = load_model()
    network, schedule = model.network, model.schedule

    def step(xt, t, y, z):
        index = int(t)
        output = network(xt, t, y)
        x0_hat = read_answer(output, xt, index, schedule, model.objective).x0
        abars = schedule.alpha_bars[index].item(), schedule.alpha_bars_prev[index].item()
        return {"output": output, "x0_hat": x0_hat, "x_prev": sampling.ddpm_step(x0_hat, xt, z, *abars, "large")}

    return network, step, {"xt": noise(1, 1, 16, 16), "t": T, "y": torch.tensor([7]), "z": noise(2, 1, 16, 16)}


def of_kind(graph, kind):
    return [node for node in graph.nodes() if node.attr["kind"] == kind]


def labels(graph):
    return Counter(node.attr["label"] for node in of_kind(graph, "operation"))


def label(node):
    return node.attr["label"]


def labels_of(graph, text):
    return [n for n in of_kind(graph, "operation") if label(n) == text]


def behind(graph, node):
    "Everything that a node depends on."
    found, todo = set(), [node]
    while todo:
        for before in graph.predecessors(todo.pop()):
            if before not in found:
                found.add(before)
                todo.append(before)
    return found


def has_cycle(graph):
    return any(node in behind(graph, node) for node in graph.nodes())


# -- one block --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("c_out", [16, 32])
def test_residual_block(c_out):
    block = ResidualBlock(16, c_out, 24, 4).eval()
    graph = diagram.record_module(block, lambda: block(noise(0, 16, 8, 8), noise(1, 24))).raw
    changes = c_out != 16
    count = labels(graph)
    assert (count["Convolution"], count["NativeGroupNorm"], count["Silu"], count["Add"], count["Cat"]) == (
        2 + changes,
        2,
        3,
        2,
        0,
    )
    (last,) = graph.predecessors("result output")
    assert label(last) == "Add"
    joined = graph.predecessors(last)  # input and branch
    short = graph.get_node("input x")
    if changes:
        (short,) = [n for n in graph.successors("input x") if label(n) == "Convolution"]
    assert set(joined) == {short, *[n for n in joined if "conv2.weight" in graph.predecessors(n)]} and len(joined) == 2
    (other,) = [n for n in labels_of(graph, "Add") if n != last]
    assert (
        "input emb" in behind(graph, other)
        and "conv1.weight" in behind(graph, other)
        and "conv2.weight" not in behind(graph, other)
    )


def test_attention_block():
    block = AttentionBlock(16, 4).eval()
    graph = diagram.record_module(block, lambda: block(noise(0, 16, 4, 4))).raw
    (last,) = graph.predecessors("result output")
    assert label(last) == "Add" and "input x" in graph.predecessors(last)
    (norm,) = labels_of(graph, "NativeGroupNorm")
    for name in ("query", "key", "value"):  # each is a product of the norm, and the answer needs all
        (product,) = [
            n
            for n in graph.nodes()
            if f"{name}.weight" in behind(graph, n)
            and norm in behind(graph, n)
            and label(n) in ("Mm", "Addmm", "Bmm")
            and not any(
                f"{name}.weight" in behind(graph, p) and norm in behind(graph, p) for p in graph.predecessors(n)
            )
        ]
        assert product in behind(graph, last)
    softmax = [n for n in of_kind(graph, "operation") if "Softmax" in label(n) or "ScaledDot" in label(n)]
    assert len(softmax) == 1
    if "Softmax" in label(softmax[0]):  # values meet it only afterwards
        assert {"query.weight", "key.weight"} <= set(behind(graph, softmax[0])) and "value.weight" not in behind(
            graph, softmax[0]
        )


# -- the raw graph ----------------------------------------------------------------------------------------------------


def test_every_parameter_is_a_leaf_once(paper):
    named = dict(UNet(3, 32, 128, (1, 2, 2, 2), 2, (16,)).named_parameters())
    leaves = of_kind(paper.raw, "parameter")
    assert len(leaves) == len(named) and set(leaves) == named.keys()
    for leaf in leaves:
        assert paper.raw.in_degree(leaf) == 0 and paper.raw.out_degree(leaf) >= 1
        assert label(leaf) == f"{leaf}\n{'×'.join(map(str, named[leaf].shape))}"
    assert of_kind(paper.raw, "input") == ["input xt"] and of_kind(paper.raw, "result") == ["result output"]
    assert not any("AccumulateGrad" in label(node) or "Backward" in label(node) for node in paper.raw.nodes())


def test_raw_graph_has_an_operation_for_every_layer(paper):
    network, count = UNet(3, 32, 128, (1, 2, 2, 2), 2, (16,)), labels(paper.raw)
    layers = Counter(type(m) for m in network.modules())
    assert count["Convolution"] == layers[nn.Conv2d] and count["NativeGroupNorm"] == layers[nn.GroupNorm]
    assert count["UpsampleNearest2D"] == 3 and count["Cat"] == 12
    assert not has_cycle(topology.part_graph(paper))
    assert set(behind(paper.raw, "result output")) | {"result output"} == set(paper.raw.nodes())  # nothing is loose


def test_arrows_are_those_of_autograd():
    "Walk the autograd graph by hand and compare all edges, as names of operations."
    network = small()
    inputs = topology.as_leaves({"xt": noise(0, 1, 16, 16), "t": T, "y": torch.tensor([1])})
    output = network(**inputs)
    graph = topology.autograd_graph({"output": output}, inputs, dict(network.named_parameters()))
    names = {id(p): name for name, p in network.named_parameters()} | {id(inputs["xt"]): "input xt"}

    def name(node):
        return (
            names[id(node.variable)] if hasattr(node, "variable") else re.sub(r"Backward\d*$", "", type(node).__name__)
        )

    edges, seen, todo = Counter({(name(output.grad_fn), "result output"): 1}), {output.grad_fn}, [output.grad_fn]
    while todo:
        node = todo.pop()
        for before in dict.fromkeys(b for b, _ in node.next_functions if b is not None):
            edges[name(before), name(node)] += 1
            if before not in seen:
                seen.add(before)
                todo.append(before)
    shown = lambda node: label(node) if node.attr["kind"] == "operation" else str(node)
    assert edges == Counter((shown(graph.get_node(a)), shown(graph.get_node(b))) for a, b in graph.edges())


def test_names_do_not_depend_on_addresses():
    one, other = (of_network(small(), 16, 1).raw.to_string() for _ in range(2))
    assert one == other


def test_views_and_several_results():
    x = torch.arange(4.0).requires_grad_()
    y = x * 2
    graph = topology.autograd_graph({"first": y[:2], "all": y}, {"x": x}, {})
    assert set(of_kind(graph, "result")) == {"result first", "result all"}
    assert label(graph.predecessors("result all")[0]) == "Mul" and "input x" in behind(graph, "result first")
    with pytest.raises(ValueError, match="recorded nothing about 'flat'"):
        topology.autograd_graph({"all": y, "flat": y.detach()}, {"x": x}, {})


def test_long_chains_are_drawn():
    x = torch.ones(1, requires_grad=True)
    y, before = x, sys.getrecursionlimit()
    for _ in range(3000):
        y = y * 1.5
    assert labels(topology.autograd_graph({"y": y}, {"x": x}, {}))["Mul"] == 3000
    assert sys.getrecursionlimit() == before


# -- skips and the contracted graph -----------------------------------------------------------------------------------

NETWORKS = [
    dict(),
    dict(num_classes=0),
    dict(blocks=2, multipliers=(1, 1, 2)),
    dict(attention=(), multipliers=(2, 1), blocks=3),
    dict(multipliers=(1,), attention=(16,)),
]


@pytest.mark.parametrize("settings", NETWORKS, ids=str)
def test_skips_are_those_of_the_stack(settings):
    network = small(**settings)
    seen = of_network(network, 16, 1)
    stack, expected = ["conv_in", *(f"down.{i}" for i in range(len(network.down)))], []
    for i, part in enumerate(network.up):
        if isinstance(part, Stage):
            expected.append((stack.pop(), f"up.{i}"))
    assert not stack and topology.skips(seen) == expected[::-1]
    assert (
        len(expected)
        == labels(seen.raw)["Cat"]
        == len(settings.get("multipliers", (1, 2))) * (settings.get("blocks", 1) + 1)
    )


def test_paper_has_twelve_skips(paper):
    assert len(topology.skips(paper)) == labels(paper.raw)["Cat"] == 12
    joins = [n for n in of_kind(paper.raw, "operation") if label(n) == "Add"]
    assert len(joins) > 12  # what a count of additions would give


@pytest.mark.parametrize("settings", NETWORKS, ids=str)
def test_contracted_graph(settings):
    network = small(**settings)
    seen = of_network(network, 16, 1)
    graph = topology.part_graph(seen)
    lists = [network.down, network.middle, network.up]
    declared = {"time", "conv_in", "out", *(["classes"] if network.classes else [])}
    declared |= {f"{name}.{i}" for name, parts in zip(("down", "middle", "up"), lists) for i in range(len(parts))}
    assert set(of_kind(graph, "part")) == declared and not has_cycle(graph)
    assert of_kind(graph, "parameter") == [] and of_kind(graph, "result") == ["result output"]
    assert len(of_kind(graph, "operation")) == bool(network.classes)  # time and class are added between the parts
    assert all(graph.has_edge(*pair) for pair in topology.skips(seen))


@pytest.mark.parametrize("settings", NETWORKS, ids=str)
def test_edges_of_the_contracted_graph_are_what_flows(settings):
    "An independent way to the same edges: hooks compare the tensors which parts receive with those that parts gave."
    network = alive(small(**settings))
    given, edges = {}, set()

    def hook(name):
        def after(module, args, output):
            for x in args:
                if not isinstance(x, torch.Tensor) or not x.is_floating_point():
                    continue
                for other, gave in given.items():
                    same = x is gave
                    if (
                        not same
                        and x.ndim == gave.ndim == 4
                        and x.shape[2:] == gave.shape[2:]
                        and x.shape[1] > gave.shape[1]
                    ):
                        same = torch.equal(x[:, : gave.shape[1]], gave) or torch.equal(x[:, -gave.shape[1] :], gave)
                    if same:
                        edges.add((other, name))
            given[name] = output

        return after

    handles = [part.register_forward_hook(hook(name)) for name, part in topology.parts(network).items()]
    with torch.no_grad():
        network(noise(0, 1, 16, 16), T)
    for handle in handles:
        handle.remove()
    graph = topology.part_graph(of_network(network, 16, 1))
    images = {name for name, output in given.items() if output.ndim == 4}
    drawn = {(str(a), str(b)) for a, b in graph.edges() if {a, b} <= images}
    assert drawn == {(a, b) for a, b in edges if {a, b} <= images} and len(drawn) >= len(images) - 1


def test_the_embedding_reaches_residual_blocks_and_nothing_else():
    network = small()
    graph = topology.part_graph(of_network(network, 16, 1))
    (plus,) = of_kind(graph, "operation")
    assert sorted(graph.predecessors(plus)) == ["classes", "time"]
    stages = {name for name, part in topology.parts(network).items() if isinstance(part, Stage)}
    assert set(graph.successors(plus)) == stages


def test_gradients_flow_along_every_skip():
    "Cut one skip after the other (zeros in its place): the gradient of its giver changes."
    network = alive(small())
    seen = of_network(network, 16, 1)
    x = noise(0, 1, 16, 16)

    def run(cut=None):
        inside = topology.parts(network)
        given, handles = {}, []
        for name, part in inside.items():
            handles.append(
                part.register_forward_hook(
                    lambda m, a, out, name=name: given.__setitem__(name, out) or out.retain_grad()
                )
            )
        if cut:
            giver, taker = cut

            def zero(module, args):
                c = given[giver].shape[1]
                return (torch.cat([args[0][:, :-c], torch.zeros_like(given[giver])], 1), *args[1:])

            handles.append(inside[taker].register_forward_pre_hook(zero))
        network(x, T).square().sum().backward()
        for handle in handles:
            handle.remove()
        return {name: out.grad for name, out in given.items()}

    whole = run()
    assert all(grad is not None and grad.abs().sum() > 0 for grad in whole.values())
    for pair in topology.skips(seen):
        assert not torch.equal(run(pair)[pair[0]], whole[pair[0]])


def test_contract_counts_tensors_and_not_arrows():
    graph = topology.empty_graph()
    for name, owner in (("a", "A"), ("b", "A"), ("c", "B"), ("d", "B"), ("e", "B"), ("f", "")):
        topology.add_node(graph, name, "operation", name, owner)
    graph.add_edges_from([("a", "c"), ("a", "d"), ("b", "e"), ("a", "b"), ("d", "f"), ("d", "e")])
    small = topology.contract(graph)
    assert set(small.nodes()) == {"A", "B", "f"} and set(small.edges()) == {("A", "B"), ("B", "f")}
    assert small.get_edge("A", "B").attr["label"].strip() == "2" and not small.get_edge("B", "f").attr["label"]


def test_edges_carry_counts(shipped):
    network, step, inputs = shipped
    seen = topology.record(network, step, inputs)
    coarse = topology.part_graph(seen, lambda part: part.split(".")[0])
    assert coarse.get_edge("down", "up").attr["label"].strip() == "5" and coarse.has_edge("conv_in", "up")
    assert not (coarse.get_edge("middle", "up").attr["label"] or "").strip() and not has_cycle(coarse)
    assert label(coarse.get_node("down")).startswith("down (5 parts)")


def test_a_network_that_is_called_twice(shipped):
    network, _, inputs = shipped
    twice = topology.record(
        network, lambda xt, t, y: {"output": network(network(xt, t, y), t, y)}, {k: inputs[k] for k in ("xt", "t", "y")}
    )
    graph = topology.part_graph(twice)
    assert not has_cycle(graph) and len(of_kind(graph, "part")) == 2 * len(topology.parts(network))
    assert graph.has_edge("out", "conv_in (2)") and not graph.has_edge("conv_in", "conv_in (2)")
    assert len(topology.skips(twice)) == 12 and not has_cycle(
        topology.part_graph(twice, lambda part: re.sub(r"\.\S*", "", part))
    )


# -- the diffusion step -----------------------------------------------------------------------------------------------


def test_diffusion_step(shipped):
    network, step, inputs = shipped
    seen = topology.record(network, step, inputs)
    raw = seen.raw
    assert set(of_kind(raw, "input")) == {"input xt", "input z"}  # t and y have no gradient
    assert set(of_kind(raw, "result")) == {"result output", "result x0_hat", "result x_prev"}
    (clamp,) = labels_of(raw, "Clamp")
    assert clamp in behind(raw, "result x_prev") and raw.has_edge(clamp, "result x0_hat")
    assert "input z" in behind(raw, "result x_prev") and "input z" not in behind(raw, "result x0_hat")
    assert len([n for n in raw.successors("input xt")]) == 3  # network, x_0 hat, x_{t-1}
    graph = topology.part_graph(seen)
    assert (
        graph.get_edge("input t", "time").attr["style"]
        == graph.get_edge("input y", "classes").attr["style"]
        == "dashed"
    )
    last = topology.record(network, step, inputs | {"t": torch.tensor([0])}).raw
    assert not last.has_node("input z") and last.has_node("result x_prev")


def test_dependencies_are_those_of_autograd(shipped):
    network, step, inputs = shipped
    seen = topology.record(network, step, inputs)
    with topology.gradients_on(network):
        results = step(**seen.inputs)
    for name, result in results.items():
        for given in ("xt", "z"):
            (grad,) = torch.autograd.grad(result.sum(), seen.inputs[given], retain_graph=True, allow_unused=True)
            assert (grad is not None) == (f"input {given}" in behind(seen.raw, f"result {name}"))


def test_the_network_is_left_as_it_was(shipped):
    network, step, inputs = shipped
    assert not any(p.requires_grad for p in network.parameters())
    with torch.no_grad():
        before = step(**inputs)["x_prev"]
        topology.record(network, step, inputs)
        assert torch.equal(step(**inputs)["x_prev"], before)
    assert (
        not any(p.requires_grad or p.grad is not None for p in network.parameters()) and not inputs["xt"].requires_grad
    )
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())
    with pytest.raises(RuntimeError):
        topology.record(network, lambda **_: F.linear(torch.ones(2), torch.ones(3)), inputs)
    assert not any(p.requires_grad for p in network.parameters()) and not any(
        m._forward_hooks for m in network.modules()
    )


# -- files ------------------------------------------------------------------------------------------------------------


def text_of(path):
    "All the text of an SVG, which has to be XML."
    return [
        t.strip() for node in ET.parse(path).iter("{http://www.w3.org/2000/svg}text") if (t := "".join(node.itertext()))
    ]


@pytest.fixture(scope="module")
def written(shipped, tmp_path_factory):
    folder = tmp_path_factory.mktemp("topology") / "new"
    return {path.name: path for path in diagram.draw_all(*shipped, folder)}


def test_draw_all_writes(written):
    names = ("block", "attention", "unet", "diffusion", "diagram")
    assert set(written) == {f"{n}.{kind}" for n in names for kind in ("svg", "png")} | {
        "unet_raw.svg",
        "diffusion_raw.svg",
    }
    for name, path in written.items():
        if name.endswith("png"):
            with Image.open(path) as picture:
                picture.load()
                assert max(picture.size) <= 4000 and len(picture.convert("RGB").getcolors(10**6)) > 5
            assert path.stat().st_size < 2_000_000


def test_svg_contains_the_names(written, shipped):
    network, step, inputs = shipped
    parts = topology.parts(network)
    words = lambda name: set(" ".join(text_of(written[name])).split())  # name and shape stand in one line
    assert parts.keys() | {"xt", "t", "y", "output"} <= words("unet.svg")
    assert {"xt", "t", "y", "z", "output", "x0_hat", "x_prev", "UNet", "Clamp"} <= words("diffusion.svg")
    named = dict(network.named_parameters()).keys()
    for raw in ("unet_raw.svg", "diffusion_raw.svg"):
        assert named <= set(text_of(written[raw]))
    assert {"conv1.weight", "norm2.bias", "embed.weight", "x", "emb"} <= set(text_of(written["block.svg"]))
    assert {"query.weight", "key.bias", "value.weight", "out.bias", "x"} <= set(text_of(written["attention.svg"]))
    images = {name for name in parts if name not in ("time", "classes")}
    assert images | {"16×16", "8×8", "4×4", "residual 64 + attention"} <= set(text_of(written["diagram.svg"]))


def test_svg_has_the_edges_of_the_graph(written, shipped):
    network, step, inputs = shipped
    graph = topology.part_graph(diagram.record_module(network, lambda: step(**inputs)))
    titles = [node.text for node in ET.parse(written["unet.svg"]).iter("{http://www.w3.org/2000/svg}title")]
    assert sorted(t for t in titles if "->" in t) == sorted(f"{a}->{b}" for a, b in graph.edges())


def test_pictures_have_the_shape_of_what_they_show(written):
    size = {name: Image.open(path).size for name, path in written.items() if name.endswith("png")}
    view = [float(n) for n in ET.parse(written["unet.svg"]).getroot().attrib["viewBox"].split()]
    assert abs(size["unet.png"][0] / size["unet.png"][1] - view[2] / view[3]) < 0.02  # one layout, two files
    assert size["unet.png"][1] > 1.5 * size["unet.png"][0]  # a chain
    assert size["diagram.png"][0] == 1880 and 0.3 < size["diagram.png"][1] / 1880 < 1  # readable 940 wide


def test_large_graphs_stay_small_pictures(tmp_path, paper):
    chain = topology.empty_graph()
    chain.add_path([f"n{k}" for k in range(290)])
    (path,) = diagram.render(chain, tmp_path / "deeper" / "chain.png")
    width, height = Image.open(path).size
    assert 3500 < height <= 4000 and path.stat().st_size < 2_000_000
    (picture,) = diagram.render(topology.part_graph(paper), tmp_path / "paper.png")
    assert max(Image.open(picture).size) <= 4000 and picture.stat().st_size < 2_000_000


def test_render_complains(tmp_path):
    with pytest.raises(ValueError, match="as .svg or .png, not as .pdf"):
        diagram.render(topology.empty_graph(), tmp_path / "x.pdf")
    with pytest.raises(ValueError, match="a file without ending"):
        diagram.render(topology.empty_graph(), tmp_path / "x")


# -- the diagram ------------------------------------------------------------------------------------------------------


def test_diagram_of_the_paper(paper):
    places = diagram.diagram_rows(paper)
    pairs = topology.skips(paper)
    assert all(places[a][1] == places[b][1] and (places[a][0], places[b][0]) == ("down", "up") for a, b in pairs)
    (ax,) = diagram.block_diagram(paper).axes
    words = Counter(t.get_text() for t in ax.texts)
    assert words["128"] == 4 and words["256"] == 8  # a label for each skip, its channels
    assert sum("+ attention" in text for text in words.elements()) == 6  # 2 down, 1 in the middle, 3 up
    assert {"32×32", "16×16", "8×8", "4×4"} <= words.keys() and words["double 256"] == 3
    boxes = [patch.get_bbox() for patch in ax.patches if patch.get_zorder() == 3]
    assert len(boxes) == len(places)
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    assert all(0 <= box.x0 < box.x1 <= 800 for box in boxes)


@pytest.mark.parametrize("settings", NETWORKS, ids=str)
def test_diagram_of_other_networks(settings, tmp_path):
    seen = of_network(small(**settings), 16, 1)
    (ax,) = diagram.block_diagram(seen).axes
    boxes = [patch.get_bbox() for patch in ax.patches if patch.get_zorder() == 3]
    assert len(boxes) == len([call for call in seen.calls if call.output.ndim == 4])
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_no_u_no_diagram(tmp_path):
    plain = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), nn.Conv2d(2, 1, 3, padding=1))
    with pytest.raises(ValueError, match="no skips"):
        diagram.draw_all(plain, lambda x: {"out": plain(x)}, {"x": noise(0, 1, 8, 8)}, tmp_path)
    with pytest.raises(ValueError, match="never calls the Sequential"):
        diagram.draw_all(plain, lambda x: {"out": x * 2}, {"x": noise(0, 1, 8, 8)}, tmp_path)


def test_no_attention_no_picture_of_it(tmp_path):
    class Plain(nn.Module):
        "Residual blocks in the shape of a U, without attention."

        def __init__(self):
            super().__init__()
            self.conv_in, self.out = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 1, 3, padding=1)
            self.down, self.middle = (nn.ModuleList([ResidualBlock(8, 8, 4, 2)]) for _ in range(2))
            self.up = nn.ModuleList([ResidualBlock(16, 8, 4, 2) for _ in range(2)])

        def forward(self, x, emb):
            skips = [self.conv_in(x)]
            skips.append(self.down[0](skips[-1], emb))
            h = self.middle[0](skips[-1], emb)
            for part in self.up:
                h = part(torch.cat([h, skips.pop()], 1), emb)
            return self.out(h)

    network = Plain()
    paths = diagram.draw_all(
        network, lambda x, emb: {"out": network(x, emb)}, {"x": noise(0, 1, 8, 8), "emb": noise(1, 4)}, tmp_path
    )
    assert {path.stem for path in paths} == {"block", "unet", "diffusion", "diagram", "unet_raw", "diffusion_raw"}


# -- without the drawing packages -------------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", ["pygraphviz", "torchviz"])
def test_missing_package_is_one_sentence(missing, monkeypatch):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ValueError) as caught:
        diagram.draw_all(nn.Identity(), lambda: {}, {}, "nowhere")
    assert str(caught.value) == "drawing needs pygraphviz and torchviz: pip install pygraphviz torchviz"


def test_import_needs_no_drawing_package():
    code = "import sys; sys.modules.update(pygraphviz=None, torchviz=None, matplotlib=None); import ddpm_course.share.diagram"
    subprocess.run([sys.executable, "-c", code], check=True)
