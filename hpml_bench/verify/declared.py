"""Plan and seeds: the runs a suite declares, their order and environment, and what the runs of a
seed must share.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

from hpml_bench.judge.results import Results
from hpml_bench.records.files import PREDICTIONS, RECORD, SET_ASIDE, SUITE
from hpml_bench.records.load import changed, installed, load_record, wrong_id
from hpml_bench.records.numbers import sentence_list
from hpml_bench.records.run import FINAL, RunRecord
from hpml_bench.select.comparability import (
    differences,
    grouped,
    hosts_of,
    method_of,
    protocol_of,
    settings_of,
    short,
)
from hpml_bench.suite.settings import method_identity
from hpml_bench.suite.suite import Suite, load_suite, packaged_suites
from hpml_bench.sweep.race import due
from hpml_bench.sweep.request import shuffled
from hpml_bench.system.environment import PACKAGES
from hpml_bench.system.text import count_of, digest
from hpml_bench.verify.folder import Evidence, Finding, failed

ENVIRONMENT = (
    "hardware",
    "fingerprint",
    "python",
    "system",
    "kernel",
    "packages",
    "process",
    "threads",
)
"""Parts that the environment of every run has."""
SOFTWARE = ("python", "packages", "libraries")
"""Parts that must be equal over the compared runs; nodes of one sweep may differ in hardware,
kernel and driver.
"""
OF_OTHER_RANKS = frozenset({"world_size", "gradient_checkpointing", "threads", "micro_batch"})
"""Settings in which a folder's runs may differ: the suite beside them is that of the last call."""
CLOCKS = timedelta(seconds=2)  # rounding of the times at which runs began, and the steps of a clock
AT_ONCE = timedelta(seconds=1)  # time within which a sweep begins its next run
TO_COME = timedelta(hours=1)  # by how much clocks of other machines may be ahead
BREAK = timedelta(hours=1)  # least time between two seeds that is named
BREAK_IN_RUNS = 10  # the same as a multiple of the longest run
REPORT_AGAIN = "run-all finishes a sweep; runs that don't belong to it go to a folder of their own"


def ids(evidence: Evidence) -> Iterator[Finding]:
    """Ids are those of settings, method, seed and digests."""
    for record in evidence.records:
        written = evidence.loaded.named.get(record.run_id, record.run_id)
        if written != record.run_id:
            yield failed(
                record.run_id, f"holds the record of {written}: its folder was copied or renamed"
            )
        elif why := wrong_id(record, written):
            yield failed(record.run_id, why)
        elif not installed(record.spec):
            yield Finding(
                "not checked",
                f"{record.run_id}: its id, since a plug-in of it isn't installed here",
            )


def once_each(evidence: Evidence) -> Iterator[Finding]:
    """Each method and seed has one record."""
    same = grouped(evidence.records, lambda r: (r.spec.method.name, r.spec.seed, protocol_of(r)))
    for (method, seed, _), records in same.items():
        if len(records) > 1:
            names = ", ".join(record.run_id for record in records[:4])
            yield failed(names, f"{len(records)} records of {method} with seed {seed}")


def planned(evidence: Evidence) -> Iterator[Finding]:
    """Every run that the suite declares has a record."""
    suite = evidence.suite
    if suite is None:
        yield failed(
            SUITE, "is missing or no suite, so that nothing says which runs there should be"
        )
        return
    there = {(record.spec.method.name, record.spec.seed) for record in evidence.records}
    raced = evidence.selection if suite.until and evidence.compared else None
    wanted = due(Results.of(raced), suite) if raced else suite.runs()
    for method, seed in ((spec.method.name, spec.seed) for spec in wanted):
        if (method, seed) not in there:
            yield failed(
                SUITE,
                f"declares {method} with seed {seed}, which has no readable record",
                REPORT_AGAIN,
            )
    most = suite.seeds if suite.until is None else suite.until.rounds[-1]
    for record in evidence.records:
        if record.spec.seed >= most:
            what = f"has seed {record.spec.seed}, and {SUITE} declares {most} seeds, from 0"
            yield failed(record.run_id, what, REPORT_AGAIN)


