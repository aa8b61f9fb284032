"""Power of the paired t test: what a number of seeds can find, and how many seeds a difference needs."""

from __future__ import annotations

import math

from hpml_bench.statistics.intervals import ALPHA, t_quantile

POWER = 0.8
"""Power at which a difference counts as detectable."""
MOST_SEEDS = 10_000


def paired_t_power(difference: float, sd: float, n: int, alpha: float = ALPHA) -> float:
    """Return the chance that a two-sided paired t test over n seeds finds a true difference, in either direction.

    1 - F(t) + F(-t) of the noncentral t distribution with n - 1 degrees of freedom and noncentrality
    √n · difference / sd, at the critical value t = t(1 - α/2, n - 1) (Cohen 1988, chapter 2).
    """
    from scipy.special import nctdtr

    critical, noncentrality = t_quantile(1 - alpha / 2, n - 1), math.sqrt(n) * abs(difference) / sd
    return float(1 - nctdtr(n - 1, noncentrality, critical) + nctdtr(n - 1, noncentrality, -critical))


def detectable_difference(sd: float, n: int, alpha: float = ALPHA, power: float = POWER) -> float:
    """Return the least true difference that a paired t test over n seeds finds with this power.

    Solves F(t(1 - α/2, n - 1); n - 1, δ√n / sd) = 1 - power for δ, F being the noncentral t distribution; the
    chance of a significant difference of the wrong sign is left out.
    """
    from scipy.special import nctdtrinc

    return float(nctdtrinc(n - 1, 1 - power, t_quantile(1 - alpha / 2, n - 1))) * sd / math.sqrt(n)


def seeds_needed(difference: float, sd: float, alpha: float = ALPHA, power: float = POWER) -> int | None:
    """Return the least number of seeds at which `difference` is detectable; None above 10,000."""
    if detectable_difference(sd, MOST_SEEDS, alpha, power) > abs(difference):
        return None
    low, high = 1, MOST_SEEDS  # the detectable difference falls with n: bisect
    while high - low > 1:
        middle = (low + high) // 2
        if detectable_difference(sd, middle, alpha, power) <= abs(difference):
            high = middle
        else:
            low = middle
    return high


def sd_upper_bound(sd: float, n: int, confidence: float = 0.8) -> float:
    """Return the one-sided upper confidence bound of a standard deviation estimated from n normal values.

    sd · √((n - 1) / χ²(1 - confidence, n - 1)): a pilot of few seeds underestimates the spread half the time, and a
    plan by this bound suffices in 80 % of pilots (Browne 1995).
    """
    from scipy.special import chdtri

    return sd * math.sqrt((n - 1) / float(chdtri(n - 1, confidence)))  # chdtri takes the upper tail's probability
