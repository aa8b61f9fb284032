"""Commit of an attempt by its rename, on file systems that fail, lie, or have another's attempt
there already.
"""

import errno
import os
import threading
from pathlib import Path
from unittest.mock import Mock

import pytest

from helpers import made_records
from hpml_bench.records import folder as folders
from hpml_bench.records.files import POINTS, RECORD, SET_ASIDE
from hpml_bench.records.folder import RunFolder, SharedResults
from hpml_bench.records.jobs import Job
from hpml_bench.records.run import RunRecord
from hpml_bench.system.errors import UserError

rename = os.rename


def results(folder: Path, job: str = "7_0", restart: int = 0) -> SharedResults:
    own = Job(
        engine="slurm",
        job=job,
        restart=restart,
        unit=0,
        host="n1",
        pid=3,
        began="2026-01-01T00:00:00+00:00",
    )
    return SharedResults(folder, own)


def attempt(own: SharedResults, record: RunRecord, points: str = "{}\n") -> RunRecord:
    folder = own.begin(record.spec)
    folder.begin()
    (folder.path / POINTS).write_text(points)
    return folder.commit(record)


def answering(
    monkeypatch: pytest.MonkeyPatch, *answers: int | None, does: bool = False
) -> list[Path]:
    """Have renames of attempts fail with these errors first, None for none; with `does` they are
    done all the same.
    """
    todo, asked, slept = list(answers), [], []

    def replaced(source: Path, target: Path) -> None:
        asked.append(Path(source))
        number = todo.pop(0) if todo else None
        if number is None or does:
            rename(source, target)
        if number is not None:
            raise OSError(number, os.strerror(number), source)

    monkeypatch.setattr(folders.os, "rename", replaced)
    monkeypatch.setattr(folders.time, "sleep", slept.append)
    return asked


def committed(folder: Path, record: RunRecord) -> RunRecord | None:
    return RunFolder(folder / record.spec.run_id).record()


def aside(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / SET_ASIDE).glob("*"))


def test_the_runs_new_name_is_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The results folder is synced after the rename, so that the run's name survives a crash."""
    own = results(tmp_path)
    record = attempt(own, made_records.record())
    synced: list[bool] = []
    monkeypatch.setattr(
        folders,
        "sync_folder",
        lambda of: synced.append(of == tmp_path and not own.attempts(record.spec)),
    )
    own.publish(record.spec, record)
    assert synced[-1]


@pytest.mark.parametrize(
    ("answers", "does", "tries"),
    [
        ([errno.ESTALE] * 3, False, 4),  # then it is done
        ([errno.ENOENT], True, 1),
        ([errno.ESTALE], True, 2),  # it was done, and NFS answers a request that was sent twice
    ],
)
def test_a_rename_that_is_denied_at_first_counts(
    answers: list[int], does: bool, tries: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stale handle is tried again; where our record is there, the rename was done."""
    own = results(tmp_path)
    record = attempt(own, made_records.record())
    asked = answering(monkeypatch, *answers, does=does)
    assert own.publish(record.spec, record) == record
    assert len(asked) == tries
    assert committed(tmp_path, record) == record
    assert RunFolder(tmp_path / record.spec.run_id).damage() is None
    assert not list((tmp_path / "attempts").iterdir())
    assert aside(tmp_path) == []


@pytest.mark.parametrize(
    ("call", "number"),
    [
        ("rename", errno.ESTALE),
        ("rename", errno.ENOSPC),
        ("rename", errno.EDQUOT),
        ("rename", errno.EIO),
        ("fsync", errno.ENOSPC),  # late, as NFS gives it
    ],
)
def test_a_file_system_that_goes_on_failing_is_told(
    call: str, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One sentence that says where the finished run lies; nothing is lost, and no name is taken."""
    own = results(tmp_path)
    record = attempt(own, made_records.record())
    monkeypatch.setattr(folders.os, call, Mock(side_effect=OSError(number, os.strerror(number))))
    monkeypatch.setattr(folders.time, "sleep", lambda _: None)
    told = (
        rf"the run is done and can't be committed \({os.strerror(number)}\); it lies in .*attempts"
    )
    with pytest.raises(UserError, match=told):
        own.publish(record.spec, record)
    assert committed(tmp_path, record) is None
    assert own.begin(record.spec).record() == record


def test_a_rename_of_nothing_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ENOENT, and ours isn't there, though another's is: it must not pass for ours."""
    own = results(tmp_path)
    record = attempt(own, made_records.record())
    other = results(tmp_path, "8_0")
    there = attempt(other, made_records.record(started="2026-01-02T00:00:00+00:00"), "{ }\n")
    other.publish(there.spec, there)
    answering(monkeypatch, errno.ENOENT)
    with pytest.raises(UserError, match="No such file"):
        own.publish(record.spec, record)
    assert committed(tmp_path, record) == there


@pytest.mark.parametrize("number", [None, errno.EEXIST])
def test_the_first_complete_attempt_counts(
    number: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The later one, of whichever start, is set aside with its record renamed, and its job is
    told which counts.
    """
    zombie, newer = results(tmp_path, restart=0), results(tmp_path, restart=1)
    first = attempt(newer, made_records.record(), "1\n")
    second = attempt(zombie, made_records.record(started="2026-01-02T00:00:00+00:00"), "2\n")
    assert newer.publish(first.spec, first) == first
    if number is not None:
        answering(monkeypatch, number)
    assert zombie.publish(second.spec, second) == first
    assert committed(tmp_path, first) == first
    (name,) = aside(tmp_path)
    assert name == f"{first.spec.run_id}.7_0.0.1"
    assert (tmp_path / SET_ASIDE / name / POINTS).read_text() == "2\n"
    assert [path.name for path in (tmp_path / SET_ASIDE / name).glob(f"{RECORD}*")] == [
        f"{RECORD}.superseded"
    ]


def test_an_attempt_that_is_not_done_or_damaged_is_replaced(tmp_path: Path) -> None:
    """A failed run, and one whose points are cut, make room for one that is done."""
    own = results(tmp_path)
    failed = attempt(own, made_records.record(status="failed"))
    own.publish(failed.spec, failed)
    first = attempt(own, made_records.record(), "1\n")
    assert own.publish(first.spec, first) == first
    (tmp_path / first.spec.run_id / POINTS).write_text("")
    second = attempt(own, made_records.record(), "2\n")
    assert own.publish(second.spec, second) == second
    assert committed(tmp_path, second) == second
    assert (tmp_path / first.spec.run_id / POINTS).read_text() == "2\n"
    assert len(aside(tmp_path)) == 2


def test_of_many_that_publish_at_once_one_counts(tmp_path: Path) -> None:
    """All are told the same record, and the others are set aside, whole."""
    jobs = [results(tmp_path, f"{number}_0") for number in range(8)]
    records = [
        attempt(own, made_records.record(), f"{number}\n") for number, own in enumerate(jobs)
    ]
    barrier, told = threading.Barrier(8), []

    def publish(own: SharedResults, record: RunRecord) -> None:
        barrier.wait()
        told.append(own.publish(record.spec, record))

    threads = [
        threading.Thread(target=publish, args=both) for both in zip(jobs, records, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({record.files[POINTS] for record in told}) == 1
    assert committed(tmp_path, records[0]) == told[0]
    assert len(aside(tmp_path)) == 7
    assert not list((tmp_path / "attempts").iterdir())
