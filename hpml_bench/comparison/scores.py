"""Scores of the systems on one data set, aligned by run and row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from hpml_bench import statistics
from hpml_bench.comparison.measured import (
    Cost,
    Failed,
    Score,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Scores:
    """What is known of the systems on one data set."""

    dataset: str
    """Name of the data set; empty where the input has none."""
    title: str
    """Its name on a page."""
    score: Score
    systems: tuple[str, ...]
    """Names as they are shown, in the input's order."""
    seeds: tuple[str, ...]
    """Names of all runs, by number where they are numbers; a run is known by its place here."""
    means: Mapping[str, Mapping[int, float]]
    """system -> run -> mean score."""
    rows: Mapping[str, Mapping[int, NDArray[np.float64]]] | None
    """system -> run -> score of each row, [rows] in the same order for all; None where the input has no rows."""
    count: int | None
    """Rows that a score is the mean of; None where it isn't known."""
    groups: NDArray[np.int64] | None
    """Number of each row's group, [rows]; None where rows stand alone."""
    binary: bool
    """Whether rows are right or wrong."""
    costs: Mapping[Cost, Mapping[str, Mapping[int, float]]]
    """cost -> system -> run -> value."""
    look: int = 1
    """As of `Measured`: the largest of the data set's inputs."""
    failed: tuple[Failed, ...] = ()
    remarks: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    block: str = ""
    """As of `Measured`."""
    unshared: int = 0
    """Rows that some system lacks, with `shared`; left out."""
    lacking: Mapping[str, int] = field(default_factory=dict)
    """system -> rows that it lacks in some run, of the systems that lack some."""
    filled: Scores | None = None
    """All rows, with the worst score where one is missing; None where none is."""
    independent: bool = False
    """Whether the user says that the systems' errors are independent."""

    @cached_property
    def shared_seeds(self) -> int:
        """Fewest runs that two systems share."""
        runs = [set(self.means[name]) for name in self.systems]
        return min(len(a & b) for at, a in enumerate(runs) for b in runs[at + 1 :])

    @cached_property
    def units(self) -> Mapping[str, Mapping[int, NDArray[np.float64]]]:
        """Scores of rows, or of groups where rows have some: what another sample would replace."""
        rows = self.rows or {}
        if self.groups is None:
            return rows
        return {
            name: {seed: statistics.group_scores(of, self.groups) for seed, of in by_seed.items()}
            for name, by_seed in rows.items()
        }

    @cached_property
    def group_count(self) -> int | None:
        """Number of groups; None where rows stand alone."""
        return None if self.groups is None else len(np.unique(self.groups))

    @property
    def bounded(self) -> bool:
        """Whether the range of a score is known: declared, or that of right and wrong."""
        return self.binary or (self.score.low is not None and self.score.high is not None)

    @cached_property
    def range(self) -> float:
        """Range of a row's score: as declared, else that of the scores seen."""
        if self.binary:
            return 1.0
        if self.score.low is not None and self.score.high is not None:
            return self.score.high - self.score.low
        every = [of for by_seed in (self.rows or {}).values() for of in by_seed.values()]
        return float(np.ptp(np.stack(every))) if every else 0.0

    @cached_property
    def span(self) -> float:
        """Range of a value of `units`: that of a row times the weight of the largest group over the mean."""
        return self.range * self._heaviest

    @property
    def difference_span(self) -> float:
        """Range by which a value of `units` may differ between systems: by the declared difference of a row, if any."""
        return self.span if self.score.largest is None else self.score.largest * self._heaviest

    @property
    def foreseen(self) -> bool:
        """Whether `difference_span` is known of rows that weren't seen."""
        return self.bounded or self.score.largest is not None

    @cached_property
    def _heaviest(self) -> float:
        if self.groups is None:
            return 1.0
        sizes = np.unique(self.groups, return_counts=True)[1]
        return float(sizes.max() / sizes.mean())
