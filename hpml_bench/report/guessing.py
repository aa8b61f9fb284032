"""Guessing: what a constant answer scores on the test rows, and the methods that are not shown to do better."""

from __future__ import annotations

import numpy as np

from hpml_bench import statistics
from hpml_bench.plugins.task import Guess
from hpml_bench.report.results import Results


def guess(results: Results) -> Guess | None:
    """Return what guessing gives; None without test rows."""
    stored = results.test_rows_asked
    return None if stored is None else results.task.guess(stored.reference, stored.said)


def not_above_guess(results: Results) -> tuple[str, ...]:
    """Return the methods that are not shown to score better than a constant answer.

    One-sided at 5 %, Holm over the methods: over other seeds and rows, under three seeds over other rows in each run.
    """
    found = guess(results)
    if found is None or len(found.scores) < 2 or results.quality not in results.definitions:
        return ()
    sign = -1.0 if results.definitions[results.quality].better == "lower" else 1.0
    p = []
    for method in results.methods:
        gains = np.array([sign * (scores - found.scores) for scores in results.scores(method).values()], dtype=float)
        p.append(_p_in_each(gains) if method in few_seeds(results) else _p_above(gains, results.score_unit))
    adjusted = statistics.holm(p)
    return tuple(m for m, value in zip(results.methods, adjusted, strict=True) if value >= statistics.ALPHA)


def few_seeds(results: Results) -> tuple[str, ...]:
    """Return the methods with too few seeds for claims on other seeds: of them the test rows alone say something."""
    return tuple(method for method in results.methods if len(results.runs(method)) < statistics.LEAST_SEEDS)


def _p_in_each(gains: np.ndarray) -> float:
    """Return the largest of the runs' one-sided p of no gain over other rows, of [seeds, rows]."""
    return max(_p_above_over_rows(of_run) for of_run in gains)


def _p_above_over_rows(gains: np.ndarray) -> float:
    """Return the one-sided p of a run's gains [rows]: McNemar's exact test of right and wrong, else Student's t."""
    if gains.mean() <= 0:
        return 1.0
    if set(np.unique(gains)) <= {-1.0, 0.0, 1.0}:
        return statistics.mcnemar(int((gains > 0).sum()), int((gains < 0).sum())) / 2
    evidence = statistics.rows_evidence(gains)
    return statistics.p_different(evidence) / 2 if evidence else 1.0


def _p_above(gains: np.ndarray, unit: float) -> float:
    """Return the one-sided p of no gain over the constant answer, of [seeds, rows]."""
    evidence = statistics.crossed_evidence(gains, unit)
    return max((statistics.p_different(one) / 2 if one.mean > 0 else 1.0 for one in evidence), default=1.0)
