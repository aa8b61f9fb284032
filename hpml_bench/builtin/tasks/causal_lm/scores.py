"""Scores of a language model's predictions, row by row."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpml_bench.plugins.task import Guess, flat, linearised_ratio
from hpml_bench.records.predictions import Answers, Predictions, TextAnswers


def linearised_loss(reference: Answers, losses: NDArray[Any]) -> NDArray[np.float64]:
    """Return one value per row [n] whose mean is exactly the loss per token, sum(loss) / sum(tokens)."""
    return linearised_ratio(losses, np.array([len(row) for row in reference], dtype=np.float64))


def guess_tokens(reference: Answers) -> Guess:
    """Guess each token by its frequency in these rows."""
    tokens = flat(reference)
    kinds, counts = np.unique(tokens, return_counts=True)
    cost = dict(zip(kinds.tolist(), (-np.log(counts / counts.sum())).tolist(), strict=True))
    losses = np.array([sum(cost[token] for token in np.asarray(row).tolist()) for row in reference])
    mean = float(losses.sum() / max(1, len(tokens)))
    return Guess(
        f"Guessing every token by how often it occurs in these rows has a loss of {mean:.3f} nats/token.",
        scores=linearised_loss(reference, losses),
        chance=mean,
    )


def texts_of(predictions: Predictions) -> TextAnswers:
    """Return the answers in words."""
    if predictions.texts is None:
        raise ValueError("the predictions have no answers in words")
    return predictions.texts
