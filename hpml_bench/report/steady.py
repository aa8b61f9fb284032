"""Steadiness of the timed windows: no drift over a window, and no long pause in it."""

from __future__ import annotations

import math
from typing import Literal

from hpml_bench.records.run import RunRecord
from hpml_bench.report.results import Results

MOST_DRIFT, LONGEST_PAUSE = 0.05, 0.2
TELLING = 0.1
"""Drift that the windows of a method together must exclude; else they are too short to tell."""
Flag = Literal["drifts", "too short to tell", "paused"]


def unsteady(results: Results, flag: Flag) -> dict[str, tuple[str, ...]]:
    """Return method -> clauses with evidence against a steady state in its timed windows; only flagged methods.

    A run drifts where the whole interval of its drift lies beyond 5 %, and paused where one step took over a fifth of
    the time. The windows of a method are too short to tell where the interval of their mean drift reaches beyond 10 %
    and doesn't show one. Values that aren't recorded raise no flag.
    """
    found = {method: _clauses(results.costed(method), flag) for method in results.methods}
    return {method: clauses for method, clauses in found.items() if clauses}


def _clauses(runs: tuple[RunRecord, ...], flag: Flag) -> tuple[str, ...]:
    if flag == "too short to tell":
        return _too_short(runs)
    of_run = _drifts if flag == "drifts" else paused
    return tuple(f"seed {run.spec.seed}: {why}" for run in runs if (why := of_run(run)))


def _drifts(record: RunRecord) -> str | None:
    low, high = (record.metrics.get(f"step_time_drift_{end}") for end in ("low", "high"))
    if low is None or high is None or not (low > MOST_DRIFT or high < -MOST_DRIFT):
        return None
    return f"drift {_between(low, high)}"


def paused(record: RunRecord) -> str | None:
    """Return how much of a run's timed window one step took, where that is over a fifth of it."""
    steps, variation = record.metrics.get("timed_steps"), record.metrics.get("step_time_cv")
    # One step that takes the share f of n steps' time, as when the machine was suspended, makes the variation √n f.
    if not steps or variation is None or variation / math.sqrt(steps) <= LONGEST_PAUSE:
        return None
    return f"one step took about {100 * variation / math.sqrt(steps):.0f} % of the time"


def _too_short(runs: tuple[RunRecord, ...]) -> tuple[str, ...]:
    """Return the interval of the runs' mean drift where it doesn't exclude a drift of `TELLING`.

    Of logarithms d with half widths h over n runs: mean d ± √Σ h² / n.
    """
    known = [run for run in runs if any(metric.name == "step_time_drift_low" for metric in run.definitions)]
    ends = [[run.metrics.get(f"step_time_drift_{end}") for end in ("low", "high")] for run in known]
    logs = [(math.log1p(low), math.log1p(high)) for low, high in ends if low is not None and high is not None]
    if not known or len(logs) < len(known):
        return (f"too few steps in {len(known) - len(logs)} of {len(known)} runs",) if known else ()
    mean = sum(low + high for low, high in logs) / 2 / len(logs)
    half = math.sqrt(sum((high - low) ** 2 / 4 for low, high in logs)) / len(logs)
    low, high = math.expm1(mean - half), math.expm1(mean + half)
    tells = low > MOST_DRIFT or high < -MOST_DRIFT or (low >= -TELLING and high <= TELLING)
    return () if tells else (f"drift {_between(low, high)} over its runs",)


def _between(low: float, high: float) -> str:
    return f"[{100 * low:+.1f} %, {100 * high:+.1f} %]".replace("-", "−")
