"""Checks of scores: numbers in their range, and none that stand for another, as per cent or signs of missing rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from hpml_bench.comparison.inputs import COUNT, SCORE, SYSTEM, WHERE
from hpml_bench.report.scores import AlignedScores, ScoreDefinition
from hpml_bench.statistics.over_rows import MOST_ROWS
from hpml_bench.system.errors import UserError
from hpml_bench.system.text import sanitize

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

SMALLEST, LARGEST = 1e-50, 1e50
"""Sizes of scores and costs whose fourth powers, of which degrees of freedom are made, are numbers."""
SENTINELS = (-1.0, -9.0, -99.0, -999.0, -9999.0, 999.0, 9999.0, 99999.0)
"""Numbers that tools write where there is none."""
FAR = 5.0
"""Factor by which a sentinel above 0 exceeds all other scores."""
PER_CENT = (20.0, 500.0)
"""Least and largest factor between means of two systems that may be a hundred, one being in per cent."""
VARYING, MANY = 10, 6
"""Rows, means and costs that vary over seeds from which two seeds that agree in all are no chance, and number of seeds
from which a half that repeats the others is none."""


def check(frame: pd.DataFrame, score: ScoreDefinition) -> None:
    """Check that a data set's scores and numbers of rows are numbers, in their range, and in one unit."""
    values, where = frame[SCORE].to_numpy(dtype=float), frame[WHERE].to_numpy()
    for at in np.flatnonzero(~(np.abs(values) < LARGEST))[:1]:
        advice = f"give a number below {LARGEST:g}, or leave the row out"
        raise UserError(f"{where[at]}: the score is {values[at]:g}; {advice}")
    if 0 < np.abs(values).max(initial=0.0) < SMALLEST:
        raise UserError(f"{where[0]}: all scores of {score.name} are below {SMALLEST:g}; give them in a smaller unit")
    low = -np.inf if score.low is None else score.low
    high = np.inf if score.high is None else score.high
    outside = (values < low) | (values > high)
    for at in np.flatnonzero(outside)[: 0 if score.linear else 1]:
        advice = "mend it, or give the range by --range LOW,HIGH"
        raise UserError(f"{where[at]}: the score {values[at]:g} is outside its range {low:g} to {high:g}; {advice}")
    counts = frame[COUNT].to_numpy(dtype=float)
    whole = (counts >= 1) & (counts <= MOST_ROWS) & (np.floor(counts) == counts)
    for at in np.flatnonzero(~np.isnan(counts) & ~whole)[:1]:
        advice = f"give a whole number from 1 to {MOST_ROWS:,}"
        raise UserError(f"{where[at]}: the number of rows is {counts[at]:,.12g}; {advice}")
    if score.low is None and score.high is None and not score.linear:
        _check_sentinels(values, where)
        _check_units(frame)


def _check_sentinels(values: NDArray[np.float64], where: NDArray[np.object_]) -> None:
    for one in SENTINELS:
        at, others = np.flatnonzero(values == one), values[values != one]
        if len(at) and len(others) and (others.min() >= 0 if one < 0 else 0 <= others.max() <= one / FAR):
            raise UserError(
                f"{where[at[0]]}: the score {one:g} is far from all others, as a sign of a missing one is ({len(at)} "
                "of them); leave such rows out, or, if it is a score, give the range by --range LOW,HIGH"
            )


def _check_units(frame: pd.DataFrame) -> None:
    """Check that no system is in per cent where another is in shares."""
    known = {str(name): of[SCORE].to_numpy(dtype=float) for name, of in frame.groupby(SYSTEM, sort=False)}
    means = {name: float(of.mean()) for name, of in known.items() if of.min() >= 0 and of.max() <= 100}
    shares = {name: mean for name, mean in means.items() if known[name].max() <= 1 and mean}
    others = {name: mean for name, mean in means.items() if known[name].max() > 1}
    if len(means) < len(known) or not shares or not others:
        return
    small, large = max(shares, key=shares.__getitem__), max(others, key=others.__getitem__)
    if PER_CENT[0] <= means[large] / means[small] <= PER_CENT[1]:
        raise UserError(
            f"{frame[WHERE][frame[SYSTEM] == large].iloc[0]}: '{large}' scores {means[large]:.3g} and '{small}' "
            f"{means[small]:.3g}, as per cent and shares do; give both in one unit, or, where they are, the range by "
            "--range LOW,HIGH"
        )


def check_copies(of: AlignedScores, scores: Mapping[str, Mapping[int, NDArray[np.float64]]]) -> None:
    """Check that no seed's scores, of rows or means, and costs are another's in all systems, unless by chance."""
    costs = [by for values in of.costs.values() for by in values.values()]
    first: dict[bytes, int] = {}
    copies: dict[int, int] = {}
    for run in range(len(of.seeds)):
        found = [*(by.get(run, np.empty(0)) for by in scores.values()), [by.get(run, np.nan) for by in costs]]
        if (original := first.setdefault(b"|".join(np.asarray(one).tobytes() for one in found), run)) != run:
            copies[run] = original
    varying = sum(int((np.ptp(list(by.values()), axis=0) > 0).sum()) for by in scores.values())
    varying += sum(len(set(by.values())) > 1 for by in costs)
    many = len(of.seeds) >= MANY and 2 * len(copies) >= len(of.seeds)
    if varying and copies and (varying >= VARYING or many):  # where none varies, runs are known to repeat each other
        run, original = next(iter(copies.items()))
        raise UserError(
            f"{of.title}: seeds {sanitize(of.seeds[original], 20)} and {sanitize(of.seeds[run], 20)} have the same "
            "scores and costs in all systems, as copies have; keep one of them"
        )
