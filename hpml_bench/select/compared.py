"""The compared runs of a folder by method and seed, their suite and their task."""

import re
from dataclasses import dataclass
from functools import cached_property

from hpml_bench import statistics
from hpml_bench.plugins.task import Task
from hpml_bench.records.files import SUITE
from hpml_bench.records.run import FAILED, FINAL, RunRecord
from hpml_bench.select.comparability import (
    alone,
    grouped,
    hosts_of,
    label,
    machine_of,
    method_of,
    nodes_of,
    untrained,
)
from hpml_bench.select.predictions import task_of
from hpml_bench.select.race import Race
from hpml_bench.select.selection import Selection
from hpml_bench.select.timeline import SweepTimes, sweep_times
from hpml_bench.suite.prior import Prior
from hpml_bench.suite.suite import Margin, Suite, alike, load_suite, packaged_suites
from hpml_bench.system.files import read_model
from hpml_bench.system.text import sanitize


@dataclass(frozen=True)
class ComparedRuns(Selection):
    """Runs that enter the tables, by method and seed."""

    # The suite

    @property
    def suite(self) -> str:
        return self.reference.spec.suite

    @property
    def description(self) -> str:
        return self._declared.description

    @property
    def never_run(self) -> int:
        """Number of methods x seeds of the suite, as the sweep wrote it, without a readable
        record.
        """
        there = {(r.spec.method.name, r.spec.seed) for r in (*self.compared, *self._not_compared)}
        planned = (
            () if self.race else self._declared.runs(self._planned)
        )  # who left a race lacks nothing
        return len({(spec.method.name, spec.seed) for spec in planned} - there)

    @property
    def unrun(self) -> tuple[str, ...]:
        tried = {record.spec.method.name for record in (*self.compared, *self._not_compared)}
        return tuple(name for name in self._planned if name not in tried)

    @property
    def _planned(self) -> tuple[str, ...]:
        return tuple(self._written.methods) if self._written is not None else ()

    @cached_property
    def margin(self) -> Margin:
        """Differences that count as none, as declared before the first run: later edits decide
        no verdict.
        """
        declared = [record.declared for record in self.by_start if record.declared is not None]
        return declared[0].margin if declared else self._declared.margin

    @property
    def margin_edited(self) -> bool:
        declared = {
            record.declared.margin for record in self.compared if record.declared is not None
        }
        return bool(declared - {self._declared.margin})

    @cached_property
    def prior(self) -> Prior | None:
        """What earlier suites lend, as the first run declares it: what later runs or edits say
        decides no verdict.
        """
        declared = next((record.declared for record in self.by_start if record.declared), None)
        prior = None if declared is None else declared.prior
        return prior if prior and prior.score == self.quality else None

    @cached_property
    def race(self) -> Race | None:
        """The looks that the first run's record declares; None where methods don't race."""
        until = next((record.declared.until for record in self.by_start if record.declared), None)
        if until is None:
            return None
        last = until.rounds[-1]
        lost = {
            (r.spec.method.name, seed)
            for r in self._not_compared
            if r.status in FINAL | FAILED
            for seed in (range(last) if alike(r.spec.settings, r.spec.method) else (r.spec.seed,))
        }
        return Race(until, frozenset(lost), self._looks(last))

    @cached_property
    def looks_declared(self) -> int:
        """Looks that the first run's record declares, where methods don't race; 0 where it
        declares none.
        """
        first = next((record.declared for record in self.by_start if record.declared), None)
        return (first.looks or 0) if first else 0

    @cached_property
    def look(self) -> int:
        """Number of times, from 1, that the suite was declared with more seeds than before,
        enough for verdicts.
        """
        # the declared looks of a race have equal shares, so that any of them counts as the first
        if self.race:
            return len(self.race.until.rounds) + self.race.later if self.race.later else 1
        return max(1, self._looks(statistics.LEAST_SEEDS - 1))

    def _looks(self, most: int) -> int:
        """Return how many times the suite was declared with more seeds than before, and than
        `most`.
        """
        looks = 0
        undeclared = max(
            (record.spec.seed + 1 for record in self.compared if record.declared is None), default=0
        )
        for record in self.by_start:
            # in a race `seeds` of the suite declares nothing
            own = (
                undeclared
                if record.declared is None
                else 0
                if record.declared.until
                else record.declared.seeds
            )
            seeds = max(own, record.spec.seed + 1)
            looks, most = looks + (seeds > most), max(most, seeds)
        return looks

    @cached_property
    def by_start(self) -> list[RunRecord]:
        return sorted(self.compared, key=lambda record: (record.started, record.run_id))

    @cached_property
    def _written(self) -> Suite | None:
        """The suite as the sweep wrote it beside its runs; None where it can't be read."""
        return read_model(self.folder / SUITE, Suite)

    @cached_property
    def _declared(self) -> Suite:
        """The suite as the sweep wrote it beside its runs, else the packaged one of that name,
        or one of no methods.
        """
        if self._written is not None:
            return self._written
        bare = Suite.model_construct(
            name=self.suite, settings=self.reference.spec.settings, methods={}
        )
        return load_suite(self.suite) if self.suite in packaged_suites() else bare

    @property
    def validation_rows(self) -> int:
        """Number of validation rows, as the preparation counted them, else as requested; 1 if
        unknown.
        """
        counted = re.search(r"(\d+) validation", self.reference.notes.get("rows", ""))
        return int(counted[1]) if counted else self.reference.spec.settings.validation_samples or 1

    # The runs

    @property
    def _not_compared(self) -> tuple[RunRecord, ...]:
        left = self.left_out
        return (*left.unfinished, *(record for group in left.excluded for record in group.records))

    @cached_property
    def labels(self) -> dict[str, str]:
        """run_id -> label of its method in the report; a name with two specifications gets the
        differences appended.
        """
        runs = (*self.compared, *self.scaled_runs)
        found: dict[str, str] = {}
        for name, own in grouped(runs, lambda record: record.spec.method.name).items():
            namesakes = {method_of(record): record for record in own}
            found |= {
                r.run_id: label(r, namesakes.values()) if len(namesakes) > 1 else name for r in own
            }
        return found

    @cached_property
    def methods(self) -> tuple[str, ...]:
        """The methods with at least one compared run: in the suite's order, then as they ran."""
        place = {name: at for at, name in enumerate(self._declared.methods)}
        first = sorted(self.compared, key=lambda r: (r.spec.seed, r.spec.method.name))
        names = {self.labels[r.run_id]: place.get(r.spec.method.name, len(place)) for r in first}
        return tuple(sorted(names, key=names.__getitem__))

    @cached_property
    def absent(self) -> tuple[str, ...]:
        """Names of methods that were tried and have no compared run."""
        present = {record.spec.method.name for record in self.compared}
        return tuple(
            dict.fromkeys(
                r.spec.method.name for r in self._not_compared if r.spec.method.name not in present
            )
        )

    def runs(self, method: str) -> tuple[RunRecord, ...]:
        return self._runs.get(method, ())

    def costed(self, method: str) -> tuple[RunRecord, ...]:
        return tuple(record for record in self.runs(method) if record.run_id in self.costed_ids)

    def scaled(self, method: str) -> dict[tuple[int, int], tuple[RunRecord, ...]]:
        """Return (ranks, nodes) -> runs of a method that differ in these alone, on the same
        machine or ones like it.
        """
        own = [
            r for r in (*self.costed(method), *self.scaled_runs) if self.labels[r.run_id] == method
        ]
        return grouped(own, lambda record: (record.spec.settings.world_size or 1, nodes_of(record)))

    @cached_property
    def _runs(self) -> dict[str, tuple[RunRecord, ...]]:
        return grouped(
            sorted(self.compared, key=lambda r: r.spec.seed), lambda r: self.labels[r.run_id]
        )

    @cached_property
    def seeds(self) -> tuple[int, ...]:
        return tuple(sorted({record.spec.seed for record in self.compared}))

    def of_all_seeds(self, method: str) -> RunRecord | None:
        """Return the one run of a method that stands for all seeds, since it answers alike with
        each; else None.
        """
        runs = self.runs(method)
        return (
            runs[0]
            if len(runs) == 1 and alike(runs[0].spec.settings, runs[0].spec.method)
            else None
        )

    @property
    def _here(self) -> tuple[RunRecord, ...]:
        return next(iter(self.machines.values()), ())

    @cached_property
    def beside(self) -> tuple[RunRecord, ...]:
        """The compared runs with neighbours, in the environment whose costs count: shown, but
        they rank nothing.
        """
        return tuple(record for record in self._here if not alone(record))

    @cached_property
    def astray(self) -> tuple[RunRecord, ...]:
        """Runs without neighbours, in the environment whose costs count, but on another host
        than their seed's.
        """
        return tuple(r for r in self._here if alone(r) and r.run_id not in self.costed_ids)

    @cached_property
    def costs_shown(self) -> frozenset[str]:
        """run_ids of the compared runs whose costs are shown: all in the environment whose costs
        count.
        """
        return frozenset(record.run_id for record in self._here)

    @cached_property
    def hosts(self) -> tuple[str, ...]:
        """Names of the hosts of the runs whose costs count; empty where a record names none."""
        named = [
            hosts_of(r) or ()
            for r in self.compared
            if r.run_id in self.costed_ids and not untrained(r)
        ]
        return (
            tuple(sorted({sanitize(host, 60) for hosts in named for host in hosts}))
            if all(named)
            else ()
        )

    @property
    def costs_ranked(self) -> bool:
        """Whether methods are ranked by costs; else costs are shown of runs that can't be
        compared by them.
        """
        return not self.unranked

    @cached_property
    def machines(self) -> dict[str, tuple[RunRecord, ...]]:
        """The compared runs by environment on which costs depend, the one whose costs count
        first.
        """
        return grouped(
            sorted(self.compared, key=lambda r: r.run_id not in self.costed_ids), machine_of
        )

    @cached_property
    def times(self) -> SweepTimes | None:
        """The jobs in time with all recorded runs, compared or not; None where no job did any."""
        runs = (*self.compared, *self.scaled_runs, *self.checkpointed, *self._not_compared)
        return sweep_times(self.folder, runs)

    # The task

    @cached_property
    def task(self) -> Task:
        return task_of(self.reference)

    @property
    def quality(self) -> str:
        """The headline metric: the score by which methods are compared."""
        return self.reference.headline or self.task.headline

    @property
    def score_title(self) -> str:
        """Title of the score for headings, from the installed task: headings hold no text of a
        record.
        """
        titles = {metric.name: metric.title for metric in self.task.metrics}
        return titles.get(self.quality, titles[self.task.headline])
