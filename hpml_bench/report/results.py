"""What a report is made from: the values of the runs that may be compared, and what statistics say of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from hpml_bench import statistics
from hpml_bench.config.suite import Margin, Suite, load_suite, packaged_suites
from hpml_bench.plugins.task import Task
from hpml_bench.records.files import SUITE, read_json
from hpml_bench.records.points import read_points
from hpml_bench.records.predictions import Answers
from hpml_bench.records.run import Metric, RunRecord
from hpml_bench.report.grouping import label, machine_of
from hpml_bench.report.predictions import task_of
from hpml_bench.report.selection import LeftOut, Selection

if TYPE_CHECKING:
    from numpy.typing import NDArray

TIME = "train_seconds"
MEMORY = ("peak_memory_over_setup_mb", "peak_memory_mb")
"""The memory that methods are compared by: net of what a process holds before the first step, where that is measured
(on a CPU), else the peak (on a GPU: of tensors)."""
TIMED = frozenset({"step_seconds"})
"""Courses that depend on where a run ran."""
LARGEST = 1e100
"""Beyond this (or NaN) a number is no measurement, and its square would overflow."""


@dataclass(frozen=True)
class Curve:
    """One seed's course of one metric."""

    seed: int
    steps: tuple[int, ...]
    values: tuple[float, ...]


