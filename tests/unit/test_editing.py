"What may be edited: a picture, a mask, and how far back the walk goes."

import re

import pytest
import torch
from PIL import Image

from ddpm_course import load_model
from ddpm_course.config import SamplingConfig
from ddpm_course.editing import Edit, plan_edit, read_mask, read_picture

GREY, LOWER = torch.zeros(1, 16, 16), torch.arange(16)[:, None].expand(16, 16) >= 8


def test_strength_says_how_far_back_the_walk_goes():
    model = load_model()

    def planned(strength, **how):
        return list(plan_edit(model, Edit(GREY, strength), SamplingConfig(**{"steps": 10} | how)).indices)

    assert planned(0.3) == [299, 199, 99, -1] and planned(0.01) == [99, -1] and planned(1)[0] == 999
    with pytest.raises(ValueError, match="starts where the image is not yet noise"):
        planned(1, spacing="quadratic")
    with pytest.raises(ValueError, match=re.escape("the picture is (1, 8, 16), and the model draws (1, 16, 16)")):
        plan_edit(model, Edit(GREY[:, 8:], 1), SamplingConfig())


def test_files_are_brought_to_the_shape_of_a_model(tmp_path):
    Image.new("RGB", (300, 200), "white").save(tmp_path / "wide.png")
    assert torch.equal(read_picture(tmp_path / "wide.png", (1, 16, 16)), torch.ones(1, 16, 16))
    hole = Image.new("RGBA", (320, 320), "black")
    hole.paste((0, 0, 0, 0), (0, 160, 320, 320))  # transparent below
    hole.save(tmp_path / "hole.png")
    assert torch.equal(read_mask(tmp_path / "hole.png", (3, 16, 16)), LOWER)
