"The clinic: every symptom is found with three seeds, healthy runs are left alone, also those of somebody else's code."

import json
import math
import time
from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

from ddpm_course import examine, load_digits
from ddpm_course.cli.doctor import read_scores, report
from ddpm_course.config import PRESETS, SamplingConfig, override, to_json
from ddpm_course.data.faces import load_faces
from ddpm_course.data.sets import ASSETS, ImageSet
from ddpm_course.heldout import heldout_loss
from ddpm_course.judge.checks import CHECKS, SURENESS
from ddpm_course.judge.patient import Patient, bytes_per_picture
from ddpm_course.lesson.symptoms import SYMPTOMS
from ddpm_course.losses import OBJECTIVES
from ddpm_course.model import build_model
from ddpm_course.run.checkpoints import read_metrics
from ddpm_course.run.runs import load_run
from ddpm_course.run.training import lr_at
from ddpm_course.schedules import make_schedule
from ddpm_course.simple import Simple
from helpers import ROOT, ddpm, promise, refused

EVERY = CHECKS | SYMPTOMS


def test_early_checks_are_quick_and_need_no_model():
    digits, held_out = load_digits("train", 16), load_digits("test", 16)
    since = time.perf_counter()
    found = examine(Patient(digits, held_out), early=True)
    promise("the early checks, on the digits", time.perf_counter() - since, 1)
    assert {"twins", "labels", "seen before"} <= found.keys() and not any(f.ill for f in found.values())
    assert "memory" not in found and not examine(Patient())


def test_one_held_out_picture_is_too_few_and_warns_of_nothing(recwarn):
    digits, held_out = load_digits("train", 16), load_digits("test", 16)
    one = ImageSet(held_out.pixels[:1], held_out.labels[:1], held_out.classes)
    found = examine(Patient(digits, one, PRESETS["mnist16"]), early=True)
    assert not any(f.ill for f in found.values()) and "too few to tell" in found["flips"].found
    assert not recwarn.list


def test_a_leak_is_found_among_a_million():
    "All pictures are looked at: of a hundred thousand of them, 4 % of the held-out ones seemed to be trained on."
    pixels = np.random.default_rng(0).integers(0, 256, (1_003_000, 1, 4, 4), dtype=np.uint8)
    images, held_out = ImageSet(pixels[:1_000_000], None), ImageSet(pixels[-5000:], None)
    found = examine(Patient(images, held_out), early=True)
    assert found["seen before"].ill and "5,000 held-out pictures: 40.0% are trained on" in str(found["seen before"])
    assert not found["twins"].ill and "1,000,000 pictures" in str(found["twins"])


def test_short_logs_and_few_pictures_warn_of_nothing(recwarn):
    "What numpy and torch say of an empty mean, or of one picture's spread, is for nobody."
    log = [{"loss": 1 / k, "loss_quarters": [1 / k, None, 1 / k, 1 / k]} for k in range(1, 13)]
    config = override(PRESETS["mnist16"], size=8, channels=8, multipliers=(1, 2), classes=tuple("0123456789"))
    digits, model = load_digits("train", 8), build_model(config).eval()
    one = ImageSet(digits.pixels[:1], digits.labels[:1], digits.classes)
    how = SamplingConfig(steps=2, guidance=1)
    found = examine(Patient(digits, one, config, model, log=log, how=how, n=20))
    assert "first" in found["flat loss"].found and "too few to tell" in found["tint"].found
    assert math.isnan(heldout_loss(model, one, Simple())["loss"]["se"]) and not recwarn.list


def test_a_network_that_needs_training_is_not_told_to_sample_otherwise():
    "It leaves noise wherever it is asked; real pictures without any texture show that most."
    flat = np.broadcast_to(np.arange(200, dtype=np.uint8)[:, None, None, None], (200, 1, 8, 8)).copy()
    config = override(PRESETS["mnist16"], size=8, channels=8, multipliers=(1, 2), conditional=False)
    patient = Patient(held_out=ImageSet(flat, None), config=config, model=build_model(config).eval())
    assert not CHECKS["more noise than told"].look(patient).ill


