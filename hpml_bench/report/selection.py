"""Selection of the recorded runs that a report is made of, and reasons of those left out; made nowhere else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from hpml_bench import statistics
from hpml_bench.errors import UserError
from hpml_bench.records.listing import load_records
from hpml_bench.records.run import RunRecord
from hpml_bench.report import predictions
from hpml_bench.report.comparability import (
    agreed_budget,
    agreed_consumption,
    alone,
    but_checkpointing,
    but_ranks,
    machine_of,
    method_of,
    node_of,
    protocol_difference,
    protocol_of,
    short,
    untrained,
)
from hpml_bench.report.predictions import Scored

Stored = Mapping[str, Scored]
"""run_id -> predictions."""


@dataclass(frozen=True)
class Excluded:
    """Runs that may not be averaged with the others, and the reason by name."""

    records: tuple[RunRecord, ...]
    reason: str


@dataclass(frozen=True)
class LeftOut:
    """The recorded runs that enter no number of the page; the section on failures alone looks at them."""

    unfinished: tuple[RunRecord, ...]
    """Those that did not end well."""
    excluded: tuple[Excluded, ...]
    """Those that ended well and may not be compared."""
    problems: tuple[str, ...]
    """A sentence for each record that can't be read, or whose files are not those recorded."""

    @property
    def excluded_runs(self) -> int:
        """How many runs ended well and are not compared."""
        return sum(len(group.records) for group in self.excluded)


@dataclass(frozen=True)
class Selection:
    """What a results folder gives a report."""

    folder: Path
    reference: RunRecord
    """A run of the compared protocol, the newest; where nothing can be compared, of what was tried most."""
    compared: tuple[RunRecord, ...]
    """One protocol, believed, of equal consumption, one record a method and seed."""
    costed: frozenset[str]
    """run_ids of those compared that ran where most did, alone on their host where enough did: costs are of these."""
    scaled: tuple[RunRecord, ...]
    """Runs chosen by the same rules that differ from those compared in the number of ranks alone."""
    checkpointed: tuple[RunRecord, ...]
    """Runs chosen by the same rules that differ from those compared in gradient checkpointing alone."""
    stored: Stored
    """Predictions of the compared runs."""
    left_out: LeftOut

    @property
    def ranked(self) -> bool:
        """Whether costs rank methods: not those of runs that others on their host slowed."""
        return all(alone(record) for record in self.compared if record.run_id in self.costed)

    @classmethod
    def load(cls, folder: Path | str) -> Selection:
        """Read a suite's results folder and choose.

        Raises:
            UserError: there is no such folder, or no readable record in it.

        """
        folder = Path(folder)
        loaded = load_records(folder)
        if not loaded.records:
            raise UserError("; ".join([f"{folder} holds no recorded run that can be read", *loaded.problems[:3]]))
        return select(folder, loaded.records, loaded.problems)


@dataclass(frozen=True)
class _Group:
    """The ok runs of one protocol: those that may be compared with each other, and the others."""

    compared: tuple[RunRecord, ...]
    excluded: tuple[Excluded, ...]

    @property
    def newest(self) -> RunRecord:
        """The run that began last, of those compared where there are some."""
        runs = self.compared or tuple(record for group in self.excluded for record in group.records)
        return max(runs, key=lambda record: (record.started, record.run_id))


def select(folder: Path, records: Sequence[RunRecord], problems: tuple[str, ...] = ()) -> Selection:
    """Choose among the readable records of a folder.

    The protocol with the most comparable runs is the report's, of equals the one with the newest.
    """
    ok = [record for record in records if record.status == "ok"]
    stored = predictions.read_all(folder, ok)
    by_protocol: dict[str, list[RunRecord]] = {}
    for record in ok:
        by_protocol.setdefault(protocol_of(record), []).append(record)
    groups = {name: _choose(runs, stored) for name, runs in by_protocol.items()}
    primary = max(groups.values(), key=lambda g: (len(g.compared), g.newest.started), default=None)
    unfinished = tuple(record for record in records if record.status != "ok")
    if primary is None:
        reference = _most_tried(unfinished)
        return Selection(folder, reference, (), frozenset(), (), (), {}, LeftOut(unfinished, (), problems))
    costed = _costed(primary.compared)
    scaled: list[_Group] = []
    others: list[_Group] = []
    for group in groups.values():
        if group is not primary:
            (scaled if _scales(group, primary) else others).append(group)
    excluded = [*primary.excluded, *(one for group in scaled for one in group.excluded)]
    counted = _of_shared_seeds(costed, scaled)
    alike = but_checkpointing(primary.newest)
    checkpointed = [r for group in others for r in group.compared if but_checkpointing(r) == alike]
    excluded += [one for group in scaled for one in _not_scaled(group, counted, primary.newest)]
    excluded += [one for group in others for one in _of_another_protocol(group, primary.newest)]
    return Selection(
        folder,
        primary.newest,
        primary.compared,
        frozenset(record.run_id for record in costed),
        counted,
        tuple(checkpointed),
        {record.run_id: stored[record.run_id] for record in primary.compared},
        LeftOut(unfinished, tuple(excluded), problems),
    )


