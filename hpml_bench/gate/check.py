"""Checks, from a request to a report: counts, process pairs up to a look that decides, verdicts."""

from __future__ import annotations

import math
import random
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

from hpml_bench.gate.decide import count_diff, spending, verdicts
from hpml_bench.gate.measure.pairs import ProcessPair, Work
from hpml_bench.gate.measure.sides import ComparedSides, Incomparable, OutOfTime
from hpml_bench.gate.records import Block, CheckReport, MethodCount, Rules, Verdict
from hpml_bench.plugins.method import check_methods
from hpml_bench.suite import registry
from hpml_bench.suite.devices import resolve_devices
from hpml_bench.suite.settings import MethodSpec, Settings
from hpml_bench.suite.suite import Suite
from hpml_bench.system import environment
from hpml_bench.system.text import digest, utc_now

USUAL = ("lora", "prompt_tuning", "adapter")
"""The methods compared where none are named, if the suite has them."""
MEASURING = (
    *("check", "resident", "decide/rank_tests", "decide/spending", "decide/verdicts"),
    *("measure/machine", "measure/pairs", "measure/sides", "measure/workload"),
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
        return f"suite {self.suite}, {', '.join(self.names)}"

    @property
    def names(self) -> tuple[str, ...]:
        """The methods' names."""
        return tuple(method.name for method in self.methods)

    def plugins(self) -> frozenset[tuple[registry.Kind, str]]:
        """Return kind and name of the plug-ins that take part in a step, or provide its data."""
        settings = self.settings
        named: list[tuple[registry.Kind, str]] = [("tasks", settings.task.name), ("datasets", settings.dataset.name)]
        for method in self.methods:
            named += [("methods", method.method), ("optimizers", (method.optimizer or settings.optimizer).name)]
        return frozenset(named)

    def deadline(self) -> float | None:
        """Return the end of the time limit, of `time.monotonic`, for a check that begins now."""
        return None if self.minutes is None else monotonic() + self.minutes * 60

    def work(self) -> Work:
        """Return the work that all pairs share."""
        return Work(self.settings, self.methods)


def request(suite: Suite, methods: Sequence[str] | None, rules: Rules, minutes: float | None) -> Request:
    """Return the request for a suite's methods, made ready to be timed: one rank, one thread, a constant rate.

    A `UserError` where a method is unknown, there are too many to judge, or the device isn't there.
    """
    usual = [name for name in USUAL if name in suite.methods] or list(suite.methods)
    specs = tuple(suite.method(name) for name in dict.fromkeys(methods or usual))
    spending.alphas(rules, len(specs))  # refused now, not after the first look
    one = suite.settings.model_copy(update={"world_size": 1, "threads": 1})
    steady = {"steps": 1_000_000, "epochs": None, "schedule": "constant", "lr_warmup": 0.0}  # pairs end long before
    settings = Settings.model_validate(resolve_devices(one).model_dump() | steady)
    check_methods(specs, settings)
    return Request(suite.name, settings, specs, rules, minutes)


def check(request: Request, compared: ComparedSides, say: Say, work: Work | None = None) -> CheckReport:
    """Measure, judge, and return the report; `OutOfTime` where nothing could be measured in the time given."""
    started, began = utc_now(), monotonic()
    seed = secrets.randbits(32)
    work = work or request.work()
    measured = _Measurement(work, compared, request.rules, request.deadline(), say, notes=list(compared.notes))
    try:
        if request.count:
            measured.count()
        if request.time:
            measured.time(random.Random(seed))  # noqa: S311 - no secret
    except Incomparable as reason:
        measured.verdicts = tuple(verdicts.incomparable(name, str(reason)) for name in request.names)
    if request.time and not measured.verdicts:
        if not measured.counts:
            why = measured.late or "give --max-minutes more"
            raise OutOfTime(f"not one process pair was measured in {request.minutes:g} minutes; {why}")
        measured.verdicts = tuple(map(verdicts.unmeasured, request.names))
    return CheckReport(
        mode=compared.mode,
        suite=request.suite,
        methods=request.names,
        rules=request.rules,
        reference=compared.reference.side(work.described.get(compared.reference.key, {})),
        candidate=compared.candidate.side(work.described.get(compared.candidate.key, {})),
        environment={
            **environment.describe(),
            "gate": gate_digest(),
            "order_seed": seed,
            "delay_turns": work.turns,
            "delay_seconds": work.delays,
            "settings": request.settings.model_dump(mode="json"),
        },
        blocks=tuple(measured.blocks),
        counts=tuple(measured.counts),
        verdicts=(*measured.verdicts, *count_diff.judge(measured.counts), *measured.uncounted),
        pairs=measured.pairs,
        notes=tuple(measured.notes),
        started=started,
        seconds=round(monotonic() - began, 1),
    )


def gate_digest() -> str:
    """Return a digest of the code that measures and decides, which tells its versions apart."""
    return digest([(Path(__file__).parent / f"{name}.py").read_text(encoding="utf-8") for name in MEASURING], 12)


def most_pairs(rules: Rules) -> int:
    """Return the most pairs that a check begins: half as many again as the last look's, since some may be disturbed."""
    return math.ceil(rules.looks[-1] * 1.5)


@dataclass
class _Measurement:
    """What is measured, the measurements so far, and the verdicts on them."""

    work: Work
    compared: ComparedSides
    rules: Rules
    deadline: float | None
    say: Say
    blocks: list[Block] = field(default_factory=list)
    counts: list[MethodCount] = field(default_factory=list)
    uncounted: list[Verdict] = field(default_factory=list)
    """INCOMPARABLE for each quantity that only one side counts."""
    verdicts: tuple[Verdict, ...] = ()
    pairs: int = 0
    notes: list[str] = field(default_factory=list)
    late: str = ""
    """Reason why the time was up within a pair."""

    def count(self) -> None:
        """Count on both sides in processes of their own, so that nothing of it is left in timed ones."""
        with self._pair() as pair:
            pair.prepare()
            pair.load()
            for method in self.work.methods:
                for side in pair.both:
                    side.send("counts", method=method.name)
                reference, candidate = pair.reference.receive(), pair.candidate.receive()
                self.counts += count_diff.compare(method.name, reference, candidate)
                self.uncounted += count_diff.one_sided(method.name, reference, candidate)

    def time(self, rng: random.Random) -> None:
        """Add pairs until a look decides, the last look was taken, or the next pair would end too late."""
        longest, looked = 0.0, 0
        for number in range(most_pairs(self.rules)):
            began = monotonic()
            if self.deadline is not None and began + longest > self.deadline:
                break
            try:
                if not number:
                    self._prepare()
                    began = monotonic()
                with self._pair(rng) as pair:
                    pair.load()
                    pair.warm_up()
                    self.blocks += list(pair.measure(number))  # all or none: a pair that is cut short doesn't count
            except OutOfTime as late:
                self.late = str(late)
                self.notes.append(self.late)
                break
            longest = max(longest, monotonic() - began)
            self.pairs += 1
            effects = verdicts.pair_effects(self.blocks)
            done = spending.looks_done(self.rules, min(map(len, effects.values())))
            if done > looked:
                looked = done
                self.verdicts = verdicts.look(effects, self.rules, done - 1)
                found = ", ".join(f"{verdict.method} {verdict.status}" for verdict in self.verdicts)
                self.say(f"{self.pairs} pairs: {found}")
                if verdicts.settled(self.verdicts) or done == len(self.rules.looks):
                    break
        if self.pairs and not (self.verdicts and verdicts.settled(self.verdicts)):
            self.verdicts = verdicts.final(verdicts.pair_effects(self.blocks), self.rules)
        disturbed = sum(block.disturbed is not None for block in self.blocks)
        if disturbed:
            self.notes.append(f"{disturbed} of {len(self.blocks)} blocks were disturbed and don't count")

    def _prepare(self) -> None:
        """Let both sides prepare model and data in processes that are not timed, unless that is done."""
        if not {self.compared.reference.key, self.compared.candidate.key} <= self.work.prepared.keys():
            with self._pair() as pair:
                pair.prepare()

    def _pair(self, rng: random.Random | None = None) -> ProcessPair:
        return ProcessPair(self.work, self.compared, rng or random.Random(0), self.deadline)  # noqa: S311 - no secret
