"""Behaviour: rows that a system lacks, as it may have failed there, make no claim; the page says
who lacks how many.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from simulation import missing

from helpers.commands import called
from helpers.made_tables import right_and_wrong, write_csv
from hpml_bench.comparison.assemble import assemble
from hpml_bench.comparison.page import page_of
from hpml_bench.comparison.readers.table import of_frame
from hpml_bench.judge.scores import AlignedScores
from hpml_bench.judge.summarize import summarize
from hpml_bench.judge.verdicts import judge
from hpml_bench.page.answer import words
from hpml_bench.page.answer.sections import deciding_section
from hpml_bench.page.render import all_tables


def shared(frame: pd.DataFrame, **options: Any) -> AlignedScores:
    """Return the only data set of a frame, whose systems lack rows."""
    (found,) = assemble([of_frame(frame)], shared=True, **options)
    return found


@pytest.mark.parametrize("other", ["has all rows", "lacks as many at random"])
@pytest.mark.parametrize("lower", [False, True])
@pytest.mark.parametrize(
    ("kind", "bounds"), [("right or wrong", None), ("real", (0.0, 1.0)), ("real", None)], ids=str
)
def test_failed_rows_make_no_system_better(
    kind: str, bounds: tuple[float, float] | None, lower: bool, other: str
) -> None:
    """Of 30 pages of equal systems most are false by the shared rows alone; of those that take all,
    under 6 %.

    One system lacks a fifth of the rows: those where it did worst.
    """
    random, false, by_shared, pages, size = np.random.default_rng(0), 0, 0, 30, (2, 400)
    for _ in range(pages):
        a, b = (
            (random.random(size) < 0.5).astype(float)
            if kind == "right or wrong"
            else random.beta(4, 2, size)
        )
        lost = np.argsort((-1 if lower else 1) * a + 1e-9 * random.random(len(a)))[: len(a) // 5]
        first, second = (
            pd.DataFrame({"system": "ab"[at], "row": range(400), "score": (a, b)[at]})
            for at in (0, 1)
        )
        second = second if other == "has all rows" else second.sample(frac=0.8, random_state=random)
        scores = shared(pd.concat([first.drop(lost), second]), bounds=bounds, lower=lower)
        (pair,) = judge(scores).score
        false += pair.verdict != "undecided"
        by_shared += judge(replace(scores, filled=None)).score[0].verdict == "different"
        assert (not pair.deciding[0] <= 0 <= pair.deciding[1]) == (pair.verdict == "different")
    assert by_shared > 0.5 * pages
    assert false < 0.06 * pages


def test_both_systems_lacking_rows_are_compared_against_the_claim() -> None:
    """One lacks failures, the other as many at random: with the worst score in all gaps nearly
    all pages are false.
    """
    rates = missing.claims("equal, one lacks failures, the other as many at random", 0.2, pages=20)
    assert rates["worst score in all"] > 0.9
    assert rates["against the claim"] == 0


@pytest.mark.parametrize(
    "shape", ["rows", "groups", "seeds", "three systems", "three systems with seeds"]
)
def test_a_claim_needs_all_tables(shape: str) -> None:
    """The p is the largest of the shared rows and of all rows filled either way; the interval
    covers all three.
    """
    seeds, third = "seeds" in shape, "three" in shape
    systems = {"a": 0.75, "b": 0.4} | ({"c": 0.6} if third else {})
    frame = pd.DataFrame(right_and_wrong(systems, 300, seeds=(0, 1, 2) if seeds else (None,)))
    row = frame["row"].str[1:].astype(int)
    frame["group"] = row // (3 if shape == "groups" else 1)
    of_a = (frame["system"] == "a") & (row < 9) & (frame.get("seed", 1) == 1)
    of_b = (frame["system"] == "b") & (row >= 294) & (frame.get("seed", 0) == 0) & (not third)
    scores = shared(frame[~of_a & ~of_b])

    def filled(a: int, b: int) -> AlignedScores:
        return shared(frame.assign(score=frame["score"].mask(of_a, a).mask(of_b, b)))

    tables = [
        judge(one).score for one in (replace(scores, filled=None), filled(0, 1), filled(1, 0))
    ]
    for at, pair in enumerate(judge(scores).score):
        each = [table[at] for table in tables]
        assert pair.p == pytest.approx(max(c.p for c in each), rel=1e-9)
        assert pair.difference.mean == each[0].difference.mean
        assert pair.difference.low == pytest.approx(min(c.difference.low for c in each))
        assert pair.difference.high == pytest.approx(max(c.difference.high for c in each))
        assert (not pair.deciding[0] <= 0 <= pair.deciding[1]) == (pair.verdict == "different")
    assert judge(scores).score[0].verdict == "different"


@pytest.mark.parametrize("score", [0, 1])
def test_equality_needs_all_tables_too(score: int) -> None:
    """Equal on the shared rows, and not if the missing ones, where the other is right, or wrong,
    were the reverse.
    """
    lines = right_and_wrong({"a": 0.5}, 3000)
    frame = pd.DataFrame([*lines, *(line | {"system": "b"} for line in lines)])
    lost = (
        (frame["system"] == "a")
        & (frame["score"] == score)
        & (frame["row"].str[1:].astype(int) < 1000)
    )
    scores = shared(frame[~lost])
    assert judge(replace(scores, filled=None), 0.05).score[0].verdict == "equivalent"
    (pair,) = judge(scores, 0.05).score
    assert pair.verdict == "undecided"
    found = summarize(judge(scores, 0.05))
    assert found.pairs["score"][0].need is None
    section = deciding_section(found)
    assert "The missing rows may turn it." in section.model_dump_json()


def test_without_a_range_the_page_says_that_missing_rows_are_taken_within_the_scores_seen() -> None:
    """The extremes of the scores seen stand for ends that aren't known."""
    frame = pd.DataFrame(right_and_wrong({"a": 0.75, "b": 0.4}, 100))
    frame["score"] = frame["score"] + 0.1 * (np.arange(len(frame)) % 3)
    lost = (frame["system"] == "a") & (frame["row"] == "q5")
    said = "a lacks 1 of 100 rows: a verdict holds whatever these rows would have scored"
    assert summarize(judge(shared(frame[~lost]))).lacking == f"{said}, within the range seen."
    assert summarize(judge(shared(frame[~lost], bounds=(0.0, 2.0)))).lacking == f"{said}."
    least, largest = shared(frame[~lost]).filled or ()
    assert (least.rows["a"][0][-1], largest.rows["a"][0][-1]) == (0.0, pytest.approx(1.2))


def test_page_and_terminal_say_who_lacks_how_many(tmp_path: Path) -> None:
    """Names and numbers on the first screen, in the terminal and in the section on problems; no
    broken sentence.
    """
    said = (
        "beta lacks 31 and gamma 1 of 200 rows: a verdict holds whatever these rows would have "
        "scored."
    )
    gone = {("beta", f"q{at}") for at in range(31)} | {("gamma", "q150")}
    whole = right_and_wrong({"alpha": 0.5, "beta": 0.52, "gamma": 0.8})
    lines = [line for line in whole if (line["system"], line["row"]) not in gone]
    path = write_csv(tmp_path / "scores.csv", lines)
    done = called("compare", path, "--shared", "--out", tmp_path / "out")
    assert said in " ".join(done.output.split())
    text = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    assert said in text
    assert "168 shared rows are few." in text
    page = page_of(judge(shared(pd.DataFrame(lines))))
    assert [table.rows for table in all_tables(page) if table.name == "lacking"] == [
        (("beta", "31"), ("gamma", "1"))
    ]
    assert page.problems == 1
    assert (
        words.banner(summarize(judge(shared(pd.DataFrame(right_and_wrong({"a": 0.5, "b": 0.6}))))))
        == ""
    )
