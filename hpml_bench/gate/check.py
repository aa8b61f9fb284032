"""Checks, from a request to a report: counts, process pairs up to a look that decides, verdicts.

A process pair is two residents, newly started, that take turns in blocks of ABBA or BAAB. A block is short, mostly four
single steps on the same batch: disturbances of a shared machine come in bursts, and the shorter the turns, the more
alike they hit both sides. Time during which other processes had the core is taken out, as the kernel counts it.
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
    "check", "machine", "rank_tests", "resident", "sides", "verdicts", "workload", "../statistics/intervals",
)  # fmt: skip
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


def steps_of_piece(seconds: float) -> int:
    return max(1, math.ceil(PIECE / seconds))


def gate_digest() -> str:
    return digest([(Path(__file__).parent / f"{name}.py").read_text(encoding="utf-8") for name in MEASURING], 12)


class Prepared(NamedTuple):
    """What an installation's own code said and prepared, once for all checks of it."""

    described: dict[str, Any]  # its hardware and software
    data: dict[str, Any]  # model and data


Pair = tuple[ResidentProcess, ResidentProcess]
"""Reference and candidate, both alive, one at work at a time."""


@dataclass
class Measurement:
    """A check's measurements so far, and the verdicts on them."""

    request: Request
    compared: ComparedSides
    say: Say = lambda _: None
    prepared: dict[Key, Prepared] = field(default_factory=dict)
    delay: float | None = None
    """Share of a step that the candidate is slowed down by, in trials of the gate itself; None elsewhere."""
    rng: random.Random = field(default_factory=lambda: random.Random(0))  # noqa: S311 - no secret
    deadline: float | None = None  # of `time.monotonic`: every request to a resident ends with `OutOfTime` then
    steps: dict[str, int] = field(default_factory=dict)  # method -> steps of a piece
    turns: dict[str, int] | None = None  # method -> turns of busy work that make the delay
    delays: list[dict[str, float]] = field(default_factory=list)
    """For each pair: method -> seconds of the delay per step, timed in the candidate's process."""
    notes: list[str] = field(default_factory=list)
    blocks: list[Block] = field(default_factory=list)
    counts: list[MethodCount] = field(default_factory=list)
    counted: list[Verdict] = field(default_factory=list)  # on counts
    verdicts: tuple[Verdict, ...] = ()  # on step times
    pairs: int = 0
    late: str = ""  # reason why the time was up within a pair

    @contextmanager
    def pair(self) -> Iterator[Pair]:
        reference, candidate = (ResidentProcess(side, self.deadline) for side in self.compared.both)
        with ExitStack() as stack:
            for side in self.rng.sample((reference, candidate), 2):
                stack.enter_context(side)
            yield reference, candidate

    def prepare(self, pair: Pair) -> None:
        """Let each installation's own code prepare model and data, unless it has."""
        # Not in a pair that is timed: the side that prepared would have done more work than the other.
        for side in pair:
            if (key := side.installation.key) not in self.prepared:
                described = side.call("describe")
                data = side.call("prepare", settings=settings_message(self.request.settings))
                self.prepared[key] = Prepared(described, data)

    def load(self, pair: Pair) -> None:
        """Let both, once prepared, build the methods at once; which gets the request, so memory, first is random."""
        for side in self.rng.sample(pair, 2):
            data = self.prepared[side.installation.key].data
            side.send("load", **self.request.load_message(data, self.delay is not None))
        for side in pair:
            side.receive()

    def warm_up(self, pair: Pair) -> None:
        """Let both take their first steps on the core on which they will be timed, one after the other."""
        seconds: dict[str, float] = {}
        for side in self.rng.sample(pair, 2):
            seconds = side.call("warm_up", core=shared_core())
        self.steps = self.steps or {name: steps_of_piece(value) for name, value in seconds.items()}
        if self.delay:
            made = pair[1].call("delay", share=self.delay, turns=self.turns)
            self.turns = {name: turns for name, (turns, _) in made.items()}
            self.delays.append({name: seconds for name, (_, seconds) in made.items()})

    def measure(self, pair: Pair, number: int) -> Iterator[Block]:
        """Yield the pair's blocks, the methods in random order; a disturbed round followed by its repetition."""
        for method in self.rng.sample(self.request.names, len(self.request.names)):
            for _ in range(1 + REPEATS):
                if self.deadline is not None and monotonic() > self.deadline:
                    raise OutOfTime("the time was up within a process pair")
                blocks = self._round(pair, number, method)
                yield from blocks
                if blocks[0].disturbed is None:
                    break

    def _round(self, pair: Pair, number: int, method: str) -> list[Block]:
        """Measure blocks of one method; disturbances are known too coarsely to judge each block by itself."""
        processes, steps = [side.pid for side in pair], self.steps[method]
        sides = dict(zip("AB", pair, strict=True))
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

    def count(self) -> None:
        """Count on both sides in processes of their own, so that nothing of it is left in timed ones."""
        with self.pair() as pair:
            self.prepare(pair)
            self.load(pair)
            for method in self.request.names:
                for side in pair:
                    side.send("counts", method=method)
                reference, candidate = (side.receive() for side in pair)
                counts, judged = verdicts.compare_counts(method, reference, candidate)
                self.counts, self.counted = self.counts + counts, self.counted + judged

    def time(self) -> None:
        """Add pairs until a look decides, the last look was taken, or the next pair would end too late."""
        longest, looked, rules = 0.0, 0, self.request.rules
        for number in range(math.ceil(1.5 * rules.looks[-1])):  # more than the last look's, as some may be disturbed
            began = monotonic()
            if self.deadline is not None and began + longest > self.deadline:
                break
            try:
                if not {side.key for side in self.compared.both} <= self.prepared.keys():
                    with self.pair() as pair:  # whose processes are not timed
                        self.prepare(pair)
                    began = monotonic()
                with self.pair() as pair:
                    self.load(pair)
                    self.warm_up(pair)
                    self.blocks += list(self.measure(pair, number))  # all or none: one that is cut short doesn't count
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


