"""Results folder and the folders of its runs: of one process, or shared by jobs; repaired and
written to.
"""

import errno
import json
import os
import shutil
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import TypeVar

from filelock import Timeout

from hpml_bench.records import files, jobs
from hpml_bench.records.load import changed, digests_of, kept_digests, load_record, read_record
from hpml_bench.records.plan import RETRIED, Plan
from hpml_bench.records.points import MOST_BYTES
from hpml_bench.records.run import FINAL, RunRecord
from hpml_bench.suite.settings import RunSpec
from hpml_bench.system import disk, temporary
from hpml_bench.system.errors import UserError
from hpml_bench.system.files import (
    end_of,
    is_plain_file,
    open_plain,
    read_json,
    remove,
    sync_folder,
    write_atomically,
)
from hpml_bench.system.redaction import redact_files

Say = Callable[[str], None]
T = TypeVar("T")
STALE_TRIES = (
    8  # tries of an operation that fails with a stale file handle; the wait doubles each time
)
TAKEN = (
    errno.ENOTEMPTY,
    errno.EEXIST,
)  # a rename onto a folder that isn't empty: file systems say either


class RunFolder:
    """The folder of one run, which is done once its record is committed."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def begin(self) -> None:
        """Create the folder empty, so that two attempts are never mixed; only checkpoints stay,
        with their points.
        """
        if not self.saved or not is_plain_file(self.path / files.POINTS):
            remove(self.path)
        self.path.mkdir(parents=True, exist_ok=True)
        for path in self.path.iterdir():
            if path.name not in {files.CHECKPOINTS, files.POINTS}:
                remove(path)

    @property
    def saved(self) -> int:
        """Step of the newest checkpoint, 0 where there is none."""
        folder = self.path / files.CHECKPOINTS
        if self.path.is_symlink() or folder.is_symlink():
            return 0
        return max(
            (int(path.name) for path in folder.glob("*/") if path.name.isdecimal()), default=0
        )

    @property
    def not_saved(self) -> str:
        """Last line of rank 0's log that says why a state wasn't saved; empty where none does."""
        log = self.path / "rank0.log"
        lines = end_of(log).splitlines()
        return next((line for line in reversed(lines) if line.startswith(files.NOT_SAVED)), "")

    def commit(self, record: RunRecord) -> RunRecord:
        """Write run.json with the digests of the files that belong to it; return the record as
        written.
        """
        redact_files(*self.path.glob("rank*.log"))
        remove(self.path / files.COMMAND)
        if record.status not in RETRIED | {"interrupted"}:  # it would end so again, or is done
            remove(self.path / files.CHECKPOINTS)
        if record.status != "ok":
            remove(self.path / files.KEPT)  # a part of it, on a full disk
        changes = {
            "files": digests_of(self.path),
            "kept": record.kept or kept_digests(self.path),
            "saved": self.saved,
        }
        record = record.model_copy(update=changes)
        write_atomically(self.path / files.RECORD, record.model_dump_json(indent=1) + "\n")
        return record

    def record(self) -> RunRecord | None:
        return read_record(self.path)

    @property
    def keeps(self) -> bool:
        record = self.record()
        if record is None or record.spec.run_id != self.path.name or not record.kept:
            return False
        try:
            return record.kept == kept_digests(self.path)
        except OSError:  # what can't be read isn't kept
            return False

    def give(self, folder: Path) -> None:
        if not any(folder.iterdir()):
            shutil.copytree(self.path / files.KEPT, folder, ignore=_odd, dirs_exist_ok=True)

    def damage(self) -> str | None:
        """Return the first damage of its files, in words; None if there is none, or no record:
        it is unfinished.
        """
        if not os.path.lexists(self.path / files.RECORD):
            return None
        try:
            record = load_record(self.path / files.RECORD)
        except ValueError as error:
            return f"{files.RECORD} is {error}"
        return changed(self.path, record)

    def set_aside(self, results: Path | None = None, mark: str = "damaged") -> Path:
        """Move the folder into `SET_ASIDE` of its results, with its record renamed; return the
        new path.
        """
        parent = (results or self.path.parent) / files.SET_ASIDE
        if parent.is_symlink():  # none is followed
            parent.unlink()
        parent.mkdir(exist_ok=True)
        free = (parent / f"{self.path.name}.{number}" for number in count(1))
        target = self.path.rename(next(path for path in free if not os.path.lexists(path)))
        if not target.is_symlink() and os.path.lexists(target / files.RECORD):
            (target / files.RECORD).replace(target / f"{files.RECORD}.{mark}")
        return target


class ResultsFolder:
    """The results of a suite; only this process writes to them while `open` holds the lock."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    @contextmanager
    def open(
        cls, path: Path, lock: Path | None = None, seconds: float = 0
    ) -> Iterator["ResultsFolder"]:
        """Make the folder, lock it (or the folder `lock`), waiting for `seconds`, and clean up
        after killed processes.

        Disk errors become user errors. Raises UserError if it can't be made or written to, its disk
        is full or read-only, or another process holds the lock.
        """
        make_folder(path)
        with disk.errors_as_user_errors(path), locked(lock or path, seconds):
            for folder in (path, path / jobs.JOBS, path / jobs.RUNNING):
                temporary.remove_left(folder)
            for run in (*path.glob("*/"), *jobs.left_attempts(path)):
                # Logs of runs with a record were redacted before the commit.
                if not run.is_symlink() and not (run / files.RECORD).exists():
                    redact_files(*run.glob("rank*.log"))
            yield cls(path)

    def write_suite(self, content: str) -> None:
        write_atomically(self.path / files.SUITE, content)

    def run_folder(self, spec: RunSpec) -> RunFolder:
        return RunFolder(self.path / spec.run_id)

    def set_aside_unusable(self, plan: Plan, say: Say) -> None:
        """Set aside a plan's damaged runs, and intact ones on other rows or weights, so that
        they are done again.
        """
        for run in map(self.run_folder, plan.runs):
            if why := run.damage():
                _set_aside(run, say, f": {why}; it")
            elif (record := run.record()) and record.status in FINAL and not plan.settles(record):
                _set_aside(run, say, " was made on other rows or weights than the present ones; it")

    def set_aside(self, specs: Iterable[RunSpec], say: Say) -> None:
        """Set runs aside unconditionally, so that they are done again."""
        for run in map(self.run_folder, specs):
            if (run.path / files.RECORD).exists():
                _set_aside(run, say)

    def records(self, specs: Iterable[RunSpec]) -> tuple[RunRecord, ...]:
        """Return the records of these runs; runs without one are left out."""
        return tuple(record for spec in specs if (record := self.run_folder(spec).record()))

    def forget_measured(self) -> None:
        remove(self.path / files.MEASURED_SETTINGS)

    def clear(self, specs: Iterable[RunSpec] | None = None) -> None:
        """Remove these runs, or all runs and the jobs' files; other files of the folder stay."""
        for path in (
            self.path.glob("*/")
            if specs is None
            else [self.run_folder(spec).path for spec in specs]
        ):
            if (
                (path / files.RECORD).exists()
                or (path / files.POINTS).exists()
                or (path / "rank0.log").exists()
            ):
                remove(path)
        if specs is None:
            jobs.clear(self.path)


