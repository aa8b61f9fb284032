"""Batches: an epoch as each contender draws it, and a few batches that represent it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hpml_bench.data.prepared import global_batches
from speed import shapes

GROUPED = 50
"""Batches in a group that the HF Trainer sorts, of data sets of 3,200 rows or more; of fewer rows it takes fewer."""
Batches = list[np.ndarray]


def epoch(contender: str, lengths: np.ndarray) -> Batches:
    """Return an epoch of batches of row indices as a contender draws them, seeded."""
    if contender == "ours":
        return list(global_batches(lengths, shapes.BATCH, len(lengths) // shapes.BATCH, 0))
    import torch
    from transformers.trainer_pt_utils import get_length_grouped_indices

    generator = torch.Generator().manual_seed(0)
    if contender == "grouped":
        order = get_length_grouped_indices(lengths.tolist(), shapes.BATCH, GROUPED, generator)
    else:
        order = torch.randperm(len(lengths), generator=generator).tolist()
    return [np.array(order[start : start + shapes.BATCH]) for start in range(0, len(order), shapes.BATCH)]


def representative(batches: Batches, lengths: np.ndarray, count: int) -> Batches:
    """Return `count` of the batches, shuffled: of each of as many strata the one nearest to the stratum's mean.

    Strata are of batches in the order of their longest rows. Means and not middles: lengths have a long tail, and
    few middles together would be padded to less than the epoch is. What one lies off the next makes up for, the
    longest first, among which the gaps are widest.
    """
    longest_rows = np.array([lengths[indices].max() for indices in batches])
    chosen, wanted = [], 0.0
    for stratum in np.array_split(np.argsort(-longest_rows, kind="stable"), count):
        wanted += longest_rows[stratum].sum() * count / len(batches)
        nearest = stratum[np.abs(longest_rows[stratum] - wanted).argmin()]
        wanted -= longest_rows[nearest]
        chosen.append(batches[nearest])
    return [chosen[index] for index in np.random.default_rng(0).permutation(count)]


def padded_to(batches: Sequence[np.ndarray], lengths: np.ndarray) -> float:
    """Return the tokens a row has with padding to the longest of its batch, on average."""
    return float(np.mean([lengths[indices].max() for indices in batches]))
