"""Merging: loss and score of the language model after the method was folded into its weights, against before."""

from typing import Any

from hpml_bench.plugins.method import Method
from hpml_bench.plugins.probe import Probe, evaluated_again
from hpml_bench.records.run import Metric

AFTER = "after the method was folded into the model's weights"
TITLES = ("test loss, merged", "score, merged", "answers changed by merging", "evaluation after merging")
LOSS, SCORE, CHANGED, SECONDS = evaluated_again(
    "merged", TITLES, AFTER, "; those of a quantised backbone are quantised again"
)


class MergingProbe(Probe):
    """Evaluates a language model again after merging, where a method can be merged."""

    metrics = (LOSS, SCORE, CHANGED, SECONDS)

    def definitions(self) -> tuple[Metric, ...]:
        if self.run.task.model_kind != "language_model":
            return ()
        return self.metrics if self.run.answers else (LOSS, SECONDS)

    def stop(self) -> dict[str, Any]:
        run, method = self.run, self.run.method
        merges = self.run.task.model_kind == "language_model" and method.trains
        if self.tested is None or not merges or type(method).merge is Method.merge or run.merged is None:
            return {}
        from hpml_bench.training.evaluation import evaluate_merged

        return evaluate_merged(run, run.merged, self.tested, "merged")
