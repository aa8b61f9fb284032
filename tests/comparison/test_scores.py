"""Behaviour: what can't be compared is refused in one sentence with file, line and what to do;
nothing is guessed.
"""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import hpml_bench
from helpers.made_tables import Row, right_and_wrong, write_csv
from hpml_bench.comparison.assemble import assemble
from hpml_bench.comparison.inputs import InputScores, read
from hpml_bench.comparison.readers.table import of_frame
from hpml_bench.judge.scores import AlignedScores, FailedRun, ScoreDefinition
from hpml_bench.system.errors import UserError

GOOD = [
    {"system": system, "row": row, "score": score}
    for system, scores in {"a": (1, 0, 1, 1), "b": (0, 0, 1, 0)}.items()
    for row, score in enumerate(scores)
]


def scores(path: Path, metric: str | None = None, **options: Any) -> tuple[AlignedScores, ...]:
    return assemble(read([path], metric), **options)


def changed(at: int, **cells: Any) -> list[Row]:
    return [line | (cells if index == at else {}) for index, line in enumerate(GOOD)]


def with_column(name: str, cells: list[Any]) -> list[Row]:
    return [line | {name: cell} for line, cell in zip(GOOD, cells, strict=True)]


def halves(folder: Path) -> list[InputScores]:
    return [
        read([write_csv(folder / f"{name}.csv", GOOD[at : at + 4])])[0]
        for name, at in (("a", 0), ("b", 4))
    ]


def of_two_sets(folder: Path) -> list[InputScores]:
    """Return the good lines as two inputs of a data set each."""
    return [
        read([write_csv(folder / f"{name}.csv", with_column("dataset", [name.upper()] * 8))])[0]
        for name in "ab"
    ]


