"""Power of the paired t test: the differences that seeds can find, and the seeds that a difference needs."""

from __future__ import annotations

import math

from hpml_bench.statistics.evidence import POWER, OverSeeds, seeds_to_find
from hpml_bench.statistics.intervals import ALPHA, t_quantile


def paired_t_power(difference: float, sd: float, n: int, alpha: float = ALPHA) -> float:
    """Return the chance that a two-sided paired t test over n seeds finds a true difference, in either direction."""
    # 1 - F(t) + F(-t) of the noncentral t distribution with n - 1 degrees of freedom and noncentrality √n · difference
    # / sd, at the critical value t = t(1 - α/2, n - 1) (Cohen 1988, chapter 2). Where scipy gives NaN for F, at
    # noncentralities that leave less than 1e-12 below the value, F is taken as 0.
    from scipy.special import nctdtr

    critical, noncentrality = t_quantile(1 - alpha / 2, n - 1), math.sqrt(n) * abs(difference) / sd
    below, wrong = (float(nctdtr(n - 1, noncentrality, t)) for t in (critical, -critical))
    return 1 - (0.0 if math.isnan(below) else below) + (0.0 if math.isnan(wrong) else wrong)


def seeds_needed(difference: float, sd: float, alpha: float = ALPHA, power: float = POWER) -> int | None:
    """Return the least number of seeds, from 3, at which `difference` is detectable; None above 10,000."""
    return seeds_to_find([OverSeeds(2, 0.0, sd)], abs(difference), alpha, power)
