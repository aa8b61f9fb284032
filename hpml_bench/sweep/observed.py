"""Recorded runs of a plan for the process that waits for jobs: each record is read once, and little of it kept."""

from __future__ import annotations

import os
from pathlib import Path

from hpml_bench.records.files import RECORD
from hpml_bench.records.folder import RunFolder
from hpml_bench.records.plan import Plan, RunState
from hpml_bench.records.run import DONE, RunRecord

Mark = tuple[int, ...]


class ObservedRuns:
    """The runs of a plan in a results folder to which jobs commit by renaming a folder."""

    def __init__(self, folder: Path, plan: Plan) -> None:
        self._folder, self.plan = folder, plan
        self._specs = {spec.run_id: spec for spec in plan.runs}
        self._known: dict[str, tuple[Mark, RunState]] = {}
        """run_id -> mark of the record that was read, and its state."""

    def look(self) -> None:
        """List the folder once, and read new records; a folder that can't be read leaves all as it was."""
        try:
            with os.scandir(self._folder) as entries:
                there = {entry.name: entry.inode() for entry in entries if entry.name in self._specs}
        except OSError:
            return
        known = {run: old for run, old in self._known.items() if run in there and self._holds(run, there[run], *old)}
        for run in there.keys() - known.keys():
            mark = _mark(self._folder / run, there[run])
            if record := RunFolder(self._folder / run).record():
                known[run] = mark, RunState.of(record, self._specs[run])
        self._known = known

    def _holds(self, run: str, inode: int, mark: Mark, state: RunState) -> bool:
        """Tell whether a run's record is the one that was read: that of a run that ended well goes with its folder."""
        return inode == mark[0] if state.status in DONE else mark == _mark(self._folder / run, inode)

    @property
    def states(self) -> tuple[RunState, ...]:
        """The states of the recorded runs at the last look, in the plan's order."""
        return tuple(self._known[run][1] for run in self._specs if run in self._known)

    def record(self, state: RunState) -> RunRecord | None:
        """Return the record of a run; None where it has gone since the last look."""
        return RunFolder(self._folder / state.run_id).record()


def _mark(run: Path, inode: int) -> Mark:
    """Return the inode of a run's folder, and inode, time and size of its record, where there is one."""
    try:
        stat = (run / RECORD).stat()
    except OSError:
        return (inode,)
    return inode, stat.st_ino, stat.st_mtime_ns, stat.st_size
