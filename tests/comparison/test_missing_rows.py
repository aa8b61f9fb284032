"""Behaviour: rows that a system lacks, as it may have failed there, make no claim; the page says who lacks how many."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from helpers.commands import called
from helpers.made_tables import right_and_wrong, write_csv
from hpml_bench.comparison.assemble import assemble
from hpml_bench.comparison.page import page_of
from hpml_bench.comparison.readers.table import of_frame
from hpml_bench.report.answer import words
from hpml_bench.report.answer.sections import deciding_section
from hpml_bench.report.answer.summary import summarize
from hpml_bench.report.judge import judge
from hpml_bench.report.render import all_tables
from hpml_bench.report.scores import AlignedScores


def shared(frame: pd.DataFrame, **options: Any) -> AlignedScores:
    """Return the only data set of a frame, whose systems lack rows."""
    (found,) = assemble([of_frame(frame)], shared=True, **options)
    return found


@pytest.mark.parametrize("lower", [False, True])
@pytest.mark.parametrize(
    ("kind", "bounds"), [("right or wrong", None), ("real", (0.0, 1.0)), ("real", None)], ids=str
)  # fmt: skip
def test_failed_rows_make_no_system_better(kind: str, bounds: tuple[float, float] | None, lower: bool) -> None:
    """Of 30 pages of equal systems most are false by the shared rows alone; of those that take both, under 6 %.

    One system lacks a fifth of the rows: those where it did worst.
    """
    random, false, by_shared, pages, size = np.random.default_rng(0), 0, 0, 30, (2, 400)
    for _ in range(pages):
        a, b = (random.random(size) < 0.5).astype(float) if kind == "right or wrong" else random.beta(4, 2, size)
        lost = np.argsort((-1 if lower else 1) * a + 1e-9 * random.random(len(a)))[: len(a) // 5]
        first, second = (pd.DataFrame({"system": "ab"[at], "row": range(400), "score": (a, b)[at]}) for at in (0, 1))
        scores = shared(pd.concat([first.drop(lost), second]), bounds=bounds, lower=lower)
        (pair,) = judge(scores).score
        false += pair.verdict != "undecided"
        by_shared += judge(replace(scores, filled=None)).score[0].verdict == "different"
        assert (not pair.deciding[0] <= 0 <= pair.deciding[1]) == (pair.verdict == "different")
    assert by_shared > 0.5 * pages
    assert false < 0.06 * pages


@pytest.mark.parametrize("shape", ["rows", "groups", "seeds"])
def test_a_claim_needs_both_tables(shape: str) -> None:
    """The p is the larger of that of the shared rows and that of all with the worst score; the interval covers both."""
    lines = right_and_wrong({"a": 0.75, "b": 0.4}, 300, seeds=(0, 1, 2) if shape == "seeds" else (None,))
    frame = pd.DataFrame(lines)
    frame["group"] = frame["row"].str[1:].astype(int) // (3 if shape == "groups" else 1)
    lost = (frame["system"] == "a") & (frame["row"].str[1:].astype(int) < 15) & (frame.get("seed", 1) == 1)
    scores = shared(frame[~lost])
    (both,), (apart,) = judge(scores).score, judge(replace(scores, filled=None)).score
    (filled,) = judge(scores.filled).score
    assert both.p == max(apart.p, filled.p)
    assert (both.verdict, both.difference.mean) == ("different", apart.difference.mean)
    for one in (apart, filled):
        assert both.deciding[0] <= one.deciding[0] <= one.deciding[1] <= both.deciding[1]


def test_equality_needs_both_tables_too() -> None:
    """Equal on the shared rows, and not if the missing ones were wrong."""
    lines = right_and_wrong({"a": 0.5}, 3000)
    frame = pd.DataFrame([*lines, *(line | {"system": "b"} for line in lines)])
    lost = (frame["system"] == "a") & (frame["score"] == 1) & (frame["row"].str[1:].astype(int) < 1000)
    scores = shared(frame[~lost])
    assert judge(replace(scores, filled=None), 0.05).score[0].verdict == "equivalent"
    (pair,) = judge(scores, 0.05).score
    assert pair.verdict == "undecided"
    found = summarize(judge(scores, 0.05))
    assert found.pairs["score"][0].need is None
    section = deciding_section(found)
    assert "The missing rows may turn it." in section.model_dump_json()


def test_page_and_terminal_say_who_lacks_how_many(tmp_path: Path) -> None:
    """Names and numbers on the first screen, in the terminal and in the section on problems; no broken sentence."""
    said = "beta lacks 31 and gamma 1 of 200 rows: a verdict holds without these rows and with the worst score in them."
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
    assert [table.rows for table in all_tables(page) if table.name == "lacking"] == [(("beta", "31"), ("gamma", "1"))]
    assert page.problems == 1
    assert words.banner(summarize(judge(shared(pd.DataFrame(right_and_wrong({"a": 0.5, "b": 0.6})))))) == ""
