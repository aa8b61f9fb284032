"""Evidence: a results folder read once for all checks."""

from __future__ import annotations

import errno
import math
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hpml_bench.plugins.probe import Step
from hpml_bench.plugins.task import Task
from hpml_bench.records.files import KEPT, SUITE, TRACKING
from hpml_bench.records.load import LoadedRuns, load_records
from hpml_bench.records.points import MOST_BYTES, read_points
from hpml_bench.records.predictions import Predictions, bytes_of, read_predictions
from hpml_bench.records.run import Check, Point, RunRecord
from hpml_bench.select.checks import Kind, RunFigures, self_checks
from hpml_bench.select.comparability import untrained
from hpml_bench.select.predictions import defines_score_alike, task_of
from hpml_bench.select.selection import Selection
from hpml_bench.suite.suite import Suite
from hpml_bench.system import checklist
from hpml_bench.system.errors import UserError
from hpml_bench.system.files import is_plain_file, mostly_holes, open_plain, read_model
from hpml_bench.system.text import digest

State = Literal["ok", "failed", "not checked"]
"""failed: two things in the folder contradict each other, or one is missing; not checked: the
folder can't show it.
"""
Finding = checklist.CheckResult[State]
VERIFIED = "verified.json"
VARIED = (
    10  # unlike steps from which two seeds don't have one order by chance: it is below 1 in 10!
)
MOST_LEVELS = 100  # of folders in a results folder: `os.walk` calls itself for each
LONGEST_FOLDER = 3_800  # bytes of its path: with a name of 255 it may have 4,096, by Linux
UNCOUNTED = frozenset({VERIFIED, ".lock", ".lock-holder.json"})
"""Files at the top of a results folder that are no part of the result."""


def failed(where: str, what: str, advice: str = "") -> Finding:
    """Return a finding at a place: a run, or a file."""
    return Finding("failed", f"{where}: {what}", advice)


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
        return not untrained(self.record)

    @property
    def parameters(self) -> float:
        return sum(
            self.record.metrics.get(name) or 0.0
            for name in ("trainable_parameters", "head_parameters")
        )

    @property
    def defined_alike(self) -> bool:
        """Whether its record defines the score as this version of the task does."""
        return defines_score_alike(self.record, self.task)

    def series(self, metric: str) -> list[Point]:
        return [point for point in self.points if point.metric == metric]

    @cached_property
    def steps(self) -> tuple[Step, ...]:
        """Its steps as far as points of all series tell; empty if a series lacks one."""
        series = [
            self.series(name)
            for name in ("step_seconds", "train_loss", "grad_norm", "learning_rate")
        ]
        if len({tuple(point.step for point in points) for points in series}) != 1:
            return ()
        values = [
            [math.nan if point.value is None else point.value for point in points]
            for points in series
        ]
        return tuple(
            Step(
                index=point.step,
                loss=loss,
                grad_norm=norm,
                lr=lr,
                seconds=seconds,
                rank_seconds=point.ranks or (),
                samples=self.record.spec.settings.global_batch,
                real_tokens=point.real_tokens or 0,
                padded_tokens=point.tokens or 0,
                virtual_tokens=0,
                again=point.again,
            )
            for point, seconds, loss, norm, lr in zip(series[0], *values, strict=True)
        )

    def self_checks(self) -> tuple[Check, ...]:
        """Make the self-checks again from the files; that of parameters, which only the run
        could count, is void.
        """
        record, stored, parameters = (
            self.record,
            self.predictions,
            {"trainable": round(self.parameters)},
        )
        if stored is None or record.consumed is None:
            return ()  # other checks say so
        given = (
            record.metrics,
            self.points,
            record.consumed,
            record.spec.settings,
            stored,
            len(stored),
        )
        return self_checks(RunFigures(*given, self.task, parameters))


class Trace(NamedTuple):
    """Digests of a run's steps and test rows, and the rows' losses, to be compared with other
    runs'.
    """

    tokens: str  # tokens of each step that all runs of the seed took, with padding and without
    # whether so many steps have other numbers of tokens that two orders of samples don't agree by
    # chance
    varied: bool
    losses: str  # training loss of each step
    norms: str  # gradient norm of each step; empty where one is zero or undefined
    predicted: str  # answers and losses of the test rows
    row_losses: NDArray[np.float32]  # [rows], in the order of the test rows
    still: bool  # whether all of several validation losses are equal: the training had no effect

    @classmethod
    def of(cls, run: RunFiles, steps: float) -> Trace:
        """Return those of a run, with the tokens of its first steps."""
        taken, stored = (
            (point for point in run.series("step_seconds") if point.step <= steps),
            run.predictions,
        )
        tokens = [[point.step, point.tokens, point.real_tokens] for point in taken]
        losses, norms = (
            [[point.step, point.value] for point in run.series(name)]
            for name in ("train_loss", "grad_norm")
        )
        content = b"" if stored is None else bytes_of(stored.prediction) + stored.loss.tobytes()
        row_losses = np.zeros(0, np.float32) if stored is None else stored.loss.astype(np.float32)
        varied = len({real for *_, real in tokens}) >= VARIED
        validated = [point.value for point in run.series("validation_loss")]
        still = len(validated) > 1 and len(set(validated)) == 1
        return cls(
            tokens=digest(tokens),
            varied=varied,
            losses=digest(losses),
            norms=digest(norms) if all(norm for _, norm in norms) else "",
            predicted=sha256(content).hexdigest(),
            row_losses=row_losses,
            still=still,
        )


