"What a command must not lose, overwrite or leave undone, whoever made its folder and whatever happens on the way."

import shutil
import subprocess
import sys

import numpy as np
import pytest
from bench import NEWEST, SAMPLE, TINY, TRAIN, photos

from ddpm_course.cli.main import warn_shortly
from ddpm_course.cli.terminal import printable
from ddpm_course.run.checkpoints import newest_checkpoint
from ddpm_course.unet import UNet
from helpers import contents, ddpm, environment, fresh, one_sentence, warm

NO_WORK = """
from ddpm_course import sampling
from ddpm_course.cli import genseq, test, topology
def never(*args, **kwargs):
    raise AssertionError('the work began, and its result cannot be kept')
sampling.sample = genseq.sequence = test.heldout_loss = topology.draw_all = never
"""  # what is refused must be refused before it draws


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    "A folder with photos and a finished run on them."
    folder = tmp_path_factory.mktemp("good")
    photos(folder / "photos")
    ddpm(*TRAIN, 4, cwd=folder)
    return folder


@pytest.fixture
def here(good, tmp_path):
    shutil.copytree(good, tmp_path / "here")
    return tmp_path / "here"


# -- results -----------------------------------------------------------------------------------------------------------

TRAINS = " ".join(map(str, [*TRAIN, 8, "--grid-every", 6]))
RESULTS = {  # command: what it writes into a run
    "sample run --n 1 --steps 1": "drawn.png",
    "genseq run --n 1 --steps 1": "denoising.gif denoising_strip.png",
    "test run --bpd": "test.json bits.png",
    TRAINS: "samples/step_00000006.png samples.png loss.png denoising.gif denoising_strip.png",
    "topology run": "topology/diagram.png topology/diffusion.svg",
}


@pytest.mark.parametrize(
    "words", [pytest.param(w, marks=[pytest.mark.thorough] * (w == "topology run")) for w in RESULTS]
)
def test_links_in_a_strangers_run_make_room(here, words):
    "Each result of a command has a link at its place, to a file of mine: that one stays as it is."
    (here / "mine.txt").write_text("precious")
    paths = [here / "run" / name for name in RESULTS[words].split()]
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        path.unlink(missing_ok=True)
        path.symlink_to(here / "mine.txt")
    ddpm(*words.split(), cwd=here)
    assert (here / "mine.txt").read_text() == "precious"
    assert all(path.is_file() and not path.is_symlink() and path.stat().st_size > 100 for path in paths)


# A folder or file of a run: the commands that would read, write or delete through a link in its place.
LINKS = {
    "checkpoints": ["sample run", "test run", "doctor run", TRAINS],
    "checkpoints/step_00000004": [TRAINS],
    "checkpoints/step_00000002/model.safetensors": [TRAINS],
    "config.json": [TRAINS],
    "metrics.jsonl": [TRAINS],
    "logs": [TRAINS],
    "samples": [TRAINS],
    "topology": ["topology run"],
    "tensorboard": [f"{TRAINS} --log tensorboard"],
}


@pytest.mark.parametrize("name, words", [(name, words) for name in LINKS for words in LINKS[name]])
def test_links_in_place_of_a_runs_own_files_are_refused(here, refuses, name, words):
    "They lead into another run, which stays as it is; and so does this one."
    other = shutil.copytree(here / "run", here / "other")
    (other / "logs").mkdir()
    path = here / "run" / name
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    path.symlink_to(other / name)
    before = contents(here)
    refuses(*words.split(), *["--keep", 1] * ("train" in words), cwd=here, sentence=f"run/{name} is a link to ")
    assert contents(here) == before


def test_a_link_to_a_whole_run_is_as_good_as_the_run(here):
    (here / "run").rename(here / "elsewhere")
    (here / "run").symlink_to("elsewhere")
    ddpm(*TRAIN, 5, cwd=here)
    assert newest_checkpoint(here / "elsewhere").name == "step_00000005"


