"""What earlier suites tell of a pair's variance over seeds: the variance, and the degrees of
freedom it counts for.
"""

from collections.abc import Sequence

import numpy as np

from hpml_bench.statistics.evidence import Lent, OverSeedsAndRows

MOST_LENT = 4.0
"""Most degrees of freedom that earlier suites lend, which have one each
(benchmarks/simulation/priors.py).
"""


def lend(evidence: Sequence[OverSeedsAndRows]) -> Lent:
    """Return what a pair's evidence in one earlier suite or more lends: the pooled variance, no
    less than 0.
    """
    # (MS_seeds - MS_interaction) / m is σ²_s in expectation, which suites of other rows have in
    # common
    variances = [(one.squares[0] - one.squares[2]) / one.m for one in evidence]
    pooled = np.average(variances, weights=[one.n - 1 for one in evidence])
    return Lent(max(0.0, float(pooled)), freedom_lent(len(evidence)))


def freedom_lent(suites: int) -> float:
    """Return the degrees of freedom that so many suites lend."""
    return min(MOST_LENT, float(suites))
