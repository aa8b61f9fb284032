"""Selection of the recorded runs of a report, and reasons of those left out; made nowhere else."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Literal

from hpml_bench import statistics
from hpml_bench.records.load import LoadedRuns, load_records, wrong_id
from hpml_bench.records.run import RunRecord
from hpml_bench.select import predictions
from hpml_bench.select.checks import Excluded, faults
from hpml_bench.select.comparability import (
    agreed_budget,
    agreed_consumption,
    alone,
    budget_of,
    grouped,
    machine_of,
    method_of,
    node_of,
    one_host,
    protocol_but,
    protocol_difference,
    protocol_of,
    short,
    untrained,
)
from hpml_bench.select.predictions import Scored
from hpml_bench.system.errors import UserError

Unranked = Literal["neighbours", "hosts"]  # reason why costs rank nothing


@dataclass(frozen=True)
class LeftOut:
    """The recorded runs that enter no number of the page; only the section on failures shows
    them.
    """

    unfinished: tuple[RunRecord, ...]  # runs that did not end well
    excluded: tuple[Excluded, ...]  # runs that ended well and may not be compared
    problems: tuple[
        str, ...
    ]  # a sentence for each record that can't be read, or whose files are not those recorded

    @property
    def excluded_runs(self) -> int:
        return sum(len(group.records) for group in self.excluded)


@dataclass(frozen=True)
class Selection:
    """Runs of a results folder, selected for a report."""

    folder: Path
    # newest run of the compared protocol; where nothing can be compared, of the one tried most
    reference: RunRecord
    compared: tuple[
        RunRecord, ...
    ]  # valid runs of one protocol and equal consumption, one record per method and seed
    costed_ids: frozenset[str]  # of compared runs whose costs count (`_costed`)
    scaled_runs: tuple[
        RunRecord, ...
    ]  # chosen by the same rules, that differ in the number of ranks alone
    checkpointed: tuple[
        RunRecord, ...
    ]  # likewise, that differ from one whose costs count in checkpointing alone
    stored: Mapping[str, Scored]  # predictions of the compared runs
    left_out: LeftOut

    @property
    def unranked(self) -> tuple[Unranked, ...]:
        """Reasons why costs rank no methods: neighbours, or several hosts within a seed; empty
        if costs rank.
        """
        costed = [record for record in self.compared if record.run_id in self.costed_ids]
        found: list[Unranked] = [] if all(map(alone, costed)) else ["neighbours"]
        return (*found, "hosts") if len(_on_one_host(costed)) < len(costed) else tuple(found)

    @classmethod
    def load(cls, folder: Path | str) -> "Selection":
        """Read a suite's results folder and select its runs; a UserError where no record can be
        read.
        """
        return cls.among(Path(folder), load_records(Path(folder)))

    @classmethod
    def among(cls, folder: Path, loaded: LoadedRuns) -> "Selection":
        """Select among the runs of a results folder as they were read: the protocol of most;
        UserError without.
        """
        records, problems = loaded.records, loaded.problems
        if not records:
            raise UserError(
                "; ".join([f"{folder} holds no recorded run that can be read", *problems[:3]])
            )
        misnamed = {r.run_id: why for r in records if (why := wrong_id(r, loaded.named[r.run_id]))}
        ok = [record for record in records if record.status == "ok"]
        stored = predictions.read_all(folder, ok)
        groups = {
            name: _choose(folder, runs, stored, misnamed)
            for name, runs in grouped(ok, protocol_of).items()
        }
        primary = max(
            groups.values(), key=lambda g: (len(g.compared), g.newest.started), default=None
        )
        unfinished = tuple(record for record in records if record.status != "ok")
        if primary is None:
            size = Counter(map(protocol_of, unfinished))
            reference = max(
                unfinished, key=lambda record: (size[protocol_of(record)], record.started)
            )
            return cls(
                folder, reference, (), frozenset(), (), (), {}, LeftOut(unfinished, (), problems)
            )
        costed = _costed(primary.compared)
        alike = protocol_but(
            primary.newest, world_size=None
        )  # which differ in the number of ranks alone
        rest = [group for group in groups.values() if group is not primary]
        scaled = [
            g
            for g in rest
            if g.compared and primary.compared and protocol_but(g.newest, world_size=None) == alike
        ]
        others = [group for group in rest if group not in scaled]
        excluded = [*primary.excluded, *(one for group in scaled for one in group.excluded)]
        counted = _of_shared_seeds(costed, scaled)
        checkpointed = _of_checkpointing(costed, others)
        used = {record.run_id for record in (*counted, *checkpointed)}
        for group in (*scaled, *others):
            if idle := tuple(record for record in group.compared if record.run_id not in used):
                why = protocol_difference(primary.newest, group.newest)
                if group in scaled:
                    why += "; no run of that method and seed on the same host to scale from"
                    why += (
                        ""
                        if all(map(alone, (primary.newest, *idle)))
                        else ", of runs without others on their host"
                    )
                excluded.append(Excluded(idle, why, "protocol"))
            apart = group.excluded if group in others else ()
            excluded += [
                Excluded(a.records, f"of another protocol, and {a.reason}", a.kind) for a in apart
            ]
        return cls(
            folder,
            primary.newest,
            primary.compared,
            frozenset(record.run_id for record in costed),
            counted,
            checkpointed,
            {record.run_id: stored[record.run_id] for record in primary.compared},
            LeftOut(unfinished, tuple(excluded), problems),
        )


@dataclass(frozen=True)
class _Group:
    """The ok runs of one protocol: those that may be compared with each other, and the others."""

    compared: tuple[RunRecord, ...]
    excluded: tuple[Excluded, ...]

    @property
    def newest(self) -> RunRecord:
        runs = self.compared or tuple(record for group in self.excluded for record in group.records)
        return max(runs, key=lambda record: (record.started, record.run_id))


def _choose(
    folder: Path,
    records: Sequence[RunRecord],
    stored: Mapping[str, Scored],
    misnamed: Mapping[str, str],
) -> _Group:
    """Select among the ok runs of one protocol: each method and seed once, valid, of agreed
    consumption.
    """
    same = grouped(records, lambda record: (method_of(record), record.spec.seed))
    excluded = []
    for runs in (runs for runs in same.values() if len(runs) > 1):
        named = ", ".join(record.run_id for record in runs)
        why = f"{len(runs)} records of one method, seed and protocol, so that none counts: {named}"
        excluded.append(Excluded(runs, why, "duplicates"))
    single = [runs[0] for runs in same.values() if len(runs) == 1]
    found = faults(folder, single, stored, misnamed)
    excluded += [found[record.run_id] for record in single if record.run_id in found]
    valid = [record for record in single if record.run_id not in found]
    agreed = agreed_consumption(valid)
    equal = [
        r for r in valid if untrained(r) or (r.consumed and budget_of(r) == agreed.get(r.spec.seed))
    ]
    chosen = {record.run_id for record in equal}
    others = [r for r in valid if r.run_id not in chosen]
    excluded += [Excluded((r,), _why_consumption_differs(r, valid), "consumption") for r in others]
    return _Group(tuple(equal), tuple(excluded))


def _why_consumption_differs(record: RunRecord, valid: Sequence[RunRecord]) -> str:
    if (own := budget_of(record)) is None:
        return "what it consumed is not recorded"
    agreed = agreed_consumption(valid).get(record.spec.seed)
    here = own.model_dump()
    budget = dict(zip(("steps", "samples"), agreed_budget(valid) or (), strict=False))
    there = agreed.model_dump() if agreed else budget
    named = [
        f"{key} {short(here[key])} instead of {short(there[key])}"
        for key in there
        if here[key] != there[key]
    ]
    rest = f"the rest of seed {record.spec.seed}" if agreed else "the runs compared"
    return f"consumed other data than {rest}: {', '.join(named)}"


def _costed(compared: Sequence[RunRecord]) -> tuple[RunRecord, ...]:
    """Return the runs whose costs count: without neighbours, in the environment of most, on one
    host per seed.
    """
    quiet = [record for record in compared if alone(record)]
    here = _of_one_machine(quiet)
    chosen = _on_one_host(here)
    enough = 2 * len(quiet) >= len(compared) and len(chosen) == len(here)
    seeds = [{record.spec.seed for record in own} for own in grouped(chosen, method_of).values()]
    testable = any(len(a & b) >= statistics.LEAST_SEEDS for a, b in combinations(seeds, 2))
    return (
        chosen if enough or testable else _of_one_machine(compared)
    )  # whose costs are shown, but rank nothing


def _on_one_host(runs: Sequence[RunRecord]) -> tuple[RunRecord, ...]:
    """Return the runs of each seed on the host that most of them share, among equals the one with
    the newest run.

    Machines of one kind differ by some percent, always in the same direction, which no number of
    seeds averages out where methods and not seeds are spread over them. A seed in which no two
    methods share a host has no runs here.
    """
    trained = [record for record in runs if not untrained(record)]  # the others have no costs
    chosen = {}
    for seed, of in grouped(trained, lambda record: record.spec.seed).items():
        by_host = grouped(of, one_host)
        host, most = max(
            by_host.items(), key=lambda one: (len(one[1]), max(record.started for record in one[1]))
        )
        if len(most) > 1 or len(by_host) == 1:
            chosen[seed] = host
    return tuple(
        r
        for r in runs
        if untrained(r) or (r.spec.seed in chosen and one_host(r) == chosen[r.spec.seed])
    )


def _of_one_machine(compared: Sequence[RunRecord]) -> tuple[RunRecord, ...]:
    """Return the runs of the environment that most share, among equals the one with the newest
    run.
    """
    machines = grouped(compared, machine_of).items()
    return max(
        machines,
        key=lambda of: (len(of[1]), max(r.started for r in of[1]), of[0]),
        default=("", ()),
    )[1]


def _of_shared_seeds(
    costed: Sequence[RunRecord], scaled: Sequence[_Group]
) -> tuple[RunRecord, ...]:
    """Return the runs on other numbers of ranks that are comparable with those whose costs count.

    All ran without neighbours, on the same host or on it and others like it, and every number of
    ranks of their method that shares a seed with it has their seed.
    """
    here = {
        method: {run.spec.seed for run in own}
        for method, own in grouped(filter(alone, costed), method_of).items()
    }
    groups = _like(costed, scaled, lambda record, own: node_of(record) == node_of(own))
    shared = {method: set(seeds) for method, seeds in here.items()}
    for runs in groups:
        for method, seeds in here.items():
            own = {record.spec.seed for record in runs if method_of(record) == method} & seeds
            shared[method] &= own or seeds
    return tuple(
        r for runs in groups for r in runs if r.spec.seed in shared.get(method_of(r), set())
    )


def _of_checkpointing(
    costed: Sequence[RunRecord], others: Sequence[_Group]
) -> tuple[RunRecord, ...]:
    """Return the runs without neighbours that differ from one whose costs count in gradient
    checkpointing alone.
    """

    def same(record: RunRecord, own: RunRecord) -> bool:
        here, there = (protocol_but(one, gradient_checkpointing=False) for one in (own, record))
        return here == there and machine_of(record) == machine_of(own)

    return tuple(record for runs in _like(costed, others, same) for record in runs)


def _like(
    costed: Sequence[RunRecord],
    groups: Sequence[_Group],
    same: Callable[[RunRecord, RunRecord], bool],
) -> list[list[RunRecord]]:
    """Return of each group the runs without neighbours on a host of the run whose costs count
    that they are like.
    """
    base = {(method_of(record), record.spec.seed): record for record in filter(alone, costed)}

    def like(record: RunRecord) -> bool:
        own = base.get((method_of(record), record.spec.seed))
        if own is None or not alone(record) or not same(record, own):
            return False
        here, there = (
            one_host(record),
            one_host(own),
        )  # runs that name none are taken to be of one machine
        return here == there or bool(here and there and set(here) & set(there))

    return [list(filter(like, group.compared)) for group in groups]
