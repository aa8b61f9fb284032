"""What was declared before a run, how many looks a page is one of, what margins decide; and
pages over suites.
"""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from report_sections import load, said

from helpers import made_records
from helpers.made_records import in_suite, record, sweep
from hpml_bench import statistics
from hpml_bench.judge.looks import FILE, Data, Declarations, look_at, sketch
from hpml_bench.judge.results import Results
from hpml_bench.page.over_suites import Suites, answer_over, sections_over
from hpml_bench.page.render import page_over
from hpml_bench.plugins.blocks import Table, Text
from hpml_bench.records.files import SUITE
from hpml_bench.records.run import Declared, RunRecord
from hpml_bench.suite.settings import DatasetSpec
from hpml_bench.suite.suite import Margin, MethodEntry, Suite
from hpml_bench.system.errors import UserError


def declared(runs: list[RunRecord], seeds: int, margin: Margin = Margin()) -> list[RunRecord]:  # noqa: B008 - frozen
    """Return the runs as a suite of so many seeds made them."""
    return [
        run.model_copy(update={"declared": Declared(seeds=seeds, margin=margin)}) for run in runs
    ]


def both(*seeds: int) -> list[RunRecord]:
    """Return runs of both methods with further seeds."""
    return [record(m, s, 2 * s + n) for s in seeds for n, m in enumerate(("lora", "full"))]


def in_stages(*stages: int) -> list[RunRecord]:
    """Return runs of two methods whose suite was declared with more seeds each time."""
    runs, done = [], 0
    for seeds in stages:
        runs += declared(both(*range(done, seeds)), seeds)
        done = max(done, seeds)
    return runs


@pytest.mark.parametrize(
    ("runs", "looks"),
    [
        *(
            (in_stages(*stages), n)
            for stages, n in (((5,), 1), ((5, 7, 10), 3), ((2, 5), 1), ((5, 5), 1), ((3, 5), 2))
        ),
        ([*sweep(["lora", "full"], 5), *declared(both(5, 6, 7, 8, 9), 10)], 2),
        ([*in_stages(5), *declared(both(5, 6), 5)], 3),
    ],
    ids=[
        "one",
        "three",
        "too few before",
        "as many",
        "three seeds",
        "undeclared before",
        "one by one",
    ],
)
def test_seeds_added_later_are_another_look(
    runs: list[RunRecord], looks: int, tmp_path: Path
) -> None:
    """Each declaration of more seeds counts, from the first that could give a verdict on; the
    page says which it is.
    """
    results = load(tmp_path, runs)
    assert results.look == looks
    assert f"look {looks} at these results" in said("comparisons", results)


def test_later_looks_have_less_to_spend(tmp_path: Path) -> None:
    """The same runs, had seeds been added: p after adjustment is larger; all looks together
    spend 5 %.
    """
    once, again = load(tmp_path / "once", in_stages(7)), load(tmp_path / "again", in_stages(5, 7))
    least = 1.0
    for metric in ("test_accuracy", "train_seconds"):
        for first, second in zip(once.comparisons(metric), again.comparisons(metric), strict=True):
            assert first.p == second.p
            assert first.p_adjusted is not None
            assert second.p_adjusted == pytest.approx(
                min(1.0, first.p_adjusted * statistics.spent_at(1) / statistics.spent_at(2))
            )
            least = min(least, first.p_adjusted)
    assert least < 0.05
    assert sum(map(statistics.spent_at, range(1, 60))) == pytest.approx(1.0)


def test_a_margin_edited_afterwards_decides_nothing(tmp_path: Path) -> None:
    """The margins declared with the first run stay; the page says that the suite's differ now."""
    runs = in_stages(5)
    for name, margin in (("same", Margin()), ("wide", Margin(quality=0.5, cost=0.9))):
        folder = tmp_path / name
        folder.mkdir()
        entries = {"lora": MethodEntry(), "full": MethodEntry()}
        suite = Suite(
            name="example", settings=runs[0].spec.settings, margin=margin, methods=entries
        )
        (folder / SUITE).write_text(suite.model_dump_json())
        results = load(folder, runs)
        assert results.margin == Margin()
        assert results.quality_margin == 0.01
        assert ("edited after its first run" in said("cautions", results)) == (name == "wide")


# The looks that a page's folder keeps