BROKEN: dict[str, tuple[list[Row], str, str]] = {
    "a missing system": (changed(2, system=""), "line 4", "system is missing"),
    "a missing row": (changed(2, row=""), "line 4", "row is missing"),
    "a missing score": (changed(2, score=""), "line 4", "score is missing or not a number"),
    "NaN": (changed(5, score="nan"), "line 7", "score is missing or not a number; give"),
    "infinity": (
        changed(5, score="-inf"),
        "line 7",
        r"the score is -inf; give a number below 1e\+",
    ),
    "a score that nothing can be computed of": (
        changed(5, score="1e300"),
        "line 7",
        r"the score is 1e\+300; give",
    ),
    "text for a score": (changed(5, score="good"), "line 7", "score is 'good', which is no number"),
    "digits with an underscore": (
        changed(2, score="1_5"),
        "line 4",
        "score is '1_5', which is no number; give",
    ),
    "a row twice": (changed(3, row=0), "line 5", r"'a', row '0' is there already \(.*line 2\)"),
    "a row that another system lacks": (
        GOOD[:-1],
        "line 5",
        "'b' has 3 of 4 rows of table: it lacks row '3', which",
    ),
    "two that lack rows": (
        [*GOOD[4:7], *GOOD[1:4]],
        "line 7",
        "'b' has 3 of 4 rows of table: it lacks row '3'",
    ),
    "one system": (GOOD[:4], "line 2", "'a' is the only system; a comparison takes two"),
    "no line": ([], "", "it has no lines"),
    "a missing group": (
        with_column("group", ["x", "x", "", "y"] * 2),
        "line 4",
        "group is missing",
    ),
    "a row in two groups": (
        with_column("group", ["x", "x", "y", "y", "x", "z", "y", "y"]),
        "line 7",
        "row '1' is in group 'z', and elsewhere in 'x'",
    ),
    "a missing seed": (with_column("seed", [0, 0, 0, 0, 1, "", 1, 1]), "line 7", "seed is missing"),
    "a cost that differs within a run": (
        with_column("dollars", [1, 1, 1, 1, 2, 3, 2, 2]),
        "line 7",
        "dollars differs within a run of 'b'",
    ),
    "a cost that isn't finite": (
        with_column("dollars", [1, 1, 1, 1, "inf", "inf", "inf", "inf"]),
        "line 6",
        "dollars is not a number below",
    ),
    "a name without a letter that prints": (
        changed(0, system="\u202e"),
        "line 2",
        "has no printable character",
    ),
    "names that print alike": (
        [line | {"system": "a\u202e"} if line["system"] == "b" else line for line in GOOD],
        "line 6",
        "the system 'a' looks like another one",
    ),
    "names that Unicode writes in two ways": (
        [
            line | {"system": "caf\u00e9" if line["system"] == "a" else "cafe\u0301"}
            for line in GOOD
        ],
        "line 6",
        "looks like another one, .* in how Unicode writes a letter",
    ),
    "names that are cut, and then alike": (
        [line | {"system": "x" * 1000 + line["system"]} for line in GOOD],
        "line 6",
        "after 100 characters",
    ),
    "a column without a name": (
        with_column(" ", [1] * 8),
        "",
        "a column has no name, .*; write .*index=False",
    ),
    "a score outside its range": (
        changed(6, score=1.5),
        "line 8",
        "the score 1.5 is outside its range 0 to 1",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_table_is_refused_with_its_line(name: str, tmp_path: Path) -> None:
    """One sentence with the file, the line, what is wrong and what to do."""
    lines, where, said = BROKEN[name]
    path = write_csv(tmp_path / "table.csv", lines) if lines else tmp_path / "table.csv"
    if not lines:
        path.write_text("system,row,score\n", encoding="utf-8")
    with pytest.raises(UserError, match=said) as raised:
        scores(path, title="table", bounds=(0.0, 1.0) if "range" in name else None)
    assert str(path) in str(raised.value)
    assert where in str(raised.value)
    assert "\n" not in str(raised.value)
    assert re.search(
        r"; (give|mend|keep|rename|add|a comparison|a cost|write|remove)|, or", str(raised.value)
    )


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        (
            "t.csv",
            b"System,row,score\na,1,1\n",
            "the column 'System' may be 'system'; rename it, or give --columns system=System",
        ),
        ("t.csv", b"system,row\na,1\n", "there is no column 'score'; it has system, row"),
        ("t.csv", b"row,score\n1,1\n", "there is no column 'system'"),
        ("t.csv", b"system,row,score,score\na,1,1,1\n", "2 columns are named 'score'"),
        ("t.csv", b"system,row,rows,score\na,1,1,1\n", "it has the columns 'row' and 'rows'"),
        ("t.csv", b"system,row,score\na,1\n", r"line 2: it has 2 fields and the header 3"),
        ("t.csv", b"\xff\xfe\x00", "can't be read as csv"),
        ("t.csv", b"", "there is no column 'system'; it has none"),
        ("t.csv", b'system,row,score\na,"1,1\n', "can't be read as csv"),
        (
            "t.json",
            b'[{"system": "a", "row": 1, "score": 1%s}, {"system": "b", "row": 1, "score": 1}]'
            % (b"0" * 400),
            "entry 1: the score is inf; give",
        ),
        ("t.json", b"[1, 2]", "entry 1: it is no object"),
        ("t.json", b'{\n "a": 1\n}', "it holds no list of objects, one per row and run"),
        ("t.json", b"[" * 100_000, "t.json isn't JSON"),
        ("t.jsonl", b'{"system": "a", "row": 1, "score": 1}\n{"system": \n', "line 2 isn't JSON"),
        ("t.parquet", b"PAR1", "can't be read as parquet"),
        ("t.xlsx", b"", "no reader knows it; known are"),
    ],
)
def test_a_file_that_can_t_be_read_is_named(
    name: str, content: bytes, said: str, tmp_path: Path
) -> None:
    """Cut, empty or foreign files, and columns of another case, twice, or not there: none is
    guessed.
    """
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=said):
        scores(tmp_path / name)


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    """A path without a file, no path at all, and a range without a score."""
    with pytest.raises(UserError, match="there is no such file or folder"):
        read([tmp_path / "none.csv"])
    with pytest.raises(UserError, match="nothing to compare"):
        assemble(())
    with pytest.raises(UserError, match="the range 1 to 0 is none"):
        scores(write_csv(tmp_path / "t.csv", GOOD), bounds=(1.0, 0.0))


