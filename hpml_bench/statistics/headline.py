"""Headline comparisons of methods: a score over seeds and rows, a cost by its factor over seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from hpml_bench.statistics.evidence import Evidence
from hpml_bench.statistics.pairs import Comparison, Values, compare_pairs
from hpml_bench.statistics.rows import crossed_evidence

Right = Mapping[str, Mapping[int, NDArray[np.bool_]]]
"""method -> seed -> which test rows were right, [rows], in the same order for all."""


def compare_scores(right: Right, margin: float) -> tuple[Comparison, ...]:
    """Compare every pair of methods by the share of rows they get right, for other seeds and other rows.

    Args:
        right: of every method and seed.
        margin: difference of shares that counts as none.

    """
    shares = {method: {seed: float(rows.mean()) for seed, rows in of.items()} for method, of in right.items()}

    def evidence(a: str, b: str, seeds: Sequence[int]) -> tuple[Evidence, ...]:
        table = [right[a][seed].astype(float) - right[b][seed] for seed in seeds]
        return crossed_evidence(table) if table[0].size > 1 else ()  # one row tells nothing of others

    return compare_pairs(shares, margin=margin, evidence=evidence)


def compare_costs(values: Values, margin: float, grid: float | None = None) -> tuple[Comparison, ...]:
    """Compare every pair of methods by the factor of their costs, for other seeds.

    Args:
        values: all above 0.
        margin: share of a cost that counts as none: 0.05 for factors between 1 / 1.05 and 1.05.
        grid: distance of the values that can be measured, where it is known.

    """
    return compare_pairs(values, ratio=True, margin=math.log1p(margin), grid=grid)
