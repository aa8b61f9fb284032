"""The gate tried on itself: how often it cries wolf, and how often it sleeps, on this machine."""

from __future__ import annotations

import math
import secrets
import statistics
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import Any

from filelock import FileLock, Timeout
from pydantic import ValidationError

from hpml_bench.errors import UserError
from hpml_bench.gate.check import Comparison, Request, Say, check, gate_digest, most_pairs
from hpml_bench.gate.decide import verdicts
from hpml_bench.gate.measure.sides import Installation
from hpml_bench.gate.records import Begun, Receipt, Side, Trial
from hpml_bench.records.files import write_atomically
from hpml_bench.system import environment

BEGUN = "begun.jsonl"
"""The trials begun, a line each."""
PER_SLOWED = 5
"""A/A trials to each slowed one: a false-alarm rate takes more trials to bound than a power."""


@dataclass(frozen=True)
class Rate:
    """How often something happened, with its exact one-sided 95 % bounds (Clopper and Pearson 1934)."""

    happened: int
    of: int

    @property
    def upper(self) -> float:
        """The rate is at most this."""
        return 1.0 if self.happened == self.of else _beta(0.95, self.happened + 1, self.of - self.happened)

    @property
    def lower(self) -> float:
        """The rate is at least this."""
        return 0.0 if not self.happened else _beta(0.05, self.happened, self.of - self.happened + 1)


def _beta(level: float, a: float, b: float) -> float:
    from scipy.stats import beta  # takes 0.6 s to import

    return float(beta.ppf(level, a, b))


@dataclass(frozen=True)
class Summary:
    """What the trials say."""

    false_alarms: Rate
    caught: Rate
    seconds: float
    """Mean of a trial."""
    longest: float
    """Seconds of the longest."""

    @property
    def good(self) -> bool:
        """Whether no A/A trial failed and every slowed one did, and there is one of each."""
        asked = self.false_alarms.of and self.caught.of
        return bool(asked) and not self.false_alarms.happened and self.caught.happened == self.caught.of

    @property
    def status(self) -> int:
        """The exit status: 0 good, 1 a false alarm or a miss, 2 where one kind of trial wasn't made."""
        if self.good:
            return verdicts.PASSED
        wrong = self.false_alarms.happened or self.caught.happened < self.caught.of
        return verdicts.REGRESSION if wrong else verdicts.ERROR

    def sentences(self, slowdown: float) -> tuple[str, ...]:
        """Return the rates and bounds in words; bounds are rounded to the side on which they say less."""
        wrong, right = self.false_alarms, self.caught
        said = []
        if wrong.of:
            said.append(
                f"False alarms: {wrong.happened} of {wrong.of} A/A trials; the rate is at most "
                f"{math.ceil(wrong.upper * 1e4) / 100:.2f} % (exact, 95 %)."
            )
        if right.of:
            said.append(
                f"Power: {right.happened} of {right.of} trials with all methods slowed by {slowdown * 100:.4g} % were "
                f"caught; the power is at least {math.floor(right.lower * 1e4) / 100:.2f} % (exact, 95 %)."
            )
        return (*said, f"A trial took {self.seconds:.0f} s on average, and {self.longest:.0f} s at most.")


def summarise(trials: Iterable[Trial]) -> Summary:
    """Count alarms among A/A trials and among slowed ones."""
    trials = tuple(trials)
    same, slowed = (
        [verdicts.overall(trial.receipt.verdicts) == "FAIL" for trial in trials if bool(trial.slowdown) == delayed]
        for delayed in (False, True)
    )
    seconds = [trial.receipt.seconds for trial in trials] or [0.0]
    return Summary(Rate(sum(same), len(same)), Rate(sum(slowed), len(slowed)), statistics.fmean(seconds), max(seconds))


def slowed(number: int) -> bool:
    """Tell whether trial `number` (from 1) is a slowed one: the third of every six."""
    return number % (PER_SLOWED + 1) == 3


def total(same: int) -> int:
    """Return how many trials there are with this many A/A trials, and at least one slowed."""
    number = done = 0
    while done < same or number < 3:
        number += 1
        done += not slowed(number)
    return number