def test_earlier_pictures_are_not_mixed_with_new_ones(here, refuses):
    draw = ["sample", "run", "--steps", 1, "--images", "pngs"]
    ddpm(*draw, "--n", 2, cwd=here)
    ddpm(*draw, "--n", 2, "--seed", 1, cwd=here)  # the same names
    refuses(*draw, "--n", 1, cwd=here, sentence="pngs holds other pictures, such as pngs/")
    assert len(list(here.glob("pngs/*/*.png"))) == 4


def test_published_weights_in_place_of_a_run(here, refuses):
    ddpm("export", "run", "out", cwd=here)
    refuses("sample", "out", cwd=here, sentence="out holds published weights: name them with --weights")


@pytest.mark.parametrize(
    "words, needed",
    [
        ("sample run --from photos/cats/00.png --out photos/cats/00.png", "photos/cats/00.png"),
        ("sample run --from photos/cats/00.png --mask m.png --out ./photos/../m.png", "m.png"),
        ("test run --out run/config.json", "run/config.json"),
        (f"test run --out {NEWEST}/meta.json", "meta.json"),
        ("sample run --npz folder.npz", "folder.npz"),
        ("genseq run --out a.gif", "a_strip.png"),
    ],
)
def test_results_replace_nothing_that_is_needed(here, refuses, monkeypatch, words, needed):
    shutil.copy(here / "photos/cats/01.png", here / "m.png")
    for name in ("folder.npz", "a_strip.png"):
        (here / name).mkdir()
    before = contents(here)
    monkeypatch.setattr(UNet, "forward", lambda *given: pytest.fail("the network was called"))
    refuses(*words.split(), cwd=here, sentence=f"{needed} may not be written: name another file")
    assert contents(here) == before


@pytest.mark.parametrize("words", ["train --data faces", "test run --data faces", "doctor faces"])
def test_a_folder_called_as_a_set_is_not_passed_over(here, refuses, words):
    photos(here / "faces")
    before = contents(here)
    refuses(*words.split(), cwd=here, sentence="write faces: for the data set, or ./faces for the folder")
    assert contents(here) == before


def test_a_run_on_a_set_goes_on_beside_a_folder_of_its_name(here):
    words = ["train", "--data", "faces", "--out", "faces", *TINY]
    ddpm(*words, "--steps", 2, cwd=here)  # the run itself is the folder
    ddpm(*words, "--steps", 4, cwd=here)
    photos(here / "mnist5k")
    ddpm("train", "--data", "mnist5k:", "--out", "new", *TINY, "--steps", 2, cwd=here)
    out, _, _ = ddpm("test", "new", cwd=here)
    assert "500 test images" in out


LOCKED = {
    "sample run --out locked/s.png": "locked/s.png",
    "sample run --out s.png --images locked/pngs": "locked/pngs",
    "sample run --out kept.png": "kept.png",
    "topology --out locked/t": "locked/t",
}


@pytest.mark.parametrize(
    "words", [list(LOCKED)[0], *(pytest.param(w, marks=pytest.mark.thorough) for w in list(LOCKED)[1:])]
)
def test_results_that_cannot_be_written(here, words):
    "A place that this user may not write to is refused before the work."
    (here / "locked").mkdir(0o555)
    (here / "kept.png").touch(0o444)
    done = warm().run(words.split(), here, plain=True, code=NO_WORK)
    assert done.code == 2, done
    one_sentence(done.err, LOCKED[words])


# -- ways to end -------------------------------------------------------------------------------------------------------


