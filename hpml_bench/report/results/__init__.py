"""Results: values of the compared runs, and statistics of them; the only input of sections."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from hpml_bench import statistics
from hpml_bench.report.results.measured import MeasuredRuns
from hpml_bench.report.selection import Selection

TIME = "train_seconds"
MEMORY = ("peak_memory_over_setup_mb", "peak_memory_mb")
"""Memory by which methods are compared: net of the process's before the first step, where that is measured (on a CPU),
else the peak (on a GPU: of tensors)."""


T = TypeVar("T")


@dataclass(frozen=True)
class Results(MeasuredRuns):
    """The measured runs, with every pair of methods compared."""

    @classmethod
    def load(cls, folder: Path | str) -> Results:
        """Read a suite's results folder; a UserError where no record can be read."""
        return cls(Selection.load(folder))

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
    def headline(self) -> tuple[str, ...]:
        """Metrics by which methods are compared: score, training time, memory; if costs rank nothing, the score."""
        if not self.costs_ranked:
            return self.measured(self.quality)
        memory = self.measured(*MEMORY)[:1]
        return (*self.measured(self.quality, TIME), *memory)

    @cached_property
    def family(self) -> dict[str, tuple[statistics.Comparison, ...]]:
        """Every pair of methods on every headline metric, with the verdicts of one family: all claims of a page."""
        return statistics.decide_family({m: self._pairs(m) for m in self.headline}, self.look, self.quality)

    def comparisons(self, metric: str) -> tuple[statistics.Comparison, ...]:
        """Return every pair of methods compared on a metric: of the page's family, else of a family of its own."""
        if metric in self.family:
            return self.family[metric]
        if metric not in self._comparisons:
            self._comparisons[metric] = statistics.decide(self._pairs(metric), self.look)
        return self._comparisons[metric]

    @cached_property
    def _comparisons(self) -> dict[str, tuple[statistics.Comparison, ...]]:
        return {}

    def _pairs(self, metric: str) -> tuple[statistics.Comparison, ...]:
        """Compare every pair of methods: a score over seeds and rows, a cost by its factor over seeds."""
        definition, values = self.definitions[metric], self.values(metric)
        if metric == self.quality:
            scores = {method: self.scores(method) for method in values}
            return statistics.compare_scores(scores, self.quality_margin, self.difference_span, self.score_step)
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
        family: Mapping[str, Any] = {metric: self.family[metric] for metric in metrics}
        return statistics.pareto_membership(methods, family, {m: self.definitions[m].better for m in metrics})
