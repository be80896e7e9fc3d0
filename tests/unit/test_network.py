"What the network must be for other tools: its attention uses the fused kernel, an export leaves the batch open."

import pytest
import torch

from ddpm_course.unet import UNet

SMALL = {"image_channels": 1, "size": 16, "channels": 32, "multipliers": (1, 2), "blocks": 1, "attention": (8,)}


def inputs(batch, classes):
    x = torch.randn(batch, 1, 16, 16, generator=torch.Generator().manual_seed(batch))
    return (x, torch.arange(batch) * 90, *([torch.arange(batch) % classes] if classes else []))


@pytest.mark.parametrize("training", [True, False])
def test_attention_is_fused(training):
    "Tensors of three dimensions would take the plain products, without a word."
    network = UNet(**SMALL).train(training)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as seen:
        network(*inputs(2, 0)).sum().backward()
    names = {event.key for event in seen.key_averages()}
    assert "aten::_scaled_dot_product_flash_attention_for_cpu" in names
    assert "aten::_scaled_dot_product_attention_math" not in names


@pytest.mark.parametrize("classes", [pytest.param(0, marks=pytest.mark.thorough), 10])
def test_export_leaves_the_batch_open(classes):
    network = UNet(**SMALL, num_classes=classes).eval()
    torch.nn.init.normal_(network.out[2].weight)
    batch = torch.export.Dim("batch")
    shapes = ({0: batch},) * len(inputs(2, classes))
    exported = torch.export.export(network, inputs(2, classes), dynamic_shapes=shapes).module()
    for n in (1, 3, 7):
        args = inputs(n, classes)
        assert torch.allclose(exported(*args), network(*args), atol=1e-5)
