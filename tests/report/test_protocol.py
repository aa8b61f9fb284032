"""What the report enforces: which runs may be compared, what one seed may say, and what is flagged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from report_sections import load, said, with_metrics

from helpers import made_records
from helpers.made_records import sweep
from hpml_bench.records.files import PREDICTIONS
from hpml_bench.records.folder import RunFolder
from hpml_bench.records.load import digests_of
from hpml_bench.report.results import TIME, Results

STEADY = (
    made_records._metric("timed_steps", "timed steps", "", "neither", spec=".0f"),
    made_records._metric("timed_seconds", "timed window", "s", "neither", spec=".2f"),
    made_records._metric("step_time_cv", "step time variation", "", "lower", spec=".1%"),
    *(
        made_records._metric(f"step_time_drift{end}", f"step time drift{end}", "", "neither", spec=".1%")
        for end in ("", "_low", "_high")
    ),
)
CALM = {
    "timed_steps": 100.0, "timed_seconds": 3.0, "step_time_cv": 0.02, "step_time_drift": 0.01,
    "step_time_drift_low": -0.01, "step_time_drift_high": 0.03,
}  # fmt: skip


def change(results: Results, method: str, seed: int, edit: Any) -> Results:
    """Edit one run's predictions (a frame), give its record their digest, and read the folder again."""
    run = next(r for r in results.compared if (r.spec.method.name, r.spec.seed) == (method, seed))
    folder = results.folder / run.run_id
    edit(pd.read_parquet(folder / PREDICTIONS)).to_parquet(folder / PREDICTIONS, index=False)
    RunFolder(folder).commit(run.model_copy(update={"files": digests_of(folder)}))
    return Results.load(results.folder)


DRIFT, PAUSE = "seed 0: drift [{}]", "seed 0: one step took about {} % of the time"


@pytest.mark.parametrize(("drift", "variation", "notes"), [
    ((-0.01, 0.03), 0.02, {}),
    ((-0.05, 0.05), 0.02, {}),
    ((-0.1, 0.15), 0.02, {}),
    ((-0.01, 0.03), 1.9, {}),
    ((-0.01, 0.03), 2.1, {"¶": PAUSE.format(21)}),
    ((0.051, 0.09), 0.02, {"†": DRIFT.format("+5.1 %, +9.0 %")}),
    ((-0.2, -0.06), 0.02, {"†": DRIFT.format("−20.0 %, −6.0 %")}),
    ((0.1, 0.2), 3.0, {"†": DRIFT.format("+10.0 %, +20.0 %"), "¶": PAUSE.format(30)}),
    ((-0.4, 0.6), 0.02, {"§": "drift [−15.1 %, +17.8 %] over its runs"}),
    ((None, None), 0.02, {"§": "too few steps in 1 of 3 runs"}),
])  # fmt: skip
def test_windows_that_are_not_steady_are_marked(
    tmp_path: Path, drift: tuple[float | None, float | None], variation: float, notes: dict[str, str]
) -> None:
    """One that drifts by over 5 % or holds a pause, and a method's that are too short to tell; with the reason."""
    made = [
        with_metrics(r, **CALM).model_copy(update={"definitions": (*r.definitions, *STEADY)})
        for r in sweep(["lora", "full"], 3)
    ]
    ends = dict(zip(("step_time_drift_low", "step_time_drift_high"), drift, strict=True))
    made[0] = with_metrics(made[0], step_time_cv=variation, **ends)
    results = load(tmp_path, made)
    lines = said("throughput", results).splitlines()
    assert {mark for mark in "†§¶" if mark in "".join(lines)} == notes.keys()
    for mark, clause in notes.items():
        (note,) = [line for line in lines if line.startswith(mark) and line.endswith(").")]
        assert note.endswith(f": lora ({clause}).")
        assert [line.split(" | ")[0] for line in lines if mark in line and "|" in line] == ["lora", "lora"]
    assert ("Step times drift for lora (see Throughput)." in said("summary", results)) == ("†" in notes)


# Records that define metrics otherwise


def apart(results: Results) -> dict[str, str]:
    """Return run_id -> why it is set apart."""
    return {r.run_id: group.reason for group in results.left_out.excluded for r in group.records}


@pytest.mark.parametrize(
    "changes", [{"better": "higher"}, {"unit": "ms"}, {"bounds": (0.0, 100.0)}, {"grid": 7.0}, {"noisy": False}]
)
def test_one_record_does_not_turn_the_page(tmp_path: Path, changes: dict[str, Any]) -> None:
    """The newest run calls longer training better, has another unit, range, grid or score: it is left out alone."""
    *others, newest = sweep(["head", "full"])
    turned = tuple(m.model_copy(update=changes) if m.name == TIME else m for m in newest.definitions)
    results = load(tmp_path, [*others, newest.model_copy(update={"definitions": turned})])
    assert results.definitions[TIME].better == "lower"
    assert results.definitions[TIME].unit == "s"
    assert list(apart(results)) == [newest.run_id]
    assert "it defines metrics otherwise than most runs: train_seconds has " in apart(results)[newest.run_id]
    by_f1 = load(tmp_path / "f1", [*others, newest.model_copy(update={"headline": "test_macro_f1"})])
    assert (by_f1.quality, list(apart(by_f1))) == ("test_accuracy", [newest.run_id])


def test_another_order_of_rows_is_none(tmp_path: Path) -> None:
    """Rows may be stored in any order, and scores may differ by what float32 rounds away."""
    results = change(load(tmp_path, sweep(["lora", "full"], 3)), "lora", 1, lambda f: f.iloc[::-1])
    assert len(results.compared) == 6
    before = load(tmp_path / "before", sweep(["lora", "full"], 3))
    assert (results.aligned.units["lora"][1] == before.aligned.units["lora"][1]).all()
    barely = change(results, "lora", 2, lambda f: f.assign(loss=f.loss.astype(float) * (1 + 1e-8)))
    assert len(barely.compared) == 6
