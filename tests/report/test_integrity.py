"""Records that define metrics otherwise are left out with a reason; tests/verify has the other forgeries of records."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from report_sections import load

from helpers.made_records import record, sweep
from hpml_bench.records.load import wrong_id
from hpml_bench.records.run import RunRecord
from hpml_bench.report.results import TIME, Results


def apart(results: Results) -> dict[str, str]:
    """Return run_id -> why it is set apart."""
    return {r.run_id: group.reason for group in results.left_out.excluded for r in group.records}


def test_ids_of_unknown_plugins_are_not_judged() -> None:
    """Without a plug-in its defaults are unknown, which ids leave out."""
    run = record()
    assert wrong_id(run, run.run_id) is None
    assert wrong_id(run, "another-id") is not None
    unknown = run.spec.method.model_copy(update={"method": "of_a_package"})
    gone = run.model_copy(update={"spec": run.spec.model_copy(update={"method": unknown})})
    assert wrong_id(gone, "another-id") is None


def turned(item: RunRecord, **changes: Any) -> RunRecord:
    """Return a run that defines the training time otherwise."""
    own = [m.model_copy(update=changes) if m.name == TIME else m for m in item.definitions]
    return item.model_copy(update={"definitions": tuple(own)})


@pytest.mark.parametrize(
    "changes", [{"better": "higher"}, {"unit": "ms"}, {"bounds": (0.0, 100.0)}, {"grid": 7.0}, {"noisy": False}]
)
def test_one_record_does_not_turn_the_page(tmp_path: Path, changes: dict[str, Any]) -> None:
    """The newest run calls longer training better, or has another unit, range or grid: it is left out alone."""
    *others, newest = sweep(["head", "full"])
    results = load(tmp_path, [*others, turned(newest, **changes)])
    assert results.definitions[TIME].better == "lower"
    assert results.definitions[TIME].unit == "s"
    assert list(apart(results)) == [newest.run_id]
    assert "it defines metrics otherwise than most runs: train_seconds has " in apart(results)[newest.run_id]


def test_another_score_does_not_lead_the_page(tmp_path: Path) -> None:
    """The newest run says that methods are ranked by macro-F1: it is left out."""
    *others, newest = sweep(["head", "full"])
    results = load(tmp_path, [*others, newest.model_copy(update={"headline": "test_macro_f1"})])
    assert results.quality == "test_accuracy"
    assert list(apart(results)) == [newest.run_id]