def test_weights_that_are_misread_are_found_without_pictures():
    "The commonest fault of weights from elsewhere: answers in v, taken for the noise. Asked about what it drew itself."
    model, config = load_run(ASSETS / "mnist16")
    told = Patient(config=config, model=model, n=32)
    taken = replace(told, model=replace(model, objective=OBJECTIVES["eps"]))
    assert not examine(told)["reading"].ill
    found = examine(taken)
    assert found["reading"].ill and "trained with objective v" in found["reading"].do
    said = report(taken, found)
    assert "not looked for without pictures (name some with --data): narrow range, blank, grey as colour, twins" in said
    assert "not looked for without a log: log and settings, flat loss" in said and said.endswith(
        f"{len(found)} checks, 1 found"
    )


@pytest.mark.parametrize("content", ["null", '{"samples": []}', '{"samples": {"n": 500}}', '{"samples": 1}', "{"])
def test_damaged_scores_are_one_sentence(tmp_path, content):
    (tmp_path / "test.json").write_text(content)
    with pytest.raises(ValueError, match="test.json is damaged"):
        read_scores(tmp_path / "test.json")


def test_effects_are_listed_under_their_cause():
    "Each finding comes with its number, the limit and the reason for it."
    model, config = load_run(ASSETS / "mnist16")
    short = replace(model, schedule=make_schedule("cosine", 200))
    taken = Patient(None, load_digits("test", 16), config, short, n=32)
    found = examine(taken)
    named = [name for name, finding in found.items() if finding.ill and not finding.follows]
    effects = [name for name, finding in found.items() if finding.follows == "reading"]
    assert named == ["reading"] and effects
    text = report(taken, found)
    assert f"may follow from it: {', '.join(effects)}" in text
    assert f"{found['reading'].value:.3g}, ill above 0.2 (" in text


def test_a_network_with_a_table_of_steps_is_read_at_no_others():
    "An EDM network scales its input by a table of T rows: another T would ask beyond its end."
    model, config = load_run(ASSETS / "mnist16")
    rows = torch.ones(1000)
    tables = replace(model, network=lambda x, t, y: model.network(x * rows[t][:, None, None, None], t, y))
    found = CHECKS["reading"].look(Patient(config=override(config, network="edm"), model=tables, n=20))
    assert not found.ill and found.value < found.limit


# -- what was measured excludes other causes, or the word is not 'certain' ---------------------------------------------


def digits_at(size):
    return load_digits("train", size), load_digits("test", size)


def with_pixels(images, change):
    return ImageSet(change(images.pixels), images.labels, images.classes)


def told(found):
    "The findings that are told: those that follow from no other."
    return [name for name, finding in found.items() if finding.ill and not finding.follows]


def a_log(config, loss=lambda k: 1.0, steps=650):
    "What `ddpm train` would log."
    lines = [
        {"step": step, "lr": lr_at(step - 1, config.training), "grad_norm": 0.1} for step in range(10, steps + 1, 10)
    ]
    return [line | {"loss": loss(k), "loss_quarters": [loss(k)] * 4} for k, line in enumerate(lines)]


def test_a_rate_that_never_rises_is_the_cause_of_a_flat_loss():
    "The word 'certain' stands where a closed form of the settings says it, and nowhere else."
    config = override(PRESETS["mnist16"], warmup=100_000)
    found = examine(Patient(config=config, log=a_log(config)))
    assert told(found) == ["rate"] and found["rate"].sure == "certain" and found["flat loss"].follows == "rate"
    assert "5.2e-05, and --lr 0.008, after 100,000 steps" in found["rate"].found
    plain = examine(Patient(config=PRESETS["mnist16"], log=a_log(PRESETS["mnist16"])))
    assert told(plain) == ["flat loss"] and plain["flat loss"].sure == "cause open"


@pytest.mark.parametrize("name", PRESETS)
def test_no_preset_is_ill_by_its_settings(name):
    assert (
        not told(examine(Patient(config=override(PRESETS[name], classes=tuple("ab"))), early=True)) or name == "mnist32"
    )


@pytest.mark.parametrize("change", [{"weight_decay": 10}, {"clip": 1e-9}, {"dropout": 0.9}, {"batch": 1}], ids=str)
def test_an_extreme_setting_is_named_and_explains_a_flat_loss(change):
    config = override(PRESETS["mnist16"], **change)
    found = examine(Patient(config=config, log=a_log(config)))
    (name,) = change
    assert told(found)[0] == "settings" and found["flat loss"].follows == "settings"
    assert name.replace("_", "-") in found["settings"].found


