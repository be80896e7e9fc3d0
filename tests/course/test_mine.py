"""The reader's own file: as the solutions leave it, it passes every check, and it learns to draw.

Its lines stand in the solutions' text, lesson by lesson; here they are put together, as a reader would.
"""

import ast
import re
import subprocess
import sys
import time
from functools import cache
from pathlib import Path

import pytest
import torch

from ddpm_course.data.sets import load_digits, to_uint8
from ddpm_course.judge.evaluation import load_judge
from ddpm_course.judge.scores import evaluate_images
from ddpm_course.lesson.mine import NEEDS, PROBES, Mistake, check_mine, examine, load_file
from helpers import ROOT, cells, environment, promise

LESSONS = "02_schedules 03_forward 05_first_ddpm 07_embeddings 08_unet 09_losses 10_first_digits 12_sampling".split()


def definitions(source: str) -> dict[str, str]:
    "The statements of a file by the name that each makes, or by their text."
    lines, found = source.splitlines(), {}
    for node in ast.parse(source).body:
        first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])
        text = "\n".join(lines[first - 1 : node.end_lineno])
        found[getattr(node, "name", text.partition(" = ")[0])] = text
    return found


@cache
def reader_file(last: str) -> str:
    "The file after a lesson: what comes later takes the place of what has the same name; the script ends it."
    parts: dict[str, str] = {}
    for name in LESSONS[: LESSONS.index(last) + 1]:
        for text in cells(ROOT / f"nbs/solutions/{name}_solution.ipynb", "markdown"):
            for block in re.findall(r"For `mine.py`:\n\n```python\n(.*?)\n```", text, re.S):
                parts |= definitions(block)
    script = [key for key in parts if key.startswith("if __name__")]
    return "\n\n\n".join([text for key, text in parts.items() if key not in script] + [parts[key] for key in script])


def checked(name: str) -> list[str]:
    "The probes that a lesson's own check names."
    calls = re.findall(r"^check_mine\(([^)]*)\)", "\n".join(cells(ROOT / f"nbs/{name}.ipynb")), re.M)
    assert len(calls) == 1, f"{name} has {len(calls)} checks of the file"
    return re.findall(r"'(\w+)'", calls[0])


def module(tmp_path, source: str):
    (tmp_path / "mine.py").write_text(source)
    return load_file(tmp_path / "mine.py")


@pytest.mark.parametrize("name", LESSONS)
def test_lesson_accepts_the_file_as_it_is_then(name, tmp_path):
    m = module(tmp_path, reader_file(name))
    for probe in checked(name):
        assert all(hasattr(m, need) for need in NEEDS[probe]), (probe, NEEDS[probe])
        PROBES[probe](m)


def resumable(old: str = "", new: str = "") -> str:
    "The whole file with the `train` of 13a's solution, which goes on after a kill; one line of that changed."
    solution = "\n".join(cells(ROOT / "nbs/solutions/13a_blank_page_solution.ipynb", "markdown"))
    (block,) = re.findall(r"In place of `train`:\n\n```python\n(.*?)\n```", solution, re.S)
    assert old in block
    return "\n\n".join(definitions(reader_file("12_sampling") + "\n\n" + block.replace(old, new, 1)).values())


def test_all_probes_accept_the_whole_file(tmp_path):
    (tmp_path / "mine.py").write_text(resumable())
    found = examine(list(PROBES), tmp_path / "mine.py", 600)
    assert [name for name, state, _ in found] == list(PROBES)
    assert [finding for finding in found if finding[1] != "right"] == []


