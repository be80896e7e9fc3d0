"From words to values: what a flag reads, and what `--set` gives to an entry."

from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from ddpm_course.base.registry import look_up
from ddpm_course.cli import compare, doctor, test, train
from ddpm_course.cli.flags import given_fields, read, read_settings
from ddpm_course.cli.main import make_parser
from ddpm_course.cli.sample import Request, chosen_classes
from ddpm_course.config import PRESETS, RunConfig, SamplingConfig, override
from ddpm_course.data.sources import DATA
from ddpm_course.schedules import SCHEDULES, make_schedule
from helpers import colour_folder

PARSER = make_parser("sample")


def entry(x, *, flag=True, widths=(1, 2), names=(), power=2, share=0.5, word="a"):
    return flag, widths, names, power, share, word


@pytest.mark.parametrize(
    "own, expected",
    [
        *((f"flag={text}", {"flag": False}) for text in ("False", "0", "no")),
        *((f"flag={text}", {"flag": True}) for text in ("true", "1", "YES")),
        ("widths=3,4", {"widths": (3, 4)}),
        ("widths=", {"widths": ()}),
        ("names=a,b", {"names": ("a", "b")}),
        ("power=10", {"power": 10}),
        ("share=1", {"share": 1.0}),
        ("word=a=b", {"word": "a=b"}),
    ],
)
def test_settings_of_an_entry_have_the_type_of_their_default(own, expected):
    found = look_up("thing", {"entry": entry}, "entry", (own,)).keywords
    assert found == expected and all(type(found[name]) is type(value) for name, value in expected.items())


@pytest.mark.parametrize("own", ["flag=maybe", "widths=3,x", "power=1.5"])
def test_settings_of_another_type_are_refused(own):
    with pytest.raises(ValueError, match=f"{own.partition('=')[0]} of the thing entry must be of type"):
        look_up("thing", {"entry": entry}, "entry", (own,))


def test_the_last_of_two_values_holds_and_the_order_of_names_is_no_setting():
    given = lambda *words: given_fields(PARSER.parse_args(["sample", *words]), SamplingConfig())
    set_ = lambda *texts: [f"--set={text}" for text in texts]
    assert given(*set_("power=9", "flag=no", "power=10"))["own"] == ("flag=no", "power=10")
    assert given(*set_("flag=no", "power=10")) == given(*set_("power=10", "flag=no"))
    assert given() == {} and given("--no-clip", "--seed", "3") == {"clip": False, "seed": 3}


def test_betas_in_place_of_a_schedule(monkeypatch):
    monkeypatch.setitem(SCHEDULES, "mine", lambda T: torch.linspace(1e-4, 0.02, T))
    with pytest.raises(ValueError, match=r"the schedule mine gives no Schedule: expected Schedule\(betas\)"):
        make_schedule("mine", 30)


def test_classes_are_chosen_by_name_or_number():
    model = SimpleNamespace(classes=("cat", " dog", "one"))
    assert chosen_classes("dog, cat", model) == [1, 0] and chosen_classes("0,2", model) == [0, 2]
    assert chosen_classes(None, model) == [0, 1, 2] and len(chosen_classes(None, SimpleNamespace(classes=()))) == 10
    for classes, known in ((model.classes, "cat, dog,one"), ((), "none")):
        with pytest.raises(ValueError, match=f"no class is called 10: expected some of {known}"):
            chosen_classes("10", SimpleNamespace(classes=classes))


def test_a_class_called_by_a_number_is_no_index():
    "Where one is, names alone count: 2 is no class here, though there is a third one."
    model = SimpleNamespace(classes=("1", "3", "7"))
    assert chosen_classes("7,1", model) == [2, 0]
    for index in ("0", "2"):
        with pytest.raises(ValueError, match=f"no class is called {index}: expected some of 1,3,7"):
            chosen_classes(index, model)
    assert chosen_classes("1", SimpleNamespace(classes=("2", "1", "one"))) == [1]