def test_stopped_while_the_last_pictures_are_drawn(here):
    "Obeyed after the part that is drawn; the same line makes what is missing."
    code = """
import os
from ddpm_course.cli import train
drawing = train.sequence
def interrupted(*given, **more):
    os.kill(os.getpid(), 15)
    return drawing(*given, **more)
train.sequence = interrupted
train.heldout_loss = lambda *given, **more: 1 / 0
"""
    (here / "run/loss.png").unlink()
    words = [*map(str, TRAIN), "6"]
    done = warm().run(words, here, code=code)
    assert done.code == 143 and not (here / "run/loss.png").exists(), done
    assert f"stopped and saved step_00000006; go on with:  ddpm {' '.join(words)}\n" in done.out
    assert "continuing run from step_00000006" in ddpm(*words, cwd=here)[0]
    assert (here / "run/loss.png").exists()


STREAMS = [(stream, how) for stream in ("stdout", "stderr") for how in ("closed", "full", "gone", "ascii")]


@pytest.mark.thorough
@pytest.mark.parametrize("stream, how", STREAMS)
def test_streams(here, stream, how):
    "Closed, full and unread streams, ASCII: the work is done and kept, whoever listens."
    for words, code in (([*TRAIN, 6], 0), (SAMPLE, 0), (["sample", "x"], 2)):
        done = warm().run(words, here, **{stream: how})
        assert done.code == code and not set(("Traceback", "Exception")) & set(done.err.split()), done
    assert {"loss.png", "drawn.png"} <= {path.name for path in (here / "run").iterdir()}


def test_run_without_an_error_stream(here):
    "Closed before the first import, in a process of its own: whatever is opened next takes its number."
    command = ["sh", "-c", 'exec "$@" 2>&-', "sh", sys.executable, "-m", "ddpm_course", *map(str, TRAIN), "6"]
    assert subprocess.run(command, cwd=here, env=environment()).returncode == 0
    assert newest_checkpoint(here / "run").name == "step_00000006" and (here / "run/loss.png").exists()


# -- what is around a command ------------------------------------------------------------------------------------------


@pytest.mark.thorough
def test_processes_run_no_code_from_the_folder(tmp_path):
    (tmp_path / "torch.py").write_text("raise SystemExit('code from the current folder was run')\n")
    program = "import sys; sys.path.remove(''); from ddpm_course.cli.main import main; main(sys.argv[1:])"
    command = [sys.executable, "-c", program, *"sample --nproc 2 --n 1 --steps 2".split()]
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout == "wrote samples.png\n", done.stderr


def test_figures_need_no_display(here, monkeypatch):
    "A backend that there is not, from the environment and a file in the current folder."
    monkeypatch.setenv("MPLBACKEND", "foo")
    (here / "matplotlibrc").write_text("backend: module://nowhere\n")
    fresh("test", "run", "--bpd", cwd=here)
    assert (here / "run/bits.png").stat().st_size > 1000


def test_names_of_strangers_reach_the_terminal_as_text(tmp_path):
    "A class that would set a terminal's title and clear its screen."
    wild = "\x1b]0;title\x07\x1b[2Jcats"
    photos(tmp_path / "photos", (wild, "dogs"))
    ddpm(*TRAIN, 1, cwd=tmp_path)
    _, err, _ = ddpm(*SAMPLE, "--classes", "zz", cwd=tmp_path, code=2)
    one_sentence(err, "expected some of \\x1b]0;title\\x07\\x1b[2Jcats,dogs")
    assert printable(wild) in err and "\x1b" not in err and "\x07" not in err
    out, _, _ = ddpm(*SAMPLE, "--classes", wild, "--images", "pngs", cwd=tmp_path)
    assert out == "wrote run/drawn.png pngs\n"


def test_only_warnings_of_this_package_reach_the_terminal(capsys):
    import warnings

    ours = {"__name__": "ddpm_course.run.runs", "warnings": warnings}
    with warnings.catch_warnings():
        warn_shortly()
        np.mean(np.array([]))
        exec("warnings.warn('std(): degrees of freedom is <= 0. (Triggered internally at ReduceOps.cpp)')", ours)
        exec("warnings.warn('one sentence')", ours)
    assert capsys.readouterr().err == "ddpm: one sentence\n"