def test_held_out_pictures_of_another_kind_are_the_cause_of_all_that_they_spoil():
    "The other readings fit them no better in absolute terms; inverted again, they fit."
    model, config = load_run(ASSETS / "mnist16")
    images, held_out = digits_at(16)
    found = examine(Patient(images, with_pixels(held_out, lambda x: 255 - x), config, model, n=20))
    assert told(found) == ["another kind"] and "they fit if inverted" in found["another kind"].found
    assert not found["reading"].ill and "does not fit either" in found["reading"].found


@pytest.mark.parametrize("change", [
    lambda x: 255 - x, lambda x: x // 3 + 100, lambda x: x.swapaxes(2, 3)[..., ::-1].copy(),
    lambda x: np.pad(x[..., ::2, ::2], ((0, 0), (0, 0), (4, 4), (4, 4))),
    lambda x: np.random.default_rng(0).permutation(x.reshape(len(x), -1), 1).reshape(x.shape),
], ids=["inverted", "paler", "turned", "smaller", "other pixels"])  # fmt: skip
def test_pictures_of_another_kind_are_found_without_a_model(change):
    images, held_out = digits_at(16)
    found = examine(Patient(images, with_pixels(held_out, change)), early=True)
    assert told(found) == ["another kind"]


def noise(n, size=16, channels=1, seed=0):
    return ImageSet(np.random.default_rng(seed).integers(0, 256, (n, channels, size, size), dtype=np.uint8), None)


def blobs(n, seed=0):
    "Pictures that are all alike: one round spot somewhere, so that many are nearly another one."
    x, y, wide = np.random.default_rng(seed).uniform([5, 5, 2], [11, 11, 4], (n, 3)).T[:, :, None, None]
    row = np.arange(16)
    spot = np.exp(-((row[:, None] - y) ** 2 + (row - x) ** 2) / 2 / wide**2)
    return ImageSet((255 * spot).astype(np.uint8)[:, None], None)


def halves(images):
    return images[:-400], images[-400:]


WELL = {f"digits {size}": lambda size=size: digits_at(size) for size in (8, 12, 16, 28, 32)}
WELL |= {"faces": lambda: (load_faces("train").images, load_faces("test").images), "noise": lambda: halves(noise(2400)),
         "noise in colour": lambda: halves(noise(2400, 8, 3)), "blobs": lambda: halves(blobs(2400))}  # fmt: skip


@pytest.mark.parametrize("name", WELL)
def test_sets_that_were_divided_at_random_are_well(name):
    found = examine(Patient(*WELL[name]()))
    assert not told(found)
    assert {"another kind", "nearly seen before", "narrow range", "blank"} <= found.keys()


def as_jpeg(pixels):
    def one(picture):
        file = BytesIO()
        Image.fromarray(picture[0]).save(file, "JPEG")
        return np.asarray(Image.open(file))[None]

    return np.stack([one(picture) for picture in pixels])


COPIES = {
    "moved": lambda x: np.roll(x, 1, 3),
    "lighter": lambda x: np.minimum(x, 254) + 1,
    "mirrored": lambda x: x[..., ::-1],
    "of less contrast": lambda x: x // 2 + 60,
    "saved again": as_jpeg,
}


@pytest.mark.parametrize("name", COPIES)
def test_near_copies_of_a_tenth_of_the_held_out_pictures_are_found(name):
    "And nothing else is called a copy; equal ones are 'seen before', which explains that they are nearly so, too."
    images, held_out = digits_at(28)
    images = ImageSet(np.concatenate([images.pixels, COPIES[name](held_out.pixels[::10])]), None)
    found = examine(Patient(images, ImageSet(held_out.pixels, None)))
    assert told(found) == ["nearly seen before"]
    assert "500 held-out pictures: 10.0% are nearly a training picture" in str(found["nearly seen before"])


def test_equal_pictures_explain_near_copies():
    images, held_out = digits_at(16)
    both = ImageSet(np.concatenate([images.pixels, held_out.pixels]), None)
    found = examine(Patient(both, ImageSet(held_out.pixels, None)))
    assert told(found) == ["seen before"] and found["nearly seen before"].follows == "seen before"


