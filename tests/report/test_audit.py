"""Claims that a page must not make, or must: each was wrong once in a report or a simulation of equal methods."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from report_sections import load, said

from helpers import made_records
from helpers.made_records import record, sweep
from hpml_bench.records.run import RunRecord
from hpml_bench.statistics import OverSeeds, p_different


def with_values(values: dict[str, dict[str, list[float]]]) -> list[RunRecord]:
    """Return a sweep with these values of metrics, by method, metric and seed."""
    made = []
    for method, metrics in values.items():
        for seed in range(len(next(iter(metrics.values())))):
            run = record(method, seed)
            own = {name: of[seed] for name, of in metrics.items()}
            made.append(run.model_copy(update={"metrics": run.metrics | own}))
    return made


def test_a_missing_run_does_not_turn_the_headline(tmp_path: Path) -> None:
    """Where the better method lacks its easiest seed, the page still says that it is better, and crowns no other."""
    easy = [0.0, 0.01, 0.02, 0.03, 0.09]
    records = with_values(
        {"lora": {"test_accuracy": [0.80 + e for e in easy]}, "full": {"test_accuracy": [0.86 + e for e in easy]}}
    )
    results = load(tmp_path, [r for r in records if (r.spec.method.name, r.spec.seed) != ("full", 4)])
    text = said("takeaways", results)
    assert "No method is shown to be better by accuracy than full" in text
    assert "better than lora by 6.0 points" in text
    assert "full is better" in said("comparisons", results)
    assert "lora has the highest" not in text


def test_claims_on_these_rows_are_no_claims_on_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two models that err on 100 rows each, others in every seed alike: their means are apart on these rows only."""

    def answers(item: RunRecord, _: float, rows: int) -> tuple[np.ndarray, np.ndarray]:
        labels, place, seed = np.arange(rows) % 4, np.arange(rows), item.spec.seed
        lora = item.spec.method.name == "lora"
        wrong = place < 100 + seed % 2 if lora else (place >= 500) & (place < 613 + seed % 2)
        return labels, np.where(wrong, (labels + 1) % 4, labels)

    monkeypatch.setattr(made_records, "answers", answers)
    results = load(tmp_path, sweep(["lora", "full"]))
    (pair,) = results.on_these_rows()
    assert pair.p is not None
    assert pair.p < 0.001
    assert [c.verdict for c in results.comparisons("test_accuracy")] == ["undecided"]
    assert "by 1.3 points" not in said("takeaways", results)


def test_equal_differences_are_no_less_sure() -> None:
    """+10 rows of 1,000 in five seeds are at least as sure as +10 in four and +9 in one."""
    equal, nearly = (OverSeeds.of(np.array(rows) / 1000, grid=1 / 1000) for rows in ([10] * 5, [10] * 4 + [9]))
    assert equal
    assert nearly
    assert p_different(equal) <= p_different(nearly)
    assert p_different(equal) < 0.001


def test_no_interval_is_a_point_by_luck(tmp_path: Path) -> None:
    """8 points in every seed is not [8, 8]: the grid of one row is in the interval."""
    same = {"lora": {"test_accuracy": [0.9] * 5}, "full": {"test_accuracy": [0.82] * 5}}
    (pair,) = load(tmp_path, with_values(same)).comparisons("test_accuracy")
    assert pair.difference.low is not None
    assert pair.difference.high is not None
    assert pair.difference.high - pair.difference.low > 0.001


def test_a_front_is_told_only_where_it_is_known(tmp_path: Path) -> None:
    """A method that costs the same but for noise is not off the front for a few samples a second."""
    noise = {"lora": [2.0, 2.1, 1.9, 2.05, 1.95], "full": [2.02, 1.95, 2.1, 1.9, 2.04]}
    results = load(tmp_path, with_values({m: {"train_seconds": of} for m, of in noise.items()}))
    places = {of.place for of in results.front(("test_accuracy", "train_seconds")).values()}
    assert places == {"undecided"}