@dataclass(frozen=True)
class Evidence:
    """A results folder, its records, and the runs that the report would select."""

    folder: Path
    loaded: LoadedRuns
    selection: Selection | None  # None where no record can be read
    suite: Suite | None  # the suite beside the runs; None where it is missing or no suite
    traces: dict[str, Trace] = field(
        default_factory=dict
    )  # by run_id, of the records that enter a report, once read

    @classmethod
    def read(cls, folder: Path) -> Evidence:
        """Read a suite's results folder; a UserError where there is no record at all."""
        loaded = load_records(folder)
        if not loaded.records and not loaded.problems:
            raise UserError(
                f"{folder}: no runs here (looked for */run.json); name a suite's results folder"
            )
        selection = Selection.among(folder, loaded) if loaded.records else None
        return cls(folder, loaded, selection, read_model(folder / SUITE, Suite))

    @property
    def records(self) -> tuple[RunRecord, ...]:
        return self.loaded.records

    @property
    def ok(self) -> tuple[RunRecord, ...]:
        """The records of runs that ended well."""
        return tuple(record for record in self.records if record.status == "ok")

    @property
    def compared(self) -> tuple[RunRecord, ...]:
        """The records that enter a report."""
        return self.selection.compared if self.selection else ()

    @cached_property
    def trained(self) -> tuple[RunRecord, ...]:
        """The records that enter a report, but those of runs that trained nothing."""
        return tuple(record for record in self.compared if not untrained(record))

    def runs(self) -> Iterator[RunFiles]:
        """Read the files of each run that ended well, once for all checks, where its task is
        installed here.
        """
        compared = {record.run_id for record in self.compared}
        # seed -> steps that all its runs in a report took: one may end early
        steps = dict(
            sorted(
                ((r.spec.seed, r.consumed.steps) for r in self.trained if r.consumed), reverse=True
            )
        )
        for record in self.ok:
            with suppress(UserError):  # its task isn't installed: `predictions` says so
                run = RunFiles.read(self.folder, record)
                if record.run_id in compared:
                    self.traces[record.run_id] = Trace.of(
                        run, steps.get(record.spec.seed, math.inf)
                    )
                yield run

    def excluded(self, kind: Kind) -> Iterator[Finding]:
        """Yield the runs that the report leaves out for a reason of this kind."""
        for group in self.selection.left_out.excluded if self.selection else ():
            if group.kind == kind:
                for record in group.records:
                    yield failed(record.run_id, group.reason)

    @cached_property
    def entries(self) -> tuple[Path, ...]:
        """All that lies in the folder but folders and `tracking`, sorted by path; links are not
        followed.
        """
        return self._walked[0]

    @property
    def unseen(self) -> tuple[OSError, ...]:
        """Why folders in it can't be listed, such as for lack of permission."""
        return self._walked[1]

    @cached_property
    def _walked(self) -> tuple[tuple[Path, ...], tuple[OSError, ...]]:
        found, unseen = set[Path](), list[OSError]()
        for place, folders, names in os.walk(self.folder, onerror=unseen.append):
            levels = len(Path(place).relative_to(self.folder).parts)
            if levels > MOST_LEVELS or len(os.fsencode(place)) > LONGEST_FOLDER:
                unseen.append(OSError(errno.ENAMETOOLONG, "it lies too deep", place))
                folders.clear()
                continue
            folders[:] = [name for name in folders if Path(place) / name not in self.tracking]
            found |= {Path(place, name) for name in names}
            found |= {Path(place, name) for name in folders if Path(place, name).is_symlink()}
        counted = found - {self.folder / name for name in UNCOUNTED}
        return tuple(sorted(counted, key=self.name)), tuple(unseen)

    @cached_property
    def tracking(self) -> tuple[Path, ...]:
        """The trackers' folders beside the runs, no part of the result; a link or file of such a
        name is none.
        """
        places = (self.folder / name for name in sorted(TRACKING))
        return tuple(place for place in places if place.is_dir() and not place.is_symlink())

    @property
    def files(self) -> tuple[Path, ...]:
        return tuple(filter(is_plain_file, self.entries))

    def hashed(self, path: Path) -> bool:
        """Whether a file is hashed: trained parts are of any size, others of a bounded one; none
        is that is mostly holes.
        """
        parts = path.relative_to(self.folder).parts
        bounded = KEPT in parts[1:2] or path.stat().st_size <= MOST_BYTES
        return bounded and not self.holes(path)

    def holes(self, path: Path) -> bool:
        """Whether a file is mostly holes; not where it can't be opened."""
        try:
            with open_plain(path) as file:
                return mostly_holes(file)
        except OSError:
            return False

    def name(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()


FolderCheck = Callable[[Evidence], Iterable[Finding]]
"""A check of the folder: yields what it finds wrong, or can't check; where nothing, its
docstring's sentence holds.
"""
RunCheck = Callable[[RunFiles], Iterable[str]]
"""A check of each run that ended well; the same, but yields clauses on what is wrong with the
run.
"""
