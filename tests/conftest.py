"What all tests share beside helpers.py, whose failed assertions are explained like those of the tests."

import os
import signal

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores Ctrl-C in what it starts with &
os.environ.setdefault("OMP_NUM_THREADS", "1")  # before PyTorch comes in: two tests run at a time,
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # and threads that wait keep no core from the other

import pytest  # noqa: E402

pytest.register_assert_rewrite("helpers")

import helpers  # noqa: E402


@pytest.fixture
def refuses(capsys, monkeypatch, tmp_path):
    """Call as `refuses(*words, sentence=..., cwd=...)`: `ddpm WORDS` ends with code 2 and one line with these words.

    It is called in this process, a hundred times as quickly as in a fresh one.
    """
    import torch

    from ddpm_course.cli.main import main

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


def pytest_xdist_make_scheduler(config, log):
    "Each file belongs to one process, but for pages: they take minutes, and each stands for itself."
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            return nodeid if "::test_page_comes_again[" in nodeid else nodeid.partition("::")[0]

    return Scheduling(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport():
    "What was promised in a test travels in its report, from the process that ran it."
    report = yield
    report.user_properties += [("promise", line) for line in helpers.PROMISES]
    helpers.PROMISES.clear()
    return report


TIERS = {
    "not thorough and not nightly": "what each part promises, three pages and those that are touched. Left out: most "
    "pages, faults and processes, the model that ships, and what needs a browser: -m 'not nightly'",
    "not nightly": "all but what is for the night (-m nightly): pages that take half a minute, with their solutions, "
    "the default run, the reader's file, compiled networks, elastic groups, explorers in JupyterLab, each page of "
    "the site; mypy, the oldest versions that settings.ini allows, README's first line (.github/workflows/tests.yml)",
}


def pytest_terminal_summary(terminalreporter, config):
    "What took how long, beside what is promised; what was run, and what was left out."
    reports = [r for kind in ("passed", "failed") for r in terminalreporter.stats.get(kind, ())]
    for line in dict.fromkeys(line for report in reports for _, line in report.user_properties):
        terminalreporter.write_line(line)
    if tier := TIERS.get(config.option.markexpr):
        terminalreporter.write_line(f"run: {tier}", yellow=True)
