"""Checks, from a request to a report: counts, process pairs up to a look that decides, verdicts.

A process pair is two residents, newly started, that take turns in blocks of ABBA or BAAB. A block is short, mostly four
single steps on the same batch: disturbances of a shared machine come in bursts, and the shorter the turns, the more
alike they hit both sides. Time during which other processes had the core is taken out, as the kernel counts it.
"""

from __future__ import annotations

import math
import random
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any, Literal, Self

from hpml_bench.gate import verdicts
from hpml_bench.gate.machine import disturbance, shared_core, snapshot
from hpml_bench.gate.records import Block, CheckReport, MethodCount, Rules, Verdict
from hpml_bench.gate.sides import ComparedSides, Incomparable, Key, OutOfTime, ResidentProcess, settings_message
from hpml_bench.plugins.method import check_methods, commands_of
from hpml_bench.suite import registry
from hpml_bench.suite.devices import resolve_devices
from hpml_bench.suite.settings import MethodSpec, Settings
from hpml_bench.suite.suite import Suite
from hpml_bench.system import environment
from hpml_bench.system.errors import UserError
from hpml_bench.system.text import digest, utc_now

USUAL = ("lora", "prompt_tuning", "adapter")  # the methods compared where none are named, if the suite has them
MEASURING = (
    *("check", "machine", "rank_tests", "resident", "sides", "verdicts", "workload"),
    *("../statistics/paired_tests", "../statistics/intervals"),
)
"""Files that decide the outcome of a check of given code."""
REPEATS = 2  # most repetitions of a disturbed round
PIECE = 0.03  # seconds that one of a block's four pieces should take at least
BLOCKS = 8  # blocks of a method in a round

Say = Callable[[str], None]
Order = Literal["ABBA", "BAAB"]


@dataclass(frozen=True)
class Request:
    """Request of a check: the work, the rules, and what to measure."""

    suite: str
    settings: Settings  # resolved, with one rank
    methods: tuple[MethodSpec, ...]
    rules: Rules = field(default_factory=Rules)
    minutes: float | None = None  # time limit, after which the check ends decided or not
    count: bool = True
    time: bool = True

    @property
    def names(self) -> tuple[str, ...]:
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

    def load_message(self, prepared: dict[str, Any], delayable: bool = False) -> dict[str, Any]:
        """Return the arguments of `load` for a resident, with the model and data that its own code prepared."""
        methods = [method.model_dump(mode="json", exclude_defaults=True) for method in self.methods]
        settings = settings_message(self.settings)
        return {"settings": settings, "methods": methods, "prepared": prepared, "delayable": delayable}


def request(suite: Suite, methods: Sequence[str] | None, rules: Rules, minutes: float | None) -> Request:
    """Return the request for a suite's methods, made ready to be timed: one rank, one thread, a constant rate."""
    usual = [name for name in USUAL if name in suite.methods] or list(suite.methods)
    specs = tuple(suite.method(name) for name in dict.fromkeys(methods or usual))
    verdicts.alphas(rules, len(specs))  # refused now, not after the first look
    one = suite.settings.model_copy(update={"world_size": 1, "threads": 1})
    steady = {"steps": 1_000_000, "epochs": None, "schedule": "constant", "lr_warmup": 0.0}  # pairs end long before
    settings = Settings.model_validate(resolve_devices(one).model_dump() | steady)
    check_methods(specs, settings)
    if commands := commands_of(specs):
        raise UserError(f"check times steps of the loop, and {', '.join(commands)} runs a command; leave it out")
    return Request(suite.name, settings, specs, rules, minutes)


