"What the network must be for other tools: its attention uses the fused kernel."

import pytest
import torch

from ddpm_course.unet import UNet

SMALL = {"image_channels": 1, "size": 16, "channels": 32, "multipliers": (1, 2), "blocks": 1, "attention": (8,)}


@pytest.mark.parametrize("training", [True, False])
def test_attention_is_fused(training):
    "Tensors of three dimensions would take the plain products, without a word."
    network = UNet(**SMALL).train(training)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as seen:
        network(torch.randn(2, 1, 16, 16), torch.tensor([0, 90])).sum().backward()
    names = {event.key for event in seen.key_averages()}
    assert "aten::_scaled_dot_product_flash_attention_for_cpu" in names
    assert "aten::_scaled_dot_product_attention_math" not in names