def _choose(records: Sequence[RunRecord], stored: Stored) -> _Group:
    """Choose among the ok runs of one protocol: each method and seed once, believed, of agreed consumption."""
    same: dict[tuple[str, int], list[RunRecord]] = {}
    for record in records:
        same.setdefault((method_of(record), record.spec.seed), []).append(record)
    excluded = [Excluded(tuple(runs), _doubled(runs)) for runs in same.values() if len(runs) > 1]
    single = [runs[0] for runs in same.values() if len(runs) == 1]
    faults = predictions.faults(single, {r.run_id: stored[r.run_id] for r in single if r.run_id in stored})
    excluded += [Excluded((r,), _unbelieved(faults[r.run_id])) for r in single if r.run_id in faults]
    valid = [record for record in single if record.run_id not in faults]
    agreed = agreed_consumption(valid)
    equal = [r for r in valid if untrained(r) or (r.consumed is not None and r.consumed == agreed.get(r.spec.seed))]
    chosen = {record.run_id for record in equal}
    excluded += [Excluded((r,), _consumed_other(r, valid)) for r in valid if r.run_id not in chosen]
    return _Group(tuple(equal), tuple(excluded))


def _unbelieved(fault: str) -> str:
    return f"{'invalid' if fault.startswith(predictions.CHECK_FAILED) else 'not believed'}: {fault}"


def _doubled(records: Sequence[RunRecord]) -> str:
    names = ", ".join(record.run_id for record in records)
    return f"{len(records)} records of one method, seed and protocol, so that none counts: {names}"


def _consumed_other(record: RunRecord, valid: Sequence[RunRecord]) -> str:
    if record.consumed is None:
        return "what it consumed is not recorded"
    agreed = agreed_consumption(valid).get(record.spec.seed)
    here = record.consumed.model_dump()
    budget = dict(zip(("steps", "samples"), agreed_budget(valid) or (), strict=False))
    there = agreed.model_dump() if agreed else budget
    named = [f"{key} {short(here[key])} instead of {short(there[key])}" for key in there if here[key] != there[key]]
    rest = f"the rest of seed {record.spec.seed}" if agreed else "the runs compared"
    return f"consumed other than {rest}: {', '.join(named)}"


def _costed(compared: Sequence[RunRecord]) -> tuple[RunRecord, ...]:
    """Return the runs that costs are of: of those alone on their host, the ones where most ran.

    Where these are few, the others too: their costs are shown, and rank nothing.
    """
    quiet = [record for record in compared if alone(record)]
    chosen = _of_one_machine(quiet)
    return chosen if 2 * len(quiet) >= len(compared) or _testable(chosen) else _of_one_machine(compared)


def _testable(runs: Sequence[RunRecord]) -> bool:
    """Tell whether two methods share the seeds that a verdict takes."""
    seeds: dict[str, set[int]] = {}
    for record in runs:
        seeds.setdefault(method_of(record), set()).add(record.spec.seed)
    return any(len(a & b) >= statistics.LEAST_SEEDS for a, b in combinations(seeds.values(), 2))


def _of_one_machine(compared: Sequence[RunRecord]) -> tuple[RunRecord, ...]:
    """Return the runs of the environment that most share, of equals of the one with the newest run."""
    size = Counter(map(machine_of, compared))
    newest: dict[str, str] = {}
    for record in compared:
        newest[machine_of(record)] = max(newest.get(machine_of(record), ""), record.started)
    chosen = max(size, key=lambda machine: (size[machine], newest[machine], machine), default=None)
    return tuple(record for record in compared if machine_of(record) == chosen)


def _scales(group: _Group, primary: _Group) -> bool:
    """Tell whether a group's runs differ from those compared in the number of ranks alone."""
    return bool(group.compared) and bool(primary.compared) and but_ranks(group.newest) == but_ranks(primary.newest)


def _of_shared_seeds(costed: Sequence[RunRecord], scaled: Sequence[_Group]) -> tuple[RunRecord, ...]:
    """Return the runs on other numbers of ranks that can be set beside those that costs are of.

    All were alone, on the same machine or on several like it, and every number of ranks of their method that shares a
    seed with it has their seed.
    """
    here: dict[str, set[int]] = {}
    for record in filter(alone, costed):
        here.setdefault(method_of(record), set()).add(record.spec.seed)
    groups = [[r for r in group.compared if alone(r) and node_of(r) == node_of(costed[0])] for group in scaled]
    shared = {method: set(seeds) for method, seeds in here.items()}
    for runs in groups:
        for method, seeds in here.items():
            own = {record.spec.seed for record in runs if method_of(record) == method} & seeds
            shared[method] &= own or seeds
    return tuple(r for runs in groups for r in runs if r.spec.seed in shared.get(method_of(r), set()))


def _not_scaled(group: _Group, counted: Sequence[RunRecord], reference: RunRecord) -> tuple[Excluded, ...]:
    """Return the runs of a group on another number of ranks that have nothing to be compared with."""
    used = {record.run_id for record in counted}
    idle = tuple(record for record in group.compared if record.run_id not in used)
    lacks = "no run of that method and seed on the same machine to scale from"
    lacks += "" if all(map(alone, (reference, *idle))) else ", of runs without others on their host"
    return (Excluded(idle, f"{protocol_difference(reference, group.newest)}; {lacks}"),) if idle else ()


def _of_another_protocol(group: _Group, reference: RunRecord) -> tuple[Excluded, ...]:
    """Return all runs of a group as excluded; what else is wrong with some of them is said as well."""
    whole = (Excluded(group.compared, protocol_difference(reference, group.newest)),) if group.compared else ()
    return (*whole, *(Excluded(a.records, f"of another protocol, and {a.reason}") for a in group.excluded))


def _most_tried(unfinished: Sequence[RunRecord]) -> RunRecord:
    size = Counter(map(protocol_of, unfinished))
    return max(unfinished, key=lambda record: (size[protocol_of(record)], record.started))