@pytest.mark.parametrize("change", [
    lambda x: x // 16, lambda x: x // 128, lambda x: 128 + x // 2, lambda x: x * np.array([1, 1, 0])[:, None, None],
], ids=["16 bits", "scaled to 1", "scaled twice", "no blue"])  # fmt: skip
def test_pictures_with_few_levels_are_found(change):
    "From pixels alone: all pictures are so, thus it is no difference between two sets."
    images, held_out = (load_faces(part).images for part in ("train", "test"))
    found = examine(Patient(*(with_pixels(part, lambda x: change(x).astype(np.uint8)) for part in (images, held_out))))
    assert told(found)[0] == "narrow range" and found["narrow range"].sure == "cause open"


def test_blank_pictures_explain_that_they_are_equal():
    images, held_out = digits_at(16)
    found = examine(
        Patient(with_pixels(images, lambda x: x * (np.arange(len(x)) % 5 > 0)[:, None, None, None])), early=True
    )
    assert told(found) == ["blank"] and found["twins"].follows == "blank"


def test_a_log_that_contradicts_itself_or_its_settings_is_found():
    config, falling = PRESETS["mnist16"], lambda k: 1 / (k + 1)
    log = a_log(config, falling)

    def said(log, config=config, step=650):
        return CHECKS["log and settings"].look(Patient(config=config, log=log, step=step)).found

    assert said(log) == "agree" and said(log[:40], step=500) == "agree"
    assert "the last learning rate is" in said(log, override(config, steps=700))
    assert "the last learning rate is" in said(log[:40], override(config, lr=1e-3), 400)
    assert "a loss lies outside its quarters" in said([*log[:30], log[30] | {"loss": 9.0}, *log[31:]])
    assert "steps go back" in said([*log[20:], *log[:20], log[-1]])
    assert "ends at step 650, the weights are of step 200" in said(log, step=200)


def test_the_log_and_the_weights_that_ship_agree():
    run = ASSETS / "mnist16"
    _, config = load_run(run)
    assert CHECKS["log and settings"].look(Patient(config=config, log=read_metrics(run), step=650)).found == "agree"


@pytest.mark.parametrize("how", ["dpm", "heun", "ddim", "ddpm"])
@pytest.mark.parametrize("schedule", ["cosine", "linear"])
@pytest.mark.parametrize("objective", ["eps", "v", "x0"])
def test_samplers_and_objectives_of_the_package_are_right_where_the_network_is(how, schedule, objective):
    config = override(PRESETS["mnist16"], schedule=schedule, objective=objective, size=8, multipliers=(1, 2))
    found = examine(Patient(config=config, model=build_model(config), how=SamplingConfig(how, guidance=1), n=20),
                    checks={name: CHECKS[name] for name in ("sampler", "objective")})  # fmt: skip
    assert len(found) == 2 and not told(found), [str(finding) for finding in found.values()]


def test_of_answers_that_make_no_sense_no_reading_is_told():
    "One of them is always the best."
    model, config = load_run(ASSETS / "mnist16")
    guess = torch.Generator().manual_seed(0)
    lost = replace(model, network=lambda x, t, y: 3 * torch.randn(x.shape, generator=guess))
    found = CHECKS["reading"].look(Patient(*digits_at(16), config, lost))
    assert not found.ill and "does not fit either" in found.found


def test_wrong_labels_on_one_side_are_told_from_wrong_labels_on_both():
    images, held_out = digits_at(16)
    dice = np.random.default_rng(0)

    def spoiled(part):
        labels = np.where(dice.random(len(part)) < 0.4, dice.integers(0, 10, len(part)), part.labels)
        return ImageSet(part.pixels, labels, part.classes)

    assert told(examine(Patient(spoiled(images), held_out), early=True)) == ["labels differ"]
    assert told(examine(Patient(images, spoiled(held_out)), early=True)) == ["labels differ"]
    assert told(examine(Patient(images, held_out), early=True)) == []


CERTAIN = {"twins", "seen before", "rare class", "rate", "slow average", "objective", "no average", "not finite",
           "guidance untrained", "few samples judged"}  # fmt: skip


