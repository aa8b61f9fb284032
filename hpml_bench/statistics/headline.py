"""Headline comparisons of methods: a score over seeds and rows, a cost by its factor over seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpml_bench.statistics.evidence import Evidence
from hpml_bench.statistics.rows import crossed_evidence
from hpml_bench.statistics.verdicts import Comparison, Values, compare_pairs, skewness

Scores = Mapping[str, Mapping[int, NDArray[Any]]]
"""method -> seed -> scores of the test rows, [rows], in the same order for all; their mean is the metric."""


def compare_scores(
    scores: Scores, margin: float | None, span: float = 1.0, step: float = 1.0, *, bounded: bool = True
) -> tuple[Comparison, ...]:
    """Compare every pair of methods by the mean of their rows' scores, for other seeds and other rows.

    `margin` is the difference of means that counts as none; `span` and `step` are those of `crossed_evidence`. Where
    `span` is not the range that scores can have (`bounded`), differences that few rows carry are marked.
    """
    means = {method: {seed: float(rows.mean()) for seed, rows in of.items()} for method, of in scores.items()}

    def evidence(a: str, b: str, seeds: Sequence[int]) -> tuple[Evidence, ...] | None:
        table = [scores[a][seed].astype(float) - scores[b][seed] for seed in seeds]
        return crossed_evidence(table, span, step) if table[0].size > 1 else None  # one row shows nothing of others

    pairs = compare_pairs(means, margin=margin, evidence=evidence)
    return (
        pairs if span and bounded else tuple(replace(c, skewed=c.skewed or _carried_by_few(c, scores)) for c in pairs)
    )


ROW_SKEW = 3.0
"""Skewness over rows above which few rows seem to carry a difference; benchmarks/calibration.py counts the marks."""


def _carried_by_few(c: Comparison, scores: Scores) -> bool:
    """Return whether the mean difference over seeds is skewed over rows, so that few of them carry it."""
    shared = scores[c.a].keys() & scores[c.b].keys()
    rows = np.mean([scores[c.a][seed].astype(float) - scores[c.b][seed] for seed in shared], axis=0)
    return skewness(rows) > ROW_SKEW


def compare_costs(values: Values, margin: float, grid: float | None = None) -> tuple[Comparison, ...]:
    """Compare every pair of methods by the factor of their costs, all above 0, for other seeds.

    `margin` is the share of a cost that counts as none: 0.05 for factors between 1 / 1.05 and 1.05.
    """
    return compare_pairs(values, ratio=True, margin=math.log1p(margin), grid=grid)
