"""Integrity of records: times agree with their points, metrics are defined alike, no files are copies."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from operator import attrgetter
from pathlib import Path

from hpml_bench.records.files import POINTS
from hpml_bench.records.points import iterate_points
from hpml_bench.records.run import Metric, RunRecord
from hpml_bench.report.comparability import grouped, untrained
from hpml_bench.report.faults import Fault, Kind
from hpml_bench.suite.settings import Settings

DECISIVE = ("unit", "better", "grid", "depends_on_machine", "noisy", "bounds")
"""Fields of a metric's definition that decide comparisons."""
_decisive = attrgetter(*DECISIVE)
TOLERANCE = 1e-6
"""Relative, between a recorded time and the stored points' time; sums in another order differ by far less."""


def faults(folder: Path, records: Iterable[RunRecord]) -> dict[str, Fault]:
    """Return run_id -> evidence that a run is not as its record says, for runs of one protocol that ended well."""
    records = tuple(records)
    times = {record.run_id: why for record in records if (why := _of_times(folder, record))}
    by_kind: tuple[tuple[Kind, dict[str, str]], ...]
    by_kind = (("copies", _of_copies(records)), ("definitions", _of_definitions(records)), ("times", times))
    return {run: Fault(kind, why) for kind, found in by_kind for run, why in found.items()}


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
    """Return training time and rate from the seconds of all steps; the rate is that of the steps after the warm-up."""
    timed = seconds[settings.warmup_steps :] or seconds  # a run no longer than the warm-up is timed whole
    rate = {"samples_per_second": len(timed) * settings.global_batch / math.fsum(timed)} if any(timed) else {}
    return {"train_seconds": math.fsum(seconds), **rate}


def _of_copies(records: Sequence[RunRecord]) -> dict[str, str]:
    """Return the runs that have the points of another, or its order of samples in another seed: one is a copy.

    No file shows which one. Points hold times, which never agree. Predictions may: of a method under two names, or of
    one that changes nothing.
    """
    trained = [record for record in records if POINTS in record.files and not untrained(record)]
    orders = {r.run_id: (r.spec.method.model_dump_json(), r.consumed.order) for r in trained if r.consumed is not None}
    ordered = _shared((r for r in trained if r.run_id in orders), lambda r: orders[r.run_id], "its order of samples")
    return ordered | _shared(trained, lambda record: record.files[POINTS], f"its {POINTS}")


def _shared(records: Iterable[RunRecord], key: Callable[[RunRecord], Hashable], what: str) -> dict[str, str]:
    """Return run_id -> clause naming the other runs with the same key, where there are some."""
    found = {}
    for group in grouped(records, key).values():
        for record in group if len(group) > 1 else ():
            others = ", ".join(other.run_id for other in group if other is not record)
            found[record.run_id] = f"{what} is that of {others} too: all but one are copies"
    return found


def _of_definitions(records: Sequence[RunRecord]) -> dict[str, str]:
    """Return the runs that define a metric, or the headline, otherwise than most; among equals the oldest's counts.

    Only fields that decide comparisons count. Words may differ between versions, and a version may lack a field.
    """
    ordered = sorted(records, key=lambda record: (record.started, record.run_id))
    said = {record.run_id: {m.name: (_decisive(m), m) for m in record.definitions} for record in ordered}
    usual = {
        name: Counter(of[name][0] for of in said.values() if name in of).most_common(1)[0][0]
        for name in {name for of in said.values() for name in of}
    }
    headline = Counter(record.headline for record in ordered).most_common(1)[0][0] if ordered else None
    found = {}
    for record in ordered:
        other = [] if record.headline == headline else [f"the score is {record.headline} instead of {headline}"]
        for name, (values, metric) in said[record.run_id].items():
            if values != usual[name]:
                other += _differing(metric, values, usual[name])
        if other:
            found[record.run_id] = f"it defines metrics otherwise than most runs: {'; '.join(other[:3])}"
    return found


def _differing(metric: Metric, values: Sequence[object], usual: Sequence[object]) -> list[str]:
    """Return, in words, the recorded fields of a metric that are not the usual ones."""
    return [
        f"{metric.name} has {field} {value} instead of {most}"
        for field, value, most in zip(DECISIVE, values, usual, strict=True)
        if value != most and field in metric.model_fields_set
    ]
