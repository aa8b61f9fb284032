"""Sweeps on stand-ins for Slurm's commands: `queue` has the lines of squeue, `given7` what
sbatch got for job 7.
"""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from helpers import made_records
from hpml_bench.records.run import RunRecord, protocol_id
from hpml_bench.suite.devices import resolve_devices
from hpml_bench.suite.profile import Profile, load_profile
from hpml_bench.suite.settings import RunSpec
from hpml_bench.suite.suite import load_suite
from hpml_bench.sweep.jobs import JobSweep
from hpml_bench.sweep.request import SweepRequest

Requested = tuple[SweepRequest, Profile]


def asked(**changes: object) -> Requested:
    values: dict[str, Any] = {
        "suite": load_suite("quickstart", seeds=1),
        "methods": ("head",),
        **changes,
    }
    profile = values.pop("profile", load_profile("manual"))
    return SweepRequest(out=Path("reports"), **values), profile


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand-ins for Slurm's commands, in a folder: `queue` has the lines of squeue, `given` the
    scripts for sbatch.
    """
    return stand_ins(tmp_path / "slurm", monkeypatch)


def stand_ins(folder: Path, patch: pytest.MonkeyPatch) -> Path:
    """Write the stand-ins into a new folder, which comes first in PATH; return it."""
    # A job gets the number 7, then 8, ...; more than `most` of them, if there is such a file, are
    # refused. With `slow`, jobs that are cancelled stay listed. `output7` has the file to which
    # job 7 writes, if it isn't the one in its script. Where there is a file `silent`,
    # scontrol doesn't reach the controller.
    folder.mkdir()
    answers = {
        "squeue": "cat queue 2>/dev/null; true",
        "sbatch": "number=$((7 + $(ls given* 2>/dev/null | wc -l)))\n"
        '[ ! -e most ] || [ $number -le $(cat most) ] || { echo "too many jobs" >&2; exit 1; }\n'
        "cat > given$number; echo $number",
        "scancel": "[ -e slow ] || rm -f queue; echo $* >> cancelled",
        "scontrol": "number=${@: -1}\n"
        "[ ! -e silent ] || { echo 'slurm_load_jobs error: Unable to contact slurm controller "
        "(connect failure)' >&2; exit 1; }\n"
        '[ -e output$number ] && { echo "   StdOut=$(cat output$number)"; exit; }\n'
        "[ -e given$number ] || { echo 'slurm_load_jobs error: Invalid job id specified' >&2; "
        "exit 1; }\n"
        "sed -n 's/^#SBATCH --output=/   StdOut=/p' given$number",
    }
    for name, answer in answers.items():
        (folder / name).write_text(f"#!/bin/bash\ncd {folder}\n{answer}\n")
        (folder / name).chmod(0o755)
    patch.setenv("PATH", str(folder), prepend=os.pathsep)
    return folder


def on_slurm(lag: float = 0, **changes: Any) -> Requested:
    """Return what a call of run-all requests of Slurm, whose answers are `lag` s old, with
    changes to the profile.
    """
    options = {"lag": lag, **changes.pop("options", {})}
    return asked(profile=load_profile("slurm", [*changes.items(), ("options", options)]))


def opened(folder: Path, lag: float = 0, seeds: int = 1, **changes: Any) -> Any:
    """Open a sweep of one method on Slurm, with changes to the profile; what it says is in its
    list `said`.
    """
    request, profile = on_slurm(lag, **changes)
    said: list[str] = []
    request = replace(request, suite=load_suite("quickstart", seeds=seeds))
    sweep = JobSweep.open(request, profile, folder / "quickstart", said.append)
    vars(sweep)["said"] = said
    return sweep


def resolved(sweep: JobSweep) -> Path:
    file = sweep.folder / "resolved.json"
    file.write_text(resolve_devices(sweep.plan.suite.settings).model_dump_json())
    return file


def record_of(spec: RunSpec) -> RunRecord:
    made = made_records.sweep(("head",), 1)[0]
    own = {
        "spec": spec,
        "run_id": spec.run_id,
        "protocol_id": protocol_id(spec.settings, made.digests),
    }
    return made.model_copy(update=own)


def line(
    sweep: JobSweep, job: str, state: str = "RUNNING|None", kind: str = "units", comment: str = ""
) -> str:
    array, _, task = job.partition("_")
    shown, _, reason = state.partition("|")
    told = comment or f"{sweep.plan.id}:{kind}"
    return f"{job}|{array}|{task or 'N/A'}|{shown}|{reason}|{told}\n"
