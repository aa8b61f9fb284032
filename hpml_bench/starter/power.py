"""What a page can show by its test rows, before anything ran: the least difference that it finds,
and the rows that a difference needs.
"""

import math
from bisect import bisect_left
from functools import cache
from itertools import combinations

import scipy

from hpml_bench import statistics

DIFFER = 0.1
"""Share of the test rows that one of two methods alone gets right; more where their scores differ
by more.
"""
LARGE = 0.05
"""Difference from which on more test rows are advised. Methods mostly differ by less: those of
LoRA's table 2 by up to 3 points in the mean of GLUE (Hu et al. 2021, arXiv:2106.09685).
"""
RANKED = ("score", "time", "memory")  # what a page claims differences in
STEP = 0.001  # differences are tried in steps of a tenth of a point
MOST_ROWS = 20_000  # most rows that are advised
TAIL = 1e-4  # chance of more extreme losses, which are left out
MARGIN = 0.01  # of a score, as a suite has it that says nothing else


@cache
def first_level(methods: int) -> float:
    """Return the level of the first step at which a page tests the scores of two of its methods,
    at a first look that was not declared.
    """
    unknown = statistics.Interval(statistics.LEAST_SEEDS, 0.0, None, None, None)
    pairs = [
        statistics.Comparison(str(a), str(b), unknown, p=1.0, p_equivalent=1.0, margin=MARGIN)
        for a, b in combinations(range(methods), 2)
    ]
    family = dict.fromkeys(RANKED, pairs)
    return statistics.levels(family, score="score")["score"][0]


def chance(rows: int, difference: float, level: float) -> float:
    """Return the chance that a two-sided test over rows finds a difference of two shares of right
    answers, in (0, 1], on seeds that agree.
    """
    differ = max(DIFFER, difference)
    lost, won = (differ - difference) / 2, (differ + difference) / 2
    # losses are binomial, and so are the wins among the other rows; p falls with the wins
    of_losses = scipy.stats.binom(rows, lost)
    found = 0.0
    for losses in range(int(of_losses.ppf(TAIL)), int(of_losses.isf(TAIL)) + 1):
        of_wins = scipy.stats.binom(rows - losses, won / (1 - lost))
        least_wins = _least_wins(rows, losses, level)
        found += float(of_losses.pmf(losses) * of_wins.sf(least_wins - 1))
    return found


def _least_wins(rows: int, losses: int, level: float) -> int:
    """Return the number of wins from which on so many losses leave a difference; one more than
    there are rows where none is enough.
    """
    return bisect_left(
        range(rows - losses + 1), True, key=lambda wins: _p(rows, wins, losses) < level
    )


def _p(rows: int, wins: int, losses: int) -> float:
    """Return the p of no difference where the one method alone is right in `wins` rows, and the
    other in `losses`; 1 where that isn't the better one.
    """
    if wins <= losses:
        return 1.0
    mean = (wins - losses) / rows
    variance = ((wins + losses) / rows - mean**2) * rows / (rows - 1)
    return statistics.OverRows(rows, mean, math.sqrt(variance), opposed=(losses,)).p()


@cache
def least_difference(rows: int, methods: int) -> float | None:
    """Return the least difference of two shares of right answers, in (0, 1], that a page of so
    many methods finds in four cases of five on seeds that agree; None where it finds none.
    """
    if rows < statistics.LEAST_ROWS:
        return None
    level = first_level(methods)
    steps = range(1, round(1 / STEP) + 1)
    first = bisect_left(
        steps, True, key=lambda step: chance(rows, step * STEP, level) >= statistics.POWER
    )
    return steps[first] * STEP if first < len(steps) else None


@cache
def rows_needed(difference: float, methods: int) -> int:
    """Return the number of test rows, to the next ten, that find a difference of two shares of
    right answers, in (0, 1], in four cases of five.
    """
    level = first_level(methods)
    tens = range(1, MOST_ROWS // 10 + 1)
    first = bisect_left(
        tens, True, key=lambda ten: chance(10 * ten, difference, level) >= statistics.POWER
    )
    return 10 * tens[min(first, len(tens) - 1)]
