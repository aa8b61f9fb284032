"""Behaviour: each page of more scores of the same systems is a look, which has its share of the 5 %."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from click.testing import CliRunner

import hpml_bench
from helpers.made_tables import Row, right_and_wrong, write_csv
from hpml_bench import statistics
from hpml_bench.cli import main
from hpml_bench.comparison.assemble import assemble
from hpml_bench.comparison.page import write
from hpml_bench.comparison.readers.table import of_frame

SYSTEMS = {"a": 0.5, "b": 0.52}


def look(lines: list[Row], folder: Path, *options: str) -> dict[str, Any]:
    """Return what report.json has after the command compared some lines."""
    table = write_csv(folder / "scores.csv", lines)
    out = folder / "page"
    result = CliRunner().invoke(main, ["compare", str(table), "--out", str(out), *options])
    assert result.exit_code == 0, result.output
    answer: dict[str, Any] = json.loads((out / "report.json").read_text())
    page = (out / "report.md").read_text()
    spent = 100 * statistics.ALPHA * statistics.spent_at(answer["look"])
    said = f"look {answer['look']}, which has {spent:.2g} of the 5 %"
    assert {said in result.output, said in page} == {answer["look"] > 1}
    return answer


def test_more_rows_of_the_same_systems_are_the_next_look(tmp_path: Path) -> None:
    """The same lines in another order are the same look, other systems a first one, and `--look` says it is another."""
    fewer, more = (right_and_wrong(SYSTEMS, rows) for rows in (100, 200))
    first = look(fewer, tmp_path)
    assert [first["look"], look(more, tmp_path)["look"], look(more[::-1], tmp_path)["look"]] == [1, 2, 2]
    assert look(fewer, tmp_path)["look"] == 1
    assert look(right_and_wrong({"c": 0.5, "d": 0.6}), tmp_path)["look"] == 1
    added = right_and_wrong(SYSTEMS | {"c": 0.7}, 300)  # a and b once more
    assert [look(added, tmp_path, "--look", "7")["look"], look(added, tmp_path)["look"]] == [7, 7]
    later = look(right_and_wrong(SYSTEMS, 250), tmp_path)
    (pair,) = later["pairs"]["score"]
    assert later["look"] == 8
    assert pair["ph"] == pytest.approx(min(1.0, pair["p"] / statistics.spent_at(8)))


def test_a_data_set_has_looks_of_its_own(tmp_path: Path) -> None:
    """Two data sets in one folder don't count as looks at each other."""
    sets = right_and_wrong(SYSTEMS, 60, dataset="x") + right_and_wrong(SYSTEMS, 60, seed=2, dataset="y")
    for rows, expected in ((60, 1), (61, 2)):
        lines = sets + [{"system": s, "row": "new", "score": 1, "dataset": "y"} for s in SYSTEMS if rows > 60]
        write(assemble([of_frame(pd.DataFrame(lines))]), tmp_path)
        found = [json.loads((tmp_path / name / "report.json").read_text())["look"] for name in "xy"]
        assert found == [1, expected]


def test_python_takes_the_number_of_the_look() -> None:
    """The second look has 5 % of the 5 %."""
    frame = pd.DataFrame(right_and_wrong(SYSTEMS))
    first, second = (hpml_bench.compare(frame, look=look) for look in (1, 2))
    assert second["p_adjusted"][0] == pytest.approx(min(1, first["p"][0] / statistics.spent_at(2)))
