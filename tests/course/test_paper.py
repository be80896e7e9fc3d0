"The map of the paper: each row leads to a cell and to a test that exist; nothing of the paper is left out."

import json
import re

import pytest

from helpers import NOTEBOOKS, ROOT

ROWS = json.loads((ROOT / "tests/course/paper_map.json").read_text())
CELLS = {
    path.relative_to(ROOT / "nbs").as_posix(): {
        c["id"]: "".join(c["source"]) for c in json.loads(path.read_text())["cells"]
    }
    for path in NOTEBOOKS
}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["item"])
def test_a_row_leads_to_a_cell_and_a_test(row):
    assert row["notebook"] or row["missing"]
    if row["notebook"]:
        holding = [cell for cell, source in CELLS[row["notebook"]].items() if row["snippet"] in source]
        assert holding == [row["cell"]]
    kind, _, name = row["checked"].partition(" ")
    if kind == "cell":
        name, _, other = name.partition(" of ")
        assert re.search(r"\bassert|reveal\(|decide\(", CELLS[other or row["notebook"]][name])
    elif row["checked"]:
        path, _, name = row["checked"].partition("::")
        assert re.search(rf"^def {name}\(", (ROOT / path).read_text(), re.M)


def test_nothing_of_the_paper_is_left_out():
    items = {row["item"] for row in ROWS}
    counted = {"eq.": 26, "alg.": 4, "table": 4, "fig.": 19}
    assert {f"{kind} {k}" for kind, n in counted.items() for k in range(1, n + 1)} <= items
