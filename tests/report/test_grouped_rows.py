"""Pages of test rows in groups: resampled and tested by group, everywhere alike, and said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from report_sections import said

from helpers import made_records
from helpers.made_records import grouped, sweep
from hpml_bench import statistics
from hpml_bench.records.files import PREDICTIONS, RECORD
from hpml_bench.report.caveats import beats_guess
from hpml_bench.report.results import Results

GROUPS = np.repeat(np.arange(100), np.resize((1, 5, 10, 24), 100))
"""Of a thousand rows."""


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Five methods with five seeds, right or wrong on 1,000 rows in 100 groups."""
    return Results.load(grouped(made_records.write(tmp_path_factory.mktemp("grouped"), sweep()), GROUPS))


def test_scores_are_of_groups_and_mean_the_metric(results: Results) -> None:
    """As many scores as groups, whose mean is the accuracy in every seed; rows' own scores stay at hand."""
    assert (results.test_rows, results.aligned.group_count) == (1000, 100)
    for method in results.methods:
        for seed, scores in results.aligned.units[method].items():
            assert scores.shape == (100,)
            assert scores.mean() == pytest.approx(results.values("test_accuracy")[method][seed], abs=1e-12)
            assert results.row_scores(method)[seed].shape == (1000,)


def test_verdicts_are_by_group(results: Results, tmp_path: Path) -> None:
    """Every pair's p is that of the seeds x groups table, in which the largest group can change most."""
    assert results.aligned.span == pytest.approx(24 / 10)
    for c in results.comparisons("test_accuracy"):
        table = np.array([results.aligned.units[c.a][s] - results.aligned.units[c.b][s] for s in results.seeds])
        assert c.p == pytest.approx(max(one.p() for one in statistics.crossed_evidence(table, span=2.4)))
    assert results.grid("test_accuracy") == 1 / 1000
    plain = Results.load(made_records.write(tmp_path, sweep()))
    assert {c.p for c in plain.comparisons("test_accuracy")} != {c.p for c in results.comparisons("test_accuracy")}
    assert plain.values("test_accuracy") == results.values("test_accuracy")


def test_the_page_says_how_many_groups(results: Results, tmp_path: Path) -> None:
    """With the words and the comparisons; of rows without groups nothing is said."""
    assert "Within a seed and a group of test rows" in said("definitions", results)
    told = said("comparisons", results)
    assert "(1,000 test rows in 100 groups)" in told
    assert "on these 1,000 test rows in 100 groups alone" in told
    plain = Results.load(made_records.write(tmp_path, sweep()))
    assert plain.aligned.groups is None
    assert "group" not in said("definitions", plain) + said("comparisons", plain)


def test_a_run_with_other_groups_is_not_compared(tmp_path: Path) -> None:
    """Or without any: it is set apart with the reason."""
    folder = made_records.write(tmp_path, sweep(("lora", "full"), 4))
    odd = next(folder.glob("lora-s3-*"))
    unmarked = (odd / PREDICTIONS).read_bytes(), (odd / RECORD).read_text()
    grouped(folder, GROUPS)
    (odd / PREDICTIONS).write_bytes(unmarked[0])
    (odd / RECORD).write_text(unmarked[1])
    results = Results.load(folder)
    assert len(results.compared) == 7
    (apart,) = results.left_out.excluded
    assert "the groups beside its predictions are not those of the other runs" in apart.reason


def test_what_is_below_guessing_is_not_shown_above_it() -> None:
    """However sure the difference is, over seeds and over rows."""
    gains = 0.01 * np.random.default_rng(0).standard_normal((4, 400))
    assert beats_guess([0.5 + gains, -0.5 - gains], 1.0, 1, 0.0) == ["seeds", "not"]