@dataclass
class Work:
    """Work that all pairs of a check share. Results of the first pair are kept for the others."""

    request: Request
    delay: float | None = None
    """Share of a step that the candidate is slowed down by, in trials of the gate itself; None elsewhere."""
    prepared: dict[Key, dict[str, Any]] = field(default_factory=dict)
    """Model and data that each installation's own code prepared."""
    described: dict[Key, dict[str, Any]] = field(default_factory=dict)  # hardware and software of each installation
    steps: dict[str, int] = field(default_factory=dict)  # method -> steps of a piece
    turns: dict[str, int] | None = None  # method -> turns of busy work that make the delay
    delays: list[dict[str, float]] = field(default_factory=list)
    """For each pair: method -> seconds of the delay per step, timed in the candidate's process."""


class ProcessPair:
    """Reference and candidate, both alive, one at work at a time."""

    def __init__(self, work: Work, compared: ComparedSides, rng: random.Random, deadline: float | None = None) -> None:
        """Prepare a pair; every request to it ends with `OutOfTime` at the deadline (of `time.monotonic`)."""
        self.work, self.rng, self.deadline = work, rng, deadline
        self.both = tuple(ResidentProcess(side, deadline) for side in compared.both)
        self.reference, self.candidate = self.both

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            for side in self.rng.sample(self.both, 2):
                stack.enter_context(side)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def prepare(self) -> None:
        """Let each installation's own code prepare model and data, unless it has."""
        # Not in a pair that is timed: the side that prepared would have done more work than the other.
        for side in self.both:
            key = side.installation.key
            if key not in self.work.prepared:
                self.work.described[key] = side.call("describe")
                self.work.prepared[key] = side.call("prepare", settings=settings_message(self.work.request.settings))

    def load(self) -> None:
        """Let both, once prepared, build the methods at once; which gets the request, so memory, first is random."""
        for side in self.rng.sample(self.both, 2):
            prepared = self.work.prepared[side.installation.key]
            side.send("load", **self.work.request.load_message(prepared, self.work.delay is not None))
        for side in self.both:
            side.receive()

    def warm_up(self) -> None:
        """Let both take their first steps on the core on which they will be timed, one after the other."""
        work, seconds = self.work, {}
        for side in self.rng.sample(self.both, 2):
            seconds = side.call("warm_up", core=shared_core())
        work.steps = work.steps or {name: steps_of_piece(value) for name, value in seconds.items()}
        if work.delay:
            made = self.candidate.call("delay", share=work.delay, turns=work.turns)
            work.turns = {name: turns for name, (turns, _) in made.items()}
            work.delays.append({name: seconds for name, (_, seconds) in made.items()})

    def measure(self, number: int) -> Iterator[Block]:
        """Yield the pair's blocks, the methods in random order; a disturbed round followed by its repetition."""
        names = self.work.request.names
        for method in self.rng.sample(names, len(names)):
            for _ in range(1 + REPEATS):
                if self.deadline is not None and monotonic() > self.deadline:
                    raise OutOfTime("the time was up within a process pair")
                blocks = self._round(number, method)
                yield from blocks
                if blocks[0].disturbed is None:
                    break

    def _round(self, number: int, method: str) -> list[Block]:
        """Measure blocks of one method; disturbances are known too coarsely to judge each block by itself."""
        processes, steps = [side.pid for side in self.both], self.work.steps[method]
        sides = {"A": self.reference, "B": self.candidate}
        before, timed = snapshot(processes), list[tuple[Order, list[tuple[float, float]]]]()
        for index in range(BLOCKS):  # the sides take turns on the same batches
            order: Order = self.rng.choice(("ABBA", "BAAB"))
            pieces = [sides[side].call("run", method=method, steps=steps, first=index * steps) for side in order]
            timed.append((order, pieces))
        disturbed = disturbance(before, snapshot(processes))
        return [
            Block(
                pair=number, method=method, order=order, steps=steps, **disturbed,
                seconds=tuple(wall - waited for wall, waited in pieces), waited=tuple(waited for _, waited in pieces),
            )
            for order, pieces in timed
        ]  # fmt: skip


def steps_of_piece(seconds: float) -> int:
    return max(1, math.ceil(PIECE / seconds))


