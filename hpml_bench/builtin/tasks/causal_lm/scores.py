"""Metrics of causal language modelling, and scores of predictions row by row."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpml_bench.plugins.scorer import Scorer
from hpml_bench.plugins.task import Guess, flat, linearised_ratio, loss_metrics
from hpml_bench.records.predictions import Answers, Predictions, TextAnswers
from hpml_bench.records.run import Metric

_metric = partial(Metric.define, phase="test", group="language")

LOSSES = (
    *loss_metrics("nats/token", "Cross-entropy a learnt token"),
    _metric(
        "test_perplexity", "perplexity", "", "lower", ".3f",
        "exp of the test loss: how many equally likely tokens the model hesitates between, on average.",
    ),
    _metric(
        "test_bits_per_byte", "bits a byte", "bits/byte", "lower", ".3f",
        "Summed loss of the learnt tokens of all test rows in bits, divided by the UTF-8 bytes of their text: it can "
        "be compared between tokenizers.",
    ),
    _metric(
        "test_token_accuracy", "token accuracy", "", "higher", ".1%",
        "Share of the learnt tokens of the test rows that are the model's most likely one, given all tokens before it "
        "as they are.",
        bounds=(0.0, 1.0),
    ),
)  # fmt: skip

NORMALISED = _metric(
    "test_score_normalised", "right choices, normalised", "", "higher", ".1%",
    "Share of the test rows whose right choice has the largest log-likelihood a character (lm-evaluation-harness's "
    "acc_norm).",
    group="quality",
    bounds=(0.0, 1.0),
)  # fmt: skip

ANSWERED = (
    _metric(
        "test_cut_answers", "cut answers", "", "lower", ".1%",
        "Share of the test rows whose answer reached max_new_tokens, or the model's last position, before it ended.",
        bounds=(0.0, 1.0),
    ),
    _metric(
        "test_near_ties", "near ties", "", "neither", ".1%",
        "Share of the test rows in whose answer two tokens' logits lay within 1e-4 of each other at the top somewhere, "
        "or in half precision within a step of the type (2^-7 of the largest in bfloat16): there rounding, which "
        "differs with the batch, can decide.",
        bounds=(0.0, 1.0),
    ),
)  # fmt: skip


def score_metric(scorer: Scorer) -> Metric:
    return _metric(
        "test_score", scorer.title, "", "higher", ".1%", scorer.definition, group="quality", bounds=(0.0, 1.0)
    )


def linearised_loss(reference: Answers, losses: NDArray[Any]) -> NDArray[np.float64]:
    """Return one value per row [n] whose mean is exactly the loss per token, sum(loss) / sum(tokens)."""
    return linearised_ratio(losses, np.array([len(row) for row in reference], dtype=np.float64))


def guess_tokens(reference: Answers) -> Guess:
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
    if predictions.texts is None:
        raise ValueError("the predictions have no answers in words")
    return predictions.texts
