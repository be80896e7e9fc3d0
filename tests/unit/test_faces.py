"The bundled faces: their parts are known, and what never meets never does."

import json

import numpy as np
import pytest
import torch

from ddpm_course.compose import compose
from ddpm_course.config import SamplingConfig
from ddpm_course.data.faces import load_faces
from ddpm_course.data.sets import ASSETS
from ddpm_course.data.sources import load_data
from ddpm_course.judge.evaluation import allot_classes, draw_samples, extract
from ddpm_course.judge.face_judge import load_face_judge, see_parts
from ddpm_course.run.runs import load_model
from ddpm_course.sampling import guided
from helpers import ROOT


def test_faces_are_what_data_faces_trains_on():
    train, test = load_data("faces", 16)
    for images, split in ((train, "train"), (test, "test")):
        assert images.digest == load_faces(split).images.digest
        assert images.classes == ("beard", "glasses", "hat", "long", "short") and images.channels == 3
        assert np.bincount(images.labels).tolist() == [len(images) // 5] * 5
    assert (len(train), len(test), len(load_faces("unseen").images)) == (5000, 1000, 350)
    assert load_data("faces", 8, 1)[0].pixels.shape == (5000, 1, 8, 8)


def test_no_two_faces_are_equal():
    every = np.concatenate([load_faces(split).images.pixels for split in ("train", "test", "unseen")])
    assert len(np.unique(every.reshape(len(every), -1), axis=0)) == len(every) == 6350


@pytest.mark.parametrize("split", ["train", "test"])
def test_the_class_follows_from_the_parts(split):
    faces = load_faces(split)
    worn = np.stack([faces.parts[part] > 0 for part in ("beard", "glasses", "hat")], 1)
    hair = np.array([faces.images.classes.index(name) for name in faces.names["length"]])[faces.parts["length"]]
    assert worn.sum(1).max() == 1
    assert np.array_equal(faces.images.labels, np.where(worn.any(1), worn.argmax(1), hair))


def test_held_out_combinations_are_in_unseen_alone():
    train, test, unseen = map(load_faces, ("train", "test", "unseen"))
    for k, combination in enumerate(train.held_out):
        assert not train.shows(combination).any() and not test.shows(combination).any()
        assert np.flatnonzero(unseen.shows(combination)).tolist() == list(range(50 * k, 50 * k + 50))
        for part, name in combination.items():  # each part alone is seen often enough
            assert train.shows({part: name}).sum() > 200


def test_parts_are_those_in_the_picture():
    "The corner has the background's colour, whatever else is drawn; all colours are of the palette."
    faces = load_faces()
    corners = faces.images.pixels[:, :, 15, 0]
    for k in range(len(faces.names["background"])):
        assert len(np.unique(corners[faces.parts["background"] == k], axis=0)) == 1
    assert len(np.unique(corners, axis=0)) == len(faces.names["background"])
    pixels = np.unique(faces.images.pixels.transpose(0, 2, 3, 1).reshape(-1, 3), axis=0)
    assert {*map(tuple, pixels.tolist())} <= {*map(tuple, faces.palette.tolist())}


def test_unknown_parts_and_splits_are_named():
    faces = load_faces("test")
    assert faces.shows({}).all() and faces.shows({"hat": "any"}).sum() == 200 == (~faces.shows({"hat": "none"})).sum()
    with pytest.raises(ValueError, match="no face has hat 'fez': expected one of none, variant01"):
        faces.shows({"hat": "fez"})
    with pytest.raises(ValueError, match="no face has nose 'big': expected one of skin|hair"):
        faces.shows({"nose": "big"})
    with pytest.raises(ValueError, match="no face has skin 'any'"):
        faces.shows({"skin": "any"})
    with pytest.raises(ValueError, match="a split is one of train, test, unseen, not 'held'"):
        load_faces("held")


def test_the_judge_reads_faces_that_it_never_saw():
    judge, test, unseen = load_face_judge(), load_faces("test"), load_faces("unseen")
    _, logits = extract(judge, test.images.pixels)
    assert (logits.argmax(1).numpy() == test.images.labels).mean() > 0.99
    seen = see_parts(judge, test.images.pixels)
    for part in ("beard", "glasses", "hat", "length", "background"):
        known = test.parts[part] > 0 if seen.names[part] == ("none", "some") else test.parts[part]
        assert (seen.parts[part] == known).mean() > 0.99, part
    bare = test.shows({"hat": "none"})  # a hat may hide all hair
    assert (seen.parts["hair colour"] == test.parts["hair colour"])[bare].mean() > 0.99
    seen = see_parts(judge, unseen.images.pixels)
    for k, combination in enumerate(unseen.held_out):
        assert not see_parts(judge, test.images.pixels).shows(combination).any()
        assert seen.shows(combination)[50 * k : 50 * k + 50].mean() > 0.7, combination


def test_the_model_that_ships_draws_the_class_asked_for():
    model = load_model(ASSETS / "faces16", precision="fp32")
    y = allot_classes(load_faces("test").images.labels, 60)
    _, logits = extract(load_face_judge(), draw_samples(model, y, SamplingConfig(steps=10)))
    assert (logits.argmax(1) == y).double().mean() > 0.9


def test_two_classes_at_once_are_guidance_for_one():
    model = load_model(ASSETS / "faces16", precision="fp32")
    x, t = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(0)), torch.tensor([10, 500, 990])
    hat, short = (model.answer(x, t, torch.full((3,), model.classes.index(name))) for name in ("hat", "short"))
    one = guided(model, 2).answer(x, t, torch.full((3,), model.classes.index("hat")))
    assert torch.allclose(compose(model, ["hat"], 2).answer(x, t), one, atol=1e-5)
    assert torch.allclose(compose(model, ["hat"], 1, "short").answer(x, t), hat, atol=1e-5)
    assert torch.allclose(compose(model, ["hat", "hat"], 1, "short").answer(x, t), 2 * hat - short, atol=1e-5)


def test_bare_faces_are_the_better_base():
    "In the kept run of benchmarks/bench_compose.py: of combinations that training faces never show."
    cells = json.loads((ROOT / "benchmarks/results/compose.json").read_text())["runs"]
    composed = [cell for cell in cells if cell["what"] == "composed"]
    both = {(c["asked"], c["w"], c["base"], c["seed"]): c["shown"][c["asked"]] for c in composed}
    for (asked, w, base, seed), count in both.items():
        assert base or count <= both[asked, w, "short", seed], (asked, w, seed)


def test_the_model_that_ships_keeps_its_limits():
    "In the kept run of benchmarks/faces.py."
    found = json.loads((ROOT / "benchmarks/results/faces.json").read_text())["runs"]
    assert len(found["kept"]) == 5 and all(found["kept"].values())
    assert found["asked"]["share"] >= 0.97 and max(far["ratio"] for far in found["distance"].values()) <= 2
