"""Merging in floats: quality of a quantised language model with the method folded into its dequantised weights.

It compares with the unmerged model, and with the probe `merging`, where merged weights are quantised again, which
changes them (huggingface/peft#2321). Probes stop in the order of their names, so that this one precedes the merging.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from hpml_bench.plugins.probe import Evaluation, Probe, Run
from hpml_bench.records.run import Metric, Point

_metric = partial(Metric.define, phase="run", group="merging")
AFTER = "after the method was folded into the dequantised weights of a quantised backbone, which stay floats"
LOSS = _metric(
    "dequantized_test_loss", "test loss, merged in floats", "nats/token", "lower", ".3f", f"The test loss {AFTER}."
)
BYTES = _metric(
    "dequantized_bytes", "size, merged in floats", "bytes", "lower", ",.0f",
    f"Bytes of the backbone's weights {AFTER} of four bytes each.",
)  # fmt: skip
SCORE = _metric("dequantized_test_score", "score, merged in floats", "", "higher", ".1%", f"The test score {AFTER}.")
CHANGED = _metric(
    "dequantized_answers_changed", "answers changed by merging in floats", "", "lower", ".1%",
    f"Share of the test rows that are answered otherwise {AFTER}.",
)  # fmt: skip
SECONDS = _metric(
    "dequantized_evaluation_seconds", "evaluation, merged in floats", "s", "lower", ".2f",
    f"The slowest rank's time for losses and answers of the test rows {AFTER}.", depends_on_machine=True,
)  # fmt: skip


class DequantizedProbe(Probe):
    """Evaluates a quantised language model again, merged in floats, where its method adds to weights."""

    metrics = (LOSS, BYTES, SCORE, CHANGED, SECONDS)

    def start(self, run: Run) -> None:
        from hpml_bench.training.quantization import is_quantized

        super().start(run)
        self.before: Evaluation | None = None
        self.applies = run.task.model_kind == "language_model" and is_quantized(run.model)

    def definitions(self) -> tuple[Metric, ...]:
        if not self.applies:
            return ()
        return self.metrics if self.run.answers else (LOSS, BYTES, SECONDS)

    def after_eval(self, evaluation: Evaluation) -> list[Point]:
        if evaluation.phase == "test":
            self.before = evaluation
        return []

    def state(self) -> dict[str, Any]:
        return {}

    def stop(self) -> dict[str, Any]:
        if not self.applies or self.before is None:
            return {}
        from hpml_bench.training.evaluation import evaluate_merged
        from hpml_bench.training.quantization import merged_in_floats, weights_in

        encoder = self.run.model.encoder
        with merged_in_floats(encoder) as merged:
            if not merged:
                return {}
            values = evaluate_merged(self.run, self.run.model, self.before, "dequantized")
        weights = sum(weights_in(weight) for weight in encoder.parameters() if not weight.requires_grad)
        return {**values, "dequantized_bytes": 4 * weights}
