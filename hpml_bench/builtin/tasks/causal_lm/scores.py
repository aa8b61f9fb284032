"""Scores of a language model's predictions, row by row."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpml_bench.plugins.task import Guess
from hpml_bench.records.predictions import Answers, Predictions, Said


def linearised_loss(reference: Answers, losses: NDArray[Any]) -> NDArray[np.float64]:
    """Return one value per row [n] whose mean is exactly the loss per token, sum(loss) / sum(tokens).

    A ratio of means linearised at them: R + (loss_i - R n_i) / mean(n) (Cochran 1977, Sampling Techniques, ch. 6).
    """
    tokens = np.array([len(row) for row in reference], dtype=np.float64)
    if not tokens.sum():
        return np.zeros(len(tokens))
    ratio = float(np.sum(losses, dtype=np.float64)) / tokens.sum()
    linear: NDArray[np.float64] = ratio + (np.asarray(losses, dtype=np.float64) - ratio * tokens) / tokens.mean()
    return linear


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


def flat(answers: Answers) -> NDArray[Any]:
    """Return the tokens of all rows one after the other."""
    return np.concatenate([np.zeros(0, dtype=np.int64), *answers])


def said_of(predictions: Predictions) -> Said:
    """Return the answers in words.

    Raises:
        ValueError: the predictions have none.

    """
    if predictions.said is None:
        raise ValueError("the predictions have no answers in words")
    return predictions.said
