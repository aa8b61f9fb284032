"""Factors between runs that differ in one setting, paired within seeds, with an interval; outside a page's tests."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean

from hpml_bench import statistics
from hpml_bench.records.run import RunRecord
from hpml_bench.report.tables import MISSING, limits

Pair = tuple[RunRecord, RunRecord]
"""Two runs of one method and seed."""
ONE_SEED = "One seed gives no interval: it doesn't tell a factor from noise."


def factor(pairs: Sequence[Pair], metric: str) -> statistics.Interval | None:
    """Return the geometric mean of the second runs' values over the first ones', with its 95 % interval over seeds.

    None where a run hasn't measured it, or a value isn't above 0.
    """
    values = [tuple(run.metrics.get(metric) or math.nan for run in pair) for pair in pairs]
    if not values or not all(first > 0 and second > 0 for first, second in values):
        return None
    found = statistics.mean_interval([math.log(second / first) for first, second in values])
    low, high = (None if end is None else math.exp(end) for end in (found.low, found.high))
    return statistics.Interval(found.n, math.exp(found.mean), found.sd, low, high)


def between(interval: statistics.Interval | None, spec: str = ".2f") -> str:
    """Return an interval as `[low, high]`; of one seed there is none."""
    return MISSING if interval is None else limits(interval.low, interval.high, spec)


def mean(runs: Sequence[RunRecord], metric: str) -> float:
    """Return the mean of a metric over runs; NaN where one hasn't measured it."""
    values = [run.metrics.get(metric) for run in runs]
    return fmean(math.nan if value is None else value for value in values)
