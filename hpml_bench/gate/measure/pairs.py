"""Process pairs: two residents, newly started, that take turns in blocks of ABBA or BAAB.

A block is short, mostly four single steps on the same batch: disturbances of a shared machine come in bursts, and the
shorter the turns, the more alike they hit both sides. Time during which other processes had the core is taken out, as
the kernel counts it.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, Literal, Self

from hpml_bench.gate.measure.machine import between, shared_core, snapshot
from hpml_bench.gate.measure.sides import ComparedSides, Key, OutOfTime, ResidentProcess, settings_message
from hpml_bench.gate.records import Block
from hpml_bench.suite.settings import MethodSpec, Settings

REPEATS = 2
"""Most repetitions of a disturbed round."""
PIECE = 0.03
"""Seconds that one of a block's four pieces should take at least."""
BLOCKS = 8
"""Blocks of a method in a round."""
Order = Literal["ABBA", "BAAB"]


@dataclass
class Work:
    """Work that all pairs of a check share. Results of the first pair are kept for the others."""

    settings: Settings
    """Resolved, with one rank."""
    methods: tuple[MethodSpec, ...]
    delay: float | None = None
    """Share of a step that the candidate is slowed down by, in trials of the gate itself; None elsewhere."""
    prepared: dict[Key, dict[str, Any]] = field(default_factory=dict)
    """Model and data that each installation's own code prepared."""
    described: dict[Key, dict[str, Any]] = field(default_factory=dict)
    """Hardware and software of each installation."""
    steps: dict[str, int] = field(default_factory=dict)
    """Method -> steps of a piece."""
    turns: dict[str, int] | None = None
    """Method -> turns of busy work that make the delay."""
    delays: list[dict[str, float]] = field(default_factory=list)
    """For each pair: method -> seconds of the delay per step, timed in the candidate's process."""

    def message(self, prepared: dict[str, Any]) -> dict[str, Any]:
        """Return the arguments of `load` for a resident, with the model and data that its own code prepared."""
        methods = [method.model_dump(mode="json", exclude_defaults=True) for method in self.methods]
        common = {"settings": settings_message(self.settings), "methods": methods, "prepared": prepared}
        return common | {"delayable": self.delay is not None}


class ProcessPair:
    """Reference and candidate, both alive, one at work at a time."""

    def __init__(self, work: Work, compared: ComparedSides, rng: random.Random, deadline: float | None = None) -> None:
        """Prepare a pair; every request to it ends with `OutOfTime` at the deadline (of `time.monotonic`)."""
        self.work, self.rng, self.deadline = work, rng, deadline
        self.reference = ResidentProcess(compared.reference, deadline)
        self.candidate = ResidentProcess(compared.candidate, deadline)
        self.both = (self.reference, self.candidate)

    def __enter__(self) -> Self:
        """Start both processes, in either order."""
        with ExitStack() as stack:
            for side in self.rng.sample(self.both, 2):
                stack.enter_context(side)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def prepare(self) -> None:
        """Let each installation's own code prepare model and data, unless it has.

        Not in a pair that is timed: the side that prepared would have done more work than the other.
        """
        for side in self.both:
            key = side.installation.key
            if key not in self.work.prepared:
                self.work.described[key] = side.call("describe")
                self.work.prepared[key] = side.call("prepare", settings=settings_message(self.work.settings))

    def load(self) -> None:
        """Let both, once prepared, build the methods at once; which gets the request, so memory, first is random."""
        for side in self.rng.sample(self.both, 2):
            side.send("load", **self.work.message(self.work.prepared[side.installation.key]))
        for side in self.both:
            side.receive()

    def warm_up(self) -> None:
        """Let both take their first steps on the core on which they will be timed, one after the other."""
        work, seconds = self.work, {}
        for side in self.rng.sample(self.both, 2):
            seconds = side.call("warm_up", core=shared_core())
        work.steps = work.steps or {name: max(1, math.ceil(PIECE / value)) for name, value in seconds.items()}
        if work.delay:
            if work.turns is None:
                work.turns = self.candidate.call("calibrate_delay", share=work.delay)
            work.delays.append(self.candidate.call("inject_delay", turns=work.turns))

    def measure(self, number: int) -> Iterator[Block]:
        """Yield the pair's blocks, the methods in random order; a disturbed round followed by its repetition."""
        for method in self.rng.sample(self.work.methods, len(self.work.methods)):
            for _ in range(1 + REPEATS):
                if self.deadline is not None and monotonic() > self.deadline:
                    raise OutOfTime("the time was up within a process pair")
                blocks = self._round(number, method.name)
                yield from blocks
                if blocks[0].disturbed is None:
                    break

    def _round(self, number: int, method: str) -> list[Block]:
        """Measure blocks of one method; disturbances are known too coarsely to judge each block by itself."""
        processes = [side.pid for side in self.both]
        before = snapshot(processes)
        timed = [self._block(method, index) for index in range(BLOCKS)]
        disturbance = between(before, snapshot(processes))
        return [
            Block(
                pair=number,
                method=method,
                order=order,
                steps=self.work.steps[method],
                seconds=tuple(wall - waited for wall, waited in pieces),
                waited=tuple(waited for _, waited in pieces),
                steal=round(disturbance.steal, 4),
                load=round(disturbance.load, 3),
                disturbed=disturbance.reason,
            )
            for order, pieces in timed
        ]

    def _block(self, method: str, index: int) -> tuple[Order, list[tuple[float, float]]]:
        """Let the sides take turns on the same batches; return the order, and each piece's seconds and waiting."""
        order: Order = self.rng.choice(("ABBA", "BAAB"))
        steps = self.work.steps[method]
        sides = {"A": self.reference, "B": self.candidate}
        return order, [sides[side].call("run", method=method, steps=steps, first=index * steps) for side in order]
