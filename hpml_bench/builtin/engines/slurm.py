"""Slurm: job arrays by sbatch, one task per unit; states by squeue alone, as sacct needs a
database that many lack.
"""

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any, ClassVar, cast

from pydantic import Field, field_validator, model_validator

from hpml_bench.plugins.engine import Engine, EngineJob, JobBatch
from hpml_bench.records.jobs import LOGS, Job, JobPlan, Kind, plan_id
from hpml_bench.suite.base import Frozen
from hpml_bench.system import child
from hpml_bench.system import environment as jobs
from hpml_bench.system.errors import UserError
from hpml_bench.system.text import sanitize, shortened, utc_now

STUCK = "launch failed requeued held"
"""Reason of a job that could not be launched: Slurm holds it until somebody releases it."""
REFUSED = frozenset(
    {
        *("PartitionTimeLimit", "QOSMaxWallDurationPerJobLimit", "AssocMaxWallDurationPerJobLimit"),
        *("InvalidAccount", "InvalidQOS", "AccountNotAllowed", "QOSNotAllowed", "BadConstraints"),
    }
)
"""Reasons of jobs that Slurm has accepted and will never begin (squeue(1), job reasons)."""
ENDED = frozenset(
    {
        "COMPLETED",
        "CANCELLED",
        "FAILED",
        "TIMEOUT",
        "NODE_FAIL",
        "OUT_OF_MEMORY",
        "BOOT_FAIL",
        "DEADLINE",
    }
)
SECONDS = 60  # seconds after which a Slurm command is given up
RESERVED = frozenset(
    {"array", "signal", "output", "error", "dependency", "wrap", "parsable", "time", "nodes"}
)
"""Options of sbatch that this engine sets itself."""
WORD = re.compile(r"^[a-z][a-z0-9-]*$")
NUMBER = re.compile(r"^(?:Submitted batch job )?(\d+)(?:;\S+)?\s*$", re.MULTILINE)
"""A job's number in the output of sbatch, to which a site's wrapper may add lines; after `;`
stands the cluster.
"""
OURS = re.compile(r"([a-z0-9-]+):(units|prepare|report)(?::(\d+))?")
"""Comment of a job: id of the plan, kind of job, and for units the one from which the array
counts. A site may write words of its own before and behind it.
"""
OUTPUT = re.compile(r"^\s*StdOut=(.+)$", re.MULTILINE)
"""File of a job's output, in what scontrol shows of it; one for each task of an array."""
NO_SUCH_JOB = re.compile(r"\bInvalid job id specified|\bJob \d+ not found")
"""What squeue and scontrol say of a number that no job has, or whose job Slurm has forgotten. The
first is ESLURM_INVALID_JOB_ID; scontrol prints the second where the answer has no job. Any other
failure, such as "Unable to contact slurm controller", says nothing about the job.
"""
OVERRIDES = (
    "SBATCH_",
    "SQUEUE_",
    "SCANCEL_",
)  # prefixes of variables by which a user's shell changes Slurm's commands


class SlurmOptions(Frozen):
    """Options of sbatch by their long names, beside those that the profile has."""

    array: int = Field(default=1000, ge=1, le=100_000)
    """Most units in one array; give less where MaxArraySize is below 1,001, or where fewer jobs
    may be in the queue.
    """
    lag: float = Field(default=45.0, ge=0, le=3600)
    """Seconds by which the answer of squeue may be old: for this long an absent job doesn't
    count as ended.
    """
    sbatch: dict[str, str | int | bool] = Field(default_factory=dict)
    """Options such as `partition`, `account`, `qos`, `constraint`, `mem`; true for one without a
    value.
    """

    @model_validator(mode="before")
    @classmethod
    def _place(cls, value: Any) -> Any:
        for name in value if isinstance(value, dict) else ():
            if name not in cls.model_fields:
                raise ValueError(
                    f"{name} is not known; write an option of sbatch under sbatch, as {{sbatch: "
                    f"{{{name}: ...}}}}"
                )
        return value

    @field_validator("sbatch")
    @classmethod
    def _known(cls, value: dict[str, Any]) -> dict[str, Any]:
        for name, given in value.items():
            if not WORD.match(name) or "\n" in str(given):
                raise ValueError(f"{name!r} can't be an option of sbatch")
            if name in RESERVED:
                raise ValueError(f"{name} is set by hpml-bench itself")
            if name == "clusters" and not re.fullmatch(r"\w[\w-]*", str(given)):
                raise ValueError(
                    "clusters takes one name: of jobs on several it isn't known which numbers are "
                    "whose"
                )
        return value


