"What page 08 shows of a network: each part's output, and maps that differ."

import torch

from ddpm_course.lesson.feature_maps import different, draw_u, watch
from ddpm_course.unet import UNet


def test_watch_sees_every_part_and_leaves_no_hook():
    network = UNet(image_channels=1, size=16, channels=8, multipliers=(1, 2), blocks=1, attention=(), dropout=0.0)
    xt, t = torch.randn(1, 1, 16, 16), torch.tensor([400])
    seen, answer = watch(network, xt, t)
    shapes = {name: tuple(maps.shape) for name, maps in seen.items()}
    high, low = (8, 16, 16), (16, 8, 8)
    assert list(shapes.values()) == [high, high, (8, 8, 8), *5 * [low], (16, 16, 16), high, high]
    assert list(shapes) == [
        "conv_in",
        *(f"{way}.{k}" for way, n in (("down", 3), ("middle", 2), ("up", 5)) for k in range(n)),
    ]
    assert torch.equal(answer, network(xt, t)) and not any(m._forward_hooks for m in network.modules())
    figure = draw_u(xt, seen, answer, answer)
    assert len(figure.axes[0].images) == 3 + 3 * len(seen)  # input, answer and image; three maps of each part


def test_maps_that_say_the_same_are_passed_over():
    torch.manual_seed(0)
    a, b, c = torch.randn(3, 4, 4)
    maps = torch.stack([c, 3 * a, -2.9 * a + 0.1 * c, 2 * b, 5 + b])
    assert torch.equal(different(maps), torch.stack([3 * a, 2 * b, c]))