def test_each_new_digest_is_the_next_look(tmp_path: Path) -> None:
    """A digest that was there keeps its number, in a folder that the first look makes; a file in
    its place is told.
    """
    folder = tmp_path / "pages" / "over"
    assert [look_at(folder, digest, Data()).look for digest in "abacba"] == [1, 2, 1, 3, 2, 1]
    assert look_at(tmp_path, "b", Data()).look == 1  # another folder has looks of its own
    assert [path.name for path in folder.iterdir()] == [FILE]
    (tmp_path / "page").write_text("")
    with pytest.raises(UserError, match=r"looks\.json can't be written"):
        look_at(tmp_path / "page", "a", Data())


@pytest.mark.parametrize("text", ["", "[", "{}", "[1]", "[" * 100_000], ids=repr)
def test_a_broken_list_is_refused(text: str, tmp_path: Path) -> None:
    """Else a later look would count as the first; the file stays as it is."""
    (tmp_path / FILE).write_text(text)
    with pytest.raises(UserError, match=f"{FILE} is no list of looks"):
        look_at(tmp_path, "a", Data())
    assert (tmp_path / FILE).read_text() == text


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (range(100), range(100, 200)),  # doubled in place
        (range(100), range(10_000)),
        (range(10_000), range(9_900, 10_000)),
        (range(50_000), range(25_000, 75_000)),
    ],
    ids=["no row", "a superset", "a subset", "half"],
)
def test_a_common_row_makes_data_the_same(before: range, after: range, tmp_path: Path) -> None:
    """Of files, by a sketch of their rows of bounded size; data sets that inputs name are told
    apart by name.
    """
    first, second = (
        Data(of=name, by_file=True, rows=sketch(map("row {}".format, ids)))
        for name, ids in (("a", before), ("b", after))
    )
    common = bool({*before} & {*after})
    assert look_at(tmp_path, "a", first, "xy").look == 1
    assert look_at(tmp_path, "b", second, "xy", page="b").look == 1 + common
    assert look_at(
        tmp_path, "c", second.model_copy(update={"of": "c", "by_file": False}), "xy", page="c"
    ).look == 2 + (common)
    named = [Data(of=name, rows=first.rows) for name in ("x", "y", "x")]
    looks = [
        look_at(tmp_path / "named", of.of + str(at), of, "xy", page=of.of).look
        for at, of in enumerate(named)
    ]
    assert looks == [1, 1, 2]
    assert len((tmp_path / FILE).read_text()) < 50_000


def test_a_file_links_no_data_sets_that_inputs_name(tmp_path: Path) -> None:
    """It may have the row ids of both; a look at either counts its own and the file's."""
    rows = sketch(map(str, range(50)))
    x, y, both = (
        Data(of="x", rows=rows),
        Data(of="y", rows=rows),
        Data(of="file", by_file=True, rows=rows),
    )
    order = [(y, 1), (y, 2), (both, 3), (both, 4), (y, 5), (x, 5)]
    for number, (data, look) in enumerate(order):
        assert look_at(tmp_path, str(number), data, "ab", page=data.of).look == look
    assert look_at(tmp_path / "other", "a", y, "ab", page="y").look == 1
    assert look_at(tmp_path / "other", "b", x, "ab", page="x").look == 1


def test_a_list_of_an_earlier_version_counts(tmp_path: Path) -> None:
    """It names no file, no rows and no declaration: any file may have its data, and a
    declaration isn't the first.
    """
    (tmp_path / FILE).write_text('[{"digest": "a", "of": "", "systems": ["x", "y"], "look": 1}]')
    of = Data(of="scores", by_file=True, rows=sketch("123"))
    assert look_at(tmp_path, "a", of, "xy") == (1, 0, "")
    look, _, said = look_at(tmp_path, "a", of, "xy", declared=Declarations(margin=0.1), looks=4)
    assert look == 2
    assert (
        "No declaration is recorded of the first look at these data, and this page declares a "
        "margin of 0.1" in said
    )
    assert "declared no number of looks, this page 4: the first number counts" in said


# Pages over suites


