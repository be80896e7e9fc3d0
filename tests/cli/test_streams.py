"What is around a command must not change what it does: closed streams, foreign code in the folder, processes."

import subprocess
import sys

import pytest

from ddpm_course.run.checkpoints import newest_checkpoint
from helpers import environment

TINY = "train --steps 3 --batch 8 --channels 8 --T 8 --log-every 1 --grid-every 0 --threads 1 --out run".split()


def survived(folder):
    return newest_checkpoint(folder / "run").name == "step_00000003" and (folder / "run/loss.png").exists()


def test_run_without_an_error_stream(tmp_path):
    "Closed before the first import, in a process of its own: whatever is opened next takes its number."
    command = ["sh", "-c", 'exec "$@" 2>&-', "sh", sys.executable, "-m", "ddpm_course", *TINY]
    assert subprocess.run(command, cwd=tmp_path, env=environment()).returncode == 0 and survived(tmp_path)


@pytest.mark.thorough
def test_processes_run_no_code_from_the_folder(tmp_path):
    (tmp_path / "torch.py").write_text("raise SystemExit('code from the current folder was run')\n")
    program = "import sys; sys.path.remove(''); from ddpm_course.cli.main import main; main(sys.argv[1:])"
    words = ["sample", "--nproc", "2", "--n", "1", "--steps", "2"]
    done = subprocess.run(
        [sys.executable, "-c", program, *words], cwd=tmp_path, env=environment(), capture_output=True, text=True
    )
    assert done.returncode == 0 and done.stdout == "wrote samples.png\n", done.stderr
