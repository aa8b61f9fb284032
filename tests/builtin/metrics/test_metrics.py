"""Metrics by which a suite may rank: equal to scikit-learn's and scipy's, with rows whose spread is a bootstrap's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import softmax
from scipy.stats import spearmanr
from sklearn.metrics import average_precision_score, brier_score_loss, f1_score, matthews_corrcoef

from hpml_bench.plugins.task import make_task
from hpml_bench.records.predictions import Predictions
from hpml_bench.suite import registry
from hpml_bench.suite.settings import TaskSpec

ROWS = 300
Value = Callable[[Predictions], float]


def classified(classes: int, rare: float) -> Predictions:
    """Return answers and losses of a model that is right in most rows, one class being rare."""
    draw = np.random.default_rng(classes)
    reference = draw.choice(classes, ROWS, p=[rare, *[(1 - rare) / (classes - 1)] * (classes - 1)])
    logits = draw.normal(size=(ROWS, classes)) + 1.5 * np.eye(classes)[reference]
    for of in (reference, logits):  # ties
        of[:30] = of[30:60]
    loss = np.log(np.exp(logits).sum(1)) - logits[np.arange(ROWS), reference]
    return Predictions(np.arange(ROWS), reference, logits.argmax(1), loss, probabilities=softmax(logits, axis=1))


def numbers() -> Predictions:
    """Return predicted numbers, many of them equal."""
    draw = np.random.default_rng(5)
    reference = draw.normal(size=ROWS).round(1)
    return Predictions(np.arange(ROWS), reference, (reference + draw.normal(size=ROWS)).round(1), np.zeros(ROWS))


def probability_of_rare(of: Predictions) -> tuple[NDArray[Any], NDArray[Any]]:
    rare = np.asarray(of.reference) == 0
    return rare, np.where(rare, np.exp(-of.loss), -np.expm1(-of.loss))


def brier(of: Predictions, classes: int) -> float:
    given, known = np.asarray(of.probabilities), [*range(classes)]
    if classes == 2:  # of the second class alone
        return 2 * float(brier_score_loss(of.reference, given[:, 1], pos_label=1, labels=known, scale_by_half=True))
    return float(brier_score_loss(of.reference, given, labels=known, scale_by_half=False))


CASES: dict[str, tuple[str, Predictions, Value]] = {
    "macro-F1": ("macro_f1", classified(4, 0.05), lambda of: f1_score(of.reference, of.prediction, average="macro")),
    "MCC, two classes": ("mcc", classified(2, 0.1), lambda of: matthews_corrcoef(of.reference, of.prediction)),
    "MCC, four": ("mcc", classified(4, 0.05), lambda of: matthews_corrcoef(of.reference, of.prediction)),
    "average precision": ("average_precision", classified(2, 0.1),
                          lambda of: average_precision_score(*probability_of_rare(of))),
    "Brier score, two classes": ("brier", classified(2, 0.1), lambda of: brier(of, 2)),
    "Brier score, four": ("brier", classified(4, 0.05), lambda of: brier(of, 4)),
    "Spearman's rho": ("spearman", numbers(), lambda of: spearmanr(of.reference, of.prediction).statistic),
}  # fmt: skip


def made(name: str, classes: int = 0) -> Any:
    return registry.plugin("metrics", name)(classes)


def taken(of: Predictions, rows: NDArray[Any]) -> Predictions:
    fields = (np.asarray(part)[rows] for part in (of.reference, of.prediction, of.loss))
    given = None if of.probabilities is None else of.probabilities[rows]
    return Predictions(np.arange(len(rows)), *fields, probabilities=given)


@pytest.mark.parametrize("case", CASES)
def test_rows_have_the_metric_as_their_mean_and_its_influence(case: str) -> None:
    """The mean is the library's value; a row is what leaving it out changes; the spread is that of a bootstrap."""
    name, of, value = CASES[case]
    rows = made(name).rows(of)
    assert rows.mean() == pytest.approx(value(of), abs=1e-12)
    every = np.arange(ROWS)
    left_out = np.array([value(taken(of, every[every != row])) for row in every])
    assert np.allclose(rows - rows.mean(), (ROWS - 1) * (value(of) - left_out), atol=0.06 * np.ptp(rows))
    draw = np.random.default_rng(0)
    again = [value(taken(of, draw.integers(0, ROWS, ROWS))) for _ in range(300)]
    assert rows.std() / np.sqrt(ROWS) == pytest.approx(np.std(again), rel=0.15)


@pytest.mark.parametrize("name", registry.names("metrics"))
def test_an_answer_that_needs_no_model_is_a_guess(name: str) -> None:
    """A task ranked by the metric has its value as chance, also of a model whose losses of float32 are rounded."""
    target = registry.plugin("metrics", name).target
    kind = "regression" if target == "number" else "sequence_classification"
    task = make_task(TaskSpec(name=kind), ("rare", "other") if target == "class" else (), rank_by=name)
    reference = np.asarray(numbers().reference if target == "number" else classified(2, 0.1).reference)
    others = f1_score(reference != 0, np.ones(ROWS)) / 2
    rare = (reference == 0).mean()
    expected = {"macro_f1": others, "average_precision": rare, "brier": 2 * rare * (1 - rare)}
    guess = task.guess(reference)
    assert guess.chance == pytest.approx(expected.get(name, 0.0))
    loss = -np.log(np.where(reference == 0, np.float32(0.1), np.float32(0.9))).astype(np.float32)
    shares = np.tile(np.float32([0.1, 0.9]), (ROWS, 1))
    constant = Predictions(np.arange(ROWS), reference, np.ones(ROWS, dtype=int), loss, probabilities=shares)
    assert np.allclose(task.scores(constant), guess.scores)
    spread = task.weights(reference).max() / task.weights(reference).mean()
    assert spread > 2 or (name, spread) == ("brier", 1)