def run(asked: Request, trials: int, slowdown: float, minutes: float | None, folder: Path, say: Say) -> list[Trial]:
    """Do the trials that `folder` doesn't hold yet; return all it holds.

    With `minutes`, no trial is begun that might not end in time, judged by the slowest pairs so far and the most that
    a trial may take; the first is begun whatever. One that is begun is carried to its end: to cut short those that are
    slow to decide would leave the easy ones.

    Raises:
        UserError: the folder holds trials made otherwise, is in use, or can't be written.

    """
    deadline = None if minutes is None else monotonic() + minutes * 60
    with _held(folder):
        done = {trial.number: trial for trial in _load(folder, asked, slowdown)}
        session = _session(folder, done.values())
        installed = Installation("installed", sys.executable)
        side = Side(label="installed", python=sys.executable)
        compared = Comparison("self-test", installed, installed, (side, side))
        ready = asked.work()  # for all trials: model and data are made ready once
        for number in range(1, total(trials) + 1):
            if number in done:
                continue
            if deadline is not None and monotonic() + _longest(done.values(), asked) > deadline:
                say("the time is up; the same command goes on from here")
                break
            delay = slowdown if slowed(number) else 0.0
            _note(folder, Begun(session=session, number=number, slowdown=delay, started=_now()))
            work = replace(
                asked.work(), delay=delay, delayable=True, prepared=ready.prepared, described=ready.described
            )
            receipt = check(replace(asked, count=False, minutes=None), compared, lambda _: None, work)
            trial = Trial(session=session, number=number, slowdown=delay, put_in=put_in(receipt), receipt=receipt)
            write_atomically(_file(folder, number), trial.model_dump_json(indent=1))
            done[number] = trial
            kind = f"slowed by {delay:.1%}" if delay else "A/A"
            say(
                f"trial {number} of {total(trials)}, {kind}: {verdicts.overall(receipt.verdicts)} after "
                f"{receipt.pairs} pairs, {receipt.seconds:.0f} s"
            )
        return [done[number] for number in sorted(done)]


def _longest(done: Iterable[Trial], asked: Request) -> float:
    """Return the seconds that a trial might take; 0 where none was made."""
    pair = max((trial.receipt.seconds / max(1, trial.receipt.pairs) for trial in done), default=0.0)
    return pair * most_pairs(asked.rules)


def put_in(receipt: Receipt) -> dict[str, float]:
    """Return for each method the slowdown really put in, the median over pairs; of an A/A trial nothing.

    It is the delay's seconds in a pair's candidate over the middle step of that pair's reference.
    """
    found: dict[str, list[float]] = {}
    for pair, delays in enumerate(receipt.environment.get("delay_seconds") or ()):
        for method, delay in delays.items():
            blocks = [b for b in receipt.blocks if (b.pair, b.method, b.tainted) == (pair, method, None)]
            steps = [
                seconds / b.steps for b in blocks for seconds, s in zip(b.seconds, b.order, strict=True) if s == "A"
            ]
            if steps:
                found.setdefault(method, []).append(delay / statistics.median(steps))
    return {method: statistics.median(shares) for method, shares in found.items()}


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Hold a folder of trials alone, made where it isn't there."""
    lock = FileLock(folder / ".lock")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:  # which is an OSError too
        raise UserError(f"{folder}: another self-test writes there; wait for it, or name another with --out") from None
    except OSError as error:
        raise UserError(f"{folder}: can't be made ({error.strerror}); name another with --out") from None
    try:
        yield
    finally:
        lock.release()


def begun(folder: Path) -> list[Begun]:
    """Return which trials were begun in a folder, in order.

    Raises:
        UserError: what stands there can't be read.

    """
    path = folder / BEGUN
    try:
        return [Begun.model_validate_json(line) for line in path.read_text().splitlines()] if path.exists() else []
    except (OSError, ValidationError):
        raise UserError(f"{path}: can't be read as the trials begun; name another --out") from None


def _note(folder: Path, what: Begun) -> None:
    known = "".join(f"{line.model_dump_json()}\n" for line in [*begun(folder), what])
    write_atomically(folder / BEGUN, known)


def _session(folder: Path, done: Iterable[Trial]) -> str:
    """Return by what name the trials of a folder go."""
    names = {line.session for line in begun(folder)} | {trial.session for trial in done}
    if len(names) > 1:
        raise UserError(f"{folder}: holds trials of several sessions ({', '.join(sorted(names))}); name another --out")
    return names.pop() if names else secrets.token_hex(4)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _file(folder: Path, number: int) -> Path:
    return folder / f"trial-{number:04d}.json"


def _load(folder: Path, asked: Request, slowdown: float) -> list[Trial]:
    found = []
    settings = asked.settings.model_dump(mode="json")
    here = conditions({**environment.describe(), "gate": gate_digest(), "settings": settings})
    for path in sorted(folder.glob("trial-*.json")):
        try:
            trial = Trial.model_validate_json(path.read_text())
        except (OSError, ValidationError):
            raise UserError(f"{path}: is no trial that can be read; remove it, or name another --out") from None
        methods = tuple(method.name for method in asked.methods)
        receipt = trial.receipt
        same = (receipt.suite, receipt.methods, receipt.rules) == (asked.suite, methods, asked.rules)
        if not same or trial.slowdown not in (0.0, slowdown):
            raise UserError(f"{path}: is a trial with other methods, rules or slowdown; name another --out")
        if conditions(receipt.environment) != here:
            raise UserError(f"{path}: is a trial with other hardware, versions, gate or settings; name another --out")
        found.append(trial)
    return found


def conditions(described: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return what must be alike in trials whose rates are taken together."""
    return tuple(described.get(key) for key in ("fingerprint", "python", "packages", "gate", "settings"))
