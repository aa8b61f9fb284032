"""Checks, from a request to a report: counts, process pairs up to a look that decides, verdicts.

A process pair is two residents, newly started, that take turns in blocks of ABBA or BAAB. A block
is short, mostly four single steps on the same batch: disturbances of a shared machine come in
bursts, and the shorter the turns, the more alike they hit both sides. Time during which other
processes had the core is taken out, as the kernel counts it.
"""

import math
import random
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any, Literal, NamedTuple

from hpml_bench.gate import verdicts
from hpml_bench.gate.machine import disturbance, shared_core, snapshot
from hpml_bench.gate.records import Block, CheckReport, MethodCount, Rules, Verdict
from hpml_bench.gate.sides import (
    ComparedSides,
    Incomparable,
    Installation,
    OutOfTime,
    ResidentProcess,
)
from hpml_bench.plugins.method import check_methods, commands_of
from hpml_bench.suite import registry
from hpml_bench.suite.devices import resolve_devices
from hpml_bench.suite.settings import MethodSpec, Settings
from hpml_bench.suite.suite import Suite
from hpml_bench.system import environment
from hpml_bench.system.errors import UserError
from hpml_bench.system.text import digest, utc_now

USUAL = (
    "lora",
    "prompt_tuning",
    "adapter",
)  # the methods compared where none are named, if the suite has them
MEASURING = (
    "check",
    "machine",
    "rank_tests",
    "resident",
    "sides",
    "verdicts",
    "workload",
    "../statistics/intervals",
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
        named: list[tuple[registry.Kind, str]] = [
            ("tasks", settings.task.name),
            ("datasets", settings.dataset.name),
        ]
        for method in self.methods:
            named += [
                ("methods", method.method),
                ("optimizers", (method.optimizer or settings.optimizer).name),
            ]
        return frozenset(named)

    def deadline(self) -> float | None:
        """Return the end of the time limit, of `time.monotonic`, for a check that begins now."""
        return None if self.minutes is None else monotonic() + self.minutes * 60

    def load_message(self, prepared: dict[str, Any]) -> dict[str, Any]:
        """Return the arguments of `load` for a resident, with the model and data that its own
        code prepared.
        """
        methods = [method.model_dump(mode="json", exclude_defaults=True) for method in self.methods]
        return {
            "settings": settings_message(self.settings),
            "methods": methods,
            "prepared": prepared,
        }


def request(
    suite: Suite, methods: Sequence[str] | None, rules: Rules, minutes: float | None
) -> Request:
    """Return the request for a suite's methods, made ready to be timed: one rank, one thread, a
    constant rate.
    """
    usual = [name for name in USUAL if name in suite.methods] or list(suite.methods)
    specs = tuple(suite.method(name) for name in dict.fromkeys(methods or usual))
    verdicts.alphas(rules, len(specs))  # refused now, not after the first look
    one = suite.settings.model_copy(update={"world_size": 1, "threads": 1})
    steady = {
        "steps": 1_000_000,
        "epochs": None,
        "schedule": "constant",
        "lr_warmup": 0.0,
    }  # pairs end long before
    settings = Settings.model_validate(resolve_devices(one).model_dump() | steady)
    check_methods(specs, settings)
    if commands := commands_of(specs):
        raise UserError(
            f"check times steps of the loop, and {', '.join(commands)} runs a command; leave it out"
        )
    return Request(suite.name, settings, specs, rules, minutes)


def settings_message(settings: Settings) -> dict[str, Any]:
    """Return settings in the form that both sides read."""
    # Defaults are left out: they are each side's own, and a key that a version doesn't know is
    # refused; but `max_length`, whose default follows the task in some versions.
    return settings.model_dump(mode="json", exclude_defaults=True) | {
        "max_length": settings.max_length
    }


def steps_of_piece(seconds: float) -> int:
    return max(1, math.ceil(PIECE / seconds))


def gate_digest() -> str:
    return digest(
        [(Path(__file__).parent / f"{name}.py").read_text(encoding="utf-8") for name in MEASURING],
        12,
    )


class Prepared(NamedTuple):
    """What an installation's own code said and prepared, once for all checks of it."""

    described: dict[str, Any]  # its hardware and software
    data: dict[str, Any]  # model and data


Pair = tuple[ResidentProcess, ResidentProcess]
"""Reference and candidate, both alive, one at work at a time."""


@dataclass
class Measurement:
    """A check's process pairs, and what they have measured so far."""

    request: Request
    compared: ComparedSides
    prepared: dict[Installation, Prepared] = field(default_factory=dict)
    delay: float = (
        0.0  # share of a step that the candidate is slowed down by, in trials of the gate itself
    )
    rng: random.Random = field(default_factory=lambda: random.Random(0))  # noqa: S311 - no secret
    deadline: float | None = (
        None  # of `time.monotonic`: every request to a resident ends with `OutOfTime` then
    )
    steps: dict[str, int] = field(default_factory=dict)  # method -> steps of a piece
    delays: dict[str, float] = field(
        default_factory=dict
    )  # method -> seconds of the delay in each step
    notes: list[str] = field(default_factory=list)
    blocks: list[Block] = field(default_factory=list)
    counts: list[MethodCount] = field(default_factory=list)
    pairs: int = 0

    @contextmanager
    def pair(self) -> Iterator[Pair]:
        reference, candidate = (ResidentProcess(side, self.deadline) for side in self.compared.both)
        with ExitStack() as stack:
            for side in self.rng.sample((reference, candidate), 2):
                stack.enter_context(side)
            yield reference, candidate

    def prepare(self, pair: Pair) -> None:
        """Let each installation's own code prepare model and data, unless it has."""
        # Not in a pair that is timed: the side that prepared would have done more work than the
        # other.
        for side in pair:
            if side.installation not in self.prepared:
                described = side.call("describe")
                data = side.call("prepare", settings=settings_message(self.request.settings))
                self.prepared[side.installation] = Prepared(described, data)

    def load(self, pair: Pair) -> None:
        """Let both, once prepared, build the methods at once; which gets the request, so memory,
        first is random.
        """
        for side in self.rng.sample(pair, 2):
            side.send("load", **self.request.load_message(self.prepared[side.installation].data))
        for side in pair:
            side.receive()

    def warm_up(self, pair: Pair) -> None:
        """Let both take their first steps on the core on which they will be timed, one after the
        other.
        """
        for side in self.rng.sample(pair, 2):
            seconds = side.call("warm_up", core=shared_core())
            self.steps = self.steps or {
                name: steps_of_piece(value) for name, value in seconds.items()
            }
        if self.delay:
            self.delays = pair[1].call("delay", share=self.delay, seconds=self.delays)

    def measure(self, pair: Pair, number: int) -> Iterator[Block]:
        """Yield the pair's blocks, the methods in random order; a disturbed round followed by
        its repetition.
        """
        for method in self.rng.sample(self.request.names, len(self.request.names)):
            for _ in range(1 + REPEATS):
                blocks = self._round(pair, number, method)
                yield from blocks
                if blocks[0].disturbed is None:
                    break

    def _round(self, pair: Pair, number: int, method: str) -> list[Block]:
        """Measure blocks of one method; disturbances are known too coarsely to judge each block
        by itself.
        """
        processes, steps = [side.pid for side in pair], self.steps[method]
        sides = dict(zip("AB", pair, strict=True))
        before, timed = snapshot(processes), list[tuple[Order, list[tuple[float, float]]]]()
        for index in range(BLOCKS):  # the sides take turns on the same batches
            order: Order = self.rng.choice(("ABBA", "BAAB"))
            pieces = [
                sides[side].call("run", method=method, steps=steps, first=index * steps)
                for side in order
            ]
            timed.append((order, pieces))
        disturbed = disturbance(before, snapshot(processes))
        return [
            Block(
                pair=number,
                method=method,
                order=order,
                steps=steps,
                **disturbed,
                seconds=tuple(wall - waited for wall, waited in pieces),
                waited=tuple(waited for _, waited in pieces),
            )
            for order, pieces in timed
        ]

    def count(self) -> list[Verdict]:
        """Count on both sides in processes of their own, so that nothing of it is left in timed
        ones.
        """
        judged_all: list[Verdict] = []
        with self.pair() as pair:
            self.prepare(pair)
            self.load(pair)
            for method in self.request.names:
                for side in pair:
                    side.send("counts", method=method)
                reference, candidate = (side.receive() for side in pair)
                counts, judged = verdicts.compare_counts(method, reference, candidate)
                self.counts += counts
                judged_all += judged
        return judged_all

    def time(self, say: Say) -> tuple[Verdict, ...]:
        """Add pairs until a look decides, the last look was taken, or the time is up; return the
        verdicts then.
        """
        looked, rules = 0, self.request.rules
        for number in range(
            math.ceil(1.5 * rules.looks[-1])
        ):  # more than the last look's, as some may be disturbed
            try:
                with self.pair() as pair:
                    self.load(pair)
                    self.warm_up(pair)
                    self.blocks += list(
                        self.measure(pair, number)
                    )  # all or none: one that is cut short doesn't count
            except OutOfTime as late:
                if not (self.pairs or self.counts):
                    raise
                self.notes.append(str(late))
                break
            self.pairs += 1
            done = verdicts.looks_done(rules, min(map(len, self.effects().values())))
            if done > looked:
                looked, found = done, verdicts.verdicts_at(self.effects(), rules, done)
                say(
                    f"{self.pairs} pairs: "
                    f"{', '.join(f'{verdict.method} {verdict.status}' for verdict in found)}"
                )
                if verdicts.settled(found):
                    return found
                if done == len(rules.looks):
                    break
        return verdicts.verdicts_at(self.effects(), rules)

    def effects(self) -> dict[str, list[float]]:
        return {name: list[float]() for name in self.request.names} | verdicts.pair_effects(
            self.blocks
        )


def check(
    request: Request,
    compared: ComparedSides,
    say: Say,
    prepared: dict[Installation, Prepared] | None = None,
    delay: float = 0.0,
) -> CheckReport:
    """Measure, judge, and return the report; `OutOfTime` where nothing could be measured in the
    time given.

    `prepared` keeps what installations prepared for a next check; `delay`: of a trial of the gate
    itself.
    """
    started, began, seed = utc_now(), monotonic(), secrets.randbits(32)
    made = Measurement(
        request,
        compared,
        {} if prepared is None else prepared,
        delay,
        random.Random(seed),  # noqa: S311
        request.deadline(),
    )
    timed, counted = tuple[Verdict, ...](), list[Verdict]()
    try:
        if request.count:
            counted = made.count()
        elif not {*compared.both} <= made.prepared.keys():
            with made.pair() as pair:
                made.prepare(pair)
        if request.time:
            timed = made.time(say)
    except Incomparable as reason:
        timed = tuple(verdicts.untimed(name, str(reason)) for name in request.names)
    disturbed = sum(block.disturbed is not None for block in made.blocks)
    if disturbed:
        made.notes.append(
            f"{disturbed} of {len(made.blocks)} blocks were disturbed and don't count"
        )
    own = {"gate": gate_digest(), "order_seed": seed, "delay_seconds": made.delays}
    own["settings"] = request.settings.model_dump(mode="json")
    described = {side: ready.described for side, ready in made.prepared.items()}
    reference, candidate = (side.side(described.get(side, {})) for side in compared.both)
    return CheckReport(
        mode=compared.mode,
        suite=request.suite,
        methods=request.names,
        rules=request.rules,
        reference=reference,
        candidate=candidate,
        environment=environment.describe() | own,
        blocks=tuple(made.blocks),
        counts=tuple(made.counts),
        pairs=made.pairs,
        verdicts=(*timed, *counted),
        notes=tuple(made.notes),
        started=started,
        seconds=round(monotonic() - began, 1),
    )