@pytest.mark.parametrize("suffix", ["csv", "tsv", "json", "jsonl", "parquet"])
def test_every_format_gives_the_same(suffix: str, tmp_path: Path) -> None:
    """Rows with numbers for ids, in any order, a boolean score and an empty cost."""
    lines = with_column("dollars", [1.5] * 4 + [None] * 4)
    frame = pd.DataFrame([*lines[:4], *reversed(lines[4:])])
    frame["score"] = frame["score"].astype(bool)
    path = tmp_path / f"t.{suffix}"
    if suffix in {"csv", "tsv"}:
        frame.to_csv(path, index=False, sep="," if suffix == "csv" else "\t")
    elif suffix == "parquet":
        frame.to_parquet(path)
    else:
        frame.to_json(path, orient="records", lines=suffix == "jsonl")
    (found,) = scores(path)
    assert {name: of[0].tolist() for name, of in found.rows.items()} == {
        "a": [1, 0, 1, 1],
        "b": [0, 0, 1, 0],
    }
    assert found.binary
    assert [(cost.title, dict(of)) for cost, of in found.costs.items()] == [
        ("dollars", {"a": {0: 1.5}})
    ]


@pytest.mark.parametrize(
    "ids", [["0.0", "1.0", "2.0", "3.0"], [0.0, 1.0, 2.0, 3.0]], ids=["texts", "floats"]
)
def test_whole_numbers_are_one_id_however_they_are_written(ids: list[Any], tmp_path: Path) -> None:
    """Of rows, seeds and groups, in one frame or two files; ids of another kind stay as they
    are.
    """
    rows = [0, 1, 2, 3, *ids]
    lines = [
        line | {"row": row, "seed": rows[4 * (at > 3)]}
        for at, (line, row) in enumerate(zip(GOOD, rows, strict=True))
    ]
    frame = pd.DataFrame(lines).astype({"row": object, "seed": object})
    files = [write_csv(tmp_path / f"{at}.csv", lines[at : at + 4]) for at in (0, 4)]
    for (found,) in (assemble([of_frame(frame)]), assemble(read(files))):
        assert (found.count, found.seeds) == (4, ("0",))
    parts = [line | {"row": f"{line['row']}.0" if line["row"] else "0.1"} for line in GOOD]
    (one,) = read([write_csv(tmp_path / "parts.csv", parts)])
    assert one.lines["row"].tolist() == ["0.1", "1.0", "2.0", "3.0"] * 2


def test_ids_that_a_float_can_t_hold_are_named() -> None:
    """Above 2^53 two integers may be one float; as integers they stay apart."""
    lines = [line | {"row": 2**53 + line["row"]} for line in GOOD]
    (found,) = assemble([of_frame(pd.DataFrame(lines))])
    assert found.count == 4
    with pytest.raises(
        UserError,
        match=r"frame, row 0: row is 9007199254740992 as a float, .*; give it as an integer",
    ):
        of_frame(pd.DataFrame(lines).astype({"row": float}))


def test_names_and_seeds_may_be_of_any_length() -> None:
    """Seeds in their order: whole numbers by size, also those that Python doesn't read, and texts
    behind them.

    Long names are cut.
    """
    seeds = ["10", "9", "1" * 5000, "x"]
    (found,) = assemble(
        [of_frame(pd.DataFrame([line | {"seed": seed} for seed in seeds for line in GOOD]))]
    )
    assert [seed[:3] for seed in found.seeds] == ["9", "10", "111", "x"]
    assert found.shared_seeds == 4
    (found,) = assemble(
        [of_frame(pd.DataFrame([line | {"system": line["system"] * 1000} for line in GOOD]))]
    )
    assert [len(name) for name in found.systems] == [100, 100]


