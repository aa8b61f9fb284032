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

    Over other seeds and rows, or groups of rows, one-sided at 5 %, Holm over the methods; under three seeds nothing is
    shown.
    """
    found = guess(results)
    if found is None or len(found.scores) < 2 or results.quality not in results.definitions:
        return ()
    sign = -1.0 if results.definitions[results.quality].better == "lower" else 1.0
    p, guessed = [], results.by_group(found.scores)
    for method in results.methods:
        gains = [sign * (scores - guessed) for scores in results.scores(method).values()]
        enough = len(gains) >= statistics.LEAST_SEEDS
        p.append(_p_above(np.array(gains, dtype=float), results.score_unit) if enough else 1.0)
    adjusted = statistics.holm(p)
    return tuple(m for m, value in zip(results.methods, adjusted, strict=True) if value >= statistics.ALPHA)


def _p_above(gains: np.ndarray, unit: float) -> float:
    """Return the one-sided p of no gain over the constant answer, of [seeds, rows]."""
    evidence = statistics.crossed_evidence(gains, unit)
    return max((statistics.p_different(one) / 2 if one.mean > 0 else 1.0 for one in evidence), default=1.0)
