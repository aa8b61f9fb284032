"""Guessing: what a constant answer scores on the test rows, and the methods that are not shown to do better."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hpml_bench import statistics
from hpml_bench.report.results import Results


def not_above_guess(results: Results) -> tuple[str, ...]:
    """Return the methods that are not shown to score better than a constant answer.

    One-sided, Holm over the methods at guessing's share of the page's 5 %: over other seeds and rows, or their groups;
    under three seeds over other rows in each run.
    """
    found = results.guess
    if found is None or len(found.scores) < 2 or results.quality not in results.definitions:
        return ()
    sign = -1.0 if results.definitions[results.quality].better == "lower" else 1.0
    guessed = results.by_group(found.scores)
    gains = [
        np.array([sign * (scores - guessed) for scores in results.scores(method).values()], dtype=float)
        for method in results.methods
    ]
    shown = above(gains, results.score_span, results.look, results.score_step)
    return tuple(method for method, better in zip(results.methods, shown, strict=True) if not better)


def above(gains: Sequence[NDArray[np.float64]], span: float, look: int, step: float = 1.0) -> list[bool]:
    """Tell of each method whether it is shown to score better than guessing.

    Args:
        gains: of each method [seeds, rows], how much better its rows score than the guess.
        span: range of a row's score; 0 where it has none.
        look: the number of this look at the suite's seeds, from 1.
        step: least amount by which a row's score changes, 1 of right and wrong; 0 of real numbers.

    """
    p = [_p_in_each(of) if len(of) < statistics.LEAST_SEEDS else _p_above(of, span, step) for of in gains]
    level = statistics.ALPHA * statistics.FOR_GUESSING * statistics.spent_at(look)
    return [value < level for value in statistics.holm(p)]


def few_seeds(results: Results) -> tuple[str, ...]:
    """Return the methods with too few seeds for claims on other seeds: of them the test rows alone say something."""
    return tuple(method for method in results.methods if len(results.runs(method)) < statistics.LEAST_SEEDS)


def _p_in_each(gains: NDArray[np.float64]) -> float:
    """Return the largest of the runs' one-sided p of no gain over other rows, of [seeds, rows]."""
    return max(_p_above_over_rows(of_run) for of_run in gains)


def _p_above_over_rows(gains: NDArray[np.float64]) -> float:
    """Return the one-sided p of a run's gains [rows]: McNemar's exact test of right and wrong, else Student's t."""
    if gains.mean() <= 0:
        return 1.0
    if set(np.unique(gains)) <= {-1.0, 0.0, 1.0}:
        return statistics.mcnemar(int((gains > 0).sum()), int((gains < 0).sum())) / 2
    evidence = statistics.rows_evidence(gains)
    return statistics.p_different(evidence) / 2 if evidence else 1.0


def _p_above(gains: NDArray[np.float64], span: float, step: float) -> float:
    """Return the one-sided p of no gain over the constant answer, of [seeds, rows]."""
    evidence = statistics.crossed_evidence(gains, span, step)
    return max((statistics.p_different(one) / 2 if one.mean > 0 else 1.0 for one in evidence), default=1.0)
