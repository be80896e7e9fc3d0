"Page 24's fault clinic: its faults are lines of the script on the page, and its check knows them."

import json

from ddpm_course.lesson.checks.check_distributed import CAUSES
from ddpm_course.lesson.ddp_faults import CLIP, FAULTS
from helpers import ROOT


def test_each_fault_is_one_line_of_the_script():
    cells = ["".join(c["source"]) for c in json.loads((ROOT / "nbs/24_distributed.ipynb").read_text())["cells"]]
    (script,) = [cell for cell in cells if cell.startswith("%%writefile {folder}/train_ddp.py")]
    assert script.count(CLIP) == 1
    assert {letter: script.count(before) for letter, (_, before, _) in FAULTS.items() if before} == dict.fromkeys(
        "ABCEFG", 1
    )


def test_the_check_knows_the_causes():
    assert {k: v[0] for k, v in FAULTS.items()} == {k: v[0] for k, v in CAUSES.items()}
