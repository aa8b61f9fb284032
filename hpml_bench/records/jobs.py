"""Plan of a sweep by jobs, cut into units, and the files through which jobs and their submitter
coordinate.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from hpml_bench.records.files import PLAN, SET_ASIDE, TRACKING
from hpml_bench.records.plan import Limits, Plan
from hpml_bench.suite import registry
from hpml_bench.suite.base import Frozen
from hpml_bench.suite.devices import decided_as
from hpml_bench.suite.profile import Profile
from hpml_bench.suite.settings import Digests, Settings
from hpml_bench.suite.suite import Suite
from hpml_bench.system import processes
from hpml_bench.system.errors import UserError
from hpml_bench.system.files import (
    read_bytes,
    read_model,
    remove,
    write_atomically,
    written_beside,
)
from hpml_bench.system.text import digest

CLAIMS, ATTEMPTS, JOBS, RUNNING, LOGS = "claims", "attempts", "jobs", "running", "logs"
"""Folders beside the runs: claims on units, uncommitted attempts, states of jobs, runs under way,
output of jobs.

Each run under way has a file, and beside it a list of the runs that have begun since.
"""
NO_RUNS = frozenset({CLAIMS, ATTEMPTS, JOBS, RUNNING, LOGS, SET_ASIDE}) | TRACKING
RESOLVED = "resolved.json"  # settings as the first job resolved them
NO_LINKS = {
    errno.EPERM,
    errno.ENOSYS,
    errno.ENOTSUP,
    errno.EMLINK,
}  # of file systems such as exFAT and CIFS
OWNER = "owner.json"  # file in a claim's folder: the job that holds it
SUBMITTED = "submitted.json"  # submissions whose jobs may live
Kind = Literal["units", "prepare", "report"]


def folders_with(path: Path, pattern: str) -> list[Path]:
    """Return a folder if it has files of this pattern, else the folders in it, other than those
    of jobs, that do.
    """
    if _holds(path, pattern):
        return [path]
    inner = (one for one in sorted(path.glob("*/")) if one.name not in NO_RUNS)
    return [one for one in inner if _holds(one, pattern)]


def _holds(folder: Path, pattern: str) -> bool:
    # of a name without a pattern, `glob` gives no link that leads nowhere
    return os.path.lexists(folder / pattern) or any(folder.glob(pattern))


class UnitRun(Frozen):
    """A run of a unit, before its settings are resolved on a node."""

    method: str
    seed: int


class Unit(Frozen):
    """Runs that one job does, in this order."""

    tasks: tuple[UnitRun, ...]

    @property
    def title(self) -> str:
        seeds = ", ".join(map(str, sorted({task.seed for task in self.tasks})))
        return f"{self.tasks[0].method} seed {seeds}" if len(self.tasks) == 1 else f"seed {seeds}"


class Submission(Frozen):
    """Jobs that an engine has accepted together."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")
    """Name that the engine gave them, such as the number of an array."""
    kind: Kind
    units: tuple[int, ...]
    first: int  # unit of the array's task 0
    at: float  # when, in seconds of time.time()


class Submissions(Frozen):
    """The content of the file `SUBMITTED`."""

    made: tuple[Submission, ...] = ()


