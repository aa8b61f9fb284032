"""Limits of a folder's claims: scores like a guess, under-trained runs, rates tuned elsewhere,
unsteady speed.
"""

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hpml_bench import statistics
from hpml_bench.judge.results import Results
from hpml_bench.records.run import RunRecord
from hpml_bench.records.tuning import TuningRecord
from hpml_bench.select.comparability import settings_of
from hpml_bench.system.environment import Environment

# Guessing

Shown = Literal["seeds", "rows", "not"]
"""Scope for which a method is shown to beat guessing: other seeds and rows; other rows in each
of its runs; none.
"""


def beside_guess(results: Results) -> dict[str, Shown]:
    """Return method -> scope for which it is shown to beat a constant answer; empty where that
    can't be tested.
    """
    found = results.guess
    if found is None or len(found.scores) < 2 or results.quality not in results.definitions:
        return {}
    scores = results.aligned
    sign = -1.0 if scores.score.better == "lower" else 1.0
    guessed = (
        found.scores
        if scores.groups is None
        else statistics.group_scores(found.scores, scores.groups)
    )
    gains = [
        np.array([sign * (of - guessed) for of in runs.values()], dtype=float)
        for runs in scores.units.values()
    ]
    span, step = scores.span if scores.bounded else 0.0, 1.0 if scores.binary else 0.0
    spent = statistics.spent_at(results.look, scores.declared_looks)
    shown = beats_guess(gains, span, spent, step, scores.effective)
    return dict(zip(scores.units, shown, strict=True))


def beats_guess(
    gains: Sequence[NDArray[np.float64]],
    span: float,
    spent: float,
    step: float = 1.0,
    effective: float | None = None,
) -> list[Shown]:
    """Return for each method the scope for which it is shown to beat guessing, by its gains over
    it, [seeds, rows].
    """
    # one-sided, Holm over both tests of all methods, at guessing's share of what this look has of
    # the 5 %
    evidence = {
        at: statistics.crossed_evidence(of, span, step, effective)
        for at, of in enumerate(gains)
        if len(of) >= statistics.LEAST_SEEDS
    }
    tested = {
        at: max((one.p() / 2 if one.mean > 0 else 1.0 for one in of), default=1.0)
        for at, of in evidence.items()
    }
    in_each_run = [max(_p_above_over_rows(run, effective) for run in of) for of in gains]
    adjusted = statistics.holm([*tested.values(), *in_each_run])
    level = statistics.ALPHA * statistics.FOR_GUESSING * spent
    over_seeds = {at for at, p in zip(tested, adjusted, strict=False) if p < level}
    in_each = [p < level for p in adjusted[len(tested) :]]
    return [
        "seeds" if at in over_seeds else "rows" if better else "not"
        for at, better in enumerate(in_each)
    ]


def _p_above_over_rows(gains: NDArray[np.float64], effective: float | None) -> float:
    """Return the one-sided p of a run's gains [rows]: McNemar's exact test of right and wrong,
    else Student's t.
    """
    if gains.mean() <= 0:
        return 1.0
    if set(np.unique(gains)) <= {-1.0, 0.0, 1.0}:
        return statistics.mcnemar(int((gains > 0).sum()), int((gains < 0).sum())) / 2
    evidence = statistics.OverRows.of(gains, 0.0, effective)
    return evidence.p() / 2 if evidence and np.ptp(gains) > 1e-9 * np.abs(gains).max() else 1.0


# Learning to the end

STILL_FALLING = 0.02
"""Share of the validation loss by which it fell between the last two evaluations of a run that
is under-trained. Learning rates that end at zero flatten a curve by themselves, so that a fall
is the more telling.
"""


def under_trained(results: Results) -> dict[str, tuple[int, ...]]:
    """Return method -> seeds whose validation loss still fell at the last step; only methods
    that have some.
    """
    found: dict[str, tuple[int, ...]] = {}
    for method, curves in results.curves.get("validation_loss", {}).items():
        for curve in (curve for curve in curves if len(curve.values) > 1):
            before, last = curve.values[-2:]
            if last == min(curve.values) and before - last > STILL_FALLING * abs(before):
                found[method] = (*found.get(method, ()), curve.seed)
    return found


# Tuning

TRAINS_NOTHING = frozenset(
    {
        "test_samples",
        "eval_batch",
        "eval_every",
        "log_every",
        "warmup_steps",
        "latency_samples",
        "device",
        "world_size",
        "threads",
    }
)
"""Settings that may differ between tuning and comparison without a note."""


