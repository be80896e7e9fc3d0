"What the tests themselves promise: one that hangs is named, with what all its threads wait for."

import subprocess
import sys
from xml.etree import ElementTree

from helpers import ROOT, environment

HANGS = """
import os, threading
def another_thread_waits():
    threading.Event().wait()
def the_test_waits():
    os.read(os.pipe()[0], 1)
def test_hangs():
    threading.Thread(target=another_thread_waits, daemon=True).start()
    the_test_waits()
def test_next():
    pass
"""


def cases(path):
    "What became of each test in a junitxml file: its reason where it is red, else None."
    found = {case.get("name"): case for case in ElementTree.parse(path).iter("testcase")}
    red = {name: [*case.iter("failure"), *case.iter("error")] for name, case in found.items()}
    return {name: "".join(found[name].itertext()) if red[name] else None for name in found}


def test_one_that_hangs_is_named_with_all_its_stacks(tmp_path):
    "In two processes, by the settings of pyproject.toml but for the number of seconds; the next one runs."
    (tmp_path / "test_toy.py").write_text(HANGS)
    words = ["-c", ROOT / "pyproject.toml", "--rootdir", tmp_path, "-p", "no:cacheprovider", "-o", "timeout=1"]
    words += ["-o", "timeout_func_only=true", "-o", "junit_logging=all", f"--junitxml={tmp_path}/found.xml"]
    command = [sys.executable, "-m", "pytest", *map(str, words), str(tmp_path / "test_toy.py")]
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True)
    found = cases(tmp_path / "found.xml")
    assert done.returncode == 1 and found["test_next"] is None, done.stdout + done.stderr
    assert all(name in found["test_hangs"] for name in ("another_thread_waits", "the_test_waits")), found