class SharedResults(ResultsFolder):
    """The results of a suite to which a job writes beside others; holds no lock."""

    def __init__(self, path: Path, job: jobs.Job) -> None:
        super().__init__(path)
        self.job = job

    def begin(self, spec: RunSpec) -> RunFolder:
        """Return the folder of this start's attempt at a run, with the newest state that another
        attempt has saved.
        """
        (self.path / jobs.ATTEMPTS).mkdir(exist_ok=True)
        own = self.attempt(spec)
        earlier = [
            self.run_folder(spec),
            *map(RunFolder, (self.path / jobs.ATTEMPTS).glob(f"{spec.run_id}.*/")),
        ]
        newest = max(earlier, key=lambda run: run.saved)
        if newest.saved > own.saved:  # its checkpoints, and the points that they need
            own.path.mkdir(exist_ok=True)
            with suppress(OSError):  # its process may live: then this attempt begins anew
                _copy_points(newest.path / files.POINTS, own.path / files.POINTS)
                remove(own.path / files.CHECKPOINTS)
                (newest.path / files.CHECKPOINTS).rename(own.path / files.CHECKPOINTS)
        return own

    def attempt(self, spec: RunSpec) -> RunFolder:
        return RunFolder(self.path / jobs.ATTEMPTS / f"{spec.run_id}.{self.job.name}")

    def attempts(self, spec: RunSpec) -> list[RunRecord]:
        """Return the records of attempts at a run that were not committed, by any job."""
        records = (
            RunFolder(path).record()
            for path in (self.path / jobs.ATTEMPTS).glob(f"{spec.run_id}.*/")
        )
        return [record for record in records if record is not None]

    def publish(self, spec: RunSpec, record: RunRecord) -> RunRecord:
        """Commit an attempt, whose record is written, as the run; return the record that counts.

        The first attempt that settles the run counts, whichever job began last; later ones are set
        aside. An attempt that doesn't settle it is replaced. Raises UserError if the file system
        fails; the attempt is left where it is.
        """
        attempt, own = self.attempt(spec).path, self.path / spec.run_id
        plan = Plan(((spec,),), record.digests)
        try:
            retry_stale_handle(lambda: _sync(attempt))
            while True:
                if retry_stale_handle(lambda: _renamed(attempt, own, record)):
                    retry_stale_handle(lambda: sync_folder(self.path))
                    for saved in (self.path / jobs.ATTEMPTS).glob(
                        f"{spec.run_id}.*/{files.CHECKPOINTS}"
                    ):
                        with suppress(
                            OSError
                        ):  # such as on a node that was given up, whose process may live
                            remove(saved)
                    return record
                existing = RunFolder(own)
                committed = existing.record()
                settled = committed is not None and plan.settles(committed)
                if committed is not None and settled and existing.damage() is None:
                    self._aside(attempt)
                    return committed
                self._aside(own)
        except OSError as error:
            raise UserError(
                f"{own}: the run is done and can't be committed ({error.strerror}); it lies in "
                f"{attempt}, and the same command goes on from here"
            ) from error

    def _aside(self, folder: Path) -> None:
        with suppress(FileNotFoundError):  # another process was first
            RunFolder(folder).set_aside(self.path, "superseded")


