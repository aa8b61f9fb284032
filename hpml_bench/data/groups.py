"""Groups of rows that belong together, such as the questions of one document: kept in one split, tested together."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hpml_bench.plugins.dataset import GROUP

if TYPE_CHECKING:
    from datasets import Dataset


def groups_of(dataset: Dataset) -> NDArray[np.int64] | None:
    """Return the group of each row, [n]; None where rows have none."""
    if GROUP not in dataset.column_names:
        return None
    return np.asarray(dataset.with_format("numpy")[GROUP][:], dtype=np.int64)


def whole_groups(groups: NDArray[np.int64], count: int, random: np.random.Generator) -> NDArray[np.bool_]:
    """Return a mask [n] of the rows of randomly drawn groups, which together have at least `count` rows.

    Groups are drawn with equal probability, whatever their size; drawing rows would prefer the large ones.
    """
    _, inverse, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    order = random.permutation(len(sizes))
    before = np.cumsum(sizes[order]) - sizes[order]
    chosen = np.zeros(len(sizes), dtype=bool)
    chosen[order[before < count]] = True
    return np.asarray(chosen[inverse])
