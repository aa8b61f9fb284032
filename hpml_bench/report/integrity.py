"""Integrity of records: times that their points give, metrics that are defined alike, files of one run alone."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from hpml_bench.config.settings import Settings
from hpml_bench.records.files import POINTS
from hpml_bench.records.points import iterate_points
from hpml_bench.records.run import RunRecord
from hpml_bench.report.comparability import untrained

TOLERANCE = 1e-6
"""Relative, between a recorded time and that of the stored points; sums in another order differ by far less."""


def faults(folder: Path, records: Iterable[RunRecord]) -> dict[str, str]:
    """Return, by run_id, what shows that runs of one protocol are not what their records say.

    Args:
        folder: the results folder.
        records: runs that ended well.

    """
    records = tuple(records)
    found = {record.run_id: why for record in records if (why := _of_times(folder, record))}
    return _of_copies(records) | _of_definitions(records) | found


def _of_times(folder: Path, record: RunRecord) -> str | None:
    """Return why a run's times can't be right: its points give others, or it has none."""
    recorded = {name: record.metrics.get(name) for name in ("train_seconds", "samples_per_second")}
    if untrained(record) or not any(recorded.values()):
        return None
    if POINTS not in record.files:
        return f"its record names no {POINTS}, so that its times can't be checked"
    seconds = [p.value or 0.0 for p in iterate_points(folder / record.run_id) if p.metric == "step_seconds"]
    for name, given in _times(record.spec.settings, seconds).items():
        value = recorded[name]
        if value is not None and not math.isclose(value, given, rel_tol=TOLERANCE):
            return f"its {name} is recorded as {value:.4g}, and its points give {given:.4g}"
    return None


def _times(settings: Settings, seconds: Sequence[float]) -> dict[str, float]:
    """Return what the seconds of all steps give; the rate is that of the steps after the warm-up."""
    timed = seconds[settings.warmup_steps :] or seconds  # a run no longer than the warm-up is timed whole
    rate = {"samples_per_second": len(timed) * settings.global_batch / math.fsum(timed)} if any(timed) else {}
    return {"train_seconds": math.fsum(seconds), **rate}


def _of_copies(records: Sequence[RunRecord]) -> dict[str, str]:
    """Return the runs that have the points of another, which hold times: one is a copy, and no file says which.

    Predictions may agree: of a method under two names, or of one that changes nothing.
    """
    by_digest: dict[str, list[RunRecord]] = {}
    for record in records:
        if POINTS in record.files and not untrained(record):
            by_digest.setdefault(record.files[POINTS], []).append(record)
    found = {}
    for group in by_digest.values():
        for record in group if len(group) > 1 else ():
            others = ", ".join(other.run_id for other in group if other is not record)
            found[record.run_id] = f"its {POINTS} is that of {others} too: all but one are copies"
    return found


def _of_definitions(records: Sequence[RunRecord]) -> dict[str, str]:
    """Return the runs that define a metric, or what methods are ranked by, otherwise than most; of equals the oldest.

    What decides a comparison counts: the unit and which values are better. Words may differ between versions.
    """
    said = {record.run_id: _definitions(record) for record in sorted(records, key=lambda r: (r.started, r.run_id))}
    usual: dict[str, str] = {}
    for name in {name for of in said.values() for name in of}:
        usual[name] = Counter(of[name] for of in said.values() if name in of).most_common(1)[0][0]
    found = {}
    for run_id, of in said.items():
        other = [f"{name} is {text} instead of {usual[name]}" for name, text in of.items() if text != usual[name]]
        if other:
            found[run_id] = f"it defines metrics otherwise than most runs: {'; '.join(other[:3])}"
    return found


def _definitions(record: RunRecord) -> Mapping[str, str]:
    named = {m.name: f"in {m.unit or 'no unit'}, {m.better} is better" for m in record.definitions}
    return named | {"the score": record.headline or "none"}