def test_certain_is_what_was_counted_or_follows_from_the_settings():
    "Each finding has a word of SURENESS, and 'certain' only where no other cause gives its measurement."
    model, config = load_run(ASSETS / "mnist16", precision="fp32")
    scores = {"features": 64, "n": 100, "guidance": 1.0}
    patient = Patient(*digits_at(16), config, model, model, a_log(config), scores, step=650, updates=650, n=20)
    found = examine(patient, checks=EVERY)
    assert found.keys() == EVERY.keys() and {finding.sure for finding in found.values()} <= SURENESS.keys()
    assert {name for name, finding in found.items() if finding.sure == "certain"} <= CERTAIN
    assert found["no average"].ill and found["no average"].sure == "cause open"  # two equal files, and --ema is not 0


def test_what_was_measured_stands_before_what_is_concluded():
    config = override(PRESETS["mnist16"], warmup=100_000)
    patient = Patient(config=config, log=a_log(config))
    found = examine(patient)
    lines = report(patient, found).splitlines()
    assert lines[0] == "rate" and found["rate"].found in lines[1] and "ill below 0.5" in lines[2]
    assert lines[3] == "    a smaller --warmup, or more --steps (certain)"
    assert lines[4] == "    may follow from it: flat loss"


# -- checks that were wrong once --------------------------------------------------------------------------------------


def test_a_step_that_float16_leaves_out_is_no_spike():
    log = [{"loss": 1.0, "grad_norm": math.inf if k == 20 else 0.1} for k in range(40)]
    assert not CHECKS["spikes"].look(Patient(log=log)).ill
    log[30]["loss"] = 20.0
    assert CHECKS["spikes"].look(Patient(log=log)).ill


def test_an_average_that_begins_with_trained_weights_is_not_slow():
    slow = override(PRESETS["mnist16"], ema=0.9999, ema_warmup=False)
    assert examine(Patient(config=slow))["slow average"].ill
    assert not examine(Patient(config=override(slow, init="runs/mnist16")))["slow average"].ill


