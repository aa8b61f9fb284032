"""Engines: the base class for starting the jobs of a sweep, on a cluster or side by side on one
machine.
"""

import shlex
import socket
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, cast

from hpml_bench.records.jobs import Job, JobPlan, Kind
from hpml_bench.suite import registry
from hpml_bench.suite.base import Frozen
from hpml_bench.suite.profile import Profile
from hpml_bench.system import child
from hpml_bench.system.environment import plain
from hpml_bench.system.errors import UserError


@dataclass(frozen=True)
class JobBatch:
    """Jobs that are submitted together."""

    plan: JobPlan
    folder: Path  # the results folder, absolute; every node sees it
    units: tuple[
        int, ...
    ]  # numbers of the units, a job for each; empty for one job that prepares or reports
    arguments: tuple[
        str, ...
    ]  # arguments of `python -m hpml_bench`; `{unit}` stands for the unit's number
    kind: Kind = "units"
    first: int = 0  # unit from which the engine counts those of this batch
    prepared: str | None = None  # name of the job that must have succeeded before
    ended: tuple[
        str, ...
    ] = ()  # names of the jobs that must have ended before, successfully or not


class Engine(ABC):
    """An engine: `title`, `submit` and `live` are required.

    `live` asks the engine, never the files: those of a killed job look like those of a running one.
    """

    plugin_kind: ClassVar[str] = "engines"
    title: ClassVar[str]
    """Name in prose."""
    Options: ClassVar[type[Frozen]] = Frozen
    """The engine's own options, with their defaults."""
    outlives: ClassVar[bool] = True
    """Whether jobs go on when the process that submitted them ends."""
    starts: ClassVar[bool] = True
    """Whether it starts jobs; else a person does by hand."""
    kills: ClassVar[bool] = False
    """Whether it kills a job some time after it asked it to end, and restarts it only after
    that.
    """

    def __init__(self, profile: Profile) -> None:
        self.profile = profile
        self.options: Any = self.Options.model_validate(profile.options)

    @property
    def lag(self) -> float:
        """Greatest age of an answer of `live`, in seconds."""
        return 0.0

    @property
    def device_request(self) -> tuple[object, ...]:
        """Values that decide which devices a job has."""
        profile = self.profile
        return profile.engine, profile.nodes, profile.gpus_per_node, profile.cpus_per_node

    @classmethod
    def lacks(cls) -> str | None:
        """Return what this machine lacks for the engine, and what to do; None: nothing. It
        connects to nothing.
        """
        return None

    def check(self) -> None:
        """Refuse a profile that can't be used on this machine by a UserError; submits nothing."""
        if lacking := self.lacks():
            raise UserError(f"--on: {lacking}")

    def script(self, batch: JobBatch) -> str:
        """Return the script that `submit` would submit, as `--dry-run` prints it."""
        commands = (
            self.profile.command(self.command(batch, unit)) for unit in batch.units or (-1,)
        )
        return "".join(f"{shlex.join(command)}\n" for command in commands)

    def command(self, batch: JobBatch, unit: int) -> list[str]:
        """Return the words of a job's command after the interpreter."""
        return child.module(
            "hpml_bench", *(word.replace("{unit}", str(unit)) for word in batch.arguments)
        )

    def parts(self, batch: JobBatch) -> tuple[JobBatch, ...]:
        """Split a batch into parts for one submission each, one after another."""
        return (batch,)

    @abstractmethod
    def submit(self, batch: JobBatch) -> str:
        """Submit jobs and return their name, for `prepared` and `ended` of later batches.

        Raises a UserError that quotes the engine's message if it refuses them.
        """

    @abstractmethod
    def live(self, plan: JobPlan) -> tuple["EngineJob", ...]:
        """Return the jobs of a plan that wait or run; `plan.submitted` has what `submit` returned
        for them.

        Raises UserError if the engine can't be queried.
        """

    def hosts(self) -> tuple[str, ...]:
        """Return the hosts of this job, the first with its own process; an engine with several
        hosts overrides it.
        """
        return (socket.gethostname(),)

    def over_nodes(self, command: list[str]) -> list[str]:
        """Return the command that runs another once on each node of this job, and ends when all
        ended or one failed.

        Only an engine that overrides it can have `nodes` above 1; the command finds its node's
        number in HPML_BENCH_NODE or SLURM_NODEID.
        """
        raise NotImplementedError

    def stop(self, plan: JobPlan, names: Sequence[str] = ()) -> int:
        """End the jobs of a plan, and return how many there were.

        `names`: names that `submit` returned a moment ago, whose jobs `live` may not show yet.
        """
        raise NotImplementedError

    def cancel(self, jobs: Sequence["EngineJob"]) -> None:
        """End these jobs; required where `live` returns some that are stuck."""
        raise NotImplementedError

    def same_job(self, name: str, job: Job) -> bool:
        """Return whether `submit` returned this name for a job that has noted its start.

        An engine overrides it whose jobs have other ids than the name of their submission, such as
        the tasks of an array.
        """
        return job.job == plain(name)

    def dead(self, owner: Job) -> bool:
        """Return whether the engine knows that this start of a job, perhaps on another host, has
        ended.
        """
        return False

    def dead_among(self, owners: Sequence[Job]) -> set[str]:
        """Return the names of the starts that have ended; an engine that can query all at once
        overrides it.
        """
        return {owner.name for owner in owners if self.dead(owner)}

    def wait(self, seconds: float) -> None:
        """Wait a while, or until a job has ended."""
        time.sleep(seconds)


@dataclass(frozen=True)
class EngineJob:
    """A job that has not ended: it runs, is stuck, or else waits."""

    name: str
    unit: int | None  # None for a preparation or a report
    state: str  # its state in the engine's terms, such as RUNNING; shown, and nothing depends on it
    running: bool  # whether it is doing its work
    stuck: bool = False  # whether the engine will never start it by itself
    kind: Kind = "units"
    group: str = ""  # the name that `submit` returned
    reason: str = ""  # why it waits, in the engine's terms
    refused: bool = False
    """Whether it is stuck because of what the profile requests, so that another job would be
    stuck too.
    """


def make_engine(profile: Profile) -> Engine:
    """Return the engine of a profile; UserError if there is none, or it can't have one run over
    several nodes.
    """
    engine = cast(Engine, registry.plugin("engines", profile.engine)(profile))
    if profile.nodes > 1 and type(engine).over_nodes is Engine.over_nodes:
        raise UserError(
            f"nodes is {profile.nodes}, and {engine.title} can't start one run over several; give "
            f"nodes: 1"
        )
    return engine


def units_of(live: Sequence[EngineJob]) -> set[int]:
    return {job.unit for job in live if job.unit is not None}
