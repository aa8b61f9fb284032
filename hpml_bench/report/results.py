"""What a report is made from: the values of the runs that may be compared, by method and seed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from hpml_bench import statistics
from hpml_bench.records import Metric, RunRecord
from hpml_bench.report.frame import runs_frame
from hpml_bench.report.selection import Selection
from hpml_bench.store import read_points

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

ESTIMATED = frozenset({"validation", "test", "inference"})
"""Phases whose metrics carry noise even where a few seeds happen to agree."""
MACHINE_FREE = frozenset({"", "nats", "%"})
"""Units of accuracies, losses, norms, counts and shares; what has another (time, rate, memory, energy) depends on where
a run ran."""
COUNTED_SHARES = frozenset({"setup", "validation", "test"})
"""Phases whose shares are of rows or parameters. A share measured in another is taken to be of time or memory."""
LARGEST = 1e100
"""Beyond this (or NaN) a number is no measurement, and its square would overflow."""


def machine_free(metric: Metric) -> bool:
    """Whether a metric is the same on whatever machine a run ran, but for rounding.

    Its unit decides, and for a share (a percentage) the phase too: a share of time or memory has no unit of its own.
    """
    share = metric.unit == "%" or metric.format.endswith("%")
    return metric.unit in MACHINE_FREE and (not share or metric.phase in COUNTED_SHARES)


@dataclass(frozen=True)
class Curve:
    """One seed's course of one metric."""

    seed: int
    steps: tuple[int, ...]
    values: tuple[float, ...]


@dataclass(frozen=True)
class Results(Selection):
    """The values of the runs that may be compared, by method and seed, and what statistics say of them."""

    # Values

    @cached_property
    def definitions(self) -> dict[str, Metric]:
        """Every metric's definition by name; the newest run's where they differ."""
        return {metric.name: metric for record in self.records for metric in record.definitions}

    @cached_property
    def frame(self) -> pd.DataFrame:
        """All recorded runs as `load_results` gives them."""
        return runs_frame(self.records)

    def values(self, metric: str) -> dict[str, dict[int, float]]:
        """Return method -> seed -> value of the compared runs; what wasn't measured, or is no number, is absent."""
        if metric not in self._values:
            self._values[metric] = self._read(metric)
        return self._values[metric]

    @cached_property
    def _values(self) -> dict[str, dict[str, dict[int, float]]]:
        return {}

    def _read(self, metric: str) -> dict[str, dict[int, float]]:
        found: dict[str, dict[int, float]] = {}
        for method in self.methods:
            measured = {r.spec.seed: r.metrics.get(metric) for r in self.runs(method)}
            finite = {seed: v for seed, v in measured.items() if v is not None and abs(v) < LARGEST}
            if finite:
                found[method] = finite
        return found

    def measured(self, *metrics: str) -> tuple[str, ...]:
        """Return those of the metrics that are defined and that some compared run has a value of, in this order."""
        return tuple(name for name in metrics if name in self.definitions and self.values(name))

    def interval(self, method: str, metric: str) -> statistics.Interval | None:
        """Return mean and interval over seeds, or None where nothing was measured."""
        values = self.values(metric).get(method)
        if values and (method, metric) not in self._intervals:
            self._intervals[method, metric] = statistics.mean_interval(list(values.values()))
        return self._intervals.get((method, metric))

    @cached_property
    def _intervals(self) -> dict[tuple[str, str], statistics.Interval]:
        return {}

    def rankable(self, metric: str) -> bool:
        """Whether methods may be ranked by a metric: what depends on the machine, only if all runs share it."""
        definition = self.definitions.get(metric)
        return self.one_machine or (definition is not None and machine_free(definition))

    def comparisons(self, metric: str) -> tuple[statistics.Comparison, ...]:
        """Return every pair of methods compared on a metric, Holm-adjusted over these pairs; none if not rankable."""
        if metric not in self._comparisons:
            values = self.values(metric) if self.rankable(metric) else {}
            self._comparisons[metric] = statistics.compare_pairs(values, exact=self._is_counted(metric))
        return self._comparisons[metric]

    @cached_property
    def _comparisons(self) -> dict[str, tuple[statistics.Comparison, ...]]:
        return {}

    def jointly(self, *metrics: str) -> dict[str, tuple[statistics.Comparison, ...]]:
        """Return the comparisons on several metrics as one family, for a sentence that cites them all."""
        pairs = [(metric, c) for metric in metrics for c in self.comparisons(metric)]
        adjusted = statistics.adjust(c for _, c in pairs)
        return {m: tuple(c for (of, _), c in zip(pairs, adjusted, strict=True) if of == m) for m in metrics}

    def _is_counted(self, metric: str) -> bool:
        definition = self.definitions.get(metric)
        return definition is not None and definition.phase not in ESTIMATED

    def ranks(self, metric: str) -> dict[str, tuple[int, int]]:
        """Return each measured method's rank interval on a metric; nothing if it is not rankable."""
        if not self.rankable(metric):
            return {}
        better = self.definitions[metric].better
        return statistics.rank_intervals(self.comparisons(metric), list(self.values(metric)), better)

    def right(self, method: str) -> dict[int, NDArray[np.bool_]]:
        """Return seed -> which test rows a compared run got right, in the rows' order; none without predictions."""
        runs = ((r.spec.seed, self.predictions.get(r.run_id)) for r in self.runs(method))
        return {seed: found.right for seed, found in runs if found is not None}

    @cached_property
    def curves(self) -> dict[str, dict[str, tuple[Curve, ...]]]:
        """Metric -> method -> one curve a seed, of the compared runs."""
        found: dict[str, dict[str, list[Curve]]] = {}
        for method in self.methods:
            for record in self.runs(method):
                for metric, steps in self._points(record).items():
                    curve = Curve(record.spec.seed, tuple(steps), tuple(steps.values()))
                    found.setdefault(metric, {}).setdefault(method, []).append(curve)
        return {metric: {name: tuple(c) for name, c in by_method.items()} for metric, by_method in found.items()}

    def curve(self, metric: str, method: str, seed: int) -> Curve | None:
        """Return one seed's course of a metric, where there is one."""
        return self._by_seed.get((metric, method, seed))

    @cached_property
    def _by_seed(self) -> dict[tuple[str, str, int], Curve]:
        return {
            (metric, method, curve.seed): curve
            for metric, by_method in self.curves.items()
            for method, curves in by_method.items()
            for curve in curves
        }

    def _points(self, record: RunRecord) -> dict[str, dict[int, float]]:
        found: dict[str, dict[int, float]] = {}
        for point in read_points(self.folder / record.run_id):
            if point.value is not None and abs(point.value) < LARGEST:
                found.setdefault(point.metric, {})[point.step] = point.value
        return {metric: dict(sorted(steps.items())) for metric, steps in found.items()}
