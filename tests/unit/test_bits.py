"The bound of a model: an estimate from strata beside the full sum."

from dataclasses import replace

import numpy as np
import pytest
import torch

from ddpm_course.bits import Bits, bits_per_dim, output_bound, plot_bits, strata
from ddpm_course.data.sets import ImageSet, load_digits
from ddpm_course.losses import OBJECTIVES
from ddpm_course.model import Model
from ddpm_course.schedules import cosine

DIGITS = load_digits("test", 16)
FEW = ImageSet(DIGITS.pixels[::20], DIGITS.labels[::20], DIGITS.classes)
GREY = Model(lambda xt, t, y: xt / 2, cosine(100), OBJECTIVES["x0"], (1, 16, 16))  # knows little


def test_strata_are_index_0_alone_and_then_grow():
    assert strata(1000, 3) == [0, 1, 10, 100, 1000] and strata(2, 5) == [0, 1, 2]


def test_a_result_adds_up():
    three = Bits([0, 1, 3], torch.tensor([0.1, 0.3]), torch.tensor([[1.0, 2.0], [0.5, 1.0]]), torch.zeros(2, 2))
    assert torch.allclose(three.each, torch.tensor([2.1, 4.3]).double())
    assert three.summary()["steps"] == 1.5 and abs(three.mean - 3.2) < 1e-6
    assert str(three).startswith("bits per dimension 3.200 ± 13.977 (decoder 1.500, steps 1.500")


def test_the_estimate_is_near_the_full_sum_and_any_batch_gives_it():
    full, rough = (bits_per_dim(GREY, FEW, count) for count in (100, 16))
    between = (rough.each - full.each).std().item() / len(FEW) ** 0.5  # what drawing t adds
    assert abs(rough.mean - full.mean) < 3 * between
    assert abs(bits_per_dim(GREY, FEW, batch=7).mean - rough.mean) < 1e-6
    (rate, off), (true_rate, true_off) = (plot_bits({"grey": b}).axes[1].lines[0].get_data() for b in (rough, full))
    assert rate[0] == rough.mean and off[0] == 0  # with the decoder's bits,
    assert abs(rate[1] - (rough.mean - rough.terms[0].mean())) < 1e-9  # without,
    assert (rate[1:] <= rate[:-1]).all()  # and down; on the curve of the full sum
    assert np.allclose(off[1:], np.interp(rate[1:], true_rate[::-1], true_off[::-1]), rtol=0.2)


def test_an_answer_without_a_variance_is_refused():
    x = torch.zeros(1, 1, 16, 16)
    with pytest.raises(ValueError, match="this network has learned no variance"):
        output_bound(replace(GREY, variance="learned"), x, x, x, torch.tensor([3]))


def test_the_bound_is_float32_whatever_the_model_says():
    "No TF32 inside the network either: its ten bits cost .0003 bits per dimension."
    seen = set()

    def network(xt, t, y):
        seen.add((torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32, xt.dtype))
        return xt / 2

    bits_per_dim(replace(GREY, network=network, precision="bf16"), FEW, 2)
    assert seen == {("highest", False, torch.float32)}
