"""Records of a plan's runs as the process that waits for jobs sees them: each read once, and kept small."""

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
        """Keep them; nothing is read."""
        self._folder, self.plan = folder, plan
        self._specs = {spec.run_id: spec for spec in plan.runs}
        self._known: dict[str, tuple[int, RunRecord]] = {}
        """run_id -> inode of the run's folder, and the record read there without what is large."""

    def look(self) -> None:
        """List the folder once, and read the records that are new since the last look."""
        there: dict[str, int] = {}
        with os.scandir(self._folder) as entries:
            for entry in entries:
                if entry.name in self._specs:
                    there[entry.name] = entry.inode()
        self._known = {run: known for run, known in self._known.items() if there.get(run) == known[0]}
        for run in self._specs:
            if run in there and run not in self._known and (record := RunFolder(self._folder / run).record()):
                self._known[run] = there[run], _small(record, self._specs[run])

    @property
    def records(self) -> tuple[RunRecord, ...]:
        """The records of the last look, in the plan's order, without metrics and what else is large."""
        return tuple(self._known[run][1] for run in self._specs if run in self._known)

    def whole(self, record: RunRecord) -> RunRecord:
        """Return a record with all that it has on disk; as it is, where it has gone meanwhile."""
        return RunFolder(self._folder / record.run_id).record() or record


def _small(record: RunRecord, spec: RunSpec) -> RunRecord:
    """Return a record with what a wait needs of it; the plan's own `spec` takes no more memory."""
    return RunRecord(
        run_id=record.run_id,
        spec=spec,
        status=record.status,
        digests=record.digests,
        environment={"where": {"call": record.call}},
        started=record.started,
        seconds=record.seconds,
    )
