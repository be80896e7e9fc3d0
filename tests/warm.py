"""A warm process: it has imported the package once, and runs each command line in a forked child of its own.

Also a page of the course, which is what `tools/execute.py` runs. `python warm.py` is that process: a request a line on
stdin, a result a line on stdout. `Warm` is its other end.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

sys.path.append(str(Path(__file__).resolve().parent.parent / "tools"))
import execute  # noqa: E402


class Warm:
    "The other end of a warm process, for as long as a block runs."

    def __enter__(self):
        self.folder = tempfile.TemporaryDirectory()
        words = [sys.executable, __file__, self.folder.name]
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        return self

    def __exit__(self, *error):
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()
        self.folder.cleanup()

    def run(self, words, cwd, **how):
        """`ddpm WORDS` in the folder `cwd`: its out, err, code (negative: a signal) and seconds.

        program: a module whose `main` takes the words, another than the command's;
        env: variables, None for one that is not there; stdout, stderr: 'closed', 'full', 'gone' (nobody reads),
        'ascii'; file_size: the largest that can be written; plain: without the powers of root;
        memory: bytes that the child may take beyond what it begins with; code: Python lines that it runs first.
        """
        request = {"words": [str(word) for word in words], "cwd": str(cwd), **how}
        paths = [Path(self.folder.name, name) for name in ("out", "err")]
        for path in paths:  # which a stream that goes elsewhere leaves as they are
            path.write_text("")
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        try:
            answer = json.loads(self.process.stdout.readline())
        except BaseException:  # the test is over, and its command is not: nobody else is to read its answer
            self.process.kill()
            raise
        out, err = (path.read_text(errors="replace") for path in paths)
        return SimpleNamespace(out=out, err=err, **answer)


def point(number, path, how):
    "Give a file descriptor and its stream in `sys` their end: the file, or what `how` says."
    name = {1: "stdout", 2: "stderr"}[number]
    end = os.open("/dev/full" if how == "full" else path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(end, number)
    if how == "gone":
        reading, writing = os.pipe()
        os.close(reading)
        os.dup2(writing, number)
    if how == "closed":
        os.close(number)
        setattr(sys, name, None)
        return
    kind = {"encoding": "ascii" if how == "ascii" else "utf-8", "errors": ("strict", "backslashreplace")[number - 1]}
    setattr(sys, name, open(number, "w", closefd=False, **kind))  # noqa: SIM115


def limit_powers():
    "Let permissions count for root, too: this process gives its capabilities up."
    import ctypes

    header, none = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    if os.geteuid() == 0 and ctypes.CDLL(None, use_errno=True).capset(header, none):
        raise OSError(ctypes.get_errno(), "capset")


def child(request, folder):
    "What a forked child does: the command, and nothing after it."
    import resource

    main = import_module(request.get("program", "ddpm_course.cli.main")).main
    os.setsid()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # requests come from there
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where a script runs the tests in its background
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # ... and this one where it runs them under nohup
    os.chdir(request["cwd"])
    for name, value in request.get("env", {}).items():
        os.environ.pop(name, None) if value is None else os.environ.update({name: value})
    point(1, folder / "out", request.get("stdout"))
    point(2, folder / "err", request.get("stderr"))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if "memory" in request:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + request["memory"],) * 2)
    if "file_size" in request:
        resource.setrlimit(resource.RLIMIT_FSIZE, (request["file_size"],) * 2)
    if request.get("plain"):
        limit_powers()
    sys.argv = ["ddpm", *request["words"]]
    try:
        exec(request.get("code", ""), {})
        main(request["words"])
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        print(end.code if isinstance(end.code, str) else "", end="", file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        code = 1
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream:
                stream.flush()
        except OSError:  # as at Python's own end
            code = 120 if stream is sys.stdout else code
    os._exit(code)


def serve(request, folder, answers):
    "Fork a child for one request, wait for it, kill what it has left, and answer."
    began, pid = time.monotonic(), os.fork()
    if pid == 0:
        answers.close()
        try:
            child(request, folder)
        finally:
            os._exit(99)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)  # its number, and that of its group, is its own until waitpid
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
    code, seconds = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), round(time.monotonic() - began, 2)
    answers.write(json.dumps({"code": code, "seconds": seconds}) + "\n")
    answers.flush()


def warm_up():
    "Import all that a command or a page imports, and start no thread."
    import torch

    execute.warm_up()
    torch.optim.AdamW([torch.zeros(1)])  # its first use imports much, too
    from ddpm_course.data.sets import load_digits

    for split in ("train", "test"):
        load_digits(split, 16)


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    place = Path(sys.argv[1])
    warm_up()
    for line in sys.stdin:
        serve(json.loads(line), place, answers)
