"""Guessing: what a constant answer scores on the test rows, and the methods that are not shown to do better."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hpml_bench import statistics
from hpml_bench.report.results import Results


def not_above_guess(results: Results) -> tuple[str, ...]:
    """Return the methods that are not shown to score better than a constant answer.

    Over other seeds and rows, one-sided, Holm over the methods at guessing's share of the page's 5 %; under three seeds
    nothing is shown.
    """
    found = results.guess
    if found is None or len(found.scores) < 2 or results.quality not in results.definitions:
        return ()
    sign = -1.0 if results.definitions[results.quality].better == "lower" else 1.0
    gains = [
        np.array([sign * (scores - found.scores) for scores in results.scores(method).values()], dtype=float)
        for method in results.methods
    ]
    shown = above(gains, results.score_span, results.look)
    return tuple(method for method, better in zip(results.methods, shown, strict=True) if not better)


def above(gains: Sequence[NDArray[np.float64]], span: float, look: int) -> list[bool]:
    """Tell of each method whether it is shown to score better than guessing.

    Args:
        gains: of each method [seeds, rows], how much better its rows score than the guess.
        span: range of a row's score; 0 where it has none.
        look: the number of this look at the suite's seeds, from 1.

    """
    enough = [len(of) >= statistics.LEAST_SEEDS for of in gains]
    p = [_p_above(of, span) if seeds else 1.0 for of, seeds in zip(gains, enough, strict=True)]
    level = statistics.ALPHA * statistics.FOR_GUESSING * statistics.spent_at(look)
    return [value < level for value in statistics.holm(p)]


def _p_above(gains: NDArray[np.float64], span: float) -> float:
    """Return the one-sided p of no gain over the constant answer, of [seeds, rows]."""
    evidence = statistics.crossed_evidence(gains, span)
    return max((statistics.p_different(one) / 2 if one.mean > 0 else 1.0 for one in evidence), default=1.0)
