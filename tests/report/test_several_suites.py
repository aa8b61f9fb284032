"""Behaviour: a page over suites ranks what can be ranked, names what can't, and claims nothing under six suites."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from helpers import made_records
from helpers.made_records import in_suite, sweep
from hpml_bench.plugins.blocks import Table, Text
from hpml_bench.report.looks import FILE
from hpml_bench.report.over_suites import Suites, answer_over, sections_over
from hpml_bench.report.render import page_over
from hpml_bench.report.results import Results
from hpml_bench.suite.settings import DatasetSpec
from hpml_bench.system.errors import UserError

METHODS = ("lora", "full", "head")


def suite(tmp_path: Path, number: int, methods: tuple[str, ...] = METHODS, data: str = "", **method: str) -> Results:
    """Return the results of a suite of three methods and three seeds on data of its own."""
    dataset = DatasetSpec(name="newswire", options={"p": 0.6, "of": data or f"data {number}"})
    records = [in_suite(run, f"suite-{number}", dataset, **method) for run in sweep(methods, 3)]
    return Results.load(made_records.write(tmp_path / f"suite-{number}", records, rows=200))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> list[Results]:
    """Return ten such suites, of which tests take the first."""
    place = tmp_path_factory.mktemp("suites")
    return [suite(place, number) for number in range(10)]


def tables(suites: Suites) -> dict[str, Table]:
    """Return the page's tables by name."""
    return {block.name: block for s in sections_over(suites) for block in s.blocks if isinstance(block, Table)}


def said(suites: Suites) -> str:
    """Return the sentences beside the mean ranks."""
    (section,) = (one for one in sections_over(suites) if one.slug == "ranks")
    return " ".join(s for block in section.blocks if isinstance(block, Text) for s in block.sentences)


def test_suites_of_a_group_count_as_one(made: list[Results]) -> None:
    """Nine suites of which seven are one group are three: too few for a test, and the page says so."""
    alone = Suites.of(made[:9])
    members = [replace(one, block="mmlu" if n >= 2 else "") for n, one in enumerate(alone.ranked)]
    grouped = Suites.among(members)
    assert alone.tested
    assert not grouped.tested
    answer = answer_over(grouped)
    assert (answer.seeds, answer.rows_text) == (3, "3 suites: suite-0, suite-1, mmlu (7 tasks as one)")
    assert {len(method.values["score"].runs) for method in answer.methods} == {3}
    assert "7 tasks of mmlu count as one: methods are ranked by their mean rank over these." in said(grouped)
    assert tables(grouped)["ranks"].columns[4:] == ("suite-0", "suite-1", "mmlu (7 tasks as one)")


def test_later_suites_are_a_later_look(made: list[Results], tmp_path: Path) -> None:
    """A page of nine suites, then ten in the same folder: the second has 5 % of the 5 %; nine again are the first."""
    folders, out = made[:10], tmp_path / "over"
    assert not (page_over(folders[:2], out), out.exists())[1]  # without a test nothing can err
    looks = []
    for n in (9, 10, 9):
        page_over(folders[:n][:: -1 if n == 9 else 1], out)
        first = json.loads((out / FILE).read_text())
        looks.append(len(first))
    assert looks == [1, 2, 2]
    first, second = (replace(Suites.of(folders), look=look) for look in (1, 2))
    assert "This is look 2 at results in this folder: it has 5 % of the 5 %." in said(second)
    for one, two in zip(first.found.pairs, second.found.pairs, strict=True):
        assert two.p_adjusted == pytest.approx(min(1.0, one.p_adjusted * 0.9 / 0.05))
    assert second.least > first.least


def test_what_cannot_be_ranked_is_named_or_refused(made: list[Results], tmp_path: Path) -> None:
    """A rank among other rivals is another, a name is of one kind, and a suite of the same data would count twice."""
    again, fewer = suite(tmp_path, 2, data="data 1"), suite(tmp_path, 1, ("lora", "full"))
    found = Suites.of([made[0], fewer])
    assert (set(found.methods), found.apart) == ({"full", "lora"}, {"head": "suite-1 has no score of it"})
    assert [row[0] for row in tables(found)["places"].rows if row[2] == "–"] == ["head"]
    with pytest.raises(UserError, match="share fewer than two methods"):
        Suites.of([made[0], suite(tmp_path / "dora", 1, method="dora")])
    with pytest.raises(UserError, match="two or more of different model, data or task"):
        Suites.of([made[1], again])
