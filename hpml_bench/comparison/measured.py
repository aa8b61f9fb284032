"""Measured: scores of systems as a reader found them, one line per row of a data set or per run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from hpml_bench.report.answer.terms import count_of
from hpml_bench.system.text import sanitize

if TYPE_CHECKING:
    import pandas as pd

SYSTEM, ROW, SCORE = "system", "row", "score"
"""Columns: what is compared, the row's id within its data set (text), the score."""
SEED, GROUP, DATASET = "seed", "group", "dataset"
"""Further columns: the run (text), rows that belong together (text), the data set (text)."""
COUNT = "rows"
"""Column of inputs without a line per row: number of rows that the score is the mean of; there is no `row` then."""
CONTENT = "content"
"""Column: digest of what a row holds, by which one row's id is known to mean one row."""
WHERE = "where"
"""Column: file and line that a line came from, for messages."""
NAMES = (SYSTEM, ROW, SCORE, SEED, GROUP, DATASET, COUNT, CONTENT, WHERE)
"""Columns with a meaning; a reader names those that are costs."""


def source_of(kind: str, path: Path, files: int) -> str:
    """Return kind and path of an input as one line, of a folder with the number of files that were read."""
    return f"{kind} {sanitize(path, 300)}" + (f" ({count_of(files, 'file')})" if path.is_dir() else "")


@dataclass(frozen=True)
class Score:
    """The score by which systems are compared."""

    name: str
    better: Literal["higher", "lower"] = "higher"
    low: float | None = None
    high: float | None = None
    """Least and largest value that it can have; None where unknown."""
    title: str = ""
    """Its name on a page; `name` where empty."""
    margin: float | None = None
    """Difference that counts as none, declared before the runs; None where none was."""
    largest: float | None = None
    """Largest difference of a row between two systems, declared beforehand; None where none was."""
    largest_by: str = "declared in the suite"
    """Who declared it."""


@dataclass(frozen=True)
class Cost:
    """A column of costs: the same in all lines of a run."""

    column: str
    title: str
    unit: str = ""
    exact: bool = False
    """Whether it is a count without noise, so that any difference is real."""
    about: str = ""
    """What it holds where the title doesn't say it, as a sentence."""


@dataclass(frozen=True)
class Failed:
    """A run without a score."""

    system: str
    seed: str
    status: str
    where: str
    dataset: str = ""
    """Data set of the run; empty where it is of all."""


@dataclass(frozen=True)
class Measured:
    """What a reader found in one input."""

    lines: pd.DataFrame
    """Columns of `NAMES` and the costs; `system`, `score` and `where` in each, and `row` or, without rows, `rows`."""
    score: Score
    costs: tuple[Cost, ...] = ()
    failed: tuple[Failed, ...] = ()
    remarks: tuple[str, ...] = ()
    """Sentences for the page: what a number of this input holds, what it lacks."""
    source: str = ""
    """Kind and path of the input, as of `source_of`."""
    look: int = 1
    """Number of times, from 1, that verdicts were taken on these runs as seeds were added; each may err."""
    block: str = ""
    """Group of data sets that depend on each other, and count as one over data sets; empty where there is none."""