def other_settings(results: Results, record: TuningRecord) -> list[str]:
    """Return the settings that bear on training and differ between tuning and comparison,
    defaults resolved.
    """
    here, there = settings_of(record.settings), settings_of(results.reference.spec.settings)
    return [key for key in here if here[key] != there[key] and key not in TRAINS_NOTHING]


# Steady speed

MOST_DRIFT, LONGEST_PAUSE = 0.05, 0.2
TELLING = (
    0.1  # drift that the windows of a method together must exclude; else they are too short to tell
)
Flag = Literal["drifts", "too short to tell", "paused"]


def unsteady(results: Results, flag: Flag) -> dict[str, tuple[str, ...]]:
    """Return method -> clauses with evidence against a steady state in its timed windows; only
    flagged methods.
    """
    found = {}
    for method in results.methods:
        runs, own = results.costed(method), []
        for seed, of in ((run.spec.seed, run.metrics) for run in runs):
            low, high = (of.get(f"step_time_drift_{end}") for end in ("low", "high"))
            # a run drifts where the whole interval of its drift lies beyond 5 %
            if (
                flag == "drifts"
                and low is not None
                and high is not None
                and (low > MOST_DRIFT or high < -MOST_DRIFT)
            ):
                own.append(f"seed {seed}: drift {_between(low, high)}")
            # One step that takes the share f of n steps' time, as of a suspended machine, makes the
            # variation √n f.
            if flag == "paused":
                longest = (of.get("step_time_cv") or 0.0) / math.sqrt(
                    of.get("timed_steps") or math.inf
                )
                if longest > LONGEST_PAUSE:
                    own.append(
                        f"seed {seed}: one step took about {100 * longest:.0f} % of the time"
                    )
        found[method] = _too_short(runs) if flag == "too short to tell" else tuple(own)
    return {method: clauses for method, clauses in found.items() if clauses}


def _too_short(runs: tuple[RunRecord, ...]) -> tuple[str, ...]:
    """Return the interval of the runs' mean drift, of logarithms, where it doesn't exclude a
    drift of `TELLING`.
    """
    known = [
        run
        for run in runs
        if any(metric.name == "step_time_drift_low" for metric in run.definitions)
    ]
    ends = [[run.metrics.get(f"step_time_drift_{end}") for end in ("low", "high")] for run in known]
    logs = [
        (math.log1p(low), math.log1p(high))
        for low, high in ends
        if low is not None and high is not None
    ]
    if not known or len(logs) < len(known):
        return (f"too few steps in {len(known) - len(logs)} of {len(known)} runs",) if known else ()
    mean = sum(low + high for low, high in logs) / 2 / len(logs)
    half = math.sqrt(sum((high - low) ** 2 / 4 for low, high in logs)) / len(logs)
    low, high = math.expm1(mean - half), math.expm1(mean + half)
    tells = low > MOST_DRIFT or high < -MOST_DRIFT or (low >= -TELLING and high <= TELLING)
    return () if tells else (f"drift {_between(low, high)} over its runs",)


# Types


def residual_types(results: Results) -> dict[str, tuple[str, ...]]:
    """Return type of the residual stream -> the methods whose compared runs had it, by their
    records.
    """
    found: dict[str, list[str]] = {}
    for method in results.methods:
        types = {Environment.read(run.environment).residual for run in results.runs(method)}
        for kind in sorted(types - {""}):
            found.setdefault(kind, []).append(method)
    return {kind: tuple(methods) for kind, methods in found.items()}


# Clocks

MOST_HEAT = 0.01
"""Share of its training up to which heat may slow a GPU without a caution: a tenth of the clock for
so long makes a run 0.1 % slower, less than the spread of most.
"""


def slowed_by_heat(results: Results) -> dict[str, float]:
    """Return run -> the share of its training in which heat lowered a GPU's clock; of runs whose
    costs count and that were slowed for more than `MOST_HEAT`.
    """
    shares = {
        f"{method}, seed {run.spec.seed}": run.metrics.get("slowed_by_heat") or 0.0
        for method in results.methods
        for run in results.costed(method)
    }
    return {name: share for name, share in shares.items() if share > MOST_HEAT}


def _between(low: float, high: float) -> str:
    return f"[{100 * low:+.1f} %, {100 * high:+.1f} %]".replace("-", "−")