WRONG = [  # a line, what stands in its place, the probe that finds it, and a part of its hint
    ("(1 - betas).cumprod(0)", "(1 - betas)", "schedule", "in the middle of the chain"),
    ("torch.arange(T + 1, dtype", "torch.arange(T, dtype", "schedule", "has the shape (999,)"),
    ("return abar.sqrt(), (1 - abar).sqrt()", "return abar, 1 - abar", "jump", "alpha-bar itself"),
    ("ABARS[t].view(-1, 1, 1, 1)", "ABARS[t]", "jump", "treated differently"),
    ("signal * eps - sigma * x0", "sigma * x0 - signal * eps", "question", "opposite sign"),
    ("angles = t[:, None] * frequencies", "angles = t[:, None] / T * frequencies", "embedding", "nearly the same"),
    ("angles.cos()], dim=1)", "angles.sin()], dim=1)", "embedding", "add up to 32"),
    ("randint(T, (len(x0),))", "randint(T, (1,)).expand(len(x0))", "times", "the same t"),
    ("randint(T, (len(x0),))", "randint(1, T, (len(x0),))", "times", "drawn from 1 to 999"),
    ("t, y), velocity(x0, t, eps))", "t, y), eps)", "objective", "with the noise, not with v"),
    ("t, y), velocity(x0, t, eps))", "t, y), -velocity(x0, t, eps))", "objective", "the opposite sign"),
    ("torch.randn_like(x0)\n", "torch.rand_like(x0)\n", "objective", "has the variance"),
    ("torch.rand(len(y)) < 0.1", "torch.rand(len(y)) < 0", "labels", "no label is ever dropped"),
    ("torch.rand(len(y)) < 0.1", "torch.rand(1) < 0.1", "labels", "all labels of a batch"),
    ("NULL = 10", "NULL = 0", "labels", "NULL is 0"),
    ("nn.Embedding(11, dim)", "nn.Embedding(10, dim)", "network", "out of range"),
    ("embed(t, 64)", "embed(0 * t, 64)", "network", "does not depend on t"),
    ("+ self.label(y))", "+ 0 * self.label(y))", "network", "does not depend on the label"),
    ("(h, scale_factor=2), h1]", "(h, scale_factor=2)] * 2", "skips", "at 16x16 does not reach"),
    ("(h, scale_factor=2), h2]", "(h, scale_factor=2)] * 2", "skips", "at 8x8 does not reach"),
    ("/ 127.5 - 1", "/ 255", "data", "from 0 to 1"),
    ("labels[rows])", "labels[rows.flip(0)])", "data", "the labels of others"),
    ("optimizer.zero_grad()", "pass", "gradient", "earlier steps"),
    ("optimizer.step()", "pass", "gradient", "do not change"),
    ("return average", "return net", "average", "nothing but the last step"),
    ("min(0.99, (1 + step) / (10 + step))", "0.9999", "average", "of the way"),
    ("lerp_(weight, 1 - decay)", "lerp_(weight, decay)", "average", "the last step"),
    ("torch.full_like(y, index)", "torch.full_like(y, index * steps // T)", "walk", "the times [9, 8, 7]"),
    ("range(steps, 0, -1)]", "range(1, steps + 1)]", "walk", "begins at index 99"),
    ("(beta * (1 - next_abar) / (1 - abar)).sqrt()", "beta * (1 - next_abar) / (1 - abar)", "walk", "and spread"),
    ("1 - abar / next_abar\n", "1 - abar\n", "walk", "at index"),
    ("1 - abar / next_abar\n", "1 - abar / ABARS[index - 1]\n", "walk", "at index"),
    ("x = mean + spread * torch.randn_like(x)", "x = mean", "walk", "spread 0.00"),
    ("(beta * (1 - next_abar) / (1 - abar)).sqrt()", "beta.sqrt()", "ending", "has noise of"),
    (".clamp(-1, 1)", "", "clip", "a pixel of 3.0"),
    ("    return x\n\n\nif", "    return x.clamp(-1, 1)\n\n\nif", "clip", ""),  # with the next one: clipped too late
    ("net.eval()", "net.train()", "mode", "in train mode"),
    ("uncond + guidance * (cond - uncond)", "cond + guidance * (uncond - cond)", "guidance", "away from the class"),
    ("uncond + guidance * (cond - uncond)", "cond", "guidance", "the same as guidance 1"),
    ("uncond + guidance * (cond - uncond)", "uncond", "guidance", "has no effect"),
]
LATE = WRONG.pop(35)


