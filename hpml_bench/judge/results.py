"""Results: what the judged runs show, by metric, method and seed; the only input of sections."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from hpml_bench import statistics
from hpml_bench.judge.judged import LARGEST, MEMORY, TIME, JudgedRuns, once
from hpml_bench.judge.scores import entering
from hpml_bench.records.points import read_points


@dataclass(frozen=True)
class Curve:
    """One seed's curve of one metric."""

    seed: int
    steps: tuple[int, ...]
    values: tuple[float, ...]


def validation_of(metric: str) -> str:
    return f"validation_{metric.removeprefix('test_')}"


@dataclass(frozen=True)
class Results(JudgedRuns):
    """The judged runs with intervals, curves, ranks and fronts of their metrics."""

    @property
    def test_metrics(self) -> tuple[str, ...]:
        """The metrics of the test rows: the headline, the other scores, the loss."""
        found = [
            m.name for m in self.definitions.values() if m.group == "quality" and m.phase == "test"
        ]
        return tuple(
            sorted(
                found,
                key=lambda name: (name != self.quality, name.endswith("_loss"), found.index(name)),
            )
        )

    def shown(self, metric: str) -> dict[str, dict[int, float]]:
        """Return the values that enter means: of the seeds that all methods share, where methods
        lack some.
        """
        return entering(self.values(metric), self.race)

    @once
    def interval(self, method: str, metric: str) -> statistics.Interval | None:
        """Return mean and interval over the seeds of `shown`, or None where nothing was
        measured.
        """
        values = self.shown(metric).get(method) if self.values(metric) else None
        if not values:
            return None
        found = statistics.mean_interval(list(values.values()), self.grid(metric))
        if found.low is None or found.high is None:
            return found
        least, most = self.definitions[metric].bounds
        low = found.low if least is None else max(least, found.low)
        return replace(found, low=low, high=found.high if most is None else min(most, found.high))

    def means(self, metric: str) -> dict[str, float]:
        return {m: interval.mean for m in self.methods if (interval := self.interval(m, metric))}

    def grid(self, metric: str) -> float | None:
        """Return the distance of the values that can be measured, where it is known: one row, or
        a page of memory.
        """
        if metric == self.quality and self.task.binary:
            return 1 / self.test_rows if self.test_rows else None
        definition = self.definitions.get(metric)
        return definition.grid if definition else None

    @property
    def unchecked(self) -> str:
        """Reason why scores of rows are as recorded, as a clause; empty where they were computed
        anew.
        """
        return next((own.unchecked for own in self.stored.values() if own.unchecked), "")

    @cached_property
    def curves(self) -> dict[str, dict[str, tuple[Curve, ...]]]:
        """Metric -> method -> one curve per seed, of the compared runs; of time, of those whose
        costs count.
        """
        found: dict[str, dict[str, tuple[Curve, ...]]] = {}
        for record in (run for method in self.methods for run in self.runs(method)):
            points: dict[str, dict[int, float]] = {}
            for point in read_points(self.folder / record.run_id):
                depends = point.metric == "step_seconds" and record.run_id not in self.costed_ids
                if point.value is not None and abs(point.value) < LARGEST and not depends:
                    points.setdefault(point.metric, {})[point.step] = point.value
            for metric, steps in points.items():
                curve = Curve(record.spec.seed, *zip(*sorted(steps.items()), strict=True))
                of, name = found.setdefault(metric, {}), self.labels[record.run_id]
                of[name] = (*of.get(name, ()), curve)
        return found

    def curve(self, metric: str, method: str, seed: int) -> Curve | None:
        return next(
            (one for one in self.curves.get(metric, {}).get(method, ()) if one.seed == seed), None
        )

    @cached_property
    def headline(self) -> tuple[str, ...]:
        """Metrics by which methods are compared: score, training time, memory; if costs rank
        nothing, the score.
        """
        if not self.costs_ranked:
            return self.measured(self.quality)
        memory = self.measured(*MEMORY)[:1]
        return (*self.measured(self.quality, TIME), *memory)

    @property
    def family(self) -> dict[str, tuple[statistics.Comparison, ...]]:
        """Every pair of methods on every metric with verdicts: all claims of a page."""
        return self.verdicts.family if self.measured(self.quality) else {}

    @once
    def comparisons(self, metric: str) -> tuple[statistics.Comparison, ...]:
        """Return every pair of methods compared on a metric: of the page's family, else of a
        family of its own.
        """
        if metric in self.family:
            return self.family[metric]
        definition, values = self.definitions[metric], self.values(metric)
        if definition.depends_on_machine and all(
            v > 0 for by_seed in values.values() for v in by_seed.values()
        ):
            pairs = statistics.compare_costs(values, self.margin.cost, definition.grid)
        else:
            pairs = statistics.compare_pairs(
                values, exact=not definition.noisy, grid=definition.grid
            )
        if metric in self.headline:  # the page's family leaves it out, and so must any other
            pairs = tuple(replace(c, p=None, p_equivalent=None, evidence=()) for c in pairs)
        return statistics.decide(pairs, self.look, self.aligned.declared_looks)

    def ranks(self, metric: str) -> dict[str, tuple[int, int]]:
        better = self.definitions[metric].better
        return statistics.rank_intervals(
            self.comparisons(metric), list(self.values(metric)), better
        )

    def front(self, metrics: Sequence[str]) -> dict[str, statistics.Membership]:
        """Return method -> place on the Pareto front of headline metrics, if it has all; empty
        under two methods.
        """
        methods = [m for m in self.methods if all(m in self.values(metric) for metric in metrics)]
        if len(methods) < 2:
            return {}
        family = {metric: self.comparisons(metric) for metric in metrics}
        return statistics.pareto_membership(
            methods, family, {m: self.definitions[m].better for m in metrics}
        )