def check(
    request: Request, compared: ComparedSides, say: Say, prepared: dict[Key, Prepared] | None = None,
    delay: float | None = None,
) -> CheckReport:  # fmt: skip
    """Measure, judge, and return the report; `OutOfTime` where nothing could be measured in the time given.

    `prepared` keeps what installations prepared for a next check; `delay`: of a trial of the gate itself.
    """
    started, began, seed = utc_now(), monotonic(), secrets.randbits(32)
    made = Measurement(request, compared, say, {} if prepared is None else prepared, delay,
                       random.Random(seed), request.deadline(), notes=list(compared.notes))  # fmt: skip # noqa: S311
    try:
        if request.count:
            made.count()
        if request.time:
            made.time()
    except Incomparable as reason:
        made.verdicts = tuple(verdicts.untimed(name, str(reason)) for name in request.names)
    if request.time and not made.verdicts:
        if not made.counts:
            why = made.late or "give --max-minutes more"
            raise OutOfTime(f"not one process pair was measured in {request.minutes:g} minutes; {why}")
        made.verdicts = tuple(
            verdicts.untimed(name, "no pairs were measured", "INCONCLUSIVE") for name in request.names
        )
    own = {"gate": gate_digest(), "order_seed": seed, "delay_turns": made.turns, "delay_seconds": made.delays}
    own["settings"] = request.settings.model_dump(mode="json")
    described = {key: ready.described for key, ready in made.prepared.items()}
    reference, candidate = (side.side(described.get(side.key, {})) for side in compared.both)
    return CheckReport(
        mode=compared.mode, suite=request.suite, methods=request.names, rules=request.rules,
        reference=reference, candidate=candidate, environment=environment.describe() | own,
        blocks=tuple(made.blocks), counts=tuple(made.counts), pairs=made.pairs,
        verdicts=(*made.verdicts, *made.counted),
        notes=tuple(made.notes), started=started, seconds=round(monotonic() - began, 1),
    )  # fmt: skip
