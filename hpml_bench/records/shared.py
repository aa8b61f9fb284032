"""Results folder shared by several jobs: attempts in folders of their own, committed by a rename."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import TypeVar

from hpml_bench.records.files import RECORD, SET_ASIDE, sync_folder
from hpml_bench.records.folder import ResultsFolder, RunFolder
from hpml_bench.records.jobs import ATTEMPTS, Job
from hpml_bench.records.plan import Plan, RunState
from hpml_bench.records.run import RunRecord
from hpml_bench.suite.settings import RunSpec
from hpml_bench.system import disk
from hpml_bench.system.errors import UserError

T = TypeVar("T")
STALE_TRIES = 8
"""Tries of an operation that fails with a stale file handle; the wait doubles each time."""
TAKEN = (errno.ENOTEMPTY, errno.EEXIST)


class SharedResults(ResultsFolder):
    """The results of a suite to which a job writes beside others; holds no lock."""

    def __init__(self, path: Path, job: Job) -> None:
        """Keep the path, and the job whose attempts these are."""
        super().__init__(path)
        self.job = job

    def begin(self, spec: RunSpec) -> RunFolder:
        """Return the folder of this start's attempt at a run; raises UserError if the disk is nearly full."""
        disk.check_space(self.path)
        (self.path / ATTEMPTS).mkdir(exist_ok=True)
        return self.attempt(spec)

    def attempt(self, spec: RunSpec) -> RunFolder:
        """Return the folder of this job's attempt at a run, which was begun."""
        return RunFolder(self.path / ATTEMPTS / f"{spec.run_id}.{self.job.name}")

    def attempts(self, spec: RunSpec) -> list[RunRecord]:
        """Return the records of attempts at a run that were not committed, by any job."""
        records = (RunFolder(path).record() for path in (self.path / ATTEMPTS).glob(f"{spec.run_id}.*/"))
        return [record for record in records if record is not None]

    def publish(self, spec: RunSpec, record: RunRecord) -> RunRecord:
        """Commit an attempt, whose record is written, as the run; return the record that counts.

        The first attempt that settles the run counts, whichever job began last; later ones are set aside. An attempt
        that doesn't settle it is replaced. Raises UserError if the file system fails; the attempt is left where it is.
        """
        attempt, own = self.attempt(spec).path, self.path / spec.run_id
        plan = Plan(((spec,),), record.digests)
        try:
            patient(lambda: _sync(attempt))
            while True:
                if patient(lambda: _renamed(attempt, own, record)):
                    patient(lambda: sync_folder(self.path))
                    return record
                existing = RunFolder(own)
                committed = existing.record()
                settled = committed is not None and plan.settles(RunState.of(committed))
                if committed is not None and settled and existing.damage() is None:
                    self._aside(attempt)
                    return committed
                self._aside(own)
        except OSError as error:
            raise UserError(
                f"{own}: the run is done and can't be committed ({error.strerror}); it lies in {attempt}, and the same "
                "command goes on from here"
            ) from error

    def _aside(self, folder: Path) -> None:
        """Move a folder into `SET_ASIDE` with its record renamed; another process may do so first."""
        parent = self.path / SET_ASIDE
        parent.mkdir(exist_ok=True)
        number = next(number for number in count(1) if not os.path.lexists(parent / f"{folder.name}.{number}"))
        target = parent / f"{folder.name}.{number}"
        try:
            folder.rename(target)
            (target / RECORD).replace(target / f"{RECORD}.superseded")
        except FileNotFoundError:
            return


def patient(work: Callable[[], T]) -> T:
    """Call `work` and return its result; repeat it where a network file system reports a stale handle."""
    for number in range(STALE_TRIES - 1):
        try:
            return work()
        except OSError as error:
            if error.errno != errno.ESTALE:
                raise
            time.sleep(0.1 * 2**number)
    return work()


def _renamed(attempt: Path, own: Path, record: RunRecord) -> bool:
    """Rename an attempt to the run's folder; return False if that exists.

    A network file system may do a rename and report a missing file: then the rename counts if our record is there.
    """
    try:
        os.rename(attempt, own)  # noqa: PTH104 - pathlib's would look the same; this one is replaced in tests
    except FileNotFoundError:
        if RunFolder(own).record() != record:
            raise
    except OSError as error:
        if error.errno not in TAKEN:
            raise
        return False
    return True


def _sync(folder: Path) -> None:
    """Fsync an attempt, so that its files survive a crash."""
    for path in folder.iterdir():
        if path.is_file() and not path.is_symlink():
            with path.open("rb") as file:
                os.fsync(file.fileno())
    sync_folder(folder)
