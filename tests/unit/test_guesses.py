"Guesses: an answer waits for one in a notebook, and stands in a page that nobody can answer."

import json

import pytest

from ddpm_course.lesson import tools
from ddpm_course.lesson.tools import guess_field, predict, reveal


@pytest.fixture
def page(monkeypatch, tmp_path):
    "What stands on a page, by its key; the working folder is where guesses are kept."
    shown = {}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tools, "TRUTHS", {})
    monkeypatch.setattr(tools, "in_kernel", lambda: True)
    monkeypatch.setattr("IPython.display.display", lambda what, **how: shown.update({how.get("display_id"): what}))
    monkeypatch.setattr("IPython.display.update_display", lambda what, display_id: shown.update({display_id: what}))
    return shown


def show(sentence) -> str:
    if isinstance(sentence, tools.Replaceable):
        sentence._ipython_display_()
    return repr(sentence)


def test_an_answer_waits_for_a_guess_or_a_second_run(page):
    assert show(reveal("step", 260)) == "waiting: no guess yet: type one, or run this cell again to see (step)"
    assert show(reveal("step", 260)) == "answer: 260 (step); no guess"


def test_typing_a_guess_updates_question_answer_and_record(page, tmp_path):
    show(reveal("step", 260))
    field = guess_field("step")
    field.value = "about 400"
    assert not (tmp_path / ".guesses.json").exists() and field.description == "a number:"
    field.value = "400"
    assert repr(page["guess: step"]) == "noted: 400 (step)"
    assert repr(page["answer: step"]) == "answer: 260 (step); you said 400: 54 % too high"
    assert json.loads((tmp_path / ".guesses.json").read_text()) == {"step": {"guess": 400, "truth": 260}}


def test_a_kept_guess_is_shown_after_a_restart(page, monkeypatch):
    tools.keep_guess("step", 400, tools.GUESSES)
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda what, **how: shown.append(repr(what)))
    predict("step")
    assert shown[0] == "noted: 400 (step)"


def test_a_stored_page_has_the_answer(page, monkeypatch):
    monkeypatch.setattr(tools, "in_kernel", lambda: False)
    assert show(reveal("step", 260)) == "answer: 260 (step); no guess"
