"""The gate tried on itself: how often it cries wolf, and how often it sleeps, on this machine."""

from __future__ import annotations

import math
import statistics
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic
from typing import Any

from pydantic import ValidationError

from hpml_bench import environment, store
from hpml_bench.errors import UserError
from hpml_bench.gate import spending, verdicts
from hpml_bench.gate.check import MORE, Comparison, Request, Say, check
from hpml_bench.gate.records import Receipt, Side, Trial
from hpml_bench.gate.sides import Installation, OutOfTime

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
        """Return the rates and bounds in words."""
        wrong, right = self.false_alarms, self.caught
        said = []
        if wrong.of:
            said.append(
                f"False alarms: {wrong.happened} of {wrong.of} A/A trials; the rate is at most {wrong.upper:.1%} "
                "(exact, 95 %)."
            )
        if right.of:
            said.append(
                f"Power: {right.happened} of {right.of} trials slowed by {slowdown:.1%} were caught; the power is at "
                f"least {right.lower:.1%} (exact, 95 %)."
            )
        return (*said, f"A trial took {self.seconds:.0f} s on average.")


def summarise(trials: Iterable[Trial]) -> Summary:
    """Count alarms among A/A trials and among slowed ones."""
    trials = tuple(trials)
    alarm = {trial.number: verdicts.overall(trial.receipt.verdicts) == "FAIL" for trial in trials}
    same = [trial for trial in trials if not trial.slowdown]
    slowed = [trial for trial in trials if trial.slowdown]
    seconds = sum(trial.receipt.seconds for trial in trials) / max(1, len(trials))
    return Summary(
        Rate(sum(alarm[trial.number] for trial in same), len(same)),
        Rate(sum(alarm[trial.number] for trial in slowed), len(slowed)),
        seconds,
    )


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

    With `minutes`, no trial is begun that can't end in time, judged by the longest so far, and one that the time cuts
    short is not kept.

    Raises:
        UserError: the folder holds trials made otherwise, or can't be written.

    """
    deadline = None if minutes is None else monotonic() + minutes * 60
    done = {trial.number: trial for trial in _load(folder, asked, slowdown)}
    installed = Installation("installed", sys.executable)
    side = Side(label="installed", python=sys.executable)
    compared = Comparison("self-test", installed, installed, (side, side))
    for number in range(1, total(trials) + 1):
        if number in done:
            continue
        longest = max((trial.receipt.seconds for trial in done.values()), default=0.0)
        left = None if deadline is None else deadline - monotonic()
        delay = slowdown if slowed(number) else 0.0
        receipt = None if left is not None and left <= longest else _trial(asked, compared, delay, left)
        if receipt is None:
            say("the time is up; the same command goes on from here")
            break
        done[number] = Trial(number=number, slowdown=delay, put_in=put_in(receipt), receipt=receipt)
        store.write_atomically(_file(folder, number), done[number].model_dump_json(indent=1))
        kind = f"slowed by {delay:.1%}" if delay else "A/A"
        say(
            f"trial {number} of {total(trials)}, {kind}: {verdicts.overall(receipt.verdicts)} after {receipt.pairs} "
            f"pairs, {receipt.seconds:.0f} s"
        )
    return [done[number] for number in sorted(done)]


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


def _trial(asked: Request, compared: Comparison, delay: float, seconds: float | None) -> Receipt | None:
    """Return a trial's receipt, or None where the time cut it short."""
    request = replace(asked, count=False, minutes=None if seconds is None else seconds / 60)
    try:
        receipt = check(request, compared, lambda _: None, replace(request.work(), delay=delay, delayable=True))
    except OutOfTime:
        return None
    return receipt if seconds is None or _whole(receipt) else None


def _whole(receipt: Receipt) -> bool:
    """Tell whether a trial ended by a scheduled look, or after as many pairs as there may be."""
    effects = verdicts.pair_effects(receipt.blocks)
    done = spending.looks_done(receipt.rules, min(map(len, effects.values()), default=0))
    last = done == len(receipt.rules.looks) or receipt.pairs >= math.ceil(receipt.rules.looks[-1] * MORE)
    return last or (bool(done) and verdicts.settled(verdicts.look(effects, receipt.rules, done - 1)))


def _file(folder: Path, number: int) -> Path:
    return folder / f"trial-{number:04d}.json"


def _load(folder: Path, asked: Request, slowdown: float) -> list[Trial]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: can't be made ({error.strerror}); name another with --out") from None
    found = []
    here = _conditions({**environment.describe(), "settings": asked.settings.model_dump(mode="json")})
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
        if _conditions(receipt.environment) != here:
            raise UserError(f"{path}: is a trial with other hardware, versions or settings; name another --out")
        found.append(trial)
    return found


def _conditions(described: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return what must be alike in trials whose rates are taken together."""
    return tuple(described.get(key) for key in ("fingerprint", "packages", "settings"))