class JobPlan(Frozen):
    """A sweep as it was requested, cut into units; written by the process that submits."""

    id: str = Field(pattern=r"^[a-z0-9-]+$")  # name by which an engine finds its jobs
    suite: Suite  # suite as requested; the jobs resolve its settings
    profile: Profile
    units: tuple[Unit, ...]
    limits: Limits
    digests: Digests | None = None
    """Digests of model and data prepared before the submission; None where a job prepares them."""
    verbose: bool = False
    keep: bool = False  # whether each run's trained parts are kept in its folder
    # number of the last call of run-all; further jobs don't repeat a run that failed in this call
    call: int = 1
    stopped: bool = (
        False  # whether the sweep was stopped since; a waiting process then submits nothing more
    )
    superseded: bool = False  # whether run-all was called without jobs since
    submitted: tuple[Submission, ...] = Field(default=(), exclude=True)
    """Submissions whose jobs may live, for an engine's `live`; kept in a file of their own."""

    def same_units(self, other: JobPlan) -> bool:
        return (
            self.suite == other.suite
            and self.units == other.units
            and self.profile.nodes == other.profile.nodes
        )

    def same_open_settings(self, other: JobPlan) -> bool:
        """Whether jobs of two plans resolve the same settings; False in doubt, so that they are
        resolved again.
        """
        if (
            self.suite.settings != other.suite.settings
            or self.profile.engine != other.profile.engine
        ):
            return False
        engine = registry.plugin("engines", self.profile.engine)
        return bool(engine(self.profile).device_request == engine(other.profile).device_request)

    def may_overlap(self, other: JobPlan) -> bool:
        """Whether jobs of one plan may go on while those of the other are submitted."""
        return self.same_units(other) and self.same_open_settings(other)

    def resolved(self, settings: Settings) -> Plan:
        suite = self.suite.model_copy(update={"settings": settings})
        units = (
            [suite.runs([task.method], [task.seed]) for task in unit.tasks] for unit in self.units
        )
        return Plan(tuple(tuple(chain(*unit)) for unit in units), self.digests, self.call)

    def unit(self, number: int) -> Unit:
        """Return a unit; raises UserError if the plan has none of this number."""
        if not 0 <= number < len(self.units):
            raise UserError(f"the plan has units 0 to {len(self.units) - 1}, and no {number}")
        return self.units[number]


HowEnded = Literal["done", "limit", "interrupted", "left", "time", "failed"]
"""`limit`: by --max-hours or --fail-fast; `left`: the job was restarted elsewhere; `time`: at
the job's time limit.
"""


class Job(Frozen):
    """A past or present job on a unit; a line of the page's chart."""

    engine: str
    job: str = Field(
        pattern=r"^[A-Za-z0-9_-]+$"
    )  # the engine's id of the job, equal after a requeue
    restart: int  # number of times that the engine has restarted it
    unit: int  # number of the unit; -1: the preparation
    host: str
    pid: int
    process: str | None = None
    """Identity of the process, which differs on another host or after a reboot
    (`processes.identity`).
    """
    queued: str | None = None  # when it was submitted; UTC, ISO 8601
    began: str
    ended: str | None = None
    how: HowEnded | None = None  # None: it works, or was killed
    why: str | None = None  # error of a failed job

    @property
    def name(self) -> str:
        return f"{self.job}.{self.restart}"


def plan_id(folder: Path) -> str:
    """Return the id of a results folder's plans, which jobs of earlier plans have too."""
    return f"hpml-{digest(str(folder.resolve()), 10)}"  # the same through any link


def write_plan(folder: Path, plan: JobPlan) -> None:
    """Write a plan into a results folder; the jobs' variables and set-up, which may be secrets,
    are left out.
    """
    public = plan.model_copy(
        update={"profile": plan.profile.model_copy(update={"env": {}, "setup": ()})}
    )
    write_atomically(folder / PLAN, public.model_dump_json(indent=1))


def read_plan(path: Path) -> JobPlan:
    """Return the plan in a file, or in a results folder; raises UserError if there is none, or
    it can't be read.
    """
    file = path / PLAN if path.is_dir() else path
    try:
        return JobPlan.model_validate_json(read_bytes(file))
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{path}: there is no plan; run-all SUITE --on PROFILE makes one") from None
    except OSError as error:
        why = error.strerror
    except ValidationError as error:
        why = str(error).splitlines()[0]
    raise UserError(
        f"{file}: can't be read as a plan: {why}; remove it, and the same run-all makes it anew"
    )


def own_plan(folder: Path) -> JobPlan | None:
    """Return the plan that was made for a results folder; None if there is none, or that folder
    was another.
    """
    if not os.path.lexists(folder / PLAN):
        return None
    plan = read_plan(folder)
    return plan if plan.id == plan_id(folder) else None


def supersede(folder: Path) -> None:
    """Write into the plan of a results folder, if it has one, that run-all was called without jobs
    since; UserError if it can't be read.
    """
    if not (folder / PLAN).exists():
        return
    write_plan(folder, read_plan(folder).model_copy(update={"superseded": True}))


def write_job(folder: Path, job: Job) -> None:
    (folder / JOBS).mkdir(exist_ok=True)
    write_atomically(folder / JOBS / f"{job.unit}.{job.name}.json", job.model_dump_json())


