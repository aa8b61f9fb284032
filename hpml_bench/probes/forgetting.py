"""Forgetting: the loss on general text after the training less the base model's (as huggingface/peft#2925 has it)."""

from __future__ import annotations

from typing import Any

from hpml_bench.plugins.probe import Probe, Run
from hpml_bench.records.run import Metric


def _metric(name: str, title: str, definition: str) -> Metric:
    return Metric(
        name=name,
        title=title,
        unit="nats/token",
        better="lower",
        over_ranks="same",
        over_steps="once",
        phase="run",
        format=".3f",
        group="forgetting",
        definition=definition,
    )


METRICS = (
    _metric(
        "forgetting",
        "forgetting",
        "Cross-entropy per token on general text after the training, less that of the base model as it was loaded, "
        "before the method changed it: the same texts, cut at max_length, each token but a text's first, and no end "
        "token behind it, as PEFT's method comparison measures it.",
    ),
    _metric(
        "retention_loss", "loss on general text", "Cross-entropy a token on the retention text after the training."
    ),
    _metric(
        "base_retention_loss", "the base model's", "Cross-entropy a token of the base model on the retention text."
    ),
    Metric.once(
        "retention_texts", "general texts", "texts", "neither", ",.0f",
        "The number of general texts on which forgetting was measured.",
        phase="run", group="forgetting", noisy=False,
    ),
)  # fmt: skip


class ForgettingProbe(Probe):
    """Evaluates the retention text after the training, where the task asks for it."""

    metrics = METRICS

    def start(self, run: Run) -> None:
        """Keep the run for its end."""
        self.run = run
        self.found: dict[str, Any] = {}

    def here(self) -> tuple[Metric, ...]:
        """Return the definitions where there is such text."""
        return METRICS if self.run.retention is not None else ()

    def after_training(self) -> None:
        """Evaluate it."""
        run = self.run
        if run.retention is None or run.base_loss is None:
            return
        from hpml_bench.training.evaluation import mean_loss

        after = mean_loss(run.model, run.task, run.retention, run.settings, run.group)
        self.found = {
            "forgetting": after - run.base_loss,
            "retention_loss": after,
            "base_retention_loss": run.base_loss,
            "retention_texts": len(run.retention),
        }

    def stop(self) -> dict[str, Any]:
        """Return the losses."""
        return self.found
