"""Test rows: what their predictions score, and what a constant answer does, by the metric that leads.

A row's score is what the metric's mean is made of. Of a metric that is no mean of rows it is linear in the row: for the
RMSE rmse + (se - mse) / (2 rmse), for an F1 of entities F1 + (2tp - F1 d) / mean(d) with d = 2tp + fp + fn.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from audit.values import Floats

Answers = Any
"""[rows], or where rows are tags a list of arrays."""
ACCURACY = "test_accuracy"


class Scored(NamedTuple):
    """What predictions give."""

    scores: Floats
    """[rows]."""
    metrics: dict[str, float]


class Guess(NamedTuple):
    """What a constant answer gives."""

    scores: Floats
    chance: float


def flat(answers: Answers) -> Floats:
    """Return all answers in a row."""
    return np.concatenate(answers).astype(np.float64) if isinstance(answers, list) else np.asarray(answers)


def as_bytes(answers: Answers) -> bytes:
    """Return answers as bytes: equal where they are."""
    lengths = np.array([len(row) for row in answers]) if isinstance(answers, list) else np.array([])
    return lengths.tobytes() + flat(answers).tobytes()


def classes(reference: Floats, said: Floats, losses: Floats, names: Sequence[str]) -> Scored:
    """Return right or wrong, accuracy and macro-F1."""
    right = np.where(reference == said, 1.0, 0.0)
    f1 = []
    for label in range(len(names)):
        there, answered = reference == label, said == label
        f1.append(2 * (there & answered).sum() / max(there.sum() + answered.sum(), 1))
    means = {ACCURACY: right.mean(), "test_macro_f1": np.mean(f1), "test_loss": losses.mean()}
    return Scored(right, {name: float(value) for name, value in means.items()})


def brier(reference: Floats, given: Answers) -> float:
    """Return the Brier score over all classes of the probabilities of each row."""
    probabilities = np.array(given, dtype=np.float64)
    there = np.arange(probabilities.shape[1]) == reference[:, None]
    return float(((probabilities - there) ** 2).sum(axis=1).mean())


def numbers(reference: Floats, said: Floats, losses: Floats, _: Sequence[str]) -> Scored:
    """Return linear RMSE, and the metrics of numbers."""
    squares = (said - reference) ** 2
    metrics = {
        "test_rmse": math.sqrt(squares.mean()),
        "test_mae": float(np.abs(said - reference).mean()),
        "test_loss": float(losses.mean()),
    }
    if np.ptp(reference) and np.ptp(said):
        metrics["test_pearson"] = float(stats.pearsonr(reference, said).statistic)
        metrics["test_spearman"] = float(stats.spearmanr(reference, said).statistic)
    return Scored(linear_rmse(squares), metrics)


def linear_rmse(squares: Floats) -> Floats:
    """Return the RMSE of squared errors, linear in each row."""
    rmse = math.sqrt(squares.mean())
    return rmse + (squares - squares.mean()) / (2 * rmse) if rmse else np.zeros(len(squares))


def tags(reference: Answers, said: Answers, losses: Floats, names: Sequence[str]) -> Scored:
    """Return linear F1 of entities, and the metrics of tags."""
    pairs = [(entities(a, names), entities(b, names)) for a, b in zip(reference, said, strict=True)]
    right, there, found = (
        np.array(counts, dtype=np.float64)
        for counts in zip(*((len(a & b), len(a), len(b)) for a, b in pairs), strict=True)
    )
    both, same = there + found, flat(reference) == flat(said)
    f1 = 2 * right.sum() / both.sum() if both.sum() else 0.0
    metrics = {
        "test_f1": f1,
        "test_precision": right.sum() / found.sum() if found.sum() else 0.0,
        "test_recall": right.sum() / there.sum() if there.sum() else 0.0,
        "test_word_accuracy": same.mean(),
        "test_loss": losses.sum() / len(same),
    }
    linear = f1 + (2 * right - f1 * both) / both.mean() if both.sum() else np.zeros(len(both))
    return Scored(linear, {name: float(value) for name, value in metrics.items()})


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


SCORED: dict[str, Callable[[Any, Any, Floats, Sequence[str]], Scored]] = {
    ACCURACY: classes,
    "test_rmse": numbers,
    "test_f1": tags,
}
"""Leading metric -> what predictions give."""


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
        return Guess(np.where(reference == most_frequent(reference)[0], 1.0, 0.0), 1 / len(names))
    if headline == "test_rmse":
        squares = (reference - reference.mean()) ** 2
        return Guess(linear_rmse(squares), math.sqrt(squares.mean()))
    return Guess(np.zeros(len(reference)), 0.0)


def most_frequent(reference: Floats) -> tuple[int, float]:
    """Return the most frequent class, and its share."""
    counts = np.bincount(reference.astype(int))
    return int(counts.argmax()), float(counts.max() / counts.sum())
