"""Whether a throughput was measured in a steady state: a timed window long enough, without drift or a long pause."""

from __future__ import annotations

import math

from hpml_bench.records import RunRecord
from hpml_bench.report.results import Results

LEAST_STEPS, LEAST_SECONDS, MOST_DRIFT, LONGEST_PAUSE = 20, 2.0, 0.05, 0.2


def reasons(record: RunRecord) -> tuple[str, ...]:
    """Return why a run's timed window is no proof of its throughput; what it didn't record is not judged."""
    steps, seconds, drift = (record.metrics.get(name) for name in ("timed_steps", "timed_seconds", "step_time_drift"))
    found = []
    if steps is not None and steps < LEAST_STEPS:
        found.append(f"{steps:.0f} steps")
    if seconds is not None and seconds < LEAST_SECONDS:
        found.append(f"{seconds:.2f} s")
    if drift is not None and (math.isnan(drift) or abs(drift) > MOST_DRIFT):
        found.append(f"drift {100 * drift:+.1f} %".replace("-", "−"))
    variation = record.metrics.get("step_time_cv")
    # One step that takes the share f of n steps' time, as when the machine was suspended, makes the variation √n f.
    if steps and variation is not None and variation / math.sqrt(steps) > LONGEST_PAUSE:
        found.append(f"one step took about {100 * variation / math.sqrt(steps):.0f} % of the time")
    return tuple(found)


def throughput_flags(results: Results) -> dict[str, tuple[str, ...]]:
    """Return method -> one clause a flagged run, such as `seed 3: 12 steps, drift +8.0 %`; only flagged methods."""
    found = {
        method: tuple(f"seed {r.spec.seed}: {', '.join(why)}" for r in results.runs(method) if (why := reasons(r)))
        for method in results.methods
    }
    return {method: clauses for method, clauses in found.items() if clauses}
