"""Trials of the gate itself on this machine: of two equal sides (A/A), and with a known delay in
one side.

A folder has a file for each trial, and a line for each that was started, so that one that is
missing shows.
"""

import math
import secrets
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import Any

from pydantic import ValidationError

from hpml_bench.gate import verdicts
from hpml_bench.gate.check import Prepared, Request, Say, check, gate_digest
from hpml_bench.gate.records import CheckReport, CheckTrial, TrialStarted
from hpml_bench.gate.sides import ComparedSides, Installation
from hpml_bench.records.folder import locked, make_folder
from hpml_bench.statistics import ALPHA, clopper_pearson
from hpml_bench.system import environment
from hpml_bench.system.errors import UserError
from hpml_bench.system.files import read_bytes, write_atomically
from hpml_bench.system.text import utc_now

PER_SLOWED = (
    5  # A/A trials per slowed one: a false-alarm rate takes more trials to bound than a power
)
STARTED = "begun.jsonl"


def slowed(number: int) -> bool:
    """Return whether trial `number` (from 1) is a slowed one: the third of every six."""
    return number % (PER_SLOWED + 1) == 3


def total(same: int) -> int:
    """Return the number of all trials with this many A/A trials, and at least one slowed."""
    return max(3, same + (same + 2) // PER_SLOWED)


def run(
    request: Request, trials: int, slowdown: float, minutes: float | None, folder: Path, say: Say
) -> list[CheckTrial]:
    """Run the trials that `folder` doesn't hold yet; return all trials in it.

    After `minutes` no trial is begun. One that is begun is carried to its end: to cut short those
    that are slow to decide would leave the easy ones. A `UserError` where the folder holds trials
    of other conditions.
    """
    began = monotonic()
    make_folder(folder)
    with locked(folder):
        done = {trial.number: trial for trial in _matching(folder, request, slowdown)}
        names = {line.session for line in started(folder)} | {
            trial.session for trial in done.values()
        }
        if len(names) > 1:
            raise UserError(
                f"{folder}: holds trials of several sessions ({', '.join(sorted(names))}); name "
                f"another --out"
            )
        session = names.pop() if names else secrets.token_hex(4)
        installed = Installation("installed", sys.executable)
        compared = ComparedSides("self-test", installed, installed)
        request = replace(request, count=False, minutes=None)
        ready: dict[
            Installation, Prepared
        ] = {}  # for all trials: model and data are made ready once
        last = total(trials)
        for number in range(1, last + 1):
            if number in done:
                continue
            if minutes is not None and monotonic() - began > minutes * 60:
                say(
                    f"the time was up before trial {number} of {last}: the same command goes on "
                    f"from here"
                )
                break
            delay = slowdown if slowed(number) else 0.0
            line = TrialStarted(session=session, number=number, slowdown=delay, started=utc_now())
            write_atomically(
                folder / STARTED,
                "".join(f"{x.model_dump_json()}\n" for x in [*started(folder), line]),
            )
            report = check(request, compared, lambda _: None, ready, delay)
            done[number] = trial = CheckTrial(
                session=session,
                number=number,
                slowdown=delay,
                planned=trials,
                injected=injected_slowdown(report),
                report=report,
            )
            write_atomically(folder / f"trial-{number:04d}.json", trial.model_dump_json(indent=1))
            kind = f"slowed by {delay:.1%}" if delay else "A/A"
            found = (
                f"{verdicts.overall(report.verdicts)} after {report.pairs} pairs, "
                f"{report.seconds:.0f} s"
            )
            say(f"trial {number} of {last}, {kind}: {found}")
        return [done[number] for number in sorted(done)]


def injected_slowdown(report: CheckReport) -> dict[str, float]:
    """Return for each method the slowdown really injected: the delay over the middle step of the
    reference.
    """
    shares = {}
    for method, delay in report.environment.get("delay_seconds", {}).items():
        own = [
            block for block in report.blocks if block.method == method and block.disturbed is None
        ]
        steps = [
            time / b.steps
            for b in own
            for time, side in zip(b.seconds, b.order, strict=True)
            if side == "A"
        ]
        if steps:
            shares[method] = delay / statistics.median(steps)
    return shares


def summary(trials: Sequence[CheckTrial], slowdown: float) -> tuple[int, list[str]]:
    """Return the exit status, and rates with bounds in words, rounded to the side on which they
    claim less.
    """
    # The status is 0 where all is well, 1 for a false alarm or a miss, 2 where one kind of trial
    # wasn't made.
    alarms, caught = (
        [
            verdicts.overall(trial.report.verdicts) == "FAIL"
            for trial in trials
            if bool(trial.slowdown) == delayed
        ]
        for delayed in (False, True)
    )
    told, one_sided = [], 2 * ALPHA  # bounds at 95 % each
    if alarms:
        most = clopper_pearson(sum(alarms), len(alarms), one_sided)[1]
        told.append(
            f"False alarms: {sum(alarms)} of {len(alarms)} A/A trials; the rate is at most "
            f"{math.ceil(most * 1e4) / 100:.2f} % (exact, 95 %)."
        )
    if caught:
        least = clopper_pearson(sum(caught), len(caught), one_sided)[0]
        told.append(
            f"Power: {sum(caught)} of {len(caught)} trials with all methods slowed by "
            f"{slowdown * 100:.4g} % were "
            f"caught; the power is at least {math.floor(least * 1e4) / 100:.2f} % (exact, 95 %)."
        )
    planned = dict.fromkeys(trial.planned for trial in trials if trial.planned)
    if len(planned) > 1:
        told.append(
            f"The number of A/A trials was changed between calls "
            f"({', then '.join(map(str, planned))}); the bounds "
            "hold where it is fixed before the first."
        )
    seconds = [trial.report.seconds for trial in trials] or [0.0]
    told.append(
        f"A trial took {statistics.fmean(seconds):.0f} s on average, and {max(seconds):.0f} s at "
        f"most."
    )
    if any(alarms) or not all(caught):
        return verdicts.REGRESSION, told
    return verdicts.PASSED if alarms and caught else verdicts.ERROR, told


def kept(folder: Path) -> list[tuple[Path, CheckTrial]]:
    """Return a folder's trials in order, each with its file; a `UserError` where one can't be
    read.
    """
    trials = []
    for path in sorted(folder.glob("trial-*.json")):
        try:
            trials.append((path, CheckTrial.model_validate_json(read_bytes(path))))
        except (OSError, ValidationError):
            raise UserError(
                f"{path}: is no trial that can be read; remove it, or name another --out"
            ) from None
    return trials


def started(folder: Path) -> list[TrialStarted]:
    """Return the trials that were started, in order; a `UserError` where their file can't be
    read.
    """
    file = folder / STARTED
    try:
        lines = read_bytes(file).splitlines() if file.exists() else []
        return [TrialStarted.model_validate_json(line) for line in lines]
    except (OSError, ValidationError):
        raise UserError(
            f"{file}: can't be read as the trials that were started; name another --out"
        ) from None


def conditions(described: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return the parts of a report's environment that must be equal in trials whose rates are
    pooled.
    """
    return tuple(
        described.get(key) for key in ("fingerprint", "python", "packages", "gate", "settings")
    )


def _matching(folder: Path, request: Request, slowdown: float) -> list[CheckTrial]:
    """Return a folder's trials; one made under other conditions can't be counted with the
    others, and is refused.
    """
    settings = request.settings.model_dump(mode="json")
    current = conditions({**environment.describe(), "gate": gate_digest(), "settings": settings})
    for path, trial in (found := kept(folder)):
        report = trial.report
        same = (report.suite, report.methods, report.rules) == (
            request.suite,
            request.names,
            request.rules,
        )
        if not same or trial.slowdown not in (0.0, slowdown):
            raise UserError(
                f"{path}: is a trial with other methods, rules or slowdown; name another --out"
            )
        if conditions(report.environment) != current:
            raise UserError(
                f"{path}: is a trial with other hardware, versions, gate or settings; name "
                f"another --out"
            )
    return [trial for _, trial in found]