def test_shared_rows_are_compared_if_asked(tmp_path: Path) -> None:
    """--shared leaves out the rows that some system lacks, and counts them; without it the run that
    is short is named.

    None in common is an error.
    """
    (found,) = scores(write_csv(tmp_path / "t.csv", GOOD[:-1]), shared=True)
    assert (found.count, found.unshared) == (3, 1)
    lines = right_and_wrong({"a": 0.5, "b": 0.6}, 10, (3, 4))
    with pytest.raises(UserError, match=r"'b', seed 4, has 9 of 10 rows"):
        scores(write_csv(tmp_path / "t.csv", lines[:-1]))
    apart = [line | {"row": f"{line['system']}{line['row']}"} for line in GOOD]
    with pytest.raises(UserError, match=r"no row of .* is in every run"):
        scores(write_csv(tmp_path / "u.csv", apart), shared=True)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"name": "f1"}, "b.csv has the score f1 and table .*a.csv score, of one data set; choose"),
        (
            {"better": "lower"},
            "b.csv has the direction lower and table .*a.csv higher, of one data set; add --lower",
        ),
        (
            {"low": 0.0, "high": 1.0},
            "has the least score 0 and .* none, of one data set; give the range",
        ),
        ({"margin": 0.5}, "b.csv has the margin 0.5 and table .*a.csv none, of one data set"),
    ],
)
def test_inputs_of_different_scores_are_not_compared(
    other: dict[str, Any], said: str, tmp_path: Path
) -> None:
    """Another metric, direction, range or margin: which input has which."""
    a, b = halves(tmp_path)
    assert len(assemble([a, b])) == 1
    b = replace(b, score=replace(b.score, **other))
    with pytest.raises(UserError, match=said):
        assemble([a, b])
    if "better" in other:
        assert assemble([a, b], lower=True)[0].score.better == "lower"


def test_scores_margins_and_looks_are_a_data_set_s_own(tmp_path: Path) -> None:
    """In either order of inputs each data set keeps its metric, direction, range, margin and
    looks.
    """
    a, b = of_two_sets(tmp_path)
    a = replace(a, score=ScoreDefinition("acc", low=0.0, high=1.0, margin=0.0001))
    b = replace(b, score=ScoreDefinition("loss", better="lower", margin=0.5), look=3)
    for order in ((a, b), (b, a)):
        found = {one.dataset: one for one in assemble(order)}
        assert (found["A"].score, found["A"].look) == (a.score, 1)
        assert (found["B"].score, found["B"].look) == (b.score, 3)


def test_rows_and_means_are_not_mixed(tmp_path: Path) -> None:
    """One input has rows and the other a mean of so many: they can't be paired."""
    rows = write_csv(tmp_path / "rows.csv", GOOD)
    means = write_csv(tmp_path / "means.csv", [{"system": "c", "score": 0.5, "rows": 4}])
    with pytest.raises(
        UserError, match=r"means.csv, line 2 has no row and .*rows.csv, line 2 has one"
    ):
        assemble(read([rows, means]))


@pytest.mark.parametrize(
    ("count", "said"),
    [
        (99, "'b' has 99 rows"),
        (0, "is 0; give"),
        (1.5, "is 1.5"),
        ("inf", "is inf; give"),
        (
            10_000_001,
            "line 3: the number of rows is 10,000,001; give a whole number from 1 to 10,000,000",
        ),
    ],
)
def test_means_are_of_the_same_number_of_rows(count: Any, said: str, tmp_path: Path) -> None:
    """Another number, a broken one, one that is too large, or none for one system."""
    lines = [
        {"system": "a", "score": 0.5, "rows": 100},
        {"system": "b", "score": 0.6, "rows": count},
    ]
    with pytest.raises(UserError, match=said):
        scores(write_csv(tmp_path / "t.csv", lines))


