"What all tests share beside helpers.py, whose failed assertions are explained like those of the tests."

import pytest

pytest.register_assert_rewrite("helpers")

import helpers  # noqa: E402


@pytest.fixture
def refuses(capsys, monkeypatch, tmp_path):
    """Call as `refuses(*words, sentence=..., cwd=...)`: `ddpm WORDS` ends with code 2 and one line with these words.

    It is called in this process, a hundred times as quickly as in a fresh one.
    """
    import torch

    from ddpm_course.cli import main

    def call(*words, sentence, cwd=tmp_path):
        monkeypatch.chdir(cwd)
        threads = torch.get_num_threads()
        capsys.readouterr()
        try:
            with pytest.raises(SystemExit) as stop:
                main([str(word) for word in words])
        finally:
            torch.set_num_threads(threads)
        out, err = capsys.readouterr()
        assert stop.value.code == 2, out + err
        helpers.one_sentence(err, sentence)

    return call


def pytest_terminal_summary(terminalreporter):
    "What took how long, beside what is promised."
    if helpers.PROMISES:
        terminalreporter.section("seconds, and what is promised")
        for line in helpers.PROMISES:
            terminalreporter.write_line(line)
