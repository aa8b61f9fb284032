"""Job of this process: its id in a cluster's engine and its time limit, read from environment variables."""

import os
import re
import socket
from dataclasses import dataclass
from typing import Any

ENGINE, JOB, RESTART, UNIT = "HPML_BENCH_ENGINE", "HPML_BENCH_JOB", "HPML_BENCH_RESTART", "HPML_BENCH_UNIT"
EXCLUSIVE, QUEUED, UNTIL = "HPML_BENCH_EXCLUSIVE", "HPML_BENCH_QUEUED", "HPML_BENCH_UNTIL"
CALL = "HPML_BENCH_CALL"  # number of the call of run-all for which a job works
CORES = "HPML_BENCH_CORES"  # CPU cores that an engine gave to this job without binding it to them
NODE = "HPML_BENCH_NODE"
SCHEDULERS = (("slurm", "SLURM_JOB_ID"), ("pbs", "PBS_JOBID"), ("lsf", "LSB_JOBID"))
"""Engines and their own variables for a job's id; for other engines it is in `HPML_BENCH_JOB`."""


@dataclass(frozen=True)
class ThisJob:
    """Job of this process."""

    engine: str
    job: str  # with letters, digits, - and _ only; equal after a requeue
    restart: int
    host: str
    pid: int
    exclusive: bool  # whether it has its nodes to itself, according to its engine
    queued: str | None  # when it was submitted; UTC, ISO 8601
    until: float | None  # end of its time limit, in seconds since 1970


def this_job() -> ThisJob:
    """Return the job of this process: by `HPML_BENCH_JOB`, else of Slurm, PBS or LSF, else by host and process."""
    host, pid = socket.gethostname(), os.getpid()
    engine, job = os.environ.get(ENGINE), os.environ.get(JOB)
    for name, variable in SCHEDULERS:
        if job is None and variable in os.environ:
            engine, job = engine or name, os.environ[variable]
    return ThisJob(
        engine=engine or "manual", job=plain(job or f"{host}-{pid}"), host=host, pid=pid,
        restart=_number(RESTART, "SLURM_RESTART_COUNT") or 0, exclusive=os.environ.get(EXCLUSIVE) == "1",
        queued=os.environ.get(QUEUED), until=_number(UNTIL, "SLURM_JOB_END_TIME"),
    )  # fmt: skip


def where() -> dict[str, Any] | None:
    """Return a record's entry on the job that makes it; None without a job."""
    if JOB not in os.environ:
        return None
    own = this_job()
    return {
        "engine": own.engine, "job": own.job, "restart": own.restart, "unit": _number(UNIT), "call": _number(CALL),
        "host": own.host, "hosts": [own.host], "exclusive": own.exclusive,
    }  # fmt: skip


def node_number() -> int:
    """Return the number of this node among those of a run, from 0."""
    return _number(NODE, "SLURM_NODEID") or 0


def plain(text: str) -> str:
    """Return a job's id as used in file names."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", text)[:80].strip("-") or "job"


def _number(*variables: str) -> int | None:
    texts = (os.environ.get(variable, "") for variable in variables)
    return next((int(text) for text in texts if re.fullmatch(r"\d{1,15}", text)), None)
