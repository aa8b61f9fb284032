"""Headline comparisons of methods: a score over seeds and rows, a cost by its factor over seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from hpml_bench.statistics.evidence import Evidence
from hpml_bench.statistics.pairs import Comparison, Values, compare_pairs
from hpml_bench.statistics.rows import crossed_evidence

Scores = Mapping[str, Mapping[int, NDArray[Any]]]
"""method -> seed -> scores of the test rows, [rows], in the same order for all; their mean is the metric."""


def compare_scores(scores: Scores, margin: float, unit: float = 1.0) -> tuple[Comparison, ...]:
    """Compare every pair of methods by the mean of their rows' scores, for other seeds and other rows.

    Args:
        scores: of every method and seed.
        margin: difference of means that counts as none.
        unit: least amount by which a row's score changes: 1 of right and wrong, 0 of real numbers.

    """
    means = {method: {seed: float(rows.mean()) for seed, rows in of.items()} for method, of in scores.items()}

    def evidence(a: str, b: str, seeds: Sequence[int]) -> tuple[Evidence, ...] | None:
        table = [scores[a][seed].astype(float) - scores[b][seed] for seed in seeds]
        return crossed_evidence(table, unit) if table[0].size > 1 else None  # one row tells nothing of others

    return compare_pairs(means, margin=margin, evidence=evidence)


def compare_costs(values: Values, margin: float, grid: float | None = None) -> tuple[Comparison, ...]:
    """Compare every pair of methods by the factor of their costs, for other seeds.

    Args:
        values: all above 0.
        margin: share of a cost that counts as none: 0.05 for factors between 1 / 1.05 and 1.05.
        grid: distance of the values that can be measured, where it is known.

    """
    return compare_pairs(values, ratio=True, margin=math.log1p(margin), grid=grid)
