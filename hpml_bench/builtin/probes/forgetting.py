"""Forgetting: the loss on general text after the training less the base model's (as in
huggingface/peft#2925).
"""

import math
from functools import partial

import numpy as np

from hpml_bench.plugins.probe import Probe
from hpml_bench.records.run import Metric

_metric = partial(Metric.define, phase="run", group="forgetting")
METRICS = (
    _metric(
        "forgetting",
        "forgetting",
        "nats/token",
        "lower",
        ".3f",
        "Cross-entropy per token on general text after the training, less that of the base model "
        "as it was loaded, before the method changed it: the same texts, cut at max_length, each "
        "token but a text's first, and no end token behind it, as PEFT's method comparison "
        "measures it. A quantised backbone's base is the quantised model, so that what "
        "quantisation itself costs is no part of it.",
    ),
    _metric(
        "forgetting_error",
        "its standard error over texts",
        "nats/token",
        "neither",
        ".3f",
        "Standard error of one run's forgetting over other general texts, that of a ratio "
        "(Cochran 1977, Sampling Techniques, 2.11): √(k/(k − 1) · Σ(dᵢ − f·nᵢ)²) / Σnᵢ, where "
        "text i of k has nᵢ tokens, the loss of which rose by dᵢ in sum, and f is the forgetting. "
        "Texts count as independent; lines of one article do too, and where those are alike the "
        "error is too small. Methods read the same texts, so that the errors of two methods are "
        "not independent.",
    ),
    _metric(
        "retention_loss",
        "loss on general text",
        "nats/token",
        "lower",
        ".3f",
        "Cross-entropy a token on the retention text after the training.",
    ),
    _metric(
        "base_retention_loss",
        "the base model's",
        "nats/token",
        "lower",
        ".3f",
        "Cross-entropy a token of the base model on the retention text.",
    ),
    _metric(
        "retention_texts",
        "general texts",
        "texts",
        "neither",
        ",.0f",
        "The number of general texts on which forgetting was measured.",
        noisy=False,
    ),
)


class ForgettingProbe(Probe):
    """Evaluates the retention text after the training, where the task has one."""

    metrics = METRICS

    def definitions(self) -> tuple[Metric, ...]:
        return METRICS if self.run.retention is not None else ()

    def after_training(self) -> None:
        run = self.run
        if run.retention is None or run.base_losses is None:
            return
        from hpml_bench.training.evaluation import losses_of_rows

        after = losses_of_rows(run, run.retention)
        tokens = np.asarray(run.retention.targets)
        self.values = {
            "forgetting": _per_token(after - run.base_losses, tokens),
            "forgetting_error": _error(after - run.base_losses, tokens),
            "retention_loss": _per_token(after, tokens),
            "base_retention_loss": _per_token(run.base_losses, tokens),
            "retention_texts": len(run.retention),
        }


def _per_token(losses: np.ndarray, tokens: np.ndarray) -> float:
    return float(losses.sum() / max(1, int(tokens.sum())))


def _error(rises: np.ndarray, tokens: np.ndarray) -> float | None:
    """Return the standard error of the mean rise per token over texts; None for a single text."""
    k = len(rises)
    if k < 2:
        return None
    residuals = rises - _per_token(rises, tokens) * tokens
    return math.sqrt(k / (k - 1) * float(np.square(residuals).sum())) / max(1, int(tokens.sum()))