def suite(
    tmp_path: Path,
    number: int,
    methods: tuple[str, ...] = ("lora", "full", "head"),
    data: str = "",
    **method: str,
) -> Results:
    """Return the results of a suite of three methods and three seeds on data of its own."""
    dataset = DatasetSpec(name="newswire", options={"p": 0.6, "of": data or f"data {number}"})
    records = [in_suite(run, f"suite-{number}", dataset, **method) for run in sweep(methods, 3)]
    return Results.load(made_records.write(tmp_path / f"suite-{number}", records, rows=200))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> list[Results]:
    """Return ten such suites, of which tests take the first."""
    place = tmp_path_factory.mktemp("suites")
    return [suite(place, number) for number in range(10)]


def tables_over(suites: Suites) -> dict[str, Table]:
    """Return the page's tables by name."""
    return {
        block.name: block
        for s in sections_over(suites)
        for block in s.blocks
        if isinstance(block, Table)
    }


def beside_ranks(suites: Suites) -> str:
    """Return the sentences beside the mean ranks."""
    (section,) = (one for one in sections_over(suites) if one.slug == "ranks")
    return " ".join(
        s for block in section.blocks if isinstance(block, Text) for s in block.sentences
    )


def test_suites_of_a_group_count_as_one(made: list[Results]) -> None:
    """Nine suites of which seven are one group are three: too few for a test, and the page says
    so.
    """
    alone = Suites.of(made[:9])
    members = [replace(one, block="mmlu" if n >= 2 else "") for n, one in enumerate(alone.ranked)]
    grouped = Suites.among(members)
    assert alone.tested
    assert not grouped.tested
    answer = answer_over(grouped)
    assert (answer.seeds, answer.rows_text) == (
        3,
        "3 suites: suite-0, suite-1, mmlu (7 tasks as one)",
    )
    assert {len(method.values["score"].runs) for method in answer.methods} == {3}
    assert (
        "7 tasks of mmlu count as one: methods are ranked by their mean rank over these."
        in beside_ranks(grouped)
    )
    assert tables_over(grouped)["ranks"].columns[4:] == (
        "suite-0",
        "suite-1",
        "mmlu (7 tasks as one)",
    )


def test_later_suites_are_a_later_look(made: list[Results], tmp_path: Path) -> None:
    """A page of nine suites, then ten in the same folder: the second has 22 % of the 5 %; nine
    again are the first.
    """
    folders, out = made[:10], tmp_path / "over"
    for n, looks in ((2, 0), (9, 1), (10, 2), (9, 2)):  # without a test nothing can err
        page_over(folders[:n][:: -1 if n == 9 else 1], out)
        assert max(one["look"] for one in json.loads((out / FILE).read_text())) == looks
    first, second = (replace(Suites.of(folders), look=look) for look in (1, 2))
    assert "This is look 2 at results in this folder: it has 22 % of the 5 %." in beside_ranks(
        second
    )
    for one, two in zip(first.found.pairs, second.found.pairs, strict=True):
        assert two.p_adjusted == pytest.approx(
            min(1.0, one.p_adjusted * statistics.spent_at(1) / statistics.spent_at(2))
        )
    assert second.least > first.least


def test_a_page_over_other_suites_is_not_replaced(made: list[Results], tmp_path: Path) -> None:
    """Suites without a common one are others, with a test or without: their page needs another
    folder; more are not.
    """
    page_over(made[:2], tmp_path / "few")
    page_over(made[:3], tmp_path / "few")
    with pytest.raises(UserError, match=r"few has a page of other data.*give another --out"):
        page_over(made[3:5], tmp_path / "few")


def test_what_cannot_be_ranked_is_named_or_refused(made: list[Results], tmp_path: Path) -> None:
    """A rank among other rivals is another, a name is of one kind, and a suite of the same data
    would count twice.
    """
    again, fewer = suite(tmp_path, 2, data="data 1"), suite(tmp_path, 1, ("lora", "full"))
    found = Suites.of([made[0], fewer])
    assert (set(found.methods), found.apart) == (
        {"full", "lora"},
        {"head": "suite-1 has no score of it"},
    )
    assert [row[0] for row in tables_over(found)["places"].rows if row[2] == "–"] == ["head"]
    with pytest.raises(UserError, match="share fewer than two methods"):
        Suites.of([made[0], suite(tmp_path / "dora", 1, method="dora")])
    with pytest.raises(UserError, match="two or more of different model, data or task"):
        Suites.of([made[1], again])