def test_data_sets_are_apart(tmp_path: Path) -> None:
    """A data set each; one that a single system has is named and not compared."""
    lines = [
        *(line | {"dataset": "x"} for line in GOOD),
        *(line | {"dataset": "y"} for line in GOOD[:4]),
    ]
    (found,) = scores(write_csv(tmp_path / "t.csv", lines))
    assert found.dataset == "x"
    assert found.remarks == ("Only one system has scores of y: it isn't compared.",)


def test_failed_runs_and_remarks_are_of_their_own_data_set(tmp_path: Path) -> None:
    """Not on the pages of others; those of an input without any score are on the page of the
    data set that it names.
    """
    a, b = of_two_sets(tmp_path)
    a = replace(a, failed=(FailedRun("c", "1", "failed", "a/c", "A"),), remarks=("Of A.",))
    b = replace(b, remarks=("Of B.",))
    none = replace(
        b,
        lines=b.lines.iloc[:0],
        failed=(FailedRun("d", "", "failed", "b/d", "B"),),
        remarks=("Of d.",),
    )
    gone = replace(none, failed=(FailedRun("e", "", "failed", "e", "C"),), remarks=("Of e.",))
    found = {one.dataset: one for one in assemble([a, b, none, gone])}
    said = "No system has scores of C: its runs failed."
    assert [[one.system for one in found[name].failed] for name in "AB"] == [["c"], ["d"]]
    assert [found[name].remarks for name in "AB"] == [("Of A.", said), ("Of B.", "Of d.", said)]
    with pytest.raises(
        UserError, match=r"b.csv has no run with a score; a comparison takes two systems"
    ):
        assemble([none])


def test_a_metric_names_the_column_of_the_score(tmp_path: Path) -> None:
    """--metric takes another column; the others stay costs, and text is named as unread."""
    lines = [
        {
            "system": line["system"],
            "row": line["row"],
            "f1": line["score"] / 2,
            "said": "yes",
            "seconds": {"a": 3, "b": 4}[line["system"]],
        }
        for line in GOOD
    ]
    (found,) = scores(write_csv(tmp_path / "t.csv", lines), "f1")
    assert (found.score.name, found.binary) == ("f1", False)
    assert found.remarks == ("Columns that hold text weren't read: said.",)
    assert [cost.title for cost in found.costs] == ["seconds"]


@pytest.mark.parametrize(
    ("metric", "other"),
    [("f1", "score"), (None, "f1"), ("score", "bleu_4"), ("f1", "correct"), ("bleu", "result")],
)
def test_another_score_beside_the_chosen_one_is_no_cost(
    tmp_path: Path, metric: str | None, other: str
) -> None:
    """A second score differs within a run, as a cost can't: it isn't read and is named; costs
    stay costs.
    """
    lines = [
        {
            "system": line["system"],
            "row": line["row"],
            metric or "score": line["score"],
            other: at / 8,
            "seconds": {"a": 3, "b": 4}[line["system"]],
        }
        for at, line in enumerate(GOOD)
    ]
    (found,) = scores(write_csv(tmp_path / "t.csv", lines), metric)
    assert found.score.name == (metric or "score")
    assert found.remarks == (f"Other scores weren't read (--metric chooses one): {other}.",)
    assert [cost.title for cost in found.costs] == ["seconds"]


