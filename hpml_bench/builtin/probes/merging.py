"""Merging: loss and score of the language model after the method was folded into its weights,
against before.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from hpml_bench.plugins.method import Method
from hpml_bench.plugins.probe import Evaluation, Probe, Run, evaluated_again
from hpml_bench.records.run import Metric, Point

if TYPE_CHECKING:
    from torch import Tensor

    from hpml_bench.plugins.model import TaskModel

COMPARED = 8  # most test rows whose logits are compared
OUTPUTS = (
    2**26
)  # most logits compared, unless one row alone has more: 268 MB in float32, twice on the host
AFTER = "after the method was folded into the model's weights"
TITLES = (
    "test loss, merged",
    "score, merged",
    "answers changed by merging",
    "evaluation after merging",
)
LOSS, SCORE, CHANGED, SECONDS = evaluated_again(
    "merged", TITLES, AFTER, "; those of a quantised backbone are quantised again"
)
LOGITS = Metric.define(
    "merged_logit_difference",
    "largest logit difference",
    "",
    "lower",
    ".2e",
    "The largest absolute difference between the logits before and after merging, over the learnt "
    "tokens of the first eight test rows, or of as many as have 2^26 logits together; of one at "
    "least.",
    phase="run",
    group="merging",
)


class MergingProbe(Probe):
    """Evaluates a language model again after merging, where a method can be merged."""

    metrics = (LOSS, SCORE, CHANGED, LOGITS, SECONDS)

    @property
    def merges(self) -> bool:
        method = self.run.method
        whole = self.run.task.model_kind == "language_model"
        return whole and method.trains and type(method).merge is not Method.merge

    def definitions(self) -> tuple[Metric, ...]:
        if self.run.task.model_kind != "language_model":
            return ()
        return self.metrics if self.run.answers else (LOSS, LOGITS, SECONDS)

    def after_eval(self, evaluation: Evaluation) -> list[Point]:
        if evaluation.phase == "test" and self.merges:
            self.logits = _logits(self.run, self.run.model)
        return super().after_eval(evaluation)

    def state(self) -> dict[str, Any]:
        return {}

    def stop(self) -> dict[str, Any]:
        run = self.run
        if self.tested is None or not self.merges or run.merged is None:
            return {}
        from hpml_bench.training.evaluation import evaluate_merged

        values = evaluate_merged(run, run.merged, self.tested, "merged")
        difference = float((_logits(run, run.merged) - self.logits).abs().max())
        return {**values, "merged_logit_difference": difference}


def _logits(run: Run, model: TaskModel) -> Tensor:
    """Return the logits of the target tokens of the first test rows, [N, vocabulary] float32, on
    the host.

    The batches are those of evaluations, which were rehearsed.
    """
    import torch

    from hpml_bench.data.prepared import pieces
    from hpml_bench.training.evaluation import evaluating

    test, most = run.test, OUTPUTS // int(getattr(model, "width", 1))
    first = next(pieces(np.arange(len(test)), test.targets, COMPARED, most))
    logits = []
    with evaluating(replace(run, model=model)):
        for part in pieces(first, test.targets, run.settings.eval_batch, most):
            batch = test.batch(part).to(run.group.device)
            outputs = model(
                batch.input_ids, batch.attention_mask, batch.labels, batch.learnt, **batch.more
            )
            logits.append(outputs.cpu().float())
    return torch.cat(logits)