class Slurm(Engine):
    """Jobs and job arrays of Slurm."""

    title = "Slurm"
    kills = True
    Options: ClassVar[type[Frozen]] = SlurmOptions

    @property
    def lag(self) -> float:
        return float(self.options.lag)

    @classmethod
    def lacks(cls) -> str | None:
        commands = ("sbatch", "squeue", "scancel", "scontrol")
        missing = [name for name in commands if shutil.which(name) is None]
        return (
            f"{', '.join(missing)} can't be found; submit from a login node of a Slurm cluster"
            if missing
            else None
        )

    def parts(self, batch: JobBatch) -> tuple[JobBatch, ...]:
        """Return a batch in parts, one array each; each begins after the one before."""
        # Slurm limits the parallel tasks within one array only.
        groups = groupby(sorted(batch.units), lambda unit: unit // self.options.array)
        parts = [
            replace(batch, units=tuple(units), first=key * self.options.array)
            for key, units in groups
        ]
        return tuple(parts) or (batch,)

    def script(self, batch: JobBatch) -> str:
        profile, plan, first = self.profile, batch.plan, batch.first
        logs = str(batch.folder / LOGS).replace("%", "%%")
        if "\\" in logs:
            raise UserError(
                f"{batch.folder}: Slurm takes a backslash in a path for its own; give another --out"
            )
        given: dict[str, str | int | bool] = {
            "job-name": _title(plan),
            "comment": f"{plan.id}:{batch.kind}{f':{first}' if first else ''}",
            "output": f"{logs}/{'%A_%a' if batch.units else batch.kind + '-%j'}.log",
            "open-mode": "append",
            "requeue": True,
        }
        if batch.units:
            given["array"] = f"{_ranges([unit - first for unit in batch.units])}%{profile.parallel}"
        if batch.kind != "report":  # a preparation resolves the settings that a node decides
            asked = {
                "nodes": profile.nodes,
                "ntasks-per-node": 1,
                "cpus-per-task": profile.cpus_per_node,
                "gpus-per-node": profile.gpus_per_node,
                "mem": profile.memory_per_node,
                "exclusive": profile.exclusive or None,
            }
            given |= {name: value for name, value in asked.items() if value is not None}
        if profile.seconds is not None:
            given["time"] = str(profile.time)
        if profile.seconds is not None and batch.units:
            given["signal"] = f"B:TERM@{profile.warned:.0f}"
        after = [] if batch.prepared is None else [f"afterok:{batch.prepared}"]
        after += [f"afterany:{name}" for name in batch.ended]
        if after:
            given |= {"dependency": ",".join(after), "kill-on-invalid-dep": "yes"}
        given |= self.options.sbatch
        lines = [
            "#!/bin/bash",
            *(_line(name, value) for name, value in given.items() if value is not False),
        ]
        lines += [
            "set -e",
            *profile.setup,
        ]  # a job whose environment could not be set up must not run in another one
        variables = profile.env | {jobs.ENGINE: "slurm", jobs.QUEUED: utc_now()}
        variables |= {jobs.EXCLUSIVE: str(int(profile.exclusive)), "PYTHONUNBUFFERED": "1"}
        lines += [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]
        unit = f'"$((SLURM_ARRAY_TASK_ID + {first}))"' if first else '"$SLURM_ARRAY_TASK_ID"'
        job = "${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}" if batch.units else "${SLURM_JOB_ID}"
        lines.append(f'export {jobs.JOB}="{job}" {jobs.RESTART}="${{SLURM_RESTART_COUNT:-0}}"')
        # only the second is set where the job has whole nodes
        lines.append(f'export {jobs.CORES}="${{SLURM_CPUS_PER_TASK:-${{SLURM_CPUS_ON_NODE:-}}}}"')
        if profile.scratch:
            lines.append(f'export TMPDIR="{profile.scratch}" && mkdir -p "$TMPDIR"')
        command = profile.command(child.module("hpml_bench", *batch.arguments))
        words = [unit if word == "{unit}" else shlex.quote(word) for word in command]
        # exec: Slurm signals the shell, which would end without signalling its child
        return "\n".join([*lines, f"exec {' '.join(words)}", ""])

    def submit(self, batch: JobBatch) -> str:
        (batch.folder / LOGS).mkdir(exist_ok=True)
        try:
            output = _run(
                ["sbatch", "--parsable"], self.script(batch)
            )  # the cluster is in the script
        except UserError as error:
            hint = (
                "; where MaxArraySize is below 1,001, give the profile options: {array: N} with "
                "an N below it"
            )
            raise UserError(
                f"{error}{hint if 'Invalid job array specification' in str(error) else ''}"
            ) from None
        numbers = NUMBER.findall(output)
        if not numbers:
            raise UserError(f"sbatch answered {shortened(output, 200)!r}, and no number of a job")
        return str(numbers[-1])

    def live(self, plan: JobPlan) -> tuple[EngineJob, ...]:
        command = self._on_cluster(
            "squeue", "--noheader", "--array", "--me", "--format=%i|%F|%K|%T|%r|%k"
        )
        jobs = []
        # Asked once for an array of a thousand tasks, and anew by each call, since Slurm may have
        # given the number to another job meanwhile.
        parts: dict[tuple[str, str], tuple[Kind, int] | None] = {}
        for line in _run(command).splitlines():
            fields = [field.strip() for field in line.split("|", 5)]
            if len(fields) < 6:  # the rest of a comment with a line break
                continue
            name, group, task, state, reason, comment = fields
            if state in ENDED:
                continue
            if (group, comment) not in parts:
                parts[group, comment] = self._part(plan, group, comment)
            part = parts[group, comment]
            if part is None:
                continue
            kind, first = part
            unit = int(task) + first if task.isdigit() and kind == "units" else None
            jobs.append(self._job(name, unit, state, reason, kind, group))
        return tuple(jobs)

    def _part(self, plan: JobPlan, group: str, comment: str) -> tuple[Kind, int] | None:
        """Return the kind of a listed job, and the unit from which its array counts; None if it
        isn't the plan's.
        """
        # The number that `submit` returned counts before the comment, which a site may rewrite; by
        # the comment a job is known whose number was lost.
        submissions = {submission.name: submission for submission in plan.submitted}
        submission = submissions.get(group)
        mention = OURS.search(comment)
        mentions_plan = mention is not None and mention[1] == plan.id
        part: tuple[Kind, int]
        if submission is not None:
            part = submission.kind, submission.first
        elif mention is not None and mentions_plan:
            part = cast(Kind, mention[2]), int(mention[3] or 0)
        else:
            return None
        # a site may add words to the comment, and the comment of any other job may mention a plan
        is_own_comment = mentions_plan and OURS.fullmatch(comment) is not None
        return part if is_own_comment or self._writes_here(group, plan) else None

    def _writes_here(self, number: str, plan: JobPlan) -> bool:
        """Return whether Slurm says that a job's output goes to the logs of this plan's folder.

        The folder's own list of numbers proves nothing: whoever wrote the folder may have listed
        another job of the user, and Slurm gives numbers anew when its state is lost. Raises
        UserError where Slurm doesn't answer: the job may live all the same.
        """
        try:
            shown = _run(self._on_cluster("scontrol", "show", "job", number))
        except UserError as error:
            if NO_SUCH_JOB.search(str(error)):
                return False
            raise UserError(
                f"it isn't known whether job {number} belongs to the sweep: {error}"
            ) from None
        outputs = [Path(path) for path in OUTPUT.findall(shown)]
        return bool(outputs) and all(
            output.parent.name == LOGS and plan_id(output.parent.parent) == plan.id
            for output in outputs
        )

    def _job(
        self, name: str, unit: int | None, state: str, reason: str, kind: Kind, group: str
    ) -> EngineJob:
        """Return a job as squeue lists it, by its state and the reason why it waits."""
        running = state in {"RUNNING", "COMPLETING"}
        # with several partitions the reason is that of one of them, and another may take the job
        several_partitions = "," in str(self.options.sbatch.get("partition", ""))
        refused = reason in REFUSED and not several_partitions
        return EngineJob(
            name,
            unit,
            state=state if reason in {"", "None"} else f"{state} ({reason})",
            running=running,
            stuck=refused or reason == STUCK,
            kind=kind,
            group=group,
            reason="" if running or reason == "None" else reason,
            refused=refused,
        )

    def stop(self, plan: JobPlan, names: Sequence[str] = ()) -> int:
        """Cancel the jobs of a plan: whole arrays, since scancel calls the controller once per
        name.

        Raises UserError, and cancels none, where Slurm doesn't say whose a job is.
        """
        listed = self.live(plan)
        groups = dict.fromkeys(job.group for job in listed)
        for name in names:
            # one that was submitted a moment ago may not be listed yet
            if name.isdigit() and name not in groups and self._writes_here(name, plan):
                groups[name] = None
        if groups:
            # quiet: of those that have ended meanwhile
            _run(self._on_cluster("scancel", "--quiet", "--", *groups))
        return max(len(listed), len(groups))

    def cancel(self, jobs: Sequence[EngineJob]) -> None:
        tasks: dict[str, list[int]] = {}
        for job in jobs:
            tasks.setdefault(job.group, []).extend(int(task) for task in job.name.split("_")[1:])
        if tasks:
            names = (f"{group}_[{_ranges(own)}]" if own else group for group, own in tasks.items())
            _run(self._on_cluster("scancel", "--", *names))

    def same_job(self, name: str, job: Job) -> bool:
        # a task of an array has its number behind that of the array, as in 1234_5
        array = re.split("[_-]", job.job)[0]
        return array == name

    def dead(self, owner: Job) -> bool:
        return bool(self.dead_among([owner]))

    def dead_among(self, owners: Sequence[Job]) -> set[str]:
        """Return the starts that have ended or were restarted, by one call of squeue; without it
        nothing is known.
        """
        oldest = (
            datetime.now(UTC).timestamp() - self.lag
        )  # jobs that have begun since may be missing in the answer
        own = [owner for owner in owners if owner.engine == "slurm"]
        own = [owner for owner in own if datetime.fromisoformat(owner.began).timestamp() < oldest]
        names = {owner.name: re.sub(r"-(\d+)$", r"_\1", owner.job) for owner in own}
        if not names or shutil.which("squeue") is None:
            return set()
        jobs = f"--jobs={','.join(sorted(set(names.values())))}"
        shown = "--Format=JobArrayID:60,State:40,RestartCnt:20"
        try:
            answer = _run(self._on_cluster("squeue", "--noheader", "--array", jobs, shown))
        except UserError as error:
            # of several jobs squeue never says that there are none
            if len(names) > 1 or not NO_SUCH_JOB.search(str(error)):
                return set()
            answer = ""
        lines = [
            line.split() for line in answer.splitlines() if line and not line.startswith("CLUSTER:")
        ]
        if any(len(words) != 3 or not words[2].isdigit() for words in lines):
            return set()
        states = {name: (state, int(restarts)) for name, state, restarts in lines}
        found = {owner.name: states.get(names[owner.name], ("COMPLETED", 0)) for owner in own}
        return {
            owner.name
            for owner in own
            if found[owner.name][0] in ENDED or found[owner.name][1] > owner.restart
        }

    def hosts(self) -> tuple[str, ...]:
        if self.profile.nodes == 1:
            return super().hosts()
        return tuple(
            _run(
                ["scontrol", "show", "hostnames", os.environ.get("SLURM_JOB_NODELIST", "")]
            ).split()
        )

    def over_nodes(self, command: list[str]) -> list[str]:
        """Return a step with one task on each node of the job; it ends when one task fails."""
        command = [*self.profile.launcher, *command]
        nodes = re.findall(
            r"(?:^|,)(\d+)", os.environ.get("SLURM_JOB_CPUS_PER_NODE", "")
        )  # such as 72(x2),36
        cores = (
            self.profile.cpus_per_node
            or os.environ.get("SLURM_CPUS_PER_TASK")
            or min(map(int, nodes), default=0)
        )
        scratch = self.profile.scratch
        if scratch:  # the job's script did so on the first node alone
            command = [
                "bash",
                "-c",
                f'export TMPDIR="{scratch}" && mkdir -p "$TMPDIR" && exec "$@"',
                "bash",
                *command,
            ]
        return [
            "srun",
            f"--nodes={self.profile.nodes}",
            f"--ntasks={self.profile.nodes}",
            "--ntasks-per-node=1",
            *([f"--cpus-per-task={cores}"] if cores else []),  # a step doesn't take it from its job
            "--export=ALL",
            "--kill-on-bad-exit=1",
            "--wait=60",
            *command,
        ]

    def _on_cluster(self, command: str, *words: str) -> list[str]:
        """Return a command of Slurm's for the cluster that the profile names, if it names one."""
        cluster = self.options.sbatch.get("clusters")
        return [command, *([f"--clusters={cluster}"] if cluster else []), *words]


def _title(plan: JobPlan) -> str:
    return f"hpml-bench:{plan.suite.name}"


def _line(name: str, value: str | int | bool) -> str:
    if value is True:
        return f"#SBATCH --{name}"
    plain = not any(sign.isspace() or sign in "#\"'\\" for sign in str(value))
    return f"#SBATCH --{name}={value if plain else shlex.quote(str(value))}"


def _ranges(numbers: Sequence[int]) -> str:
    """Return numbers as Slurm writes them: 0-3,7."""
    ordered = enumerate(sorted(numbers))  # in a range, number and position grow together
    ranges = [
        [number for _, number in run] for _, run in groupby(ordered, lambda pair: pair[1] - pair[0])
    ]
    return ",".join(str(own[0]) if len(own) == 1 else f"{own[0]}-{own[-1]}" for own in ranges)


def _run(command: list[str], text: str | None = None) -> str:
    """Return the output of a Slurm command, run without variables of the user's shell or an outer
    job that change it.

    A UserError says that it fails, or doesn't answer.
    """
    # The one variable of a job that it needs is SLURM_CONF; by the others a new job would inherit
    # options of that one.
    without = (*OVERRIDES, "SLURM_") if "SLURM_JOB_ID" in os.environ else OVERRIDES
    kept = {
        name: value
        for name, value in os.environ.items()
        if name == "SLURM_CONF" or not name.startswith(without)
    }
    try:
        done = subprocess.run(
            command,
            input=text,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
            env=kept,
        )
    except subprocess.TimeoutExpired:
        raise UserError(
            f"{command[0]} has not answered for {SECONDS} s; the same command goes on from here"
        ) from None
    except OSError as error:
        raise UserError(f"{command[0]} can't be started: {error.strerror}") from None
    if done.returncode:
        # scontrol writes "Job 7 not found" to its output
        said = sanitize(done.stderr.strip() or done.stdout, 500)
        raise UserError(f"{command[0]}: {said or f'ended with {done.returncode}'}")
    return done.stdout
