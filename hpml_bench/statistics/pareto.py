"""The Pareto front over several metrics, and how sure it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from hpml_bench.statistics.pairs import Better

RESAMPLES = 10_000
AT_ONCE = 1_000
"""Resamples held in memory together: of thousands of seeds, all would take hundreds of megabytes."""


def pareto_efficient(points: Mapping[str, Sequence[float]], better: Sequence[Better]) -> tuple[str, ...]:
    """Return the names no other point dominates: none is as good in every coordinate and better in one."""
    if not points:
        return ()
    efficient = _efficient(np.array([list(points.values())], dtype=float) * _signs(better))[0]
    return tuple(name for name, on_it in zip(points, efficient, strict=True) if on_it)


def front_probabilities(
    points: Mapping[str, Mapping[int, Sequence[float]]], better: Sequence[Better]
) -> dict[str, float]:
    """Return for each method the share of bootstrap samples over seeds in which its means are Pareto-efficient.

    A sample draws n - 1 of the n seeds that all methods share, with replacement and the same for all: means of n - 1
    draws scatter as sd / √n does, where n draws would scatter too little (Rao and Wu 1988). Seeded.

    Args:
        points: method -> seed -> a coordinate per metric.
        better: the good direction of each coordinate.

    Returns:
        Nothing where fewer than two seeds are shared by all methods.

    """
    seeds = sorted(set.intersection(*(set(by_seed) for by_seed in points.values()))) if points else []
    n = len(seeds)
    if n < 2:
        return {}
    values = np.array([[by_seed[seed] for seed in seeds] for by_seed in points.values()], dtype=float) * _signs(better)
    # equal values must stay equal after averaging, or rounding would decide who is dominated: average what exceeds them
    least = values.min(axis=1, keepdims=True)
    generator, times = np.random.default_rng(0), np.zeros(len(points))
    for _ in range(RESAMPLES // AT_ONCE):
        draws = generator.multinomial(n - 1, np.full(n, 1 / n), size=AT_ONCE)
        means = np.einsum("bs,msk->bmk", draws / (n - 1), values - least) + least[:, 0]
        times += _efficient(means).sum(axis=0)
    return {name: float(count / RESAMPLES) for name, count in zip(points, times, strict=True)}


def _signs(better: Sequence[Better]) -> NDArray[np.float64]:
    return np.array([-1.0 if direction == "lower" else 1.0 for direction in better])


def _efficient(points: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return [samples, methods] of [samples, methods, metrics], higher being better in each."""
    efficient = np.ones(points.shape[:2], dtype=bool)
    for index in range(points.shape[1]):  # against one method at a time: no array of methods²
        rival = points[:, index : index + 1]
        efficient &= ~((rival >= points).all(axis=2) & (rival > points).any(axis=2))
    return efficient
