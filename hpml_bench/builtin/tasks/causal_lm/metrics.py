"""Metrics of causal language modelling."""

from __future__ import annotations

from functools import partial

from hpml_bench.plugins.scorer import Scorer
from hpml_bench.plugins.task import loss_metrics
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
    """Return the mean of a scorer's scores over the test rows."""
    return _metric(
        "test_score", scorer.title, "", "higher", ".1%", scorer.definition, group="quality", bounds=(0.0, 1.0)
    )
