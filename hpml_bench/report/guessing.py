"""Guessing: the score of a constant answer on the test rows, and tests whether methods score better."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hpml_bench import statistics
from hpml_bench.report.results import Results

Shown = Literal["seeds", "rows", "not"]
"""Scope for which a method is shown to beat guessing: other seeds and rows; other rows in each of its runs; none."""


def beside_guess(results: Results) -> dict[str, Shown]:
    """Return method -> scope for which it is shown to beat a constant answer; empty where that can't be tested.

    One-sided, Holm over both tests of all methods at guessing's share of the page's 5 %: over other seeds and rows, or
    their groups, from three seeds on; over other rows in each run.
    """
    found = results.guess
    if found is None or len(found.scores) < 2 or results.quality not in results.definitions:
        return {}
    sign = -1.0 if results.definitions[results.quality].better == "lower" else 1.0
    guessed = results.by_group(found.scores)
    gains = [
        np.array([sign * (scores - guessed) for scores in results.scores(method).values()], dtype=float)
        for method in results.methods
    ]
    return dict(zip(results.methods, above(gains, results.score_span, results.look, results.score_step), strict=True))


def above(gains: Sequence[NDArray[np.float64]], span: float, look: int, step: float = 1.0) -> list[Shown]:
    """Return for each method the scope for which it is shown to beat guessing.

    `gains` are of each method [seeds, rows], of its rows' scores over the guess; `span` and `step` as those of
    `statistics.crossed_evidence`.
    """
    tested = {at: _p_above(of, span, step) for at, of in enumerate(gains) if len(of) >= statistics.LEAST_SEEDS}
    in_each_run = [max(map(_p_above_over_rows, of)) for of in gains]
    adjusted = statistics.holm([*tested.values(), *in_each_run])
    level = statistics.ALPHA * statistics.FOR_GUESSING * statistics.spent_at(look)
    over_seeds = {at for at, p in zip(tested, adjusted, strict=False) if p < level}
    in_each = [p < level for p in adjusted[len(tested) :]]
    return ["seeds" if at in over_seeds else "rows" if better else "not" for at, better in enumerate(in_each)]


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
