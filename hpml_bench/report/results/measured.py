"""The values of the compared runs: metrics by method and seed, their means with intervals, and the scores of rows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from hpml_bench import statistics
from hpml_bench.plugins.task import Guess
from hpml_bench.records.predictions import Answers
from hpml_bench.records.run import Metric
from hpml_bench.report.curves import LARGEST, Curve, read_curves
from hpml_bench.report.predictions import Scored
from hpml_bench.report.results.compared import ComparedRuns

if TYPE_CHECKING:
    from numpy.typing import NDArray

DEFAULT_MARGIN = 0.01
"""Difference of scores that counts as none where a suite declares no other: a share of the score's range."""


@dataclass(frozen=True)
class MeasuredRuns(ComparedRuns):
    """The compared runs with their measured values."""

    @cached_property
    def definitions(self) -> dict[str, Metric]:
        """Every metric's definition by name; the newest run's where they differ."""
        return {metric.name: metric for record in self.by_start for metric in record.definitions}

    @property
    def test_metrics(self) -> tuple[str, ...]:
        """The metrics of the test rows: the headline, the other scores, the loss."""
        found = [m.name for m in self.definitions.values() if m.group == "quality" and m.phase == "test"]
        return tuple(sorted(found, key=lambda name: (name != self.quality, name.endswith("_loss"), found.index(name))))

    # Values

    def values(self, metric: str) -> dict[str, dict[int, float]]:
        """Return method -> seed -> value of the compared runs; values not measured, or no numbers, are absent.

        Metrics that depend on the machine are of the runs whose costs count.
        """
        if metric not in self._values:
            self._values[metric] = self._read(metric)
        return self._values[metric]

    @cached_property
    def _values(self) -> dict[str, dict[str, dict[int, float]]]:
        return {}

    def _read(self, metric: str) -> dict[str, dict[int, float]]:
        definition, found = self.definitions.get(metric), {}
        runs = self.runs if definition and not definition.depends_on_machine else self.costed
        for method in self.methods:
            measured = {r.spec.seed: r.metrics.get(metric) for r in runs(method)}
            finite = {seed: v for seed, v in measured.items() if v is not None and abs(v) < LARGEST}
            if finite and runs == self.runs and self.of_all_seeds(method):
                finite = dict.fromkeys(self.seeds, *finite.values())
            if finite:
                found[method] = finite
        return found

    def measured(self, *metrics: str) -> tuple[str, ...]:
        """Return the metrics that are defined and measured in some compared run, in this order."""
        return tuple(name for name in metrics if name in self.definitions and self.values(name))

    def common_seeds(self, metric: str) -> frozenset[int] | None:
        """Return the seeds that all share, for means where methods lack some; None under three, and in a race."""
        if self.race:
            return None
        shared = frozenset.intersection(*(frozenset(of) for of in self.values(metric).values()))
        return shared if len(shared) >= statistics.LEAST_SEEDS else None

    def uneven(self, metric: str) -> bool:
        """Whether methods have a metric in different seeds."""
        return len({frozenset(by_seed) for by_seed in self.values(metric).values()}) > 1

    def shown(self, metric: str) -> dict[str, dict[int, float]]:
        """Return the values that enter means: of the seeds that all methods share, where methods lack some."""
        values = self.values(metric)
        common = self.common_seeds(metric) if self.uneven(metric) else None
        if common is None:
            return values
        return {method: {seed: v for seed, v in of.items() if seed in common} for method, of in values.items()}

    def interval(self, method: str, metric: str) -> statistics.Interval | None:
        """Return mean and interval over the seeds of `shown`, or None where nothing was measured."""
        values = self.shown(metric).get(method) if self.values(metric) else None
        if values and (method, metric) not in self._intervals:
            found = statistics.mean_interval(list(values.values()), self.grid(metric))
            self._intervals[method, metric] = self.within_bounds(metric, found)
        return self._intervals.get((method, metric))

    def means(self, metric: str) -> dict[str, float]:
        """Return method -> mean over the seeds of `shown`, of the methods with values."""
        return {m: interval.mean for m in self.methods if (interval := self.interval(m, metric))}

    @cached_property
    def _intervals(self) -> dict[tuple[str, str], statistics.Interval]:
        return {}

    def within_bounds(self, metric: str, interval: statistics.Interval) -> statistics.Interval:
        """Return a mean's interval cut at the least and the largest value that the metric can have."""
        if interval.low is None or interval.high is None or metric not in self.definitions:
            return interval
        least, most = self.definitions[metric].bounds
        low = interval.low if least is None else max(least, interval.low)
        return replace(interval, low=low, high=interval.high if most is None else min(most, interval.high))

    def grid(self, metric: str) -> float | None:
        """Return the distance of the values that can be measured, where it is known: one row, or a page of memory."""
        if metric == self.quality and self.score_step:
            return self.score_step / self.test_rows if self.test_rows else None
        definition = self.definitions.get(metric)
        return definition.grid if definition else None

    # Rows and steps

    def scores(self, method: str) -> dict[int, NDArray[Any]]:
        """Return seed -> scores of a compared run: of rows, in their order, or of groups if rows are in groups."""
        return {seed: self.by_group(of) for seed, of in self.row_scores(method).items()}

    def beyond(self, method: str) -> statistics.Interval | None:
        """Return a score's mean with the interval for other seeds and test rows; None under two of either."""
        scores = list(self.scores(method).values())
        if len(scores) < 2 or scores[0].size < 2:
            return None
        found = statistics.crossed_interval(scores, self.score_span, self.score_step)
        return self.within_bounds(self.quality, found)

    def row_scores(self, method: str) -> dict[int, NDArray[Any]]:
        """Return seed -> the scores of the test rows in a compared run, in the rows' order."""
        found = {r.spec.seed: self.selection.stored[r.run_id].scores for r in self.runs(method)}
        return dict.fromkeys(self.seeds, *found.values()) if self.of_all_seeds(method) else found

    def by_group(self, scores: NDArray[Any]) -> NDArray[Any]:
        """Return the scores of groups of test rows from those of rows; rows without groups keep theirs."""
        rows = self.test_set
        return scores if rows is None or rows.group is None else statistics.group_scores(scores, rows.group)

    @property
    def score_step(self) -> float:
        """Least change of a row's score: 1 where rows are right or wrong, 0 for real numbers."""
        return 1.0 if self.task.binary else 0.0

    @property
    def score_range(self) -> float:
        """Range of the score: 1 where rows are right or wrong, else that of the metric; 0 where it has none."""
        definition = self.definitions.get(self.quality)
        least, most = definition.bounds if definition else (None, None)
        return 1.0 if self.task.binary else 0.0 if least is None or most is None else most - least

    @cached_property
    def row_weight(self) -> float:
        """Weight of the heaviest test row, or group of rows, over the mean."""
        rows = self.test_set
        if rows is None:
            return 1.0
        weights = self.task.weights(rows.reference)
        if rows.group is not None:
            places = np.unique(rows.group, return_inverse=True)[1]
            weights = np.bincount(places, weights=weights).astype(np.float64)
        return float(weights.max() / weights.mean())

    @property
    def score_span(self) -> float:
        """Range of a value of `scores`: that of the score times the weight of the heaviest over the mean.

        Tests use it for test rows that rarely differ: one such value is the least that can change.
        """
        return self.score_range * self.row_weight

    @property
    def unchecked(self) -> str:
        """Why scores of rows are those that the runs recorded, as a clause; empty where they were computed anew."""
        return next((own.unchecked for own in self.selection.stored.values() if own.unchecked), "")

    @cached_property
    def not_largest(self) -> str:
        """Why the declared largest difference of a row isn't used, as a clause; empty where it is or none is."""
        largest, rows = self.margin.largest_difference, self.test_set
        if largest is None or rows is None:
            return ""
        if self.task.binary or not self.score_range or np.ptp(self.task.weights(rows.reference)):
            return "the score is no mean of rows' real scores in a range"
        if largest > self.score_range:
            return "it is above the score's range"
        of = [self.row_scores(method) for method in self.methods]
        compared = [[by[seed] for by in of if seed in by] for seed in self.seeds]
        shared = max((len(a.keys() & b.keys()) for a, b in combinations(of, 2)), default=statistics.LEAST_SEEDS)
        if shared < statistics.LEAST_SEEDS:  # means of each method's own runs are compared
            compared.append([np.mean(list(by.values()), axis=0) for by in of])
        seen = max(np.ptp(each, axis=0).max() for each in compared)
        return f"two methods differ by {seen:g} in a row" if seen > largest * (1 + 1e-9) else ""

    @cached_property
    def guess(self) -> Guess | None:
        """Scores of an answer that needs no model; None without test rows."""
        stored = self.test_set
        return None if stored is None else self.task.guess(stored.reference, stored.texts)

    @property
    def quality_margin(self) -> float:
        """Difference of scores that counts as none, in the score's unit; see `Margin.quality`."""
        if self.margin.quality is not None:
            return self.margin.quality
        return DEFAULT_MARGIN * (self.score_range or (abs(self.guess.chance) if self.guess else 0.0) or 1.0)

    @cached_property
    def test_set(self) -> Scored | None:
        """Predictions of one compared run, for the references of the test rows, equal in all; None without one."""
        return next(iter(self.selection.stored.values()), None)

    @property
    def test_references(self) -> Answers | None:
        """References of the test rows; None without a compared run."""
        return None if self.test_set is None else self.test_set.reference

    @property
    def test_rows(self) -> int:
        """Number of test rows."""
        return 0 if self.test_references is None else len(self.test_references)

    @cached_property
    def test_groups(self) -> int | None:
        """Number of groups of test rows; None where each row stands alone."""
        rows = self.test_set
        return None if rows is None or rows.group is None else len(np.unique(rows.group))

    @property
    def test_rows_in_words(self) -> str:
        """Number of test rows, and of their groups if they have some, in words."""
        groups = "" if self.test_groups is None else f" in {self.test_groups:,} groups"
        return f"{self.test_rows:,} test rows{groups}"

    @cached_property
    def curves(self) -> dict[str, dict[str, tuple[Curve, ...]]]:
        """Metric -> method -> one curve per seed, of the compared runs; of time, of those whose costs count."""
        runs = {method: self.runs(method) for method in self.methods}
        return read_curves(self.folder, runs, self.selection.costed)

    def curve(self, metric: str, method: str, seed: int) -> Curve | None:
        """Return one seed's curve of a metric; None if there is none."""
        return self._by_seed.get((metric, method, seed))

    @cached_property
    def _by_seed(self) -> dict[tuple[str, str, int], Curve]:
        return {
            (metric, method, curve.seed): curve
            for metric, by_method in self.curves.items()
            for method, curves in by_method.items()
            for curve in curves
        }
