"""What jobs leave in a results folder beside its runs: no run of a list or a report, and in
nobody's way.
"""

import errno
import os
import socket
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import get_args, get_type_hints
from unittest.mock import Mock

import pytest

from helpers import made_records
from helpers.commands import called
from hpml_bench.judge.results import Results
from hpml_bench.records import jobs
from hpml_bench.records.folder import ResultsFolder, RunFolder, locked
from hpml_bench.records.jobs import (
    HowEnded,
    Job,
    claims,
    read_jobs,
    refuse_if_worked_on,
    write_job,
    write_once,
)
from hpml_bench.records.load import headlines, load_records
from hpml_bench.suite.suite import load_suite
from hpml_bench.sweep.execute import Ending
from hpml_bench.sweep.local import run_as_rank
from hpml_bench.sweep.request import SweepRequest
from hpml_bench.system import temporary
from hpml_bench.system.errors import UserError

BEGAN = "2026-01-02T03:04:05+00:00"
ELSEWHERE = "another-host"


def dead() -> int:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return process.pid


def job(unit: int, host: str, pid: int) -> Job:
    return Job(
        engine="slurm", job=f"12_{unit}", restart=0, unit=unit, host=host, pid=pid, began=BEGAN
    )


def claim(folder: Path, owner: Job) -> Path:
    place = folder / jobs.CLAIMS / str(owner.unit)
    place.mkdir(parents=True)
    (place / jobs.OWNER).write_text(owner.model_dump_json())
    return place


@pytest.mark.parametrize("how", get_args(get_type_hints(Ending)["how"]))
def test_however_its_work_ends_a_job_is_read_again(how: HowEnded, tmp_path: Path) -> None:
    """Also by --max-hours or --fail-fast: otherwise it would count as one that works until its
    engine's list shows.
    """
    ended = job(0, ELSEWHERE, 7).model_copy(update={"ended": BEGAN, "how": how})
    write_job(tmp_path, ended)
    assert read_jobs(tmp_path) == (ended,)


def worked_on(folder: Path) -> Path:
    """Write a results folder with three runs, and with all that jobs leave of another one."""
    made_records.write(folder, made_records.sweep(("lora", "full", "head"), 1))
    attempt = made_records.record("adapter", 0)
    made_records.write(
        folder / jobs.ATTEMPTS, [attempt.model_copy(update={"run_id": f"{attempt.run_id}-12_0-0"})]
    )
    write_job(folder, job(0, ELSEWHERE, 7))
    (folder / jobs.RUNNING).mkdir()
    (folder / jobs.RUNNING / "adapter.12_0.0.json").write_text("{}")
    (folder / jobs.LOGS).mkdir()
    (folder / jobs.LOGS / "12_0.log").write_text("text")
    (folder / jobs.RESOLVED).write_text("{}")
    return folder


def test_no_list_and_no_report_takes_them_for_runs(tmp_path: Path) -> None:
    """Records, problems, headlines, `list runs` and the report are of the committed runs alone."""
    folder = worked_on(tmp_path / "example")
    claim(folder, job(1, ELSEWHERE, 7))
    loaded = load_records(folder)
    assert [record.spec.method.name for record in loaded.records] == ["lora", "full", "head"]
    assert loaded.problems == ()
    assert len(list(headlines(folder))) == 3
    assert set(Results.load(folder).methods) == {"lora", "full", "head"}
    for place in (folder, tmp_path):
        assert len(called("list", "runs", place).output.splitlines()) == 3


@pytest.mark.parametrize(
    ("host", "alive", "refused"),
    [
        (ELSEWHERE, False, True),
        (socket.gethostname(), True, True),
        (socket.gethostname(), False, False),
    ],
)
def test_a_folder_in_which_jobs_work_is_refused(
    host: str, alive: bool, refused: bool, tmp_path: Path
) -> None:
    """Unless they were processes of this host and have ended; said are job, host, and how to end
    them.
    """
    owner = job(3, host, os.getpid() if alive else dead())
    place = claim(tmp_path, owner)
    if not refused:
        refuse_if_worked_on(tmp_path)
        return
    claim(tmp_path, job(4, host, owner.pid))
    with pytest.raises(UserError) as told:
        refuse_if_worked_on(tmp_path)
    for words in (
        "job 12_3 on " + host,
        "and 1 more",
        f"hpml-bench stop {tmp_path}",
        f"remove {place}",
    ):
        assert words in str(told.value)


@pytest.mark.parametrize("command", [["run-all"], ["run", "head"], ["run", "head", "--fresh"]])
def test_a_local_sweep_leaves_jobs_their_folder(command: list[str], tmp_path: Path) -> None:
    """Status 2 with one sentence, before anything is prepared or removed."""
    folder = worked_on(tmp_path / "quickstart")
    claim(folder, job(1, ELSEWHERE, 7))
    (folder / ".lock").touch()
    before = sorted(folder.rglob("*"))
    told = called(*command, "--out", tmp_path, "--device", "cpu", "--wandb", "off", status=2)
    assert f"job 12_1 on {ELSEWHERE} works in it" in told.output
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize("works", ["works in it", "is in use by process"])
def test_a_run_under_torchrun_leaves_others_their_folder(
    works: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one without it: that of jobs, and that of a run-all, whose runs it would empty."""
    begun = RunFolder(tmp_path / "quickstart" / "head-s0-x")
    begun.begin()
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    suite = load_suite("quickstart", settings={"world_size": 1, "device": "cpu"})
    if works == "works in it":
        claim(tmp_path / "quickstart", job(1, ELSEWHERE, 7))
    holds = locked(tmp_path / "quickstart") if works != "works in it" else nullcontext()
    with holds, pytest.raises(UserError, match=works):
        run_as_rank(SweepRequest(suite, tmp_path, ("head",), (0,), fresh=True))
    assert begun.path.exists()


def test_fresh_removes_what_jobs_left(tmp_path: Path) -> None:
    """Attempts, jobs, runs under way, resolved settings and the claims of the dead; not logs,
    and no living claim.
    """
    folder = worked_on(tmp_path)
    claim(folder, job(1, socket.gethostname(), dead()))
    kept = claim(folder, job(2, ELSEWHERE, 7))
    results = ResultsFolder(folder)
    results.clear([record.spec for record in load_records(folder).records[:1]])
    assert (folder / jobs.ATTEMPTS).exists(), "of some runs alone nothing else goes"
    results.clear()
    assert sorted(path.name for path in folder.iterdir()) == [jobs.CLAIMS, jobs.LOGS]
    assert [owner.unit for owner in claims(folder)] == [2]
    assert kept.exists()


def test_temporary_files_beside_jobs_are_removed(tmp_path: Path) -> None:
    """What a killed job left of the file in which it says what it does goes when the folder is
    opened.
    """
    folder = worked_on(tmp_path)
    left = temporary.beside(folder / jobs.JOBS / "0.json")
    left = left.with_name(left.name.replace(f".{os.getpid()}.", f".{dead()}."))
    left.touch()
    with ResultsFolder.open(folder):
        assert not left.exists()
    assert len(read_jobs(folder)) == 1


def test_what_is_written_once_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second who writes the file is told that it was there, and its content is the first's."""
    assert write_once(tmp_path / "file", "first")
    assert not write_once(tmp_path / "file", "second")
    for code in (errno.EPERM, errno.ENOTSUP):
        monkeypatch.setattr(os, "link", Mock(side_effect=OSError(code, os.strerror(code))))
        assert write_once(tmp_path / f"file{code}", "first"), "without links, as on exFAT"
        assert not write_once(tmp_path / f"file{code}", "second")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["first"] * 3
