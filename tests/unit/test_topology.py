"The wiring of a network and of a sampling step, checked against the numbers that flow, and against autograd."

import sys

import pytest
import torch
from PIL import Image

from ddpm_course import load_model, steps
from ddpm_course.draws import Purpose, normal
from ddpm_course.share import diagram, graphs
from ddpm_course.unet import Stage, UNet

pytest.importorskip("pygraphviz")
T = torch.tensor([500])
NETWORKS = [dict(), dict(num_classes=0, blocks=2, multipliers=(1, 1, 2)), dict(multipliers=(1,), attention=(16,))]


def noise(step, *shape):
    return normal(shape, 0, Purpose.LESSON, step, [0])


def small(**more):
    "A small network; layers that start at zero get weights, so that something flows through every one of them."
    settings = dict(image_channels=1, size=16, channels=16, multipliers=(1, 2), blocks=1, attention=(8,), num_classes=3)
    network, draws = UNet(**{**settings, **more}).eval(), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in network.parameters():
            if not p.any():
                p.copy_(0.1 * torch.randn(p.shape, generator=draws))
    return network


@pytest.mark.parametrize("settings", NETWORKS, ids=str)
def test_a_part_reads_what_flows_into_it(settings):
    "Found in another way: by comparing the numbers that parts receive with those that parts gave."
    seen, reads = graphs.wiring(small(**settings), noise(0, 1, 16, 16), T)
    images = {name: call for name, call in seen.items() if call.output.ndim == 4}

    def flows(gave, x):
        "Whether `x` is what was given, alone or at either end of a concatenation."
        c = gave.shape[1]
        if x.shape[2:] != gave.shape[2:] or x.shape[1] < c:
            return False
        return torch.equal(x[:, :c], gave) or torch.equal(x[:, -c:], gave)

    for name, call in images.items():
        assert {n for n in reads[name] if n in images} == {
            n for n in images if n != name and flows(images[n].output, call.inputs[0])
        }
        assert ("time" in reads[name]) == isinstance(call.module, Stage)


@pytest.mark.parametrize("settings", NETWORKS, ids=str)
def test_skips_are_those_of_the_stack_and_level(settings):
    network = small(**settings)
    seen, reads = graphs.wiring(network, noise(0, 1, 16, 16), T)
    places, _ = diagram.rows({name: call for name, call in seen.items() if call.output.ndim == 4})
    stack = ["conv_in", *(f"down.{i}" for i in range(len(network.down)))]
    for i, part in enumerate(network.up):
        given = [name for name in reads[f"up.{i}"] if places.get(name, "t")[0] == "down"]
        assert given == ([stack.pop()] if isinstance(part, Stage) else [])
        assert all(places[name][1] == places[f"up.{i}"][1] for name in given)
    assert not stack and len(set(places.values())) >= len(places) - 1  # the two of the middle share a row


@pytest.fixture(scope="module")
def shipped():
    model = load_model(precision="fp32")
    s = model.schedule

    def step(xt, t, y, z):
        x0 = model.predict(xt, t, y).x0  # which expands t: another tensor, of the same memory
        abars = s.alpha_bars[int(t)].item(), s.alpha_bars_prev[int(t)].item()
        return {"x0": x0, "x_prev": steps.ddpm_step(x0, xt, z, *abars, "large")}

    inputs = {"xt": noise(1, 1, 16, 16), "t": T, "y": torch.tensor([7]), "z": noise(2, 1, 16, 16)}
    return model, step, inputs


def behind(graph, node):
    "Everything that a node depends on."
    return {b for a in graph.predecessors(node) for b in {a} | behind(graph, a)}


def test_step(shipped):
    model, step, inputs = shipped
    graph, abar = graphs.step_graph(model.network, step, inputs), model.schedule.alpha_bars[500].item()
    labels = [node.attr["label"] for node in graph.nodes()]
    sigma = model.schedule.betas[500].sqrt().item()
    for factor in (abar**0.5, (1 - abar) ** 0.5, sigma):
        assert f"× {factor:.3g}" in labels
    assert [graph.get_edge(name, "network").attr["style"] for name in "ty"] == ["dashed", "dashed"]
    leaves = {name: x.clone().requires_grad_(x.is_floating_point()) for name, x in inputs.items()}
    for name, result in step(**leaves).items():  # dependencies are those of autograd
        found = torch.autograd.grad(result.sum(), [leaves["xt"], leaves["z"]], retain_graph=True, allow_unused=True)
        assert [x is not None for x in found] == [x in behind(graph, f"result {name}") for x in ("xt", "z")]
    assert not graphs.step_graph(model.network, step, inputs | {"t": torch.tensor([0])}).has_node("z")


def test_the_network_is_left_as_it_was(shipped):
    model, step, inputs = shipped
    with pytest.raises(RuntimeError):
        graphs.step_graph(model.network, lambda **_: torch.ones(2) @ torch.ones(3), inputs)
    assert not any(p.requires_grad or p.grad is not None for p in model.network.parameters())
    assert not inputs["xt"].requires_grad
    assert not any(m._forward_hooks for m in model.network.modules())


def test_draw_all(shipped, tmp_path, monkeypatch):
    model, step, inputs = shipped
    work = lambda: diagram.draw_all(model.network, [inputs[name] for name in ("xt", "t", "y")], step, inputs, tmp_path)
    paths = work()
    assert [path.name for path in paths] == [f"{n}.{kind}" for n in ("diagram", "diffusion") for kind in ("png", "svg")]
    for path in paths[::2]:
        with Image.open(path) as picture:
            assert max(picture.size) <= 4000 and len(picture.convert("RGB").getcolors(10**6)) > 5
    monkeypatch.setitem(sys.modules, "pygraphviz", None)
    with pytest.raises(ValueError, match="^drawing needs: pip install pygraphviz$"):
        work()
