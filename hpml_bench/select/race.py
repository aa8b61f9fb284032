"""The looks of methods that race, as the first run of a suite declared them."""

from dataclasses import dataclass

from hpml_bench.suite.suite import Until


@dataclass(frozen=True)
class Race:
    """Looks that were declared before a suite's first run, after each of which methods that are
    behind leave.
    """

    until: Until  # the question, and the numbers of seeds at the looks
    lost: frozenset[tuple[str, int]] = (
        frozenset()
    )  # method and seed of runs that have ended without a score
    later: int = 0  # number of looks at further seeds that were not declared then
