"""Checks, from a request to a report: counts, process pairs up to a look that decides, verdicts."""

from __future__ import annotations

import math
import random
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

from hpml_bench import registry
from hpml_bench.gate.decide import count_diff, spending, verdicts
from hpml_bench.gate.measure.pairs import ProcessPair, Work
from hpml_bench.gate.measure.sides import ComparedSides, Incomparable, OutOfTime
from hpml_bench.gate.records import Block, CheckReport, MethodCount, Rules, Side, Verdict
from hpml_bench.plugins.method import check_methods
from hpml_bench.suite.devices import resolve_devices
from hpml_bench.suite.settings import MethodSpec, Settings
from hpml_bench.suite.suite import Suite
from hpml_bench.system import environment
from hpml_bench.system.hashing import digest
from hpml_bench.system.text import utc_now

USUAL = ("lora", "prompt_tuning", "adapter")
"""The methods compared where none are named, if the suite has them."""
ENDLESS = 1_000_000
"""Number of steps of the schedule; pairs end long before."""

MORE = 1.5
"""Most pairs that are begun, in multiples of the last look's: some may be disturbed."""

GIVE_MORE = "give --max-minutes more"

MEASURING = (
    *("check", "resident", "decide/rank_tests", "decide/spending", "decide/verdicts"),
    *("measure/delay", "measure/machine", "measure/pairs", "measure/sides", "measure/workload"),
    *("../statistics/paired_tests", "../statistics/intervals"),
)
"""Files that decide the outcome of a check of given code."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Request:
    """Request of a check: the work, the rules, and what to measure."""

    suite: str
    settings: Settings
    methods: tuple[MethodSpec, ...]
    rules: Rules = field(default_factory=Rules)
    minutes: float | None = None
    """Time limit, after which the check ends decided or not."""
    count: bool = True
    time: bool = True

    @property
    def title(self) -> str:
        """Suite and methods, in a line."""
        return f"suite {self.suite}, {', '.join(method.name for method in self.methods)}"

    def plugins(self) -> frozenset[tuple[registry.Kind, str]]:
        """Return kind and name of the plug-ins that take part in a step, or provide its data."""
        settings = self.settings
        optimizers = {(method.optimizer or settings.optimizer).name for method in self.methods}
        named: dict[registry.Kind, set[str]] = {
            "methods": {method.method for method in self.methods},
            "optimizers": optimizers,
            "tasks": {settings.task.name},
            "datasets": {settings.dataset.name},
        }
        return frozenset((kind, name) for kind, names in named.items() for name in names)

    def work(self) -> Work:
        """Return the work that all pairs share."""
        return Work(self.settings, self.methods)


@dataclass
class Measured:
    """Measurements so far, and the verdicts on them."""

    blocks: list[Block] = field(default_factory=list)
    counts: tuple[MethodCount, ...] = ()
    uncounted: tuple[Verdict, ...] = ()
    """INCOMPARABLE for each quantity that only one side counts."""
    verdicts: tuple[Verdict, ...] = ()
    pairs: int = 0
    notes: list[str] = field(default_factory=list)
    late: str = ""
    """Reason why the time was up within a pair."""


def request(suite: Suite, methods: list[str] | None, rules: Rules, minutes: float | None) -> Request:
    """Return the request for a suite's methods, made ready to be timed: one rank, one thread, a constant rate.

    Raises:
        UserError: a method is unknown, there are too many to judge, or the device isn't there.

    """
    usual = [name for name in USUAL if name in suite.methods] or list(suite.methods)
    specs = tuple(suite.method(name) for name in dict.fromkeys(methods or usual))
    spending.alphas(rules, len(specs))  # refused now, not after the first look
    one = suite.settings.model_copy(update={"world_size": 1, "threads": 1})
    steady = {"steps": ENDLESS, "epochs": None, "schedule": "constant", "lr_warmup": 0.0}
    settings = Settings.model_validate(resolve_devices(one).model_dump() | steady)
    check_methods(specs, settings)
    return Request(suite.name, settings, specs, rules, minutes)


def check(request: Request, compared: ComparedSides, say: Say, work: Work | None = None) -> CheckReport:
    """Measure, judge, and return the report.

    Raises:
        UserError: a side doesn't run.
        OutOfTime: nothing could be measured in the time given.

    """
    started, began = utc_now(), monotonic()
    deadline = None if request.minutes is None else began + request.minutes * 60
    seed = secrets.randbits(32)
    work = work or request.work()
    measured = Measured(notes=list(compared.notes))
    try:
        if request.count:
            measured.counts, measured.uncounted = _count(work, compared, deadline)
        if request.time:
            _time(work, compared, request.rules, deadline, random.Random(seed), measured, say)  # noqa: S311 - no secret
    except Incomparable as reason:
        measured.verdicts = tuple(verdicts.incomparable(method.name, str(reason)) for method in request.methods)
    if request.time and not measured.verdicts:
        if not measured.counts:
            why = measured.late or GIVE_MORE
            raise OutOfTime(f"not one process pair was measured in {request.minutes:g} minutes; {why}")
        measured.verdicts = tuple(verdicts.unmeasured(method.name) for method in request.methods)
    return CheckReport(
        mode=compared.mode,
        suite=request.suite,
        methods=tuple(method.name for method in request.methods),
        rules=request.rules,
        reference=_described(compared.sides[0], work.described.get(compared.reference.key)),
        candidate=_described(compared.sides[1], work.described.get(compared.candidate.key)),
        environment={
            **environment.describe(),
            "gate": gate_digest(),
            "order_seed": seed,
            "delay_turns": work.turns,
            "delay_seconds": work.delays,
            "settings": request.settings.model_dump(mode="json"),
        },
        blocks=tuple(measured.blocks),
        counts=measured.counts,
        verdicts=measured.verdicts + count_diff.judge(measured.counts) + measured.uncounted,
        pairs=measured.pairs,
        notes=tuple(measured.notes),
        started=started,
        seconds=round(monotonic() - began, 1),
    )


def gate_digest() -> str:
    """Return a digest of the code that measures and decides, which tells its versions apart."""
    return digest([(Path(__file__).parent / f"{name}.py").read_text(encoding="utf-8") for name in MEASURING], 12)


def versions(described: Mapping[str, Any]) -> dict[str, str]:
    """Return the packages' versions from a result of `environment.describe`."""
    return {name: version for name, version in described.get("packages", {}).items() if version}


