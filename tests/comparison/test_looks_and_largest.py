"""Behaviour: a page of more scores of the same systems is a look; a declared largest difference replaces the range."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

import hpml_bench
from helpers.made_tables import Row, right_and_wrong, write_csv
from hpml_bench import statistics
from hpml_bench.cli import main
from hpml_bench.comparison.assemble import assemble
from hpml_bench.comparison.page import page_of, write
from hpml_bench.comparison.readers.table import of_frame
from hpml_bench.report.judge import Verdicts, judge
from hpml_bench.system.errors import UserError

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


# The largest difference of a row


def real(rows: int, gap: float = 0.02, sd: float = 0.05, groups: int | None = None) -> pd.DataFrame:
    """Return two systems whose rows differ by about `gap`, by 0.15 at most."""
    random = np.random.default_rng(1)
    base = 0.3 + 0.4 * random.random(rows)
    other = base + np.clip(gap + sd * random.standard_normal(rows), -0.15, 0.15)
    frame = pd.concat(pd.DataFrame({"system": name, "row": range(rows), "score": of})
                      for name, of in (("a", base), ("b", other)))  # fmt: skip
    return frame if groups is None else frame.assign(group=np.minimum(frame["row"], groups - 1))


def compared(frame: pd.DataFrame, **options: Any) -> Verdicts:
    (found,) = assemble([of_frame(frame)], bounds=(0.0, 1.0), **options)
    return judge(found)


def test_the_declared_difference_decides_what_the_range_leaves_open() -> None:
    """Eighty rows: undecided by the range, a verdict by the declared difference; the page says who declared it."""
    wide, narrow = compared(real(80)), compared(real(80), largest=0.2)
    assert wide.score[0].verdict == "undecided"
    assert narrow.score[0].verdict == "different"
    assert page_of(narrow).facts["Largest difference of a row"] == "20 points, by --largest-difference"
    assert "Largest difference of a row" not in page_of(wide).facts


def test_groups_weigh_it_as_they_weigh_the_range() -> None:
    """With a group of many rows both spans are multiplied by its weight; a mean's own interval keeps the range."""
    frame = real(60, groups=40)
    grouped, alone = compared(frame, largest=0.2), compared(frame)
    heaviest = 21 * 40 / 60
    assert grouped.scores.difference_span == pytest.approx(0.2 * heaviest)
    assert grouped.scores.span == alone.scores.span == alone.scores.difference_span == pytest.approx(heaviest)


@pytest.mark.parametrize(("frame", "largest", "said"), [
    (real(80), 0.1, r"exceeded in scores: two systems differ by 0\.1[0-9]* in a row"),
    (real(80), 1.5, "above the score's range of 1"),
    (pd.DataFrame(right_and_wrong({"a": 0.5, "b": 0.6})), 0.5, "rows of scores are right or wrong"),
    (pd.DataFrame([{"system": s, "score": 0.5, "rows": 90} for s in "ab"]), 0.5, "takes scores row by row"),
])  # fmt: skip
def test_one_that_can_t_be_is_refused(frame: pd.DataFrame, largest: float, said: str) -> None:
    """A row that differs by more, above the range, right-and-wrong scores, no rows: one sentence each."""
    with pytest.raises(UserError, match=said):
        compared(frame, largest=largest)


def test_command_and_python_take_it(tmp_path: Path) -> None:
    """In the score's unit, above 0; both give the verdict."""
    path = write_csv(tmp_path / "scores.csv", real(80).to_dict("records"))
    call = ["compare", str(path), "--range", "0,1", "--out", str(tmp_path / "out"), "--largest-difference"]
    assert CliRunner().invoke(main, [*call, "0.2"]).exit_code == 0
    assert json.loads((tmp_path / "out" / "report.json").read_text())["pairs"]["score"][0]["v"] == "different"
    assert "--largest-difference 0: give a difference above 0" in CliRunner().invoke(main, [*call, "0"]).output
    found = hpml_bench.compare(real(80), bounds=(0, 1), largest_difference=0.2)
    assert found["verdict"].tolist() == ["different"]
    assert found["low"][0] < found["high"][0] < 0
    with pytest.raises(UserError, match="largest_difference is nan"):
        hpml_bench.compare(real(80), largest_difference=math.nan)