def test_outside_a_page_a_finding_is_plain_text(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    check_mine("jump")
    Path("mine.py").write_text("T = 1000\ndef alpha_bars(T):\n    return None\n")
    check_mine("jump")
    there_is_none, one_name_is_missing = capsys.readouterr().out.splitlines()
    assert there_is_none == "waiting: no answer yet: there is no mine.py in this folder."
    assert one_name_is_missing == "waiting: no answer yet: mine.py has no q_sample."


@pytest.mark.parametrize("old, new, probe, words", WRONG)
def test_one_wrong_line_is_named(old, new, probe, words, tmp_path):
    right = reader_file("10_first_digits")
    assert right.count(old) == 1
    m = module(tmp_path, right.replace(old, new))
    with pytest.raises(Mistake) as mistake:
        PROBES[probe](m)
    nudge, idea, line = mistake.value.args
    assert words in nudge and idea and line, nudge


def test_walk_accepts_both_variances_of_the_paper(tmp_path):
    "With sigma^2 = beta the spread is above that of the forward process, by a known amount."
    right, line = reader_file("10_first_digits"), "(beta * (1 - next_abar) / (1 - abar)).sqrt()"
    assert right.count(line) == 1
    m = module(tmp_path, right.replace(line, "beta.sqrt() * (after >= 0)"))
    for probe in ("walk", "ending", "clip", "mode", "guidance"):
        PROBES[probe](m)


def test_skips_may_be_added_too_and_a_network_without_levels_needs_none(tmp_path):
    class Flat(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = torch.nn.Conv2d(1, 1, 3, padding=1)

        def forward(self, x, t, y):
            return self.conv(x)

    added = "torch.cat([F.interpolate(h, scale_factor=2) + h2] * 2, dim=1)"
    old = "torch.cat([F.interpolate(h, scale_factor=2), h2], dim=1)"
    m = module(tmp_path, reader_file("10_first_digits").replace(old, added))
    PROBES["skips"](m)
    m.UNet = Flat
    PROBES["skips"](m)


def test_a_clip_that_comes_too_late_is_named(tmp_path):
    m = module(tmp_path, reader_file("10_first_digits").replace(".clamp(-1, 1)", "").replace(*LATE[:2]))
    with pytest.raises(Mistake, match="at index"):
        PROBES["clip"](m)


def test_noise_from_before_the_clip_is_named(tmp_path):
    right = reader_file("12_sampling")
    assert right.count("(x - abar.sqrt() * x0) / (1 - abar).sqrt()") == 1
    line = "(x - abar.sqrt() * to_x0(x, t, uncond + guidance * (cond - uncond))) / (1 - abar).sqrt()"
    m = module(tmp_path, right.replace("(x - abar.sqrt() * x0) / (1 - abar).sqrt()", line))
    with pytest.raises(Mistake, match="at index"):
        PROBES["ddim"](m)


@pytest.mark.parametrize(
    "old, new, words",
    [
        ("        torch.set_rng_state(kept['random'])\n", "", "other weights"),
        ("        optimizer.load_state_dict(kept['optimizer'])\n", "", "other weights"),
        ("range(begin, steps)", "range(steps)", "begins again"),
    ],
)
def test_a_training_that_does_not_go_on_is_named(old, new, words, tmp_path):
    m = module(tmp_path, resumable(old, new))
    with pytest.raises(Mistake, match=words):
        PROBES["resume"](m)


def test_page_10_shows_the_file_of_the_solutions():
    file = definitions(reader_file("10_first_digits"))
    page = "\n\n".join(re.sub(r"^#\|.*\n", "", cell) for cell in cells(ROOT / "nbs/10_first_digits.ipynb"))
    shown, text = definitions(page), "\n".join(cells(ROOT / "nbs/10_first_digits.ipynb", "markdown"))
    assert [name for name, part in file.items() if shown.get(name) != part and part not in text] == []


def test_whole_file_beside_the_solutions_is_that_of_page_10():
    whole = definitions((ROOT / "nbs/solutions/first_digits.py").read_text())
    assert whole.pop('"""The file of page 10 in one piece: run it in any folder, or compare it with your own."""')
    assert whole == definitions(reader_file("10_first_digits"))


def test_file_is_short_and_leans_on_the_digits_only():
    source = reader_file("12_sampling")
    assert len([line for line in source.splitlines() if line.strip()]) <= 130
    assert re.findall(r"^.*\bddpm_course\b.*$", source, re.M) == ["from ddpm_course.data.sets import load_digits"]


@pytest.mark.nightly
def test_file_learns_to_draw(tmp_path):
    "Trained as a reader trains it, it draws the class that was asked for, with spread, and copies nothing."
    (tmp_path / "mine.py").write_text(reader_file("12_sampling"))
    began = time.perf_counter()
    subprocess.run([sys.executable, "mine.py"], cwd=tmp_path, env=environment(), check=True)
    promise("the reader's file, trained", time.perf_counter() - began, 120)
    assert (tmp_path / "mine.png").stat().st_size > 1000
    m, y = load_file(tmp_path / "mine.py"), torch.arange(10).repeat(30)
    net = m.UNet()
    net.load_state_dict(torch.load(tmp_path / "mine.pt", weights_only=True))
    torch.manual_seed(0)
    images = to_uint8(m.sample(net, y))
    found = evaluate_images(images, y, (load_digits("train", 16), load_digits("test", 16)), load_judge())
    assert found.accuracy >= 0.95 and found.nearest > 0.5 * found.nearest_held_out, found
