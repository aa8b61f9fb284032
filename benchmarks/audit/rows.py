"""Test rows: what their predictions score, and what a constant answer does, by the metric that leads.

A row's score is what the metric's mean is made of. Of a metric that is no mean of rows it is linear in the row: for the
RMSE rmse + (se - mse) / (2 rmse), for an F1 of entities F1 + (2tp - F1 d) / mean(d) with d = 2tp + fp + fn.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from audit.values import Floats

Answers = Any
"""[rows], or where rows are tags a list of arrays."""
ACCURACY = "test_accuracy"


class Guess(NamedTuple):
    """What a constant answer gives."""

    scores: Floats
    chance: float


def flat(answers: Answers) -> Floats:
    return np.concatenate(answers).astype(np.float64) if isinstance(answers, list) else np.asarray(answers)


def as_bytes(answers: Answers) -> bytes:
    """Return answers as bytes: equal where they are."""
    lengths = np.array([len(row) for row in answers]) if isinstance(answers, list) else np.array([])
    return lengths.tobytes() + flat(answers).tobytes()


def linear_rmse(squares: Floats) -> Floats:
    """Return the RMSE of squared errors, linear in each row."""
    rmse = math.sqrt(squares.mean())
    return rmse + (squares - squares.mean()) / (2 * rmse) if rmse else np.zeros(len(squares))


def linear_f1(reference: Answers, said: Answers, names: Sequence[str]) -> Floats:
    """Return the F1 of entities, linear in each row."""
    pairs = [(entities(a, names), entities(b, names)) for a, b in zip(reference, said, strict=True)]
    right = np.array([len(a & b) for a, b in pairs], dtype=np.float64)
    both = np.array([len(a) + len(b) for a, b in pairs], dtype=np.float64)
    if not both.sum():
        return np.zeros(len(both))
    f1 = 2 * right.sum() / both.sum()
    return np.asarray(f1 + (2 * right - f1 * both) / both.mean())


def entities(row: Floats, names: Sequence[str]) -> set[tuple[int, int, str]]:
    """Return the entities of a row as conlleval counts them: first word, last word, type.

    One begins at B-, and at I- after O or another type; it ends before the next one or before O.
    """
    found: set[tuple[int, int, str]] = set()
    begun, kind = -1, ""
    for place, tag in enumerate([*(names[int(index)] for index in row), "O"]):
        form, _, own = tag.partition("-")
        goes_on = form == "I" and begun >= 0 and own == kind
        if begun >= 0 and not goes_on:
            found.add((begun, place - 1, kind))
            begun = -1
        if form != "O" and not goes_on:
            begun, kind = place, own
    return found


SCORED: dict[str, Callable[[Any, Any, Sequence[str]], Floats]] = {
    ACCURACY: lambda reference, said, _: np.where(reference == said, 1.0, 0.0),
    "test_rmse": lambda reference, said, _: linear_rmse((said - reference) ** 2),
    "test_f1": linear_f1,
}
"""Leading metric -> score of each row, of what is expected and predicted."""


def weigh(headline: str, reference: Answers, names: Sequence[str]) -> Floats:
    """Return how much each row counts in a score: by its entities in F1, else equally."""
    counts = [len(entities(row, names)) for row in reference] if headline == "test_f1" else []
    return np.array(counts, dtype=np.float64) if any(counts) else np.ones(len(reference))


def guess(headline: str, reference: Answers, names: Sequence[str]) -> Guess:
    """Return the scores of a constant answer, and from what value learning is counted.

    The most frequent class, by which chance is one in the number of classes; the rows' mean, whose RMSE is chance; no
    entity at all.
    """
    if headline == ACCURACY:
        most_frequent = np.bincount(reference.astype(int)).argmax()
        return Guess(np.where(reference == most_frequent, 1.0, 0.0), 1 / len(names))
    if headline == "test_rmse":
        squares = (reference - reference.mean()) ** 2
        return Guess(linear_rmse(squares), math.sqrt(squares.mean()))
    return Guess(np.zeros(len(reference)), 0.0)
