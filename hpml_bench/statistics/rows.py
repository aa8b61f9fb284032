"""Scores over seeds and rows: evidence, interval and comparison of methods for other seeds and other test rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hpml_bench.statistics.evidence import Evidence, OverSeeds, OverSeedsAndRows, widest
from hpml_bench.statistics.intervals import Interval
from hpml_bench.statistics.verdicts import Comparison, carried_by_few, compare_pairs

Scores = Mapping[str, Mapping[int, NDArray[Any]]]
"""method -> seed -> scores of the test rows, [rows], in the same order for all; their mean is the metric."""


def group_scores(scores: ArrayLike, groups: ArrayLike) -> NDArray[np.float64]:
    """Return a score per group, [G], whose mean over the groups is exactly the mean of the rows' scores.

    Rows of a group depend on each other, so the groups are the units that another sample would replace. The mean over
    rows is a ratio of two means over groups, of their scores' totals and of their sizes; linearised at them a group's
    score is s + G size_g / m (s_g - s), with m rows in G groups, mean s_g in group g and mean s over all rows. Its
    variance over groups is that of the ratio (Cochran 1977, Sampling Techniques, ch. 9A). Groups of one row each keep
    the rows' scores.

    Args:
        scores: [m rows].
        groups: [m rows], equal for rows of one group; scores are in the order of their values.

    """
    values = np.asarray(scores, dtype=float)
    _, places, sizes = np.unique(np.asarray(groups), return_inverse=True, return_counts=True)
    mean = values.mean()
    surplus = np.bincount(places, weights=values) - sizes * mean
    return np.asarray(mean + len(sizes) / values.size * surplus)


def crossed_evidence(values: ArrayLike, span: float = 1.0, step: float = 1.0) -> tuple[Evidence, ...]:
    """Return the evidence of a seeds x rows table for other seeds and rows, and that for other seeds alone.

    A claim needs both: Satterthwaite's approximation would now and then be surer of other rows than of these. Evidence
    without spread is left out: for real numbers the second where all seeds agree, without a range both where rows do.

    Args:
        values: [n seeds, m rows] with n, m >= 2: scores of a method, or differences of two methods' scores.
        span: range of a row's score, 1 for right and wrong; 0 where it has none.
        step: least amount by which a row's score changes, 1 for right and wrong; 0 for real numbers.

    """
    table = np.asarray(values, dtype=float)
    over_seeds = OverSeeds.of(table.mean(axis=1), grid=step / table.shape[1] or None)
    both: tuple[Evidence | None, ...] = (OverSeedsAndRows.of(table, span), over_seeds)
    return tuple(one for one in both if one is not None and one.error(one.n) > 0)


def crossed_interval(values: ArrayLike, span: float = 1.0, step: float = 1.0) -> Interval:
    """Return the mean of a seeds x rows table with a 95 % interval for other seeds *and* other test rows."""
    # The wider of the intervals of `crossed_evidence`, none where that is empty; the spread is that of the seeds'
    # means.
    table = np.asarray(values, dtype=float)
    low, high = widest(crossed_evidence(table, span, step))
    return Interval(len(table), float(table.mean()), float(table.mean(axis=1).std(ddof=1)), low, high)


def compare_scores(
    scores: Scores, margin: float | None, span: float = 1.0, step: float = 1.0, *, bounded: bool = True
) -> tuple[Comparison, ...]:
    """Compare every pair of methods by the mean of their rows' scores, for other seeds and other rows.

    `margin` is the difference of means that counts as none; `span` and `step` are those of `crossed_evidence`. Where
    `span` is not the range that scores can have (`bounded`), differences that few rows carry are marked.
    """

    def table(a: str, b: str, seeds: Sequence[int]) -> list[NDArray[Any]]:
        return [scores[a][seed].astype(float) - scores[b][seed] for seed in seeds]

    def evidence(a: str, b: str, seeds: Sequence[int]) -> tuple[Evidence, ...] | None:
        of = table(a, b, seeds)
        return crossed_evidence(of, span, step) if of[0].size > 1 else None  # one row shows nothing of others

    def marked(c: Comparison) -> bool:
        return c.skewed or carried_by_few(np.mean(table(c.a, c.b, [*scores[c.a].keys() & scores[c.b].keys()]), axis=0))

    means = {method: {seed: float(rows.mean()) for seed, rows in of.items()} for method, of in scores.items()}
    pairs = compare_pairs(means, margin=margin, evidence=evidence)
    return pairs if span and bounded else tuple(replace(c, skewed=marked(c)) for c in pairs)
