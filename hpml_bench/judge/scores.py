"""Aligned scores: systems by runs and rows, with their costs, whoever measured them; what
verdicts are taken on.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import combinations
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from hpml_bench import statistics
from hpml_bench.judge.summary import Failure, Guess, Method, Setup
from hpml_bench.select.race import Race
from hpml_bench.suite.prior import Prior

T = TypeVar("T")


@dataclass(frozen=True)
class SuiteFacts:
    """Facts of a suite's runs beside scores and costs."""

    suite: str
    description: str
    model: str
    data: str
    setup: Setup
    methods: Mapping[str, Method]  # methods without their places and values
    under: Mapping[str, int]  # method -> runs that were still improving when their budget ended
    guess: Guess | None
    failures: tuple[Failure, ...]
    untried: tuple[str, ...]  # methods without a compared run


@dataclass(frozen=True)
class ScoreDefinition:
    """The score by which systems are compared."""

    name: str
    better: Literal["higher", "lower"] = "higher"
    low: float | None = None
    high: float | None = None  # least and largest value that it can have; None where unknown
    title: str = ""  # its name on a page; `name` where empty
    unit: str = ""
    percent: bool | None = None  # whether it is shown in per cent; None: where its range is 0 to 1
    margin: float | None = (
        None  # difference that counts as none, declared before the runs; None where none was
    )
    largest: float | None = (
        None  # largest difference of a row between two systems, if one was declared beforehand
    )
    largest_by: str = "declared in the suite"  # who declared it
    binary: bool | None = None  # whether rows are right or wrong; None: as the rows say
    row_weight: float | None = (
        None  # weight of the heaviest row, or group, over the mean; None: as groups' sizes say
    )
    effective: float | None = (
        None  # rows, or groups, of equal weight that vary as much; None: as groups' sizes say
    )
    linear: bool = (
        False  # whether scores of rows are linearised, and so may lie outside the score's range
    )


@dataclass(frozen=True)
class CostDefinition:
    """A cost, the same in all rows of a run; less is better."""

    column: str
    title: str
    unit: str = ""
    exact: bool | None = None  # whether it is a count without noise; None: as the runs say
    about: str = ""  # what it holds where the title doesn't say it, as a sentence
    # its short name on a page, for costs that a page has words for: `time`, `memory`, `size`
    key: str = ""
    margin: float | None = None  # share that counts as no difference; None where none was declared
    grid: float | None = None  # distance of the values that can be measured, where it is known
    # column of the cost whose values a page shows while this one's rank, as memory over set-up
    stands_for: str = ""


@dataclass(frozen=True)
class FailedRun:
    """A run without a score."""

    system: str
    seed: str
    status: str
    where: str
    dataset: str = ""  # data set of the run; empty where it is of all


@dataclass(frozen=True, kw_only=True)
class Circumstances:
    """Circumstances of runs that decide what verdicts may be taken on their scores and costs."""

    unranked: str = ""  # why costs with noise rank nothing, as a clause; empty where they may
    facts: SuiteFacts | None = (
        None  # what a suite's runs say beside; None for other systems, or of several inputs
    )
    trained_on: Literal["these", "other", ""] = (
        ""  # training rows of other seeds; empty: systems as they are
    )
    # number of times, from 1, that verdicts were taken on these runs as seeds were added; each may
    # err
    look: int = 1
    looks: int = (
        0  # looks that were declared before the first, where methods don't race; 0 where none were
    )
    changed: str = ""  # which declarations were made after the first look, as sentences
    race: Race | None = (
        None  # the declared looks of methods that race; None where all have the same seeds
    )
    prior: Prior | None = (
        None  # variance over seeds that earlier suites lend, as the suite's first run declares it
    )
    block: str = ""  # group of data sets that depend on each other, and count as one over data sets