def check(request: Request, compared: ComparedSides, say: Say, work: Work | None = None) -> CheckReport:
    """Measure, judge, and return the report; `OutOfTime` where nothing could be measured in the time given."""
    started, began = utc_now(), monotonic()
    seed = secrets.randbits(32)
    work = work or Work(request)
    measured = _Measurement(work, compared, request.deadline(), say, notes=list(compared.notes))
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
    own = {"gate": gate_digest(), "order_seed": seed, "delay_turns": work.turns, "delay_seconds": work.delays}
    own["settings"] = request.settings.model_dump(mode="json")
    reference, candidate = (side.side(work.described.get(side.key, {})) for side in compared.both)
    return CheckReport(
        mode=compared.mode, suite=request.suite, methods=request.names, rules=request.rules,
        reference=reference, candidate=candidate, environment=environment.describe() | own,
        blocks=tuple(measured.blocks), counts=tuple(measured.counts), pairs=measured.pairs,
        verdicts=(*measured.verdicts, *verdicts.of_counts(measured.counts), *measured.uncounted),
        notes=tuple(measured.notes), started=started, seconds=round(monotonic() - began, 1),
    )  # fmt: skip


def gate_digest() -> str:
    return digest([(Path(__file__).parent / f"{name}.py").read_text(encoding="utf-8") for name in MEASURING], 12)


def most_pairs(rules: Rules) -> int:
    """Return the most pairs that a check begins: half as many again as the last look's, since some may be disturbed."""
    return math.ceil(rules.looks[-1] * 1.5)


@dataclass
class _Measurement:
    """Measured quantities, the measurements so far, and the verdicts on them."""

    work: Work
    compared: ComparedSides
    deadline: float | None
    say: Say
    notes: list[str]
    blocks: list[Block] = field(default_factory=list)
    counts: list[MethodCount] = field(default_factory=list)
    uncounted: list[Verdict] = field(default_factory=list)  # INCOMPARABLE for each quantity that only one side counts
    verdicts: tuple[Verdict, ...] = ()
    pairs: int = 0
    late: str = ""  # reason why the time was up within a pair

    def count(self) -> None:
        """Count on both sides in processes of their own, so that nothing of it is left in timed ones."""
        with self._pair() as pair:
            pair.prepare()
            pair.load()
            for method in self.work.request.names:
                for side in pair.both:
                    side.send("counts", method=method)
                reference, candidate = pair.reference.receive(), pair.candidate.receive()
                self.counts += verdicts.compare_counts(method, reference, candidate)
                self.uncounted += verdicts.one_sided(method, reference, candidate)

    def time(self, rng: random.Random) -> None:
        """Add pairs until a look decides, the last look was taken, or the next pair would end too late."""
        longest, looked, rules = 0.0, 0, self.work.request.rules
        for number in range(most_pairs(rules)):
            began = monotonic()
            if self.deadline is not None and began + longest > self.deadline:
                break
            try:
                if not {side.key for side in self.compared.both} <= self.work.prepared.keys():
                    with self._pair() as pair:  # whose processes are not timed
                        pair.prepare()
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
            done = verdicts.looks_done(rules, min(map(len, effects.values())))
            if done > looked:
                looked = done
                self.verdicts = verdicts.verdicts_at(effects, rules, done)
                found = ", ".join(f"{verdict.method} {verdict.status}" for verdict in self.verdicts)
                self.say(f"{self.pairs} pairs: {found}")
                if verdicts.settled(self.verdicts) or done == len(rules.looks):
                    break
        if self.pairs and not (self.verdicts and verdicts.settled(self.verdicts)):
            self.verdicts = verdicts.verdicts_at(verdicts.pair_effects(self.blocks), rules)
        disturbed = sum(block.disturbed is not None for block in self.blocks)
        if disturbed:
            self.notes.append(f"{disturbed} of {len(self.blocks)} blocks were disturbed and don't count")

    def _pair(self, rng: random.Random | None = None) -> ProcessPair:
        return ProcessPair(self.work, self.compared, rng or random.Random(0), self.deadline)  # noqa: S311 - no secret
