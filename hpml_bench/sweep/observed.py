"""Records of a plan's runs for the process that waits for jobs: each read once, and kept small."""

from __future__ import annotations

import os
from pathlib import Path

from hpml_bench.records.folder import RunFolder
from hpml_bench.records.plan import Plan
from hpml_bench.records.run import RunRecord
from hpml_bench.suite.settings import RunSpec


class ObservedRuns:
    """The runs of a plan in a results folder to which jobs commit by renaming a folder."""

    def __init__(self, folder: Path, plan: Plan) -> None:
        """Keep the arguments; nothing is read."""
        self._folder, self.plan = folder, plan
        self._specs = {spec.run_id: spec for spec in plan.runs}
        self._known: dict[str, tuple[int, RunRecord]] = {}
        """run_id -> inode of the run's folder, and its record without large fields."""

    def look(self) -> None:
        """List the folder once, and read the records that are new since the last look."""
        inodes: dict[str, int] = {}
        with os.scandir(self._folder) as entries:
            for entry in entries:
                if entry.name in self._specs:
                    inodes[entry.name] = entry.inode()
        self._known = {run: known for run, known in self._known.items() if inodes.get(run) == known[0]}
        for run in self._specs:
            if run in inodes and run not in self._known and (record := RunFolder(self._folder / run).record()):
                self._known[run] = inodes[run], _small(record, self._specs[run])

    @property
    def records(self) -> tuple[RunRecord, ...]:
        """Records of the last look, in the plan's order, without metrics and other large fields."""
        return tuple(self._known[run][1] for run in self._specs if run in self._known)

    def whole(self, record: RunRecord) -> RunRecord:
        """Return a record with all fields, read from disk; unchanged if its file is gone."""
        return RunFolder(self._folder / record.run_id).record() or record


def _small(record: RunRecord, spec: RunSpec) -> RunRecord:
    """Return a record with the fields that waiting needs; the plan's own `spec` takes no more memory."""
    return RunRecord(
        run_id=record.run_id,
        spec=spec,
        status=record.status,
        digests=record.digests,
        environment={"where": {"call": record.call}},
        started=record.started,
        seconds=record.seconds,
    )
