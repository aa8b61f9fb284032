"""Variance over seeds that earlier suites lend to a suite, in compact numbers: a page is made of
these alone.
"""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from hpml_bench.statistics import MOST_LENT, Lent
from hpml_bench.suite.base import Frozen, Line


class Lender(Frozen):
    """An earlier suite."""

    suite: Line
    digest: str = Field(pattern=r"^[0-9a-f]{12}$")
    """Of the scores that it lends the variance of."""


class LentPair(Frozen):
    """Two methods' variance in earlier suites."""

    methods: tuple[Line, Line]
    suites: tuple[Line, ...] = Field(min_length=1)
    """Those of the earlier suites that have both."""
    variance: float = Field(ge=0, allow_inf_nan=False)
    """Of the difference of their scores over seeds, without the part of the test rows, pooled."""
    freedom: float = Field(gt=0, le=MOST_LENT)
    """Degrees of freedom that it counts for."""


class Prior(Frozen):
    """What earlier suites lend."""

    score: Line
    """Name of the score that their methods and this suite's are compared by."""
    suites: tuple[Lender, ...] = Field(min_length=1)
    pairs: tuple[LentPair, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _lent_by_lenders(self) -> Self:
        for pair in self.pairs:
            if len(set(pair.suites)) < len(pair.suites) or not set(pair.suites) <= set(self.names):
                raise ValueError(
                    f"the pair {' and '.join(pair.methods)} names other suites than those that lend"
                )
            # each earlier suite lends at most one degree of freedom
            if pair.freedom > len(pair.suites):
                raise ValueError(
                    f"the pair {' and '.join(pair.methods)} has {pair.freedom:g} degrees of "
                    "freedom, and each suite lends at most one"
                )
        return self

    @property
    def by_pair(self) -> dict[tuple[str, str], Lent]:
        """What is lent to two methods, by their names in either order."""
        lent = {pair.methods: Lent(pair.variance, pair.freedom) for pair in self.pairs}
        return lent | {(b, a): of for (a, b), of in lent.items()}

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(lender.suite for lender in self.suites)

    def __str__(self) -> str:
        freedoms = [pair.freedom for pair in self.pairs]
        ends = " to ".join(dict.fromkeys(f"{end:g}" for end in (min(freedoms), max(freedoms))))
        return f"{', '.join(self.names)} ({ends} degree{'' if ends == '1' else 's'} of freedom)"
