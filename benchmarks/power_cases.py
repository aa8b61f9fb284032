"""False pages where verdicts are made of few rows, few suites, missing rows, or seeds that show none of a fault.

Each case returns shares of false pages by condition, for reports/reference/power/power.json. Those of few rows and
suites are of the worst world of a kind, exact; the others are simulated with the package's own functions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
import pandas as pd
from calibration_cases import MARGIN, equal_costs, turns_page
from numpy.typing import NDArray
from scipy import stats

from hpml_bench import statistics
from hpml_bench.comparison.assemble import assemble
from hpml_bench.comparison.readers.table import of_frame
from hpml_bench.report.judge import judge
from hpml_bench.statistics.over_rows import OverRows
from hpml_bench.statistics.over_suites import p_of_ranks
from hpml_bench.statistics.verdicts import FIRST_LOOK, FOR_DIFFERENCES, FOR_EQUIVALENCES

Floats = NDArray[np.float64]
LEVELS = {
    "with a margin": 0.05 * FIRST_LOOK * FOR_DIFFERENCES,
    "without": 0.05 * FIRST_LOOK * (FOR_DIFFERENCES + FOR_EQUIVALENCES),
}
"""Levels of the difference of two systems at a first look."""


def worst(count: int, level: float, p: Callable[[Floats], float], losses: Floats, gains: Floats) -> float:
    """Return the largest share of false verdicts where all units gain but some that lose, with a mean of 0.

    How many of `count` units lose is binomial, so the share is a sum over it.
    """
    lost, largest = np.arange(count + 1), 0.0
    for loss in losses:
        for gain in gains:
            claimed = [p(np.repeat([-loss, gain], [k, count - k])) < level for k in lost]
            largest = max(largest, float(stats.binom.pmf(lost, count, gain / (gain + loss))[claimed].sum()))
    return largest


def _p_of_rows(differences: Floats) -> float:
    found = OverRows.of(differences)
    return found.p() if found else 1.0


def few_rows(_: int) -> dict[str, float]:
    """Return the worst share of two systems' pages of few rows, or groups, of real scores from 0 to 1."""
    losses, gains = np.linspace(0.1, 1, 19), np.geomspace(0.003, 1, 30)
    return {
        f"{rows} rows, {margin}": worst(rows, level, _p_of_rows, losses, gains)
        for rows in (4, 6, 10, 20, 30, 50, 100)
        for margin, level in LEVELS.items()
    }


def groups_of_rows(trials: int) -> dict[str, float]:
    """Return the largest share where 2 to 50 % of rows lose, in groups of ten rows."""
    random, found = np.random.default_rng(21), {}
    for count in (4, 8, 20):
        shares = []
        for gain in (0.02, 0.05, 0.1, 0.3, 1.0):
            rows = np.where(random.random((trials, count, 10)) < gain / (1 + gain), -1.0, gain)
            shares.append(np.mean([_p_of_rows(of) < LEVELS["with a margin"] for of in rows.mean(axis=2)]))
        found[f"{count} groups of 10 rows"] = float(max(shares))
    return found


def few_suites(_: int) -> dict[str, float]:
    """Return the worst share of pairs where one method is some places ahead, and in rare suites as many as all behind.

    For one pair at its level of Holm's first step, times the pairs: a bound for a page of so many methods.
    """
    found = {}
    for methods in (2, 3, 5, 10):
        places, pairs = np.arange(1.0, methods), methods * (methods - 1) // 2
        for suites in (3, 6, 9, 15, 28):
            level = 0.05 * FIRST_LOOK / pairs
            share = worst(suites, level, partial(p_of_ranks, most=methods - 1.0), places, places)
            found[f"{methods} methods, {suites} suites"] = pairs * share
    return found


def missing_rows(trials: int) -> dict[str, float]:
    """Return the share where one of two equal systems lacks rows in which it was wrong."""
    random, found = np.random.default_rng(22), {}
    for share in (0.05, 0.1, 0.2):
        false = 0
        for _ in range(trials // 4):
            right = (random.random((2, 500)) < 0.7).astype(float)
            lost = np.flatnonzero(right[0] == 0)[: int(share * 500)]
            frame = pd.concat(
                pd.DataFrame({"system": name, "row": range(500), "score": of})
                for name, of in zip("ab", right, strict=True)
            ).reset_index(drop=True)
            (scores,) = assemble([of_frame(frame[~frame.index.isin(lost)])], shared=True)
            false += judge(scores).score[0].verdict != "undecided"
        found[f"{100 * share:g} % of rows"] = false / (trials // 4)
    return found


def means_alone(trials: int) -> dict[str, float]:
    """Return the share where one system always says yes and one always no, and their errors are said independent."""
    random, found = np.random.default_rng(23), {}
    for rows in (50, 5000):
        yes = random.binomial(rows, 0.5, trials) / rows
        pages = (statistics.decide(statistics.compare_shares({"yes": x, "no": 1 - x}, rows)) for x in yes)
        found[f"{rows:,} rows, --independent"] = sum(c.differs for (c,) in pages) / trials
    return found


def collapse(trials: int) -> dict[str, float]:
    """Return the share where one of several methods with equal means loses 30 points in a fifth of its seeds."""
    random, found = np.random.default_rng(24), {}
    for methods, seeds in ((2, 3), (2, 5), (2, 10), (5, 3), (5, 5), (5, 10)):
        false = 0
        for _ in range(trials // 4):
            share = np.full((methods, seeds), 0.7)
            share[0] += 0.06 - 0.3 * (random.random(seeds) < 0.2)
            right = (random.random((methods, seeds, 500)) < share[:, :, None]).astype(float)
            named = {f"m{at}": dict(enumerate(of)) for at, of in enumerate(right)}
            family = {"score": statistics.compare_scores(named, MARGIN), "cost": equal_costs(random, methods, seeds)}
            decided = statistics.decide_family(family, 1, "score")
            false += any(c.differs for of in decided.values() for c in of)
        found[f"{methods} methods, {seeds} seeds"] = false / (trials // 4)
    return found


def periodic(trials: int) -> dict[str, float]:
    """Return the share where a sinusoid of 10 % with a period near four runs disturbs the time of two methods."""
    random = np.random.default_rng(25)
    return {
        f"{seeds} seeds": sum(turns_page((3.9, 4.1), random, 2, seeds).wrong for _ in range(trials)) / trials
        for seeds in (3, 5, 10)
    }


CASES: Mapping[str, Callable[[int], dict[str, float]]] = {
    "few rows": few_rows,
    "groups of rows": groups_of_rows,
    "few suites": few_suites,
    "missing rows in which one system was wrong": missing_rows,
    "means without rows, always yes and always no": means_alone,
    "a method that loses 30 points in a fifth of its seeds": collapse,
    "a periodic disturbance of two methods' time": periodic,
}
"""What is measured, by name."""