def suite(evidence: Evidence) -> Iterator[Finding]:
    """Runs have methods, settings, declarations of the suite."""
    declared = evidence.suite
    if declared is None:  # `planned` says so
        return
    for record in evidence.records:
        spec = record.spec
        if spec.suite != declared.name:
            yield failed(
                record.run_id, f"is of the suite {spec.suite}, and {SUITE} is of {declared.name}"
            )
        if spec.method.name not in declared.methods:
            yield failed(
                record.run_id, f"is of the method {spec.method.name}, which {SUITE} doesn't have"
            )
        else:
            planned = method_identity(declared.method(spec.method.name))
            for key, said, own in differences(planned, method_identity(spec.method)):
                yield failed(
                    record.run_id,
                    f"its method has {key} {short(own)}, and {SUITE} declares {short(said)}",
                )
        yield from _otherwise_declared(record, declared)
    for record in evidence.compared:
        pairs = differences(settings_of(declared.settings), settings_of(record.spec.settings))
        named = [f"{key} {short(own)} instead of {short(said)}" for key, said, own in pairs]
        if named and {key.partition(".")[0] for key, *_ in pairs} - OF_OTHER_RANKS:
            yield failed(record.run_id, f"has other settings than {SUITE}: {', '.join(named)}")
    if declared.prior is not None:
        names = sentence_list(declared.prior.names)
        yield Finding(
            "not checked",
            (
                f"{SUITE}: the variance that earlier suites lend, {names}: their results aren't "
                f"in this folder"
            ),
        )
    known = [record.declared.seeds for record in evidence.records if record.declared is not None]
    if known and declared.seeds != max(known):
        yield failed(
            SUITE, f"declares {declared.seeds} seeds, and the runs were made for {max(known)}"
        )
    packaged = (
        load_suite(declared.name).margin if declared.name in packaged_suites() else declared.margin
    )
    if known and packaged != declared.margin:
        was, now = _margins(packaged), _margins(declared.margin)
        what = f"declares the margins {now}, and the packaged suite {declared.name} {was}"
        yield Finding(
            "not checked",
            f"{SUITE}: {what}: no file shows whether they were declared before the results",
        )


def _otherwise_declared(record: RunRecord, suite: Suite) -> Iterator[Finding]:
    """Yield what a run was declared with otherwise than the suite beside it: margins, lent
    variance, looks.
    """
    declared = record.declared
    if declared is None:
        return
    if declared.margin != suite.margin:
        was, now = map(_margins, (declared.margin, suite.margin))
        yield failed(record.run_id, f"was made for the margins {was}, and {SUITE} declares {now}")
    if declared.prior != suite.prior:
        yield failed(
            record.run_id, f"was made with another variance of earlier suites than {SUITE} declares"
        )
    if declared.looks != suite.looks:
        was, now = _looks(declared.looks), _looks(suite.looks)
        yield failed(record.run_id, f"was made for {was}, and {SUITE} declares {now}")


def _looks(declared: int | None) -> str:
    return "no number of looks" if declared is None else count_of(declared, "look")


def _margins(margin: Any) -> str:
    quality = "of 0.01 of the range" if margin.quality is None else f"{margin.quality:g}"
    largest = (
        ""
        if margin.largest_difference is None
        else f", largest difference {margin.largest_difference:g}"
    )
    return f"quality {quality}, cost {margin.cost:g}{largest}"


def places(evidence: Evidence) -> Iterator[Finding]:
    """Methods ran in the order drawn for each seed."""
    declared = evidence.suite
    if declared is None:
        return
    most = len(declared.methods)
    for record in evidence.records:
        place, order = record.place or 0, record.order or 0
        if place > most or order - place > most * record.spec.seed:  # the runs of seeds before it
            what = f"was run {order} of its sweep and {place} of seed {record.spec.seed}"
            yield failed(record.run_id, f"{what}, and {SUITE} has {most} methods")
    orders = {}
    for seed, records in grouped(evidence.compared, lambda record: record.spec.seed).items():
        ran = {record.place or 0: record.spec.method.name for record in records}
        if len(ran) == len(records) and set(ran) == set(range(1, len(declared.methods) + 1)):
            drawn = tuple(
                spec.method.name for spec in shuffled((record.spec for record in records), declared)
            )
            orders[seed] = (tuple(ran[place] for place in sorted(ran)), drawn)
    # where several calls made a seed's runs, their places are not those of one sweep
    wrong = {seed: pair for seed, pair in orders.items() if pair[0] != pair[1]}
    if evidence.compared and not any(record.place for record in evidence.compared):
        yield Finding("not checked", "no record says at which place of its seed it was run")
    if wrong and len(wrong) == len(orders):
        what = "no seed's order is the one that this version draws for the suite's name and methods"
        yield Finding(
            "not checked", f"{what}: another version made the runs, or they had other names"
        )
        return
    for seed, (own, drawn) in wrong.items():
        yield failed(
            f"seed {seed}", f"ran in the order {', '.join(own)}; drawn for it is {', '.join(drawn)}"
        )


