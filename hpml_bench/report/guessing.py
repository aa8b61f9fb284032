"""Guessing: the scores it gives on the test rows, and the methods that are shown to do better."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hpml_bench import statistics
from hpml_bench.report.results import QUALITY, Results
from hpml_bench.report.tables import number


@dataclass(frozen=True)
class Guess:
    """The scores of always naming the most frequent class, and of naming a class by chance."""

    label: int
    accuracy: float
    macro_f1: float
    chance: float
    """One in the number of classes: what uniform guessing is expected to get right."""

    @property
    def sentence(self) -> str:
        """The guess in one line, to stand beside a score."""
        return (
            f"Guessing the most frequent class gets {number(100 * self.accuracy, '.1f')} % of the test rows right "
            f"(macro-F1 {number(self.macro_f1, '.3f')}); chance is {number(100 * self.chance, '.1f')} %."
        )


def guess(results: Results) -> Guess | None:
    """Return what guessing gives; None without test rows."""
    labels = results.test_labels
    if labels is None:
        return None
    counts = np.bincount(labels, minlength=max(1, len(results.reference.label_names)))
    most = int(counts.argmax())
    share, classes = float(counts[most] / counts.sum()), len(counts)
    return Guess(most, share, 2 * share / (1 + share) / classes, 1 / classes)


def not_above_guess(results: Results) -> tuple[str, ...]:
    """Return the methods that are not shown to get more rows right than the most frequent class does.

    Over other seeds and rows, one-sided at 5 %, Holm over the methods; under three seeds nothing is shown.
    """
    labels, found = results.test_labels, guess(results)
    if labels is None or found is None or len(labels) < 2 or QUALITY not in results.definitions:
        return ()
    constant = (labels == found.label).astype(float)
    p = []
    for method in results.methods:
        gains = [right.astype(float) - constant for right in results.right(method).values()]
        p.append(_p_above(np.array(gains)) if len(gains) >= statistics.LEAST_SEEDS else 1.0)
    adjusted = statistics.holm(p)
    return tuple(m for m, value in zip(results.methods, adjusted, strict=True) if value >= statistics.ALPHA)


def _p_above(gains: np.ndarray) -> float:
    """Return the one-sided p of no gain over the constant guess, of [seeds, rows]."""
    evidence = statistics.crossed_evidence(gains)
    return max(statistics.p_different(one) / 2 if one.mean > 0 else 1.0 for one in evidence)