def test_of_two_scores_without_the_documented_name_one_must_be_chosen(tmp_path: Path) -> None:
    """The refusal names both; one alone may be renamed, as any column."""
    lines = [
        {"system": line["system"], "row": line["row"], "accuracy": line["score"]} for line in GOOD
    ]
    alone, path = write_csv(tmp_path / "alone.csv", lines), tmp_path / "t.csv"
    write_csv(path, [line | {"f1": 0.5} for line in lines])
    said = (
        r"no column 'score', and each of these may be it: accuracy, f1; choose one, as by "
        r"--metric accuracy$"
    )
    with pytest.raises(UserError, match=said):
        scores(path)
    (found,) = scores(path, "accuracy")
    assert (found.score.name, found.means) == (
        "accuracy",
        scores(write_csv(tmp_path / "g.csv", GOOD))[0].means,
    )
    with pytest.raises(UserError, match="the column 'accuracy' may be 'score'; rename it"):
        scores(alone)


def test_a_cost_that_differs_within_a_run_is_still_refused(tmp_path: Path) -> None:
    """Seconds of each row must be summed up: no other score is meant."""
    lines = [line | {"f1": at / 8, "seconds": at} for at, line in enumerate(GOOD)]
    with pytest.raises(UserError, match="seconds differs within a run of 'a'"):
        scores(write_csv(tmp_path / "t.csv", lines), "f1")


def test_numbers_that_are_no_costs_are_named(tmp_path: Path) -> None:
    """Values below 0, one value in all lines, and those of which more is better, so that the
    slowest would win.

    A value per file is a cost, with a system in each file.
    """
    more = {"tokens_per_second": 5, "samples/s": 6, "throughput (GB)": 1}
    others = more | {"Accuracy": 0.5, "std": 1, "epoch": 2, "year": 2024, "seconds": 3}
    lines = [line | {"change": -1 if line["system"] == "a" else 2} | others for line in GOOD]
    files = [write_csv(tmp_path / f"{at}.csv", [*lines[at : at + 4]]) for at in (0, 4)]
    slow = [line | {"seconds": 5} for line in lines[4:]]
    (alike,), (differing,) = (
        assemble(read([files[0], other]))
        for other in (files[1], write_csv(tmp_path / "slow.csv", slow))
    )
    (one,) = scores(write_csv(tmp_path / "one.csv", lines))
    said = (
        f"More of these is better, so that they are no costs and weren't read: {', '.join(more)}.",
        "Other scores weren't read (--metric chooses one): Accuracy.",
        "Of the score, not of costs, and so not read: std, epoch.",
        "With values below 0, and so no cost: change.",
        "Equal in all lines, and so no cost that compares: year (2024), seconds (3).",
    )
    assert (one.remarks, dict(one.costs)) == (said, {})
    assert (set(alike.remarks), dict(alike.costs)) == (set(said), {})
    assert {cost.title: of for cost, of in differing.costs.items()} == {
        "seconds": {"a": {0: 3.0}, "b": {0: 5.0}}
    }


def test_groups_of_one_row_are_rows(tmp_path: Path) -> None:
    """A group each is no group."""
    (found,) = scores(write_csv(tmp_path / "t.csv", with_column("group", [0, 1, 2, 3] * 2)))
    assert found.groups is None
    (found,) = scores(write_csv(tmp_path / "u.csv", with_column("group", [0, 0, 0, 3] * 2)))
    assert found.group_count == 2
    assert found.span == pytest.approx(1.5)


@pytest.mark.parametrize("size", [1e-170, 1e-160, 1e-51, 1e50, 1e80])
def test_sizes_beyond_floats_fourth_powers_are_refused(size: float) -> None:
    """Of which no t could be computed: no claim of noise, and no traceback."""
    random = np.random.default_rng(0)
    frame = pd.DataFrame(
        [
            {"system": name, "row": row, "seed": seed, "score": size * (0.5 + random.random())}
            for name in "ab"
            for row in range(10)
            for seed in range(3)
        ]
    )
    with pytest.raises(UserError, match=r"give (them in a smaller unit|a number below 1e\+50)"):
        hpml_bench.compare(frame)
    assert len(hpml_bench.compare(frame.assign(score=frame["score"] * (1e-49 / size) * 1.0))) == 1