def test_a_run_without_a_checkpoint_is_no_folder_of_pictures(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.json").write_text(to_json(PRESETS["mnist16"]))
    (tmp_path / "run/metrics.jsonl").write_text("")
    refused("doctor", "run", cwd=tmp_path, sentence="run holds no run that has a checkpoint")


def test_doctor_names_the_files_of_a_folder(tmp_path):
    "Pairs of equal pictures, what cannot be read, and what is unlike the rest: a handful of each."
    dice = np.random.default_rng(0)
    for k in range(30):
        place = tmp_path / "photos" / ("cats", "dogs")[k % 2]
        place.mkdir(parents=True, exist_ok=True)
        shape = {0: (20, 70, 3), 1: (5, 6, 3), 3: (20, 90, 3)}.get(k, (40, 40 + k % 5, 3))  # two wide, one small
        pixels = dice.integers(0, 256, shape, dtype=np.uint8)
        Image.fromarray(pixels if k != 2 else pixels // 200 + 7).save(place / f"{k:02}.png")
    for k in range(4, 11):
        name = f"photos/{('cats', 'dogs')[k % 2]}/{k:02}.png"
        (tmp_path / f"photos/dogs/again{k}.png").write_bytes((tmp_path / name).read_bytes())
    (tmp_path / "photos/cats/broken.jpg").write_bytes(b"no picture")
    given = ("doctor", "photos", "--out", "found.json")
    out, err, _ = ddpm(*given, cwd=tmp_path, code=2)  # one in 38 is too many to go on
    assert "1 of 38 images cannot be read" in err
    assert out.splitlines() == [
        "equal pictures: cats/04.png = dogs/again4.png, cats/06.png = dogs/again6.png, cats/08.png = dogs/again8.png, "
        "cats/10.png = dogs/again10.png, dogs/05.png = dogs/again5.png and 2 more",
        "cannot be read: cats/broken.jpg",
        "of one colour in the middle square, which is all that is used: cats/02.png",
        "much smaller than most: dogs/01.png (6x5)",
        "much wider or higher than most: dogs/03.png (90x20), cats/00.png (70x20)",
        "",
    ]
    files = json.loads((tmp_path / "found.json").read_text())["files"]
    assert files["unreadable"] == ["cats/broken.jpg"] and ["cats/04.png", "dogs/again4.png"] in files["equal"]
    assert len(files["equal"]) == 7 and files["long"] == ["dogs/03.png", "cats/00.png"] and files["blank"]
    assert files["small"] == ["dogs/01.png"] and files["sizes"]["dogs/01.png"] == [6, 5]
    (tmp_path / "photos/cats/broken.jpg").unlink()
    out, _, _ = ddpm(*given, cwd=tmp_path, code=3)
    assert out.startswith("equal pictures: ") and "cannot be read" not in out and "\n\ntwins\n" in out
    assert "not looked for" not in out  # what belongs to a model
    # seven again, one blank, one small, two wide
    assert out.splitlines()[-1].endswith(" found; 11 files to look at, named above")
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["twins"]["ill"] and found["files"] == files | {"unreadable": []}
    for path in (tmp_path / "photos").rglob("*"):
        if path.is_file() and path.name not in [f"{k:02}.png" for k in range(4, 30)]:
            path.unlink()
    out, _, _ = ddpm("doctor", "photos", cwd=tmp_path, code=3)  # too few, but no file of them is odd
    assert "to look at" not in out and "\n\n" not in out.split("checks")[-1]


def test_memory_of_a_step_is_that_of_the_paper_network():
    "By hand: the first convolution of the paper's U-Net keeps its input, and each block at 32x32 at least four maps."
    config = override(PRESETS["cifar10"], precision="fp32")
    one = bytes_per_picture(build_model(config))
    assert 2 * 2 * 4 * 128 * 32 * 32 * 4 < one < 100 * 2**20


@pytest.mark.thorough
def test_doctor_is_right_about_what_ships(tmp_path):
    out, _, _ = ddpm("doctor", "--out", "found.json", "--n", 20, cwd=tmp_path)
    assert "nothing found" in out
    assert not any(row["ill"] for row in json.loads((tmp_path / "found.json").read_text()).values())
    grainy = "--sampler ddpm --steps 10 --variance large --n 20".split()
    out, _, _ = ddpm("doctor", *grainy, cwd=tmp_path, code=3)
    assert out.startswith("more noise than told\n")


def test_train_warns_before_its_first_step(tmp_path):
    small = "--channels 8 --batch 8 --T 10 --steps 2 --grid-every 0 --threads 1 --augment flip --out run".split()
    out, _, _ = ddpm("train", *small, cwd=tmp_path)
    assert out.splitlines()[1].startswith("doctor: flips: mirrored held-out pictures"), out


RECORD = json.loads((ROOT / "benchmarks/results/clinic.json").read_text())["runs"]
SICK, HEALTHY = ([row for row in RECORD if name in row] for name in ("symptom", "healthy"))


def test_every_fault_was_found_on_three_seeds_and_no_healthy_run():
    "In the kept run of benchmarks/bench_clinic.py; at most one in five findings is another than the fault."
    assert len(SICK) >= 35 and len(HEALTHY) >= 15
    missed = [row["symptom"] for row in SICK if sum(row["expected"] in run["findings"] for run in row["runs"]) != 3]
    assert not missed
    assert not [row for row in HEALTHY if row["runs"][0]["findings"]]
    named = [(row["expected"], name) for row in SICK for run in row["runs"] for name in run["findings"]]
    assert sum(expected != name for expected, name in named) <= len(named) / 5


ALSO = {"trained too long": "copies"}  # where few pictures explain it, it is no finding of its own


@pytest.mark.parametrize("name", EVERY)
def test_a_limit_stands_between_healthy_and_sick_runs(name):
    "By what each check measured on healthy runs, and on those that it should name; else it says so, and is wrong."
    check = EVERY[name]
    rows = [row for row in SICK if name == row["expected"] or row["symptom"] == ALSO.get(name)]
    well, ill = (
        [x for row in some for run in row["runs"] if (x := run["values"].get(name)) is not None]
        for some in (HEALTHY, rows)
    )
    worst, mildest = (min, max) if check.below else (max, min)
    assert ill and (mildest(ill) < check.limit if check.below else mildest(ill) > check.limit)
    if well:
        assert worst(well) >= check.limit if check.below else worst(well) <= check.limit
    if check.why.startswith("healthy"):
        to, since = ("from", "to") if check.below else ("to", "from")
        assert check.why == f"healthy runs {to} {worst(well):.4g}, sick ones {since} {mildest(ill):.4g}"


def test_a_finding_follows_only_from_another_check():
    assert all(cause in EVERY and cause != name for name, check in EVERY.items() for cause in check.after)