def test_settings_are_the_preset_with_the_flags_laid_over():
    settings = lambda line: read_settings(make_parser("train").parse_args(["train", *line.split()]))
    changed = settings("--preset cifar10 --steps 10 --attention 16,8 --augment none --lr 1e-3")
    assert settings("") == PRESETS["mnist16"] == RunConfig()  # the preset says what the defaults are
    assert changed == override(PRESETS["cifar10"], steps=10, attention=(16, 8), augment="none", lr=1e-3)


def test_a_folder_of_colour_gets_a_preset_and_its_own_name(tmp_path, monkeypatch):
    "Where none is named: three channels and thousands of steps. Grey folders and names keep the usual one."
    colour_folder(tmp_path / "photos")
    colour_folder(tmp_path / "mnist5k")  # called as a set that ships
    (tmp_path / "scans").mkdir()
    for k in range(3):
        Image.new("RGB", (20, 20), (k, k, k)).save(tmp_path / f"scans/{k}.png")
    monkeypatch.chdir(tmp_path)

    def made(line):
        request = read(make_parser("train").parse_args(["train", *line.split()]), train.Request)
        return str(request.folder), request.config

    name, config = made("--data photos --size 8")
    colour = PRESETS[config.preset]
    assert name == "runs/photos" and config == override(colour, data="photos", size=8)
    assert colour.data.image_channels == 3 and colour.data.size == 16 and colour.training.steps >= 3000
    usual = override(PRESETS["mnist16"], data="photos")
    assert made("--data photos --preset mnist16") == ("runs/photos", usual)
    assert made("--data photos --image-channels 1") == ("runs/photos", override(usual, image_channels=1))
    assert made("--data photos --preset photos64")[0] == "runs/photos64"  # that it is for
    assert made("--data scans --preset photos64")[0] == "runs/photos64-scans"
    assert made("--data scans") == ("runs/scans", override(usual, data="scans"))
    assert made("--data mnist5k:") == ("runs/mnist16", PRESETS["mnist16"])
    assert made("--data ./mnist5k")[0] == "runs/mnist5k"
    assert made("--data nowhere")[0] == "runs/nowhere"


@pytest.mark.parametrize("name", DATA)
def test_a_name_of_a_set_and_of_a_folder_is_asked_back(name, tmp_path, monkeypatch):
    "Wherever pictures are named in a command; not for a preset or a run, nor where the folder is a run."
    monkeypatch.chdir(tmp_path)
    commands = {"train": train, "test": test, "compare": compare, "doctor": doctor}

    def made(command, *words):
        return read(make_parser(command).parse_args([command, *words]), commands[command].Request)

    assert made("train", "--data", name).config.data.data == name  # no folder is called so
    colour_folder(tmp_path / name)
    words = {"train": ["--data"], "test": ["--data"], "compare": ["a", "b", "--data"], "doctor": []}
    for command, before in words.items():
        with pytest.raises(ValueError, match=f"write {name}: for the data set, or ./{name} for the folder"):
            made(command, *before, name)
    assert made("train", "--data", f"{name}:").config.data.data == name
    assert made("train", "--data", f"./{name}").config.data.data == f"./{name}"
    assert made("test", "--data", f"{name}:").data == name and made("doctor", f"./{name}").thing == f"./{name}"
    assert made("train", "--preset", "faces16").config.data.data == "faces"
    (tmp_path / name / ".lock").touch()  # a run that begins: its own line goes on with it
    assert made("train", "--data", name, "--out", name).config.data.data == name


def test_a_request_is_what_the_flags_gave():
    words = "sample run --n 3 --out A.PNG --to-seed 4 --set power=1 --no-clip"
    request = read(PARSER.parse_args(words.split()), Request)
    assert (request.source.run, request.n, request.out, request.beginning.to_seed) == ("run", 3, "A.PNG", 4)
    assert request.how == SamplingConfig(clip=False, own=("power=1",)) and request.npz is None
