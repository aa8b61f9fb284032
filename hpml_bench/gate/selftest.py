"""Trials of the gate itself on this machine: of two equal sides (A/A), and with a known delay in one side."""

from __future__ import annotations

import math
import statistics
import sys
from dataclasses import replace
from pathlib import Path
from time import monotonic

from hpml_bench.gate.check import Request, Say, check, gate_digest, most_pairs
from hpml_bench.gate.decide import verdicts
from hpml_bench.gate.measure.sides import ComparedSides, Installation
from hpml_bench.gate.records import CheckReport, CheckTrial, TrialStarted
from hpml_bench.gate.trials import TrialFolder, conditions
from hpml_bench.system import environment
from hpml_bench.system.errors import UserError
from hpml_bench.system.text import utc_now

PER_SLOWED = 5
"""A/A trials per slowed one: a false-alarm rate takes more trials to bound than a power."""


def slowed(number: int) -> bool:
    """Return whether trial `number` (from 1) is a slowed one: the third of every six."""
    return number % (PER_SLOWED + 1) == 3


def total(same: int) -> int:
    """Return the number of all trials with this many A/A trials, and at least one slowed."""
    number = done = 0
    while done < same or number < 3:
        number += 1
        done += not slowed(number)
    return number


def run(
    request: Request, trials: int, slowdown: float, minutes: float | None, folder: Path, say: Say
) -> list[CheckTrial]:
    """Run the trials that `folder` doesn't hold yet; return all trials in it.

    With `minutes`, no trial is begun that might not end in time, judged by the slowest pairs so far and the most that
    a trial may take; the first is begun whatever. One that is begun is carried to its end: to cut short those that are
    slow to decide would leave the easy ones. A `UserError` where the folder holds trials of other conditions, is in
    use, or can't be written.
    """
    kept, began = TrialFolder(folder), monotonic()
    with kept.held():
        done = {trial.number: trial for trial in _matching(kept, request, slowdown)}
        session = kept.session(done.values())
        installed = Installation("installed", sys.executable)
        compared = ComparedSides("self-test", installed, installed)
        ready = request.work()  # for all trials: model and data are made ready once
        last = total(trials)
        for number in range(1, last + 1):
            if number in done:
                continue
            slowest = max((trial.report.seconds / max(1, trial.report.pairs) for trial in done.values()), default=0.0)
            if minutes is not None and (reason := refusal(minutes, began, slowest * most_pairs(request.rules))):
                say(f"trial {number} of {last} {reason}")
                break
            delay = slowdown if slowed(number) else 0.0
            now = utc_now()
            kept.start(TrialStarted(session=session, number=number, slowdown=delay, started=now))
            work = replace(request.work(), delay=delay, prepared=ready.prepared, described=ready.described)
            report = check(replace(request, count=False, minutes=None), compared, lambda _: None, work)
            done[number] = CheckTrial(
                session=session, number=number, slowdown=delay, planned=trials,
                injected=injected_slowdown(report), report=report,
            )  # fmt: skip
            kept.keep(done[number])
            kind = f"slowed by {delay:.1%}" if delay else "A/A"
            say(
                f"trial {number} of {last}, {kind}: {verdicts.overall(report.verdicts)} after {report.pairs} pairs, "
                f"{report.seconds:.0f} s"
            )
        return [done[number] for number in sorted(done)]


def refusal(minutes: float, began: float, longest: float) -> str:
    """Return why a trial that may need `longest` seconds is not begun, and how to go on; empty where it is."""
    left = max(0.0, minutes - (monotonic() - began) / 60)
    if longest <= left * 60:
        return ""
    needed = math.ceil(longest / 60 + 0.1)  # a little to spare: a call does other work before
    if needed > minutes:
        return f"may need {needed} minutes: the same command goes on from here with --max-minutes {needed} or more"
    return f"may need {needed} minutes, and {left:.1f} are left: the same command goes on from here"


def injected_slowdown(report: CheckReport) -> dict[str, float]:
    """Return for each method the slowdown really injected, the median over pairs; empty for an A/A trial.

    It is the delay's seconds in a pair's candidate over the middle step of that pair's reference.
    """
    by_method: dict[str, list[float]] = {}
    for pair, delays in enumerate(report.environment.get("delay_seconds") or ()):
        for method, delay in delays.items():
            blocks = [b for b in report.blocks if (b.pair, b.method, b.disturbed) == (pair, method, None)]
            steps = [
                seconds / b.steps for b in blocks for seconds, s in zip(b.seconds, b.order, strict=True) if s == "A"
            ]
            if steps:
                by_method.setdefault(method, []).append(delay / statistics.median(steps))
    return {method: statistics.median(shares) for method, shares in by_method.items()}


def _matching(kept: TrialFolder, request: Request, slowdown: float) -> list[CheckTrial]:
    """Return a folder's trials; one made under other conditions can't be counted with the others, and is refused."""
    settings = request.settings.model_dump(mode="json")
    current = conditions({**environment.describe(), "gate": gate_digest(), "settings": settings})
    for path, trial in (found := kept.trials()):
        report = trial.report
        same = (report.suite, report.methods, report.rules) == (request.suite, request.names, request.rules)
        if not same or trial.slowdown not in (0.0, slowdown):
            raise UserError(f"{path}: is a trial with other methods, rules or slowdown; name another --out")
        if conditions(report.environment) != current:
            raise UserError(f"{path}: is a trial with other hardware, versions, gate or settings; name another --out")
    return [trial for _, trial in found]
