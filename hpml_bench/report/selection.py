"""Which recorded runs may be compared, and why the others may not."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from pydantic import ValidationError

from hpml_bench.errors import UserError
from hpml_bench.records import RunRecord
from hpml_bench.report import predictions
from hpml_bench.report.grouping import (
    agreed_budget,
    agreed_consumption,
    label,
    machine_of,
    protocol_difference,
    protocol_of,
    short,
)
from hpml_bench.store import SUITE, load_records, read_json
from hpml_bench.suite import Suite, load_suite, packaged_suites


@dataclass(frozen=True)
class Apart:
    """Runs that may not be averaged with the others, and the difference by name."""

    records: tuple[RunRecord, ...]
    reason: str


@dataclass(frozen=True)
class Selection:
    """A results folder, read, and which of its runs may be compared: ok, of one protocol, with equal consumption."""

    folder: Path
    records: tuple[RunRecord, ...]
    problems: tuple[str, ...] = ()

    @classmethod
    def load(cls, folder: Path | str) -> Self:
        """Read a suite's results folder.

        Raises:
            UserError: there is no such folder, or no readable record in it.

        """
        folder = Path(folder)
        loaded = load_records(folder)
        if not loaded.records:
            raise UserError("; ".join([f"{folder} holds no recorded run that can be read", *loaded.problems[:3]]))
        return cls(folder, loaded.records, loaded.problems)

    @property
    def suite(self) -> str:
        """The suite's name."""
        return self.reference.spec.suite

    @property
    def description(self) -> str:
        """What the suite says of itself; empty where it says nothing."""
        return self._declared.description if self._declared else ""

    @cached_property
    def _declared(self) -> Suite | None:
        """The suite as the sweep wrote it beside its runs, else the packaged one of that name."""
        try:
            return Suite.model_validate(read_json(self.folder / SUITE))
        except ValidationError:
            return load_suite(self.suite) if self.suite in packaged_suites() else None

    # Which runs may be compared

    @cached_property
    def reference(self) -> RunRecord:
        """A run of the main protocol: the one with the most ok runs, of equals the newest."""
        ok = [record for record in self.records if record.status == "ok"] or list(self.records)
        size = Counter(map(protocol_of, ok))
        return max(ok, key=lambda record: (size[protocol_of(record)], record.started))

    @cached_property
    def main(self) -> tuple[RunRecord, ...]:
        """The runs of the main protocol, of any status; where one failed before it had an id, its settings count."""
        return tuple(
            record
            for record in self.records
            if protocol_of(record) == protocol_of(self.reference)
            or (record.protocol_id is None and record.spec.settings == self.reference.spec.settings)
        )

    @cached_property
    def ok(self) -> tuple[RunRecord, ...]:
        """The runs of the main protocol that ended well."""
        return tuple(record for record in self.main if record.status == "ok")

    @cached_property
    def sound(self) -> tuple[RunRecord, ...]:
        """Those of the ok runs whose self-checks and predictions hold."""
        return tuple(record for record in self.ok if record.run_id not in self.faults)

    @cached_property
    def compared(self) -> tuple[RunRecord, ...]:
        """The runs that enter the tables: sound, of one budget, and consuming what most runs of their seed do."""
        agreed = agreed_consumption(self.sound)
        return tuple(r for r in self.sound if r.consumed is not None and r.consumed == agreed.get(r.spec.seed))

    @cached_property
    def faults(self) -> dict[str, str]:
        """run_id -> what makes a run invalid though it ended as ok: a failed self-check, or impossible predictions."""
        return predictions.faults(self.ok, self.predictions)

    @cached_property
    def apart(self) -> tuple[Apart, ...]:
        """The runs set apart, and why."""
        main = {record.run_id for record in self.main}
        others: dict[str, list[RunRecord]] = {}
        for record in self.records:
            if record.run_id not in main:
                others.setdefault(protocol_of(record), []).append(record)
        found = [Apart(tuple(group), protocol_difference(self.reference, group[0])) for group in others.values()]
        compared = {record.run_id for record in self.compared}
        found += [Apart((r,), f"invalid: {self.faults[r.run_id]}") for r in self.ok if r.run_id in self.faults]
        deviating = [record for record in self.sound if record.run_id not in compared]
        return (*found, *(Apart((record,), self._consumption_difference(record)) for record in deviating))

    def _consumption_difference(self, record: RunRecord) -> str:
        if record.consumed is None:
            return "what it consumed is not recorded"
        agreed = agreed_consumption(self.sound).get(record.spec.seed)
        here = record.consumed.model_dump()
        budget = dict(zip(("steps", "samples"), agreed_budget(self.sound) or (), strict=False))
        there = agreed.model_dump() if agreed else budget
        named = [f"{key} {short(here[key])} instead of {short(there[key])}" for key in there if here[key] != there[key]]
        rest = f"the rest of seed {record.spec.seed}" if agreed else "the runs compared"
        return f"consumed other than {rest}: {', '.join(named)}"

    @cached_property
    def machines(self) -> dict[str, dict[str, Any]]:
        """The distinct environments of the compared runs, by a short name; several mean that cost can't be ranked."""
        found: dict[str, dict[str, Any]] = {}
        for record in self.compared or self.main:
            found.setdefault(machine_of(record), record.environment)
        return found

    @property
    def one_machine(self) -> bool:
        """Whether all compared runs share hardware and versions."""
        return len(self.machines) <= 1

    # Methods

    @cached_property
    def labels(self) -> dict[str, str]:
        """run_id -> how the report calls its method; one name with two specifications gets what differs appended."""
        specs: dict[str, list[str]] = {}
        for record in self.main:
            variants = specs.setdefault(record.spec.method.name, [])
            if record.spec.method.model_dump_json() not in variants:
                variants.append(record.spec.method.model_dump_json())
        return {
            record.run_id: label(record, [r for r in self.main if r.spec.method.name == record.spec.method.name])
            if len(specs[record.spec.method.name]) > 1
            else record.spec.method.name
            for record in self.main
        }

    @cached_property
    def all_methods(self) -> tuple[str, ...]:
        """The methods of the main protocol, whatever became of them: in the suite's order, then as they ran."""
        order = list(self._declared.methods) if self._declared else []
        position = {name: index for index, name in enumerate(order)}
        seen = {self.labels[r.run_id]: position.get(r.spec.method.name, len(order)) for r in self.main}
        first = sorted(self.main, key=lambda r: (r.spec.seed, r.spec.method.name))
        names = dict.fromkeys(self.labels[r.run_id] for r in first)
        return tuple(sorted(names, key=lambda name: seen[name]))

    @cached_property
    def methods(self) -> tuple[str, ...]:
        """The methods with at least one compared run."""
        present = {self.labels[record.run_id] for record in self.compared}
        return tuple(name for name in self.all_methods if name in present)

    def runs(self, method: str) -> tuple[RunRecord, ...]:
        """Return the compared runs of a method, by seed."""
        return self._runs.get(method, ())

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

    # What lies beside the records

    @cached_property
    def predictions(self) -> dict[str, predictions.Predictions]:
        """run_id -> the predictions of the ok runs that have some."""
        found: dict[str, predictions.Predictions] = {}
        last: predictions.Predictions | None = None
        for record in self.ok:
            own = predictions.read(self.folder / record.run_id)
            if own is not None:
                last = found[record.run_id] = own.sharing(last)  # most runs have the same rows
        return found
