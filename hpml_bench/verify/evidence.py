"""Evidence: the files of a results folder, read once for all checks, and the results of a check."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from hpml_bench.plugins.probe import Finished, Step
from hpml_bench.plugins.task import Task
from hpml_bench.records.files import SUITE, TRACKING, is_plain_file, read_json, read_model
from hpml_bench.records.load import LoadedRuns, load_records
from hpml_bench.records.points import read_points
from hpml_bench.records.predictions import Predictions, read_predictions
from hpml_bench.records.run import Point, RunRecord
from hpml_bench.report.comparability import untrained
from hpml_bench.report.faults import Kind
from hpml_bench.report.predictions import task_of
from hpml_bench.report.selection import Selection
from hpml_bench.suite.suite import Suite
from hpml_bench.system import checklist
from hpml_bench.system.errors import UserError

State = Literal["ok", "failed", "not checked"]
"""failed: two things in the folder contradict each other, or one is missing; not checked: the folder can't show it."""
Found = checklist.Found[State]
VERIFIED = "verified.json"
UNCOUNTED = frozenset({VERIFIED, ".lock", ".lock-holder.json"})
"""Files at the top of a results folder that are no part of the result."""


def failed(where: str, what: str, advice: str = "") -> Found:
    """Return a finding at a place: a run, or a file."""
    return Found("failed", f"{where}: {what}", advice)


@dataclass(frozen=True)
class RunFiles:
    """A run that ended well, with its points and predictions."""

    record: RunRecord
    points: tuple[Point, ...]
    predictions: Predictions | None
    task: Task

    @classmethod
    def read(cls, folder: Path, record: RunRecord) -> RunFiles:
        """Read the files of a run; a UserError where its task isn't installed here."""
        own = folder / record.run_id
        return cls(record, tuple(read_points(own)), read_predictions(own), task_of(record))

    @property
    def trained(self) -> bool:
        """Whether it took steps."""
        return not untrained(self.record)

    def series(self, metric: str) -> list[Point]:
        """Return the points of a metric, in order."""
        return [point for point in self.points if point.metric == metric]

    @property
    def defined_alike(self) -> bool:
        """Whether its record defines the score as this version of the task does."""
        name = self.task.headline
        own, ours = ([m.definition for m in metrics if m.name == name] for metrics in
                     (self.record.definitions, self.task.metrics))  # fmt: skip
        return own == ours

    @cached_property
    def steps(self) -> tuple[Step, ...]:
        """Its steps as far as points of all series tell; empty if a series lacks one."""
        series = [self.series(name) for name in ("step_seconds", "train_loss", "grad_norm", "learning_rate")]
        if len({tuple(point.step for point in points) for points in series}) != 1:
            return ()
        batch = self.record.spec.settings.global_batch
        return tuple(
            Step(
                index=seconds.step, loss=_number(loss), grad_norm=_number(norm), lr=_number(lr),
                seconds=_number(seconds), rank_seconds=seconds.ranks or (), samples=batch,
                real_tokens=seconds.real_tokens or 0, padded_tokens=seconds.tokens or 0, virtual_tokens=0,
            )
            for seconds, loss, norm, lr in zip(*series, strict=True)
        )  # fmt: skip

    @property
    def finished(self) -> Finished:
        """The run as probes see it afterwards."""
        rows = 0 if self.predictions is None else len(self.predictions)
        record = self.record
        return Finished(record.spec.settings, record.metrics, record.per_rank, self.steps, rows)


def _number(point: Point) -> float:
    return float("nan") if point.value is None else point.value


@dataclass(frozen=True)
class Evidence:
    """A results folder, its records, and the runs that the report would select."""

    folder: Path
    loaded: LoadedRuns
    selection: Selection | None
    """None where no record can be read."""
    suite: Suite | None
    """The suite beside the runs; None where it is missing or no suite."""

    @classmethod
    def read(cls, folder: Path) -> Evidence:
        """Read a suite's results folder; a UserError where there is no record at all."""
        loaded = load_records(folder)
        if not loaded.records and not loaded.problems:
            raise UserError(f"{folder}: no runs here (looked for */run.json); name a suite's results folder")
        selection = Selection.of(folder, loaded) if loaded.records else None
        path = folder / SUITE
        small = is_plain_file(path) and read_json(path) is not None
        return cls(folder, loaded, selection, read_model(path, Suite) if small else None)

    @property
    def records(self) -> tuple[RunRecord, ...]:
        """All records that can be read, oldest first."""
        return self.loaded.records

    @property
    def ok(self) -> tuple[RunRecord, ...]:
        """The records of runs that ended well."""
        return tuple(record for record in self.records if record.status == "ok")

    @property
    def compared(self) -> tuple[RunRecord, ...]:
        """The records that enter a report."""
        return self.selection.compared if self.selection else ()

    def excluded(self, kind: Kind) -> Iterator[Found]:
        """Yield the runs that the report leaves out for a reason of this kind."""
        for group in self.selection.left_out.excluded if self.selection else ():
            if group.kind == kind:
                for record in group.records:
                    yield failed(record.run_id, group.reason)

    @cached_property
    def entries(self) -> tuple[Path, ...]:
        """All that lies in the folder but folders and `tracking`, sorted by path; links are not followed."""
        found = []
        for place, folders, names in os.walk(self.folder):
            folders[:] = [name for name in folders if Path(place) / name not in self.tracking]
            links = [name for name in folders if (Path(place) / name).is_symlink()]
            found += [Path(place) / name for name in (*names, *links)]
        own = {self.folder / name for name in UNCOUNTED}
        return tuple(sorted((path for path in found if path not in own), key=self.name))

    @cached_property
    def tracking(self) -> tuple[Path, ...]:
        """The trackers' folders beside the runs, no part of the result; a link or file of such a name is none."""
        places = (self.folder / name for name in sorted(TRACKING))
        return tuple(place for place in places if place.is_dir() and not place.is_symlink())

    @property
    def files(self) -> tuple[Path, ...]:
        """The regular files among them."""
        return tuple(filter(is_plain_file, self.entries))

    def name(self, path: Path) -> str:
        """Return a file's path within the folder."""
        return path.relative_to(self.folder).as_posix()


Look = Callable[[Evidence], Iterable[Found]]
"""A check of the folder: yields what it finds wrong, or can't check. Its name is the function's, and its docstring the
sentence that holds where it yields nothing."""
RunLook = Callable[[RunFiles], Iterable[str]]
"""A check of each run that ended well; the same, but yields clauses on what is wrong with the run."""