def unfinished(evidence: Evidence) -> Iterator[Finding]:
    """Runs that didn't end well say why and have no score."""
    for record in evidence.records:
        if record.status in {"ok", "invalid"}:  # `passed` looks at the latter, which have metrics
            continue
        if record.error is None:
            yield failed(record.run_id, f"ended as {record.status} and doesn't say why")
        if record.metrics:
            yield failed(
                record.run_id, f"ended as {record.status} and yet has {len(record.metrics)} metrics"
            )
        elif (evidence.folder / record.run_id / PREDICTIONS).exists():
            if record.status in {
                "unsupported",
                "diverged",
            }:  # refused before its steps, or ended in one
                what = f"ended as {record.status}, which a run does earlier, and has {PREDICTIONS}"
                yield failed(record.run_id, what)
            else:  # a probe may fail at the end, and a process may be killed at any time
                what = f"ended as {record.status} once it was trained, and has {PREDICTIONS}"
                yield Finding(
                    "not checked",
                    f"{record.run_id}: {what}: its own error alone says why it has no score",
                )


def set_aside(evidence: Evidence) -> Iterator[Finding]:
    """Nothing is set aside without a run in its place."""
    known = {record.run_id: record for record in evidence.records}
    parent = evidence.folder / SET_ASIDE
    for place in sorted(parent.glob("*/")) if parent.is_dir() and not parent.is_symlink() else ():
        name = place.name.rpartition(".")[0]
        own = next((known[run] for run in known if name == run or name.startswith(f"{run}.")), None)
        where = f"{SET_ASIDE}/{place.name}"
        if own is None:
            yield failed(where, "is set aside, and no run took its place")
            continue
        with suppress(ValueError):  # its record is damaged
            record = load_record(place / f"{RECORD}.damaged")
            done = record.status in FINAL and record.protocol_id == own.protocol_id
            if done and changed(place, record) is None:
                what = (
                    f"was whole when it was set aside, and {own.run_id} was run again: nothing "
                    f"says why"
                )
                yield failed(where, what)


def dates(evidence: Evidence) -> Iterator[Finding]:
    """Runs began in the past, one after another on a host."""
    began: dict[str, datetime] = {}
    by_host: dict[str, list[RunRecord]] = {}
    for record in evidence.records:
        try:
            found = datetime.fromisoformat(record.started)
        except ValueError:
            yield failed(record.run_id, f"began at {short(record.started)}, which is no time")
            continue
        began[record.run_id] = found = found if found.tzinfo else found.replace(tzinfo=UTC)
        if found > datetime.now(UTC) + TO_COME:
            yield failed(record.run_id, f"began at {record.started}, which is to come")
        for host in hosts_of(record) or ("",):
            by_host.setdefault(host, []).append(record)
    for records in by_host.values():
        yield from _overlapping(
            sorted(records, key=lambda one: (began[one.run_id], one.order or 0, one.run_id)), began
        )


def _overlapping(records: Iterable[RunRecord], began: dict[str, datetime]) -> Iterator[Finding]:
    """Yield the runs of a host that began while another ran that neither names, or at once after
    a later one.
    """
    last: RunRecord | None = None
    end = datetime.min.replace(tzinfo=UTC)  # of the last one
    for record in records:
        start, until = (
            began[record.run_id],
            began[record.run_id] + timedelta(seconds=record.seconds),
        )
        if last is not None and start < end + AT_ONCE:
            named = last.run_id in (record.neighbours or ()) or record.run_id in (
                last.neighbours or ()
            )
            if start < end - CLOCKS and not named:
                what = (
                    f"began at {record.started}, while {last.run_id} ran until "
                    f"{end.isoformat(timespec='seconds')}"
                )
                yield failed(record.run_id, what)
            elif (record.order or 0) < (
                last.order or 0
            ) and not record.call:  # other calls begin in any order
                what = (
                    f"began at once after {last.run_id}, run {last.order} of the sweep, and is "
                    f"run {record.order}"
                )
                yield failed(record.run_id, what)
        if until >= end:
            last, end = record, until


def breaks(evidence: Evidence) -> Iterator[Finding]:
    """Seeds that were declared together ran without a long break."""
    runs = [(record, span) for record in evidence.records if (span := _span(record))]
    longest = max((end - start for _, (start, end) in runs), default=timedelta())
    for seed in sorted({record.spec.seed for record, _ in runs})[:-1]:
        before = [(record, end) for record, (_, end) in runs if record.spec.seed <= seed]
        pause = min(start for record, (start, _) in runs if record.spec.seed > seed) - max(
            end for _, end in before
        )
        # a race, and a sweep that declared fewer seeds at first, say so themselves, and the report
        # counts their looks
        declared = all(_declares_more(record, seed) for record, _ in before)
        if declared and pause > max(BREAK, BREAK_IN_RUNS * longest):
            hours = f"{pause / timedelta(hours=1):.1f} hours"
            what = (
                f"no run began in the {hours} after the runs of seed {seed}, which say that later "
                f"seeds were declared"
            )
            yield Finding(
                "not checked", f"{what}: no file shows whether their results were looked at before"
            )


