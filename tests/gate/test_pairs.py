"""Blocks of process pairs: orders, repetition, deadlines; and what disturbs a machine."""

from __future__ import annotations

import os
import random
from collections import Counter
from pathlib import Path
from time import monotonic, process_time
from typing import Any

import pytest
from residents import asked, compared, fake

from hpml_bench.gate.decide import verdicts
from hpml_bench.gate.measure import machine, pairs
from hpml_bench.gate.measure.machine import Snapshot, between
from hpml_bench.gate.measure.pairs import BLOCKS, REPEATS, OutOfTime, ProcessPair
from hpml_bench.gate.measure.sides import ResidentProcess

pytestmark = pytest.mark.usefixtures("quiet_machine")

QUIET = Snapshot(at=0, total=0, busy=0, stolen=0, own=0, throttled=0)


def pair(tmp_path: Path, *methods: str, seed: int = 0) -> ProcessPair:
    """Return a pair of residents that answer at once; the candidate's steps take 5 % longer."""
    reference, candidate = fake(tmp_path / "a", "0.04"), fake(tmp_path / "b", "0.042", label="b")
    work = asked(*methods).work()
    work.prepared |= {side.key: {} for side in (reference, candidate)}
    return ProcessPair(work, compared(reference, candidate), random.Random(seed))


def test_every_pair_measures_all_methods_in_blocks_of_both_orders(tmp_path: Path) -> None:
    """As many blocks of each method; A is the reference in either order, so that the ratio is the candidate's."""
    with pair(tmp_path, "lora", "adapter") as both:
        both.load()
        both.warm_up()
        blocks = list(both.measure(3))
    assert Counter(block.method for block in blocks) == {"lora": BLOCKS, "adapter": BLOCKS}
    assert {block.order for block in blocks} == {"ABBA", "BAAB"}
    assert {block.pair for block in blocks} == {3}
    for block in blocks:
        assert verdicts.log_ratio(block) == pytest.approx(0.04879, abs=1e-4)


def test_methods_are_shuffled_within_pairs(tmp_path: Path) -> None:
    """Else a method would be confounded with its place."""
    firsts = set()
    with pair(tmp_path, "lora", "adapter") as both:
        both.load()
        both.warm_up()
        for _ in range(12):
            firsts.add(next(both.measure(0)).method)
    assert firsts == {"lora", "adapter"}


def test_a_disturbed_round_is_repeated_a_few_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every try is kept with its reason, none counts, and the pair ends."""
    monkeypatch.setattr(pairs, "between", lambda *_: machine.Disturbance(0.5, 0.0, "the host took it"))
    with pair(tmp_path) as both:
        both.load()
        both.warm_up()
        blocks = list(both.measure(0))
    assert len(blocks) == BLOCKS * (1 + REPEATS)
    assert {block.disturbed for block in blocks} == {"the host took it"}
    assert verdicts.pair_effects(blocks) == {"lora": []}


def test_a_round_that_is_quiet_at_the_second_try_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first is kept as disturbed, the second is the value."""
    found = iter([machine.Disturbance(0.5, 0.0, "stolen"), machine.Disturbance(0.0, 0.0, None)])
    monkeypatch.setattr(pairs, "between", lambda *_: next(found))
    with pair(tmp_path) as both:
        both.load()
        both.warm_up()
        blocks = list(both.measure(0))
    assert [block.disturbed for block in blocks] == ["stolen"] * BLOCKS + [None] * BLOCKS


def test_a_pair_stops_at_the_deadline(tmp_path: Path) -> None:
    """It doesn't finish what nobody waits for."""
    with pair(tmp_path) as both:
        both.load()
        both.warm_up()
        both.deadline = monotonic() - 1
        with pytest.raises(OutOfTime):
            list(both.measure(0))


@pytest.mark.parametrize(
    ("after", "reason"),
    [
        (Snapshot(1, total=2, busy=1, stolen=0, own=1, throttled=0), None),
        (Snapshot(1, total=2, busy=1, stolen=0.1, own=1, throttled=0), "the host took 5%"),
        (Snapshot(1, total=2, busy=1, stolen=0, own=1, throttled=2), "quota"),
        (Snapshot(1, total=2, busy=4.5, stolen=0, own=1, throttled=0), "3.5 other processes"),
    ],
)
def test_disturbance_is_judged_from_what_others_did(
    after: Snapshot, reason: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stolen time, throttling and a crowd disturb; our own work doesn't."""
    monkeypatch.setattr(machine, "cores", lambda: 2)
    found = between(QUIET, after).reason
    assert (found or "").find(reason or "") >= 0
    assert (found is None) == (reason is None)


def test_only_the_cores_allowed_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """What goes on elsewhere on a large host disturbs nobody here, and a quota doesn't make cores fewer."""
    text = "cpu 900 0 0 900 0 0 0 0 0 0\n" + "".join(f"cpu{core} {core}00 0 0 0 0 0 0 0 0 0\n" for core in range(8))
    monkeypatch.setattr(machine.Path, "read_text", lambda *_: text)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {2, 5})
    assert machine._cpu_times()[0] == 700 / machine.TICKS
    assert machine.cores() == 2
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {99})
    assert machine._cpu_times()[0] == 900 / machine.TICKS


def test_defaults_are_left_to_each_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A version that doesn't know a newest key isn't told it: of settings and methods only what differs is sent."""
    sent: list[dict[str, Any]] = []
    send = ResidentProcess.send

    def listen(side: ResidentProcess, what: str, **arguments: Any) -> None:
        if what == "load":
            sent.append(arguments)
        send(side, what, **arguments)

    monkeypatch.setattr(ResidentProcess, "send", listen)
    with pair(tmp_path, "lora", "head") as both:
        both.load()
    assert len(sent) == 2
    for arguments in sent:
        assert arguments["settings"]["train_samples"] == 64
        assert "clip_norm" not in arguments["settings"]
        assert ["options" in method for method in arguments["methods"]] == [True, False]


def test_a_snapshot_counts_this_process_as_its_own() -> None:
    """A busy loop here raises `own` by the processor's time that it gets."""
    before, end = machine.snapshot([]), process_time() + 0.1
    while process_time() < end:
        pass
    after = machine.snapshot([])
    assert after.own - before.own >= 0.05
    assert after.total > before.total > 0
