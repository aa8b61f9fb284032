"""The compared runs with their values, costs and verdicts: all that a sweep needs to know where it
stands, and nothing of a page.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property, wraps
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Self, TypeVar

import numpy as np

from hpml_bench import statistics
from hpml_bench.judge.scores import AlignedScores, CostDefinition, ScoreDefinition
from hpml_bench.judge.verdicts import Verdicts, judge, largest_seen
from hpml_bench.plugins.task import Guess
from hpml_bench.records.run import Metric
from hpml_bench.select.comparability import untrained
from hpml_bench.select.compared import ComparedRuns
from hpml_bench.select.predictions import Scored
from hpml_bench.select.selection import Selection
from hpml_bench.statistics.over_rows import ROUNDING

if TYPE_CHECKING:
    from numpy.typing import NDArray

TIME = "train_seconds"
MEMORY = ("peak_memory_over_setup_mb", "peak_memory_mb")
"""Memory by which methods are compared: net of the process's before the first step, where that
is measured (on a CPU), else the peak (on a GPU: of tensors).
"""
SAVED = "saved_bytes"
UNRANKED = {
    "neighbours": "runs had neighbours on their host",
    "hosts": "seeds were spread over hosts",
}
"""Why costs rank nothing, as a clause."""
DEFAULT_MARGIN = (
    0.01  # share of the score's range that counts as no difference where a suite declares no other
)
LARGEST = 1e100  # beyond this (or NaN) a number is no measurement, and its square would overflow
T = TypeVar("T")
P = ParamSpec("P")


def once(derive: Callable[Concatenate[Any, P], T]) -> Callable[Concatenate[Any, P], T]:
    """Make a function of results compute once for the same results and names."""

    @wraps(derive)
    def kept(results: Any, /, *of: P.args, **named: P.kwargs) -> T:
        found: dict[object, T] = results.__dict__.setdefault("_derived", {})
        if (key := (derive, of, *named.items())) not in found:
            found[key] = derive(results, *of, **named)
        return found[key]

    return kept


@dataclass(frozen=True)
class JudgedRuns(ComparedRuns):
    """The compared runs with their values, and verdicts on every pair of methods."""

    @classmethod
    def load(cls, folder: Path | str) -> Self:
        """Read a suite's results folder; a UserError where no record can be read."""
        return cls.of(Selection.load(folder))

    @classmethod
    def of(cls, selection: Selection) -> Self:
        """Return the results of selected runs: where methods race, of each the runs up to its
        last complete round.
        """
        found = cls(**{field.name: getattr(selection, field.name) for field in fields(Selection)})
        seeds = found.verdicts.raced if found.race and not found.race.later else {}
        runs = tuple(
            r
            for r in found.compared
            if r.spec.seed < seeds.get(found.labels[r.run_id], sys.maxsize)
        )
        if len(runs) == len(found.compared):
            return found
        stored = {run.run_id: found.stored[run.run_id] for run in runs}
        return replace(
            found, compared=runs, costed_ids=found.costed_ids & stored.keys(), stored=stored
        )

    @cached_property
    def definitions(self) -> dict[str, Metric]:
        return {metric.name: metric for record in self.by_start for metric in record.definitions}

    @once
    def values(self, metric: str) -> dict[str, dict[int, float]]:
        """Return method -> seed -> value, where measured, of the compared runs; of costs, of
        those that count.
        """
        definition, found = self.definitions.get(metric), {}
        runs = self.runs if definition and not definition.depends_on_machine else self.costed
        for method in self.methods:
            measured = {r.spec.seed: r.metrics.get(metric) for r in runs(method)}
            if finite := {
                seed: v for seed, v in measured.items() if v is not None and abs(v) < LARGEST
            }:
                alike = runs == self.runs and self.of_all_seeds(method)
                found[method] = dict.fromkeys(self.seeds, *finite.values()) if alike else finite
        return found

    def measured(self, *metrics: str) -> tuple[str, ...]:
        """Return the metrics that are defined and measured in some compared run, in this order."""
        return tuple(name for name in metrics if name in self.definitions and self.values(name))

    def row_scores(self, method: str) -> dict[int, NDArray[Any]]:
        """Return seed -> the scores of the test rows in a compared run, in the rows' order."""
        found = {r.spec.seed: self.stored[r.run_id].scores for r in self.runs(method)}
        return dict.fromkeys(self.seeds, *found.values()) if self.of_all_seeds(method) else found

    @property
    def _score_range(self) -> float:
        """Range of the score: 1 where rows are right or wrong, else that of the metric; 0 where
        it has none.
        """
        definition = self.definitions.get(self.quality)
        least, most = definition.bounds if definition else (None, None)
        return 1.0 if self.task.binary else 0.0 if least is None or most is None else most - least

    @property
    def _weights(self) -> NDArray[np.float64]:
        """Weight of each test row, or group of rows."""
        if (rows := self.test_set) is None:
            return np.ones(1)
        weights = self.task.weights(rows.reference)
        if rows.group is not None:
            places = np.unique(rows.group, return_inverse=True)[1]
            weights = np.bincount(places, weights=weights).astype(np.float64)
        return weights

    @cached_property
    def not_largest(self) -> str:
        """Reason why the declared largest difference of a row isn't used, as a clause; empty
        where it is or none is.
        """
        largest, rows = self.margin.largest_difference, self.test_set
        if largest is None or rows is None:
            return ""
        if self.task.binary or not self._score_range or np.ptp(self.task.weights(rows.reference)):
            return "the score is no mean of rows' real scores in a range"
        if largest > self._score_range:
            return "it is above the score's range"
        of = {method: self.row_scores(method) for method in self.methods}
        shared = max(
            (len(a.keys() & b.keys()) for a, b in combinations(of.values(), 2)), default=sys.maxsize
        )
        seen = largest_seen(of, of_means=shared < statistics.LEAST_SEEDS)
        return f"two methods differ by {seen:g} in a row" if seen > largest * (1 + ROUNDING) else ""

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
        return DEFAULT_MARGIN * (
            self._score_range or (abs(self.guess.chance) if self.guess else 0.0) or 1.0
        )

    @cached_property
    def test_set(self) -> Scored | None:
        """Predictions of one compared run, for the references of the test rows, equal in all;
        None without one.
        """
        return next(iter(self.stored.values()), None)

    @property
    def test_rows(self) -> int:
        return 0 if self.test_set is None else len(self.test_set.reference)

    @cached_property
    def aligned(self) -> AlignedScores:
        rows = self.test_set
        groups = (
            None
            if rows is None or rows.group is None
            else np.unique(rows.group, return_inverse=True)[1]
        )
        of_task = next(m for m in self.task.metrics if m.name == self.task.headline)
        definition = self.definitions.get(self.quality, of_task)
        low, high = (0.0, 1.0) if self.task.binary else definition.bounds
        scored = [of for method in self.methods for of in self.row_scores(method).values()]
        weights = self._weights
        least, most = (-np.inf if low is None else low), (np.inf if high is None else high)
        score = ScoreDefinition(
            self.quality,
            "lower" if definition.better == "lower" else "higher",
            low,
            high,
            definition.title,
            unit=definition.unit,
            percent=definition.format.endswith("%"),
            margin=self.quality_margin,
            largest=None if self.not_largest else self.margin.largest_difference,
            binary=self.task.binary,
            row_weight=float(weights.max() / weights.mean()),
            effective=statistics.effective_number(weights),
            linear=any(of.min() < least or of.max() > most for of in scored if len(of)),
        )
        costs = {cost: self.values(cost.column) for cost in self.costs}
        for cost in (cost for cost in costs if cost.key == "size"):  # a base model saves nothing
            costs[cost] = {
                name: of
                for name, of in costs[cost].items()
                if not all(map(untrained, self.runs(name)))
            }
        number = {seed: at for at, seed in enumerate(self.seeds)}

        def by_run(values: Mapping[str, Mapping[int, T]]) -> dict[str, dict[int, T]]:
            return {
                name: {number[seed]: value for seed, value in of.items()}
                for name, of in values.items()
            }

        means = self.values(self.quality) if self.quality in self.definitions else {}
        return AlignedScores(
            dataset=self.suite,
            title=self.suite,
            score=score,
            systems=self.methods,
            seeds=tuple(map(str, self.seeds)),
            means=by_run(means),
            rows=by_run({name: self.row_scores(name) for name in means}),
            count=self.test_rows,
            groups=groups,
            binary=self.task.binary,
            costs={cost: by_run(of) for cost, of in costs.items()},
            unranked=" and ".join(UNRANKED[why] for why in self.unranked),
            trained_on="other" if self.reference.spec.settings.vary_data else "these",
            look=self.look,
            race=self.race,
            prior=self.prior,
            looks=self.looks_declared,
        )

    @cached_property
    def costs(self) -> tuple[CostDefinition, ...]:
        """Costs of the first screen; a peak of memory is ranked by that over set-up, where that
        is measured.
        """
        memory = self.measured(*MEMORY)[:1]
        peak = self.measured(MEMORY[1]) or memory
        return (
            *(
                self._definition(name, key="time", title="training time")
                for name in self.measured(TIME)
            ),
            *(self._definition(name, key="memory", title="peak memory") for name in peak),
            *(
                self._definition(name, key="size", title="saved size")
                for name in self.measured(SAVED)
            ),
            *(self._definition(name, stands_for=MEMORY[1]) for name in memory if name not in peak),
        )

    def _definition(
        self, name: str, key: str = "", title: str = "", stands_for: str = ""
    ) -> CostDefinition:
        metric = self.definitions[name]
        return CostDefinition(
            name,
            title or metric.title,
            metric.unit,
            exact=not metric.noisy,
            key=key,
            margin=self.margin.cost,
            grid=metric.grid,
            stands_for=stands_for,
        )

    @cached_property
    def verdicts(self) -> Verdicts:
        return judge(self.aligned)
