"""Error rates of the gate, from its trials on itself, with exact bounds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass

from hpml_bench.gate.decide import verdicts
from hpml_bench.gate.records import CheckTrial


@dataclass(frozen=True)
class Rate:
    """Rate of an event, with its exact one-sided 95 % bounds (Clopper and Pearson 1934)."""

    happened: int
    of: int

    @property
    def upper(self) -> float:
        """Upper bound of the rate."""
        return 1.0 if self.happened == self.of else _beta(0.95, self.happened + 1, self.of - self.happened)

    @property
    def lower(self) -> float:
        """Lower bound of the rate."""
        return 0.0 if not self.happened else _beta(0.05, self.happened, self.of - self.happened + 1)


def _beta(level: float, a: float, b: float) -> float:
    from scipy.stats import beta  # takes 0.6 s to import

    return float(beta.ppf(level, a, b))


@dataclass(frozen=True)
class Summary:
    """Rates and durations of the trials."""

    false_alarms: Rate
    caught: Rate
    seconds: float
    """Mean seconds of a trial."""
    longest: float
    """Seconds of the longest."""
    planned: tuple[int, ...] = ()
    """Different numbers of A/A trials that calls requested, in the order of their trials."""

    @property
    def status(self) -> int:
        """The exit status: 0 good, 1 a false alarm or a miss, 2 where one kind of trial wasn't made."""
        if self.false_alarms.happened or self.caught.happened < self.caught.of:
            return verdicts.REGRESSION
        return verdicts.PASSED if self.false_alarms.of and self.caught.of else verdicts.ERROR

    def sentences(self, slowdown: float) -> tuple[str, ...]:
        """Return the rates and bounds in words; bounds are rounded to the side on which they claim less."""
        wrong, right = self.false_alarms, self.caught
        lines = []
        if wrong.of:
            lines.append(
                f"False alarms: {wrong.happened} of {wrong.of} A/A trials; the rate is at most "
                f"{math.ceil(wrong.upper * 1e4) / 100:.2f} % (exact, 95 %)."
            )
        if right.of:
            lines.append(
                f"Power: {right.happened} of {right.of} trials with all methods slowed by {slowdown * 100:.4g} % were "
                f"caught; the power is at least {math.floor(right.lower * 1e4) / 100:.2f} % (exact, 95 %)."
            )
        if len(self.planned) > 1:
            numbers = ", then ".join(map(str, self.planned))
            lines.append(
                f"The number of A/A trials was changed between calls ({numbers}); the bounds hold where it is fixed "
                "before the first."
            )
        return (*lines, f"A trial took {self.seconds:.0f} s on average, and {self.longest:.0f} s at most.")


def summarise(trials: Iterable[CheckTrial]) -> Summary:
    """Count alarms among A/A trials and among slowed ones."""
    trials = tuple(trials)
    same, slowed = (
        [verdicts.overall(trial.report.verdicts) == "FAIL" for trial in trials if bool(trial.slowdown) == delayed]
        for delayed in (False, True)
    )
    seconds = [trial.report.seconds for trial in trials] or [0.0]
    return Summary(
        Rate(sum(same), len(same)), Rate(sum(slowed), len(slowed)), statistics.fmean(seconds), max(seconds),
        tuple(dict.fromkeys(trial.planned for trial in trials if trial.planned)),
    )  # fmt: skip