@dataclass(frozen=True)
class AlignedScores(Circumstances):
    """Systems on one data set: runs by number, rows in the same order for all."""

    dataset: str  # name of the data set; empty where the input has none
    title: str  # its name on a page
    score: ScoreDefinition
    systems: tuple[str, ...]  # names as they are shown, in the input's order
    seeds: tuple[
        str, ...
    ]  # names of all runs, by number where they are numbers; a run is known by its place here
    means: Mapping[str, Mapping[int, float]]  # system -> run -> mean score
    rows: (
        Mapping[str, Mapping[int, NDArray[Any]]] | None
    )  # system -> run -> score of each row, [rows], if there are
    count: int | None  # rows that a score is the mean of; None where it isn't known
    groups: (
        NDArray[np.int64] | None
    )  # number of each row's group, [rows]; None where rows stand alone
    binary: bool  # whether rows are right or wrong
    costs: Mapping[
        CostDefinition, Mapping[str, Mapping[int, float]]
    ]  # cost -> system, if it has it -> run -> value
    failed: tuple[FailedRun, ...] = ()
    remarks: tuple[
        str, ...
    ] = ()  # sentences for the page: what a number of the inputs holds, what they lack
    sources: tuple[str, ...] = ()
    unshared: int = 0  # rows that some system lacks, with `shared`; left out
    lacking: Mapping[str, int] = field(
        default_factory=dict
    )  # system that lacks rows in some run -> how many
    filled: "tuple[AlignedScores, AlignedScores] | None" = None
    """All rows, with the least and with the largest score where one is missing; None where none
    is.
    """
    independent: bool = False  # whether the user says that the systems' errors are independent
    row_ids: tuple[
        str, ...
    ] = ()  # what tells each row from those of other data; empty where there are none

    @property
    def noun(self) -> Literal["method", "system"]:
        """Noun for what is compared: methods, which other seeds train anew, or systems as they
        are.
        """
        return "method" if self.trained_on else "system"

    @cached_property
    def shared_seeds(self) -> int:
        """Runs that pairs share: of systems the fewest of any pair, of methods the most."""
        # a system is judged as it is where seeds are too few; a method with few seeds only leaves
        # its own pairs open
        shared = [
            len(self.means[a].keys() & self.means[b].keys()) for a, b in combinations(self.means, 2)
        ]
        alone = max(map(len, self.means.values()), default=0)
        return (max if self.trained_on else min)(shared, default=alone)

    def part(self, systems: Iterable[str], seeds: int) -> "AlignedScores":
        """Return the runs of some methods that race, whose rows are all there, with a seed below
        a number.
        """
        runs, names = (
            {run for run, seed in enumerate(self.seeds) if int(seed) < seeds},
            tuple(systems),
        )

        def kept(values: Mapping[str, Mapping[int, T]]) -> dict[str, dict[int, T]]:
            own = {name: values[name] for name in names if name in values}
            return {
                name: {run: value for run, value in of.items() if run in runs}
                for name, of in own.items()
            }

        rows = None if self.rows is None else kept(self.rows)
        costs = {cost: kept(values) for cost, values in self.costs.items()}
        return replace(
            self, systems=names, means=kept(self.means), rows=rows, costs=costs, race=None
        )

    @property
    def declared_looks(self) -> int:
        """Looks that were declared before the first one, which have equal shares of the 5 %; 0
        where none were.
        """
        return len(self.race.until.rounds) if self.race else self.looks

    def complete(self, staying: Iterable[str], seeds: int) -> bool:
        """Return whether every run of some systems below a number of seeds has ended."""
        there = {(name, int(self.seeds[run])) for name, of in self.means.items() for run in of}
        ended = there | (self.race.lost if self.race else frozenset())
        return ended >= {(name, seed) for name in staying for seed in range(seeds)}

    @cached_property
    def units(self) -> Mapping[str, Mapping[int, NDArray[Any]]]:
        """Scores of rows, or of groups where rows have some: what another sample would replace."""
        if self.groups is None or self.rows is None:
            return self.rows or {}
        return {
            name: {seed: statistics.group_scores(of, self.groups) for seed, of in by_seed.items()}
            for name, by_seed in self.rows.items()
        }

    @cached_property
    def group_count(self) -> int | None:
        return None if self.groups is None else len(np.unique(self.groups))

    @property
    def ends(self) -> tuple[float | None, float | None]:
        return (0.0, 1.0) if self.binary else (self.score.low, self.score.high)

    @property
    def bounded(self) -> bool:
        """Whether the range of a score is known: declared, or that of right and wrong."""
        return None not in self.ends

    @cached_property
    def range(self) -> float:
        """Range of a row's score: as declared, else that of the scores seen."""
        low, high = self.ends
        if low is not None and high is not None:
            return high - low
        every = [of for by_seed in (self.rows or {}).values() for of in by_seed.values()]
        return float(np.ptp(np.stack(every))) if every else 0.0

    @cached_property
    def span(self) -> float:
        """Range of a value of `units`: that of a row times the weight of the heaviest unit over
        the mean.
        """
        return self.range * self._heaviest

    @property
    def difference_span(self) -> float:
        """Range by which a value of `units` may differ between systems: by the declared
        difference of a row, if any.
        """
        return self.span if self.score.largest is None else self.score.largest * self._heaviest

    @property
    def foreseen(self) -> bool:
        """Whether `difference_span` is known of rows that weren't seen."""
        return self.bounded or self.score.largest is not None

    @cached_property
    def effective(self) -> float | None:
        """Number of `units` of equal weight that vary as much; None where all weigh the same."""
        if self.score.row_weight is not None or self.groups is None:
            return self.score.effective
        return statistics.effective_number(np.unique(self.groups, return_counts=True)[1])

    @cached_property
    def _heaviest(self) -> float:
        if self.score.row_weight is not None:
            return self.score.row_weight
        if self.groups is None:
            return 1.0
        sizes = np.unique(self.groups, return_counts=True)[1]
        return float(sizes.max() / sizes.mean())


def entering(
    values: Mapping[str, Mapping[int, T]], race: Race | None = None
) -> dict[str, dict[int, T]]:
    """Return the runs that enter means: those that all share where some lack runs, under three
    and in races all.
    """
    shared = set.intersection(*map(set, values.values())) if values else set()
    if race or len(shared) < statistics.LEAST_SEEDS:
        return {name: dict(of) for name, of in values.items()}
    return {
        name: {run: value for run, value in of.items() if run in shared}
        for name, of in values.items()
    }