def _odd(folder: str, names: list[str]) -> list[str]:
    """Return the names in a folder that are links, or neither files nor folders."""
    odd = []
    for name in names:
        path = Path(folder, name)
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            odd.append(name)
    return odd


def _copy_points(source: Path, target: Path) -> None:
    with open_plain(source) as points:
        if os.fstat(points.fileno()).st_size > MOST_BYTES:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(source))
        with target.open("wb") as copy:
            shutil.copyfileobj(points, copy)


def _set_aside(run: RunFolder, say: Say, why: str = "") -> None:
    moved = run.set_aside()
    say(
        f"{run.path.name}{why} is kept as {files.SET_ASIDE}/{moved.name}, and the run is done again"
    )


def make_folder(folder: Path) -> None:
    """Make a results folder; raises UserError if it can't be made or written to."""
    disk.make_folder(folder, f"{folder}: the results folder", "give another --out")


@contextmanager
def locked(folder: Path, seconds: float = 0) -> Iterator[None]:
    """Hold a results folder's lock, which the kernel releases even at a kill; UserError if not
    had within `seconds`.
    """
    lock, holder = folder / ".lock", folder / ".lock-holder.json"
    if lock.is_symlink():
        raise UserError(f"{lock} is a link, and none is followed; remove it, or give another --out")
    if os.path.lexists(lock) and not is_plain_file(lock):
        raise UserError(f"{lock} is no regular file; remove it, or give another --out")
    with ExitStack() as held:
        try:
            held.enter_context(disk.lock_held(lock, "give an --out on another one", seconds))
        except Timeout:
            owner = read_json(holder) or {}
            raise UserError(
                f"{folder} is in use by process {owner.get('pid', '?')} on "
                f"{owner.get('host', 'another machine')}; wait for it, or give another --out"
            ) from None
        remove(holder)  # left by a killed process
        held.callback(holder.unlink, missing_ok=True)
        write_atomically(holder, json.dumps({"pid": os.getpid(), "host": socket.gethostname()}))
        yield


def retry_stale_handle(work: Callable[[], T]) -> T:
    """Call `work` and return its result; repeat it where a network file system reports a stale
    handle.
    """
    for number in range(STALE_TRIES - 1):
        try:
            return work()
        except OSError as error:
            if error.errno != errno.ESTALE:
                raise
            time.sleep(0.1 * 2**number)
    return work()


def _renamed(attempt: Path, own: Path, record: RunRecord) -> bool:
    """Rename an attempt to the run's folder; return False if that exists."""
    # A network file system may do a rename and report a missing file: then the rename counts if our
    # record is there.
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
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            with path.open("rb") as file:
                os.fsync(file.fileno())
    sync_folder(folder)