def _described(side: Side, description: Mapping[str, Any] | None) -> Side:
    return side if description is None else side.model_copy(update={"versions": versions(description)})


def _count(
    work: Work, compared: ComparedSides, deadline: float | None
) -> tuple[tuple[MethodCount, ...], tuple[Verdict, ...]]:
    """Count on both sides in processes of their own, so that nothing of it is left in timed ones.

    Returns:
        The counts of both sides, and INCOMPARABLE for each quantity that only one side counts.

    """
    counts: list[MethodCount] = []
    lone: list[Verdict] = []
    with ProcessPair(work, compared.reference, compared.candidate, random.Random(0), deadline) as pair:  # noqa: S311
        pair.prepare()
        pair.load()
        for method in work.methods:
            for side in pair.both:
                side.send("counts", method=method.name)
            reference, candidate = pair.reference.receive(), pair.candidate.receive()
            counts.extend(count_diff.compare(method.name, reference, candidate))
            lone.extend(count_diff.one_sided(method.name, reference, candidate))
    return tuple(counts), tuple(lone)


def _prepare(work: Work, compared: ComparedSides, deadline: float | None) -> None:
    """Let both sides prepare model and data in processes that are not timed, unless that is done."""
    if not {compared.reference.key, compared.candidate.key} <= work.prepared.keys():
        with ProcessPair(work, compared.reference, compared.candidate, random.Random(0), deadline) as pair:  # noqa: S311
            pair.prepare()


def _time(
    work: Work,
    compared: ComparedSides,
    rules: Rules,
    deadline: float | None,
    rng: random.Random,
    measured: Measured,
    say: Say,
) -> None:
    """Add pairs until a look decides, the last look was taken, or the next pair would end too late."""
    longest, looked = 0.0, 0
    for number in range(most_pairs(rules)):
        began = monotonic()
        if deadline is not None and began + longest > deadline:
            break
        try:
            if not number:
                _prepare(work, compared, deadline)
                began = monotonic()
            measured.blocks.extend(_pair(work, compared, rng, number, deadline))
        except OutOfTime as late:
            measured.late = str(late)
            measured.notes.append(measured.late)
            break
        longest = max(longest, monotonic() - began)
        measured.pairs += 1
        effects = verdicts.pair_effects(measured.blocks)
        done = spending.looks_done(rules, min(map(len, effects.values())))
        if done > looked:
            looked = done
            measured.verdicts = verdicts.look(effects, rules, done - 1)
            say(f"{measured.pairs} pairs: {_in_short(measured.verdicts)}")
            if verdicts.settled(measured.verdicts) or done == len(rules.looks):
                break
    if measured.pairs and not (measured.verdicts and verdicts.settled(measured.verdicts)):
        measured.verdicts = verdicts.final(verdicts.pair_effects(measured.blocks), rules)
    disturbed = sum(block.disturbed is not None for block in measured.blocks)
    if disturbed:
        measured.notes.append(f"{disturbed} of {len(measured.blocks)} blocks were disturbed and don't count")


def most_pairs(rules: Rules) -> int:
    """Return the most pairs that a check begins."""
    return math.ceil(rules.looks[-1] * MORE)


def _pair(work: Work, compared: ComparedSides, rng: random.Random, number: int, deadline: float | None) -> list[Block]:
    with ProcessPair(work, compared.reference, compared.candidate, rng, deadline) as pair:
        pair.load()
        pair.warm_up()
        return list(pair.measure(number, deadline))


def _in_short(found: tuple[Verdict, ...]) -> str:
    return ", ".join(f"{verdict.method} {verdict.status}" for verdict in found)
