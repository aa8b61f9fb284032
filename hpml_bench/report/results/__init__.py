"""Results: values of the compared runs, and statistics of them; the only input of sections."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from hpml_bench import statistics
from hpml_bench.report.comparability import untrained
from hpml_bench.report.judge import Verdicts, judge
from hpml_bench.report.results.measured import MeasuredRuns
from hpml_bench.report.scores import AlignedScores, CostDefinition, ScoreDefinition
from hpml_bench.report.selection import Selection

TIME = "train_seconds"
MEMORY = ("peak_memory_over_setup_mb", "peak_memory_mb")
"""Memory by which methods are compared: net of the process's before the first step, where that is measured (on a CPU),
else the peak (on a GPU: of tensors)."""
SAVED = "saved_bytes"
UNRANKED = {"neighbours": "runs had neighbours on their host", "hosts": "seeds were spread over hosts"}
"""Why costs rank nothing, as a clause."""


T = TypeVar("T")


@dataclass(frozen=True)
class Results(MeasuredRuns):
    """The measured runs, with every pair of methods compared."""

    @classmethod
    def load(cls, folder: Path | str) -> Results:
        """Read a suite's results folder; a UserError where no record can be read."""
        return cls.of(Selection.load(folder))

    @classmethod
    def of(cls, selection: Selection) -> Results:
        """Return the results of selected runs: where methods race, of each the runs up to its last complete round."""
        found = cls(selection)
        seeds = found.verdicts.raced if found.race and not found.race.later else {}
        runs = [r for r in selection.compared if r.spec.seed < seeds.get(found.labels[r.run_id], sys.maxsize)]
        if len(runs) == len(selection.compared):
            return found
        stored = {run.run_id: selection.stored[run.run_id] for run in runs}
        return cls(replace(selection, compared=tuple(runs), costed=selection.costed & stored.keys(), stored=stored))

    def once(self, derive: Callable[[Results], T]) -> T:
        """Return what a function derives from these results, computed at its first call."""
        if derive not in self._derived:
            self._derived[derive] = derive(self)
        found: T = self._derived[derive]
        return found

    @cached_property
    def _derived(self) -> dict[Callable[[Results], Any], Any]:
        return {}

    @cached_property
    def aligned(self) -> AlignedScores:
        """Scores and costs of the compared runs, for verdicts."""
        rows = self.test_set
        groups = None if rows is None or rows.group is None else np.unique(rows.group, return_inverse=True)[1]
        definition = self.definitions.get(self.quality) or next(
            m for m in self.task.metrics if m.name == self.task.headline
        )
        low, high = (0.0, 1.0) if self.task.binary else definition.bounds
        score = ScoreDefinition(
            self.quality, "lower" if definition.better == "lower" else "higher", low, high, definition.title,
            unit=definition.unit, percent=definition.format.endswith("%"), margin=self.quality_margin,
            largest=None if self.not_largest else self.margin.largest_difference,
            binary=self.task.binary, row_weight=self.row_weight, linear=self._linear(low, high),
        )  # fmt: skip
        number = {seed: at for at, seed in enumerate(self.seeds)}

        def by_run(values: Mapping[str, Mapping[int, T]]) -> dict[str, dict[int, T]]:
            return {name: {number[seed]: value for seed, value in of.items()} for name, of in values.items()}

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
            costs={cost: by_run(self._cost(cost)) for cost in self.costs},
            unranked=" and ".join(UNRANKED[why] for why in self.selection.unranked),
            trained_on="other" if self.reference.spec.settings.vary_data else "these",
            look=self.look,
            race=self.race,
        )

    def _linear(self, low: float | None, high: float | None) -> bool:
        """Return whether some row's score is outside the range of the score."""
        of = [rows for method in self.methods for rows in self.row_scores(method).values() if len(rows)]
        beyond = (low is not None and any(rows.min() < low for rows in of), high is not None and any(
            rows.max() > high for rows in of))  # fmt: skip
        return any(beyond)

    @cached_property
    def costs(self) -> tuple[CostDefinition, ...]:
        """Costs of the first screen; a peak of memory is ranked by that over set-up, where that is measured."""
        memory = self.measured(*MEMORY)[:1]
        peak = self.measured(MEMORY[1]) or memory
        return (
            *(self._definition(name, key="time", title="training time") for name in self.measured(TIME)),
            *(self._definition(name, key="memory", title="peak memory") for name in peak),
            *(self._definition(name, key="size", title="saved size") for name in self.measured(SAVED)),
            *(self._definition(name, stands_for=MEMORY[1]) for name in memory if name not in peak),
        )

    def _definition(self, name: str, key: str = "", title: str = "", stands_for: str = "") -> CostDefinition:
        metric = self.definitions[name]
        return CostDefinition(
            name, title or metric.title, metric.unit, exact=not metric.noisy, key=key, margin=self.margin.cost,
            grid=metric.grid, stands_for=stands_for,
        )  # fmt: skip

    def _cost(self, cost: CostDefinition) -> dict[str, dict[int, float]]:
        """Return the values of a cost; a base model saves nothing, so its file's size is none."""
        values = self.values(cost.column)
        if cost.key != "size":
            return values
        return {name: of for name, of in values.items() if not all(map(untrained, self.runs(name)))}

    @cached_property
    def verdicts(self) -> Verdicts:
        """Every pair of methods by score and costs, decided as one family."""
        return judge(self.aligned)

    @cached_property
    def headline(self) -> tuple[str, ...]:
        """Metrics by which methods are compared: score, training time, memory; if costs rank nothing, the score."""
        if not self.costs_ranked:
            return self.measured(self.quality)
        memory = self.measured(*MEMORY)[:1]
        return (*self.measured(self.quality, TIME), *memory)

    @property
    def family(self) -> dict[str, tuple[statistics.Comparison, ...]]:
        """Every pair of methods on every metric with verdicts: all claims of a page."""
        return self.verdicts.family if self.measured(self.quality) else {}

    def comparisons(self, metric: str) -> tuple[statistics.Comparison, ...]:
        """Return every pair of methods compared on a metric: of the page's family, else of a family of its own."""
        if metric in self.family:
            return self.family[metric]
        if metric not in self._comparisons:
            pairs = self._pairs(metric)
            if metric in self.headline:  # the page's family leaves it out, and so must any other
                pairs = tuple(replace(c, p=None, p_equivalent=None, evidence=()) for c in pairs)
            self._comparisons[metric] = statistics.decide(pairs, self.look, self.aligned.declared_looks)
        return self._comparisons[metric]

    @cached_property
    def _comparisons(self) -> dict[str, tuple[statistics.Comparison, ...]]:
        return {}

    def _pairs(self, metric: str) -> tuple[statistics.Comparison, ...]:
        """Compare every pair of methods over seeds: by the factor of a cost, else by difference."""
        definition, values = self.definitions[metric], self.values(metric)
        if definition.depends_on_machine and all(v > 0 for by_seed in values.values() for v in by_seed.values()):
            return statistics.compare_costs(values, self.margin.cost, definition.grid)
        return statistics.compare_pairs(values, exact=not definition.noisy, grid=definition.grid)

    def on_these_rows(self) -> tuple[statistics.Comparison, ...]:
        """Return every pair's score compared over seeds on these very test rows; without verdicts, p unadjusted."""
        return statistics.compare_pairs(self.values(self.quality), grid=self.grid(self.quality))

    def ranks(self, metric: str) -> dict[str, tuple[int, int]]:
        """Return each measured method's rank interval on a metric."""
        better = self.definitions[metric].better
        return statistics.rank_intervals(self.comparisons(metric), list(self.values(metric)), better)

    def front(self, metrics: Sequence[str]) -> dict[str, statistics.Membership]:
        """Return method -> place on the Pareto front of headline metrics, if it has all; empty under two methods."""
        methods = [m for m in self.methods if all(m in self.values(metric) for metric in metrics)]
        if len(methods) < 2:
            return {}
        family = {metric: self.comparisons(metric) for metric in metrics}
        return statistics.pareto_membership(methods, family, {m: self.definitions[m].better for m in metrics})
