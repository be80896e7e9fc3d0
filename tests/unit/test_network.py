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


def test_answers_depend_on_their_own_image_time_and_class():
    "y=None is the null label, images of a batch do not mix, and sizes that cannot be halved are refused."
    torch.manual_seed(0)
    network = UNet(**SMALL, num_classes=10).eval()
    for weight in network.parameters():
        if not weight.any():  # as if it were trained
            torch.nn.init.normal_(weight, std=0.05)
    xt, t, y = torch.randn(2, 1, 16, 16), torch.tensor([10, 900]), torch.tensor([3, 10])
    with torch.no_grad():
        base, later, other, none = network(xt, t, y), network(xt, t + 50, y), network(xt, t, y - 1), network(xt, t)
        assert torch.allclose(base[:1], network(xt[:1], t[:1], y[:1]), atol=1e-5)
    assert (base - later).abs().mean() > 1e-3 and (base - other).abs().mean() > 1e-3
    assert torch.allclose(base[1], none[1], atol=1e-5)
    with pytest.raises(ValueError, match="4 levels need a size divisible by 8, not 28"):
        UNet(size=28)