def read_jobs(folder: Path, units: Collection[int] | None = None) -> tuple[Job, ...]:
    """Return the jobs of a results folder, or of some units, by the time they began; unreadable
    files are left out.
    """
    files = (folder / JOBS).glob("*.*.json")  # once: of thousands of units each would list them all
    wanted = None if units is None else set(map(str, units))
    own = (file for file in files if wanted is None or file.name.partition(".")[0] in wanted)
    jobs = [job for file in own if (job := read_model(file, Job)) is not None]
    return tuple(sorted(jobs, key=lambda job: (job.began, job.unit)))


def claims(folder: Path) -> tuple[Job, ...]:
    """Return the jobs that hold units of a results folder; UserError where that can't be read."""
    with _readable(folder / CLAIMS):
        places = [place for place in sorted((folder / CLAIMS).iterdir()) if place.name.isdigit()]
        return tuple(sorted(filter(None, map(holder, places)), key=lambda job: job.unit))
    return ()


def holder(claim: Path) -> Job | None:
    """Return the job that holds a claim; None if none does, or a crash cut its record.

    Raises UserError where its record can't be read: the job may live.
    """
    with _readable(claim), suppress(ValidationError):
        return Job.model_validate_json(read_bytes(claim / OWNER))
    return None


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Make the body's errors of a file system UserErrors, except where the path doesn't exist."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise UserError(
            f"{error.filename or path}: {error.strerror}, so it isn't known whether a job works "
            f"there; make it readable, or remove {path} when no job does"
        ) from None


def ended_here(owner: Job) -> bool:
    """Return whether a job was a process of this host, and has ended."""
    if owner.host != socket.gethostname():
        return False
    if owner.process is None:
        return processes.identify(owner.pid) is None
    return processes.is_here(owner.process) and owner.process != processes.identity(owner.pid)


def refuse_if_worked_on(folder: Path) -> None:
    """Refuse a results folder in which jobs work, other than processes of this host that have
    ended.
    """
    living = [owner for owner in claims(folder) if not ended_here(owner)]
    if living:
        first, more = living[0], len(living) - 1
        others = f" and {more} more" if more else ""
        raise UserError(
            f"{folder}: job {first.job} on {first.host}{others} works in it; hpml-bench stop "
            f"{folder} ends the jobs (of one that was killed, remove "
            f"{folder / CLAIMS / str(first.unit)}), or give another --out"
        )


def left_attempts(folder: Path) -> list[Path]:
    """Return the attempts of jobs that no longer hold a unit."""
    living = tuple(f".{owner.name}" for owner in claims(folder))
    return [path for path in (folder / ATTEMPTS).glob("*/") if not path.name.endswith(living)]


def clear(folder: Path) -> None:
    """Remove the jobs' files from a results folder whose runs are repeated; claims of jobs that
    may still work stay.
    """
    for name in (RESOLVED, ATTEMPTS, JOBS, RUNNING):
        remove(folder / name)
    for owner in filter(ended_here, claims(folder)):
        remove(folder / CLAIMS / str(owner.unit))


def write_once(path: Path, text: str) -> bool:
    """Write a file atomically unless it exists; return whether this call wrote it."""
    with written_beside(path, text) as fresh:
        try:
            os.link(fresh, path)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
            if path.exists():
                return False
            fresh.replace(path)  # of two at the same moment the later one stays
    return True


def read_resolved(folder: Path, plan: JobPlan) -> Settings | None:
    """Return the settings as the first job resolved them, None before; UserError if damaged, or
    not the plan's.
    """
    if not os.path.lexists(folder / RESOLVED):
        return None
    found = read_model(folder / RESOLVED, Settings)
    wrong = "can't be read"
    if found is not None:
        fixed = decided_as(plan.suite.settings, found)
        other = [
            name for name in Settings.model_fields if getattr(found, name) != getattr(fixed, name)
        ]
        if not other:
            return found
        wrong = (
            f"{other[0]} is {getattr(found, other[0])}, and {getattr(fixed, other[0])} in the suite"
        )
    raise UserError(
        f"{folder / RESOLVED}: {wrong}; remove it, and the next job resolves the open settings "
        f"again"
    )