@dataclass(frozen=True)
class Results:
    """The compared runs of a folder by method and seed: all that a section sees, but for `left_out`."""

    _selection: Selection

    @classmethod
    def load(cls, folder: Path | str) -> Results:
        """Read a suite's results folder.

        Raises:
            UserError: there is no such folder, or no readable record in it.

        """
        return cls(Selection.load(folder))

    # The suite

    @property
    def folder(self) -> Path:
        """The suite's results folder."""
        return self._selection.folder

    @property
    def reference(self) -> RunRecord:
        """The newest run of those compared: what they share can be read from it."""
        return self._selection.reference

    @property
    def suite(self) -> str:
        """The suite's name."""
        return self.reference.spec.suite

    @property
    def description(self) -> str:
        """What the suite says of itself; empty where it says nothing."""
        return self._declared.description if self._declared else ""

    @property
    def judged_for(self) -> str:
        """For what claims on scores hold: what was drawn anew, or differs, in each seed and row."""
        varied = self.reference.spec.settings.vary_data
        return f"other seeds, {'other training rows' if varied else 'these training rows'} and other test rows"

    @property
    def never_run(self) -> int:
        """How many methods x seeds of the suite, as the sweep wrote it, have no record; those unreadable among them."""
        if not self._declared or not (self.folder / SUITE).exists():
            return 0
        apart = [record for group in self.left_out.apart for record in group.records]
        there = {(r.spec.method.name, r.spec.seed) for r in (*self.compared, *self.left_out.unfinished, *apart)}
        planned = {(name, seed) for name in self._declared.methods for seed in range(self._declared.seeds)}
        return len(planned - there)

    @property
    def unrun(self) -> tuple[str, ...]:
        """Names of the suite's methods of which there is no record."""
        apart = [record for group in self.left_out.apart for record in group.records]
        tried = {record.spec.method.name for record in (*self.compared, *self.left_out.unfinished, *apart)}
        written = (self.folder / SUITE).exists()
        return tuple(
            name for name in (self._declared.methods if self._declared and written else ()) if name not in tried
        )

    @property
    def margin(self) -> Margin:
        """Differences that count as none, as the suite says."""
        return self._declared.margin if self._declared else Margin()

    @cached_property
    def _declared(self) -> Suite | None:
        """The suite as the sweep wrote it beside its runs, else the packaged one of that name."""
        try:
            return Suite.model_validate(read_json(self.folder / SUITE))
        except ValidationError:
            return load_suite(self.suite) if self.suite in packaged_suites() else None

    # The runs

    @property
    def compared(self) -> tuple[RunRecord, ...]:
        """The runs that enter the tables."""
        return self._selection.compared

    @property
    def left_out(self) -> LeftOut:
        """The runs that enter none; for the section on failures and the head's counts."""
        return self._selection.left_out

    @cached_property
    def labels(self) -> dict[str, str]:
        """run_id -> how the report calls its method; one name with two specifications gets what differs appended."""
        runs = (*self.compared, *self._selection.scaled)
        specs: dict[str, dict[str, RunRecord]] = {}
        for record in runs:
            specs.setdefault(record.spec.method.name, {})[record.spec.method.model_dump_json()] = record
        return {
            record.run_id: label(record, namesakes.values()) if len(namesakes) > 1 else record.spec.method.name
            for record in runs
            for namesakes in (specs[record.spec.method.name],)
        }

    @cached_property
    def methods(self) -> tuple[str, ...]:
        """The methods with at least one compared run: in the suite's order, then as they ran."""
        order = list(self._declared.methods) if self._declared else []
        position = {name: index for index, name in enumerate(order)}
        first = sorted(self.compared, key=lambda r: (r.spec.seed, r.spec.method.name))
        names = {self.labels[r.run_id]: position.get(r.spec.method.name, len(order)) for r in first}
        return tuple(sorted(names, key=names.__getitem__))

    @cached_property
    def absent(self) -> tuple[str, ...]:
        """Names of methods that were tried and have no compared run."""
        present = {record.spec.method.name for record in self.compared}
        apart = [record for group in self.left_out.apart for record in group.records]
        tried = dict.fromkeys(record.spec.method.name for record in (*self.left_out.unfinished, *apart))
        return tuple(name for name in tried if name not in present)

    def runs(self, method: str) -> tuple[RunRecord, ...]:
        """Return the compared runs of a method, by seed."""
        return self._runs.get(method, ())

    def costed(self, method: str) -> tuple[RunRecord, ...]:
        """Return those of a method's compared runs that ran where most did."""
        return tuple(record for record in self.runs(method) if record.run_id in self._selection.costed)

    def scaled(self, method: str) -> dict[int, tuple[RunRecord, ...]]:
        """Return number of ranks -> runs of a method that differ in that alone, on the same machine."""
        found: dict[int, list[RunRecord]] = {}
        for record in (*self.costed(method), *self._selection.scaled):
            if self.labels[record.run_id] == method:
                found.setdefault(record.spec.settings.world_size or 1, []).append(record)
        return {ranks: tuple(runs) for ranks, runs in found.items()}

    @cached_property
    def _runs(self) -> dict[str, tuple[RunRecord, ...]]:
        found: dict[str, list[RunRecord]] = {}
        for record in sorted(self.compared, key=lambda record: record.spec.seed):
            found.setdefault(self.labels[record.run_id], []).append(record)
        return {method: tuple(runs) for method, runs in found.items()}

    @cached_property
    def seeds(self) -> tuple[int, ...]:
        """The seeds of the compared runs."""
        return tuple(sorted({record.spec.seed for record in self.compared}))

    @property
    def one_machine(self) -> bool:
        """Whether all compared runs share what costs depend on."""
        return len(self._selection.costed) == len(self.compared)

    @cached_property
    def machines(self) -> dict[str, tuple[RunRecord, ...]]:
        """The compared runs by what their costs depend on, those that costs are of first."""
        found: dict[str, list[RunRecord]] = {}
        for record in sorted(self.compared, key=lambda r: r.run_id not in self._selection.costed):
            found.setdefault(machine_of(record), []).append(record)
        return {name: tuple(runs) for name, runs in found.items()}

    # The task

    @cached_property
    def task(self) -> Task:
        """The task of the compared runs."""
        return task_of(self.reference)

    @property
    def quality(self) -> str:
        """The metric that leads: the score that methods are compared by."""
        return self.reference.headline or self.task.headline

    @property
    def test_metrics(self) -> tuple[str, ...]:
        """The metrics of the test rows: the one that leads, the other scores, the loss."""
        found = [m.name for m in self.definitions.values() if m.group == "quality" and m.phase == "test"]
        return tuple(sorted(found, key=lambda name: (name != self.quality, name.endswith("_loss"), found.index(name))))

    # Values

    @cached_property
    def definitions(self) -> dict[str, Metric]:
        """Every metric's definition by name; the newest run's where they differ."""
        ordered = sorted(self.compared, key=lambda record: (record.started, record.run_id))
        return {metric.name: metric for record in ordered for metric in record.definitions}

    def values(self, metric: str) -> dict[str, dict[int, float]]:
        """Return method -> seed -> value of the compared runs; what wasn't measured, or is no number, is absent.

        What depends on the machine is of the runs that ran where most did.
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
            if finite:
                found[method] = finite
        return found

    def measured(self, *metrics: str) -> tuple[str, ...]:
        """Return those of the metrics that are defined and that some compared run has a value of, in this order."""
        return tuple(name for name in metrics if name in self.definitions and self.values(name))

    @property
    def on_other_ranks(self) -> int:
        """How many runs on other numbers of ranks the section on scaling has."""
        return len(self._selection.scaled)

    def common_seeds(self, metric: str) -> frozenset[int] | None:
        """Return the seeds that means are over where methods lack some: those all share; None of fewer than three."""
        shared = frozenset.intersection(*(frozenset(of) for of in self.values(metric).values()))
        return shared if len(shared) >= statistics.LEAST_SEEDS else None

    def uneven(self, metric: str) -> bool:
        """Whether methods have a metric in different seeds."""
        return len({frozenset(by_seed) for by_seed in self.values(metric).values()}) > 1

    def shown(self, metric: str) -> dict[str, dict[int, float]]:
        """Return the values that means are of: over the seeds that all methods share, where methods lack some."""
        values = self.values(metric)
        common = self.common_seeds(metric) if self.uneven(metric) else None
        if common is None:
            return values
        return {method: {seed: v for seed, v in of.items() if seed in common} for method, of in values.items()}

    def interval(self, method: str, metric: str) -> statistics.Interval | None:
        """Return mean and interval over the seeds of `shown`, or None where nothing was measured."""
        values = self.shown(metric).get(method) if self.values(metric) else None
        if values and (method, metric) not in self._intervals:
            self._intervals[method, metric] = self._interval(metric, list(values.values()))
        return self._intervals.get((method, metric))

    def _interval(self, metric: str, values: list[float]) -> statistics.Interval:
        """Return mean and interval, within the metric's bounds."""
        found = statistics.mean_interval(values, self.grid(metric))
        if found.low is None or found.high is None or metric not in self.definitions:
            return found
        least, most = self.definitions[metric].bounds
        low = found.low if least is None else max(least, found.low)
        return replace(found, low=low, high=found.high if most is None else min(most, found.high))

    def grid(self, metric: str) -> float | None:
        """Return the distance of the values that can be measured, where it is known: one row, or a page of memory."""
        if metric == self.quality and self.task.binary:
            return 1 / self.test_rows if self.test_rows else None
        definition = self.definitions.get(metric)
        return definition.grid if definition else None

    @cached_property
    def _intervals(self) -> dict[tuple[str, str], statistics.Interval]:
        return {}

    # Comparisons

    @cached_property
    def headline(self) -> tuple[str, ...]:
        """The metrics that methods are compared by: score, training time, memory."""
        memory = self.measured(*MEMORY)[:1]
        return (*self.measured(self.quality, TIME), *memory)

    @cached_property
    def family(self) -> dict[str, tuple[statistics.Comparison, ...]]:
        """Every pair of methods on every headline metric, with the verdicts of one family: all claims of a page."""
        pairs = [(metric, c) for metric in self.headline for c in self._pairs(metric)]
        decided = statistics.decide(c for _, c in pairs)
        return {m: tuple(c for (of, _), c in zip(pairs, decided, strict=True) if of == m) for m in self.headline}

    def comparisons(self, metric: str) -> tuple[statistics.Comparison, ...]:
        """Return every pair of methods compared on a metric: of the page's family, else of a family of its own."""
        if metric in self.family:
            return self.family[metric]
        if metric not in self._comparisons:
            self._comparisons[metric] = statistics.decide(self._pairs(metric))
        return self._comparisons[metric]

    @cached_property
    def _comparisons(self) -> dict[str, tuple[statistics.Comparison, ...]]:
        return {}

    def _pairs(self, metric: str) -> tuple[statistics.Comparison, ...]:
        """Compare every pair of methods: a score over seeds and rows, a cost by its factor over seeds."""
        definition, values = self.definitions[metric], self.values(metric)
        if metric == self.quality:
            return statistics.compare_scores({m: self.scores(m) for m in values}, self.margin.quality)
        if definition.depends_on_machine and all(v > 0 for by_seed in values.values() for v in by_seed.values()):
            return statistics.compare_costs(values, self.margin.cost, definition.grid)
        return statistics.compare_pairs(values, exact=not definition.noisy, grid=definition.grid)

    def on_these_rows(self) -> tuple[tuple[statistics.Comparison, float | None], ...]:
        """Return every pair's score compared over seeds on these very test rows, with p after Holm over these pairs."""
        pairs = statistics.compare_pairs(self.values(self.quality), grid=self.grid(self.quality))
        adjusted = iter(statistics.holm([c.p for c in pairs if c.p is not None]))
        return tuple((c, None if c.p is None else next(adjusted)) for c in pairs)

    def ranks(self, metric: str) -> dict[str, tuple[int, int]]:
        """Return each measured method's rank interval on a metric."""
        better = self.definitions[metric].better
        return statistics.rank_intervals(self.comparisons(metric), list(self.values(metric)), better)

    def front(self, metrics: Sequence[str]) -> dict[str, statistics.Membership]:
        """Return the place of each method that has all these headline metrics on their Pareto front; of one, none."""
        methods = [m for m in self.methods if all(m in self.values(metric) for metric in metrics)]
        if len(methods) < 2:
            return {}
        family: Mapping[str, Any] = {metric: self.family[metric] for metric in metrics}
        return statistics.pareto_membership(methods, family, {m: self.definitions[m].better for m in metrics})

    # What lies beside the records

    def scores(self, method: str) -> dict[int, NDArray[Any]]:
        """Return seed -> the scores of the test rows in a compared run, in the rows' order."""
        return {r.spec.seed: self._selection.stored[r.run_id].scores for r in self.runs(method)}

    @cached_property
    def test_references(self) -> Answers | None:
        """What the test rows ask for, the same for all compared runs; None without a compared run."""
        return next((stored.reference for stored in self._selection.stored.values()), None)

    @property
    def test_rows(self) -> int:
        """Number of test rows."""
        return 0 if self.test_references is None else len(self.test_references)

    @cached_property
    def curves(self) -> dict[str, dict[str, tuple[Curve, ...]]]:
        """Metric -> method -> one curve a seed, of the compared runs; of time, of those that ran where most did."""
        found: dict[str, dict[str, list[Curve]]] = {}
        for method in self.methods:
            for record in self.runs(method):
                timed = record.run_id in self._selection.costed
                for metric, steps in self._points(record).items():
                    if timed or metric not in TIMED:
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
