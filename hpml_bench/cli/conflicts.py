"""Options of `run-all` that don't go together, refused before anything is written.

A limit of a whole call goes into `CALL_LIMITS`; any other conflict is a row of `conflicts`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from typing import TYPE_CHECKING

from hpml_bench.system.errors import UserError

if TYPE_CHECKING:
    from hpml_bench.cli.options import JobOptions
    from hpml_bench.records.plan import Limits

CALL_LIMITS = {
    "max_hours": "limit each job by time in the profile",
    "fail_fast": "end the jobs that are left with `hpml-bench stop`",
}
"""Fields of `Limits` that end a whole call, and what to do instead with jobs of a profile. Jobs
can't keep them: none knows of the others' runs. All other limits are of a run, and go to the jobs
with the plan.
"""


def refuse_conflicts(jobs: JobOptions, limits: Limits, raced: bool) -> None:
    """Raise UserError for options of `run-all` that don't go together.

    `raced`: whether the suite ends when its question is answered (`--until`).
    """
    for conflicting, sentence in conflicts(jobs, limits, raced):
        if conflicting:
            raise UserError(sentence)


def conflicts(jobs: JobOptions, limits: Limits, raced: bool) -> Iterator[tuple[bool, str]]:
    """Yield whether options conflict, and the sentence that says so, in the order of the checks."""
    by_jobs = jobs.given
    yield jobs.detach and not by_jobs, "--detach needs --on PROFILE"
    yield jobs.dry_run and not by_jobs, "--dry-run needs --on PROFILE"
    yield (
        jobs.ahead and not (by_jobs and raced),
        "--ahead fills slots of jobs between rounds: give --until, and --on PROFILE or "
        "--parallel N",
    )
    yield (
        jobs.detach and raced,
        "--detach: a sweep with --until looks at each round before it submits the next; leave "
        "it out",
    )
    defaults = {field.name: field.default for field in fields(limits)}
    for name, instead in CALL_LIMITS.items():
        option = f"--{name.replace('_', '-')}"
        given = getattr(limits, name) != defaults[name]
        yield by_jobs and given, f"{option} is for runs one after another{_advice(jobs, instead)}"


def _advice(jobs: JobOptions, instead: str) -> str:
    """Return the end of the sentence on a limit that jobs can't keep."""
    if jobs.on is None:
        return ", and --parallel does several at a time; leave one of them out"
    return f"; leave it out, and {instead}"