def _declares_more(record: RunRecord, seed: int) -> bool:
    """Return whether a run was declared together with further seeds than this, to be run
    whatever comes out.
    """
    declared = record.declared
    return declared is not None and declared.until is None and declared.seeds > seed + 1


def _span(record: RunRecord) -> tuple[datetime, datetime] | None:
    """Return when a run began and ended; None where it names no time."""
    with suppress(ValueError):  # `dates` says so
        start = datetime.fromisoformat(record.started)
        start = start if start.tzinfo else start.replace(tzinfo=UTC)
        return start, start + timedelta(seconds=record.seconds)
    return None


def environment(evidence: Evidence) -> Iterator[Finding]:
    """Each run says on what it ran; versions are equal."""
    for record in evidence.ok:
        said = record.environment
        packages = said.get("packages") if isinstance(said.get("packages"), dict) else {}
        lacking = [key for key in ENVIRONMENT if not said.get(key)]
        lacking += [f"packages.{name}" for name in PACKAGES if packages and not packages.get(name)]
        if lacking:
            yield failed(record.run_id, f"its environment lacks {', '.join(lacking)}")
        elif said["fingerprint"] != digest(said["hardware"], 12):
            what = f"its fingerprint {short(said['fingerprint'])} is not that of its hardware"
            yield failed(record.run_id, f"{what}, {digest(said['hardware'], 12)}")
    software = {
        r.run_id: {key: r.environment.get(key) for key in SOFTWARE} for r in evidence.compared
    }
    kinds = grouped(evidence.compared, lambda record: digest(software[record.run_id]))
    usual = max(kinds.values(), key=len, default=tuple[RunRecord, ...]())
    for record in evidence.compared:
        if pairs := differences(software[usual[0].run_id], software[record.run_id]):
            named = ", ".join(
                f"{key} {short(own)} instead of {short(most)}" for key, most, own in pairs
            )
            yield failed(record.run_id, f"ran with {named}")


def protocol(evidence: Evidence) -> Iterator[Finding]:
    """Runs are of one protocol, with every setting decided."""
    yield from evidence.excluded("protocol")
    for record in evidence.ok:
        settings = record.spec.settings
        missing = [
            name
            for name in ("protocol_id", "digests", "consumed", "headline")
            if not getattr(record, name)
        ]
        if missing:
            yield failed(record.run_id, f"its record lacks {', '.join(missing)}")
        still_open = [
            key
            for key in ("device", "precision", "micro_batch")
            if getattr(settings, key) == "auto"
        ]
        still_open += [] if settings.world_size else ["world_size"]
        if still_open:
            yield failed(record.run_id, f"its settings leave open {', '.join(still_open)}")


def labels(evidence: Evidence) -> Iterator[Finding]:
    """Runs have the same labels."""
    usual = Counter(record.label_names for record in evidence.compared).most_common(1)
    for record in evidence.compared:
        if record.label_names != usual[0][0]:
            yield failed(
                record.run_id,
                f"has the labels {short(', '.join(record.label_names))}, unlike most runs",
            )


def consumption(evidence: Evidence) -> Iterator[Finding]:
    """Runs of a seed consumed the same samples and tokens."""
    yield from evidence.excluded("consumption")


def sizes(evidence: Evidence) -> Iterator[Finding]:
    """Counts and sizes of a method are equal over seeds."""
    for records in grouped(evidence.compared, method_of).values():
        for metric in records[0].definitions:
            if metric.noisy or metric.depends_on_machine:
                continue
            values = {r.run_id: r.metrics[metric.name] for r in records if metric.name in r.metrics}
            usual, size = Counter(values.values()).most_common(1)[0] if values else (None, 0)
            if 2 * size <= len(
                values
            ):  # a method may choose its sizes by what it learns, such as AdaLoRA
                continue
            for run, own in values.items():
                if own != usual:
                    shown = ["none" if value is None else f"{value:.10g}" for value in (own, usual)]
                    yield failed(
                        run,
                        (
                            f"its {metric.name} is {shown[0]}, and {shown[1]} in most runs of its "
                            f"method"
                        ),
                    )


def sample_order(evidence: Evidence) -> Iterator[Finding]:
    """The order of samples is the one drawn from the seed."""
    if evidence.trained:
        yield Finding(
            "not checked", "the order of samples is drawn by the rows' lengths, which no record has"
        )
