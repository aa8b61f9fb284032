"""Baselines: saved runs to compare with, where both versions can't run side by side; on the same
hardware only.

The spread is that between runs; the machine's speed is taken out by reference work before, within
and after each.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import monotonic
from typing import Any, Literal

from pydantic import ValidationError

from hpml_bench.gate import verdicts
from hpml_bench.gate.check import BLOCKS, Request, Say, settings_message, steps_of_piece
from hpml_bench.gate.machine import disturbance, shared_core, snapshot
from hpml_bench.gate.records import CheckReport, Side, TimedRun, Verdict
from hpml_bench.gate.sides import Installation, OutOfTime, ResidentProcess, versions
from hpml_bench.select.comparability import settings_of
from hpml_bench.suite.base import Frozen
from hpml_bench.suite.settings import MethodSpec, Settings
from hpml_bench.system import environment
from hpml_bench.system.errors import UserError
from hpml_bench.system.files import read_bytes, write_atomically
from hpml_bench.system.text import utc_now

ROUNDS = 3  # times each run goes through the batches of each method

Counts = dict[str, dict[str, Any]]  # method -> counts of a resident


class Baseline(Frozen):
    """File that `baseline save` writes."""

    kind: Literal["hpml-bench baseline"] = "hpml-bench baseline"
    schema_version: Literal[2] = 2
    suite: str
    settings: Settings
    methods: tuple[MethodSpec, ...]
    environment: dict[str, Any]
    counts: Counts
    runs: tuple[TimedRun, ...]
    saved: str  # UTC, ISO 8601


def save(request: Request, file: Path, runs: int, say: Say) -> None:
    """Make separate runs and write them, if all could be made in the time given."""
    counts, made = _runs(request, runs, request.deadline(), say)
    if len(made) < runs:
        raise UserError(
            f"only {len(made)} of {runs} runs were made in {request.minutes:g} minutes; nothing "
            f"was saved"
        )
    baseline = Baseline(
        suite=request.suite,
        settings=request.settings,
        methods=request.methods,
        environment=environment.describe(),
        counts=counts,
        runs=tuple(made),
        saved=utc_now(),
    )
    for sentence in _disturbed(made, "runs made"):
        say(sentence)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, baseline.model_dump_json(indent=1) + "\n")
    except OSError as error:
        raise UserError(
            f"{file}: can't be written ({error.strerror or error}); name another file"
        ) from None
    say(f"{file}: {len(made)} runs; compare with hpml-bench check --baseline {file}")


def load(file: Path) -> Baseline:
    """Read a baseline; a `UserError` where there is none, or it is truncated or something else."""
    try:
        return Baseline.model_validate_json(read_bytes(file, follow=True))
    except OSError as error:
        raise UserError(f"--baseline {file}: can't be read ({error.strerror or error})") from None
    except ValidationError:
        what = (
            f"--baseline {file}: is truncated or no baseline of this version; make it with "
            f"hpml-bench baseline save"
        )
        raise UserError(what) from None


def check(request: Request, file: Path, say: Say) -> CheckReport:
    """Make as many runs as were stored, or as the time allows, and compare.

    On other hardware nothing is timed; counts without a tolerance, which don't depend on hardware,
    are still compared.
    """
    before, started, began = load(file), utc_now(), monotonic()
    here, stored, names = environment.describe(), before.environment, request.names
    same = here["fingerprint"] == stored["fingerprint"]
    _refuse_other_work(request, before, file)
    wanted = len(before.runs) if request.time and same else 0
    counted, made = _runs(request, wanted, request.deadline(), say)
    compared = [
        verdicts.compare_counts(name, before.counts[name], now, not same)
        for name, now in counted.items()
    ]
    timed: tuple[Verdict, ...] = ()
    notes = (
        ["the time was up before all runs were made; give --max-minutes more"]
        if len(made) < wanted
        else []
    )
    if request.time and not same:
        reason = f"{file} was made on other hardware: {_words(stored)}; here: {_words(here)}"
        timed = tuple(verdicts.untimed(name, reason) for name in names)
    elif request.time:
        then, now = (verdicts.run_effects(runs, names) for runs in (before.runs, made))
        timed = verdicts.of_runs(then, now, request.rules)
        notes += [
            *_disturbed(before.runs, f"stored runs of {file}"),
            *_disturbed(made, "runs made now"),
        ]
    return CheckReport(
        mode="baseline",
        suite=request.suite,
        methods=names,
        rules=request.rules,
        reference=Side(label=str(file), python=stored.get("python"), versions=versions(stored)),
        candidate=Side(label="installed", python=here["python"], versions=versions(here)),
        environment=here,
        runs=tuple(made),
        reference_runs=before.runs,
        counts=tuple(count for counts, _ in compared for count in counts),
        verdicts=(*timed, *(verdict for _, judged in compared for verdict in judged)),
        notes=tuple(notes),
        started=started,
        seconds=round(monotonic() - began, 1),
    )


def _disturbed(runs: Sequence[TimedRun], what: str) -> list[str]:
    named = [
        f"{number} ({run.disturbed})"
        for number, run in enumerate(runs, 1)
        if run.disturbed is not None
    ]
    count = f"{len(named)} of {len(runs)} {what} were disturbed and don't count"
    return [f"{count}: {', '.join(named)}"] if named else []


def _words(described: Mapping[str, Any]) -> str:
    hardware = described.get("hardware", {})
    machine = (
        f"{hardware.get('cpu')}, {hardware.get('cores')} cores, {hardware.get('memory_gb')} GB"
    )
    return ", ".join([machine, *(gpu["name"] for gpu in hardware.get("gpus", ()))])


def _refuse_other_work(request: Request, before: Baseline, file: Path) -> None:
    stored = {method.name: method for method in before.methods}
    missing = [name for name in request.names if name not in stored]
    if missing:
        raise UserError(
            f"--baseline {file}: has no {missing[0]}, but {', '.join(stored)}; choose with "
            f"--methods"
        )
    then, now = settings_of(before.settings), settings_of(request.settings)
    changed = [] if before.suite == request.suite else [f"suite, {before.suite}"]
    changed += [method.name for method in request.methods if method != stored[method.name]]
    changed += [f"settings.{key}" for key in now if now[key] != then[key]]
    if changed:
        raise UserError(f"--baseline {file}: was made with another {changed[0]}; save a new one")


def _runs(
    request: Request, number: int, deadline: float | None, say: Say
) -> tuple[Counts, list[TimedRun]]:
    installed = Installation("installed", sys.executable)
    made: list[TimedRun] = []
    with ResidentProcess(installed, deadline) as resident:
        work = request.load_message(
            resident.call("prepare", settings=settings_message(request.settings))
        )
        resident.call("load", **work)
        counts = {name: resident.call("counts", method=name) for name in request.names}
    for _ in range(number):
        began = monotonic()
        try:
            with ResidentProcess(installed, deadline) as resident:
                resident.call("load", **work)
                made.append(_run(resident, request.names))
        except OutOfTime:
            break
        say(f"run {len(made)} of {number}, {monotonic() - began:.0f} s")
    return counts, made


def _run(resident: ResidentProcess, methods: Sequence[str]) -> TimedRun:
    speed: Mapping[str, float] = resident.call("warm_up", core=shared_core())
    steps = {method: steps_of_piece(speed[method]) for method in methods}
    before, calibration = snapshot([resident.pid]), [resident.call("calibrate")]
    seconds: dict[str, list[float]] = {method: [] for method in methods}
    for _ in range(ROUNDS):
        for index in range(BLOCKS):
            for method in methods:
                wall, waited = resident.call(
                    "run", method=method, steps=steps[method], first=index * steps[method]
                )
                seconds[method].append(wall - waited)
        calibration.append(resident.call("calibrate"))
    disturbed = disturbance(before, snapshot([resident.pid]))
    timed = {method: tuple(values) for method, values in seconds.items()}
    return TimedRun(seconds=timed, steps=steps, calibration=tuple(calibration), **disturbed)
