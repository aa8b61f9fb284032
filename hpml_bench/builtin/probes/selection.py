"""Step that a run selects by its validation rows, and the training time up to it."""

from functools import partial
from typing import Any

from hpml_bench.plugins.probe import Evaluation, Run, StepsProbe
from hpml_bench.records.run import Metric, Point

_metric = partial(Metric.define, group="time", phase="train")
METRICS = (
    _metric(
        "selected_step",
        "selected step",
        "steps",
        "neither",
        ",.0f",
        (
            "The first step with the best validation score, whose weights are tested, saved and "
            "merged (`select`)."
        ),
    ),
    _metric(
        "selected_seconds",
        "training time to the selected step",
        "s",
        "lower",
        ".2f",
        "Training time up to the selected step. That it is the best is known only after the last "
        "one, whose costs the other metrics hold.",
        depends_on_machine=True,
        over_steps="sum",
    ),
)


class SelectionProbe(StepsProbe):
    """Follows the validation score as the training does; reports nothing where the last step
    counts.
    """

    of_training = True
    metrics = METRICS

    def start(self, run: Run) -> None:
        super().start(run)
        self.scores: dict[int, float] = {}

    def after_eval(self, evaluation: Evaluation) -> list[Point]:
        if evaluation.phase == "validation" and self.definitions():
            self.scores[evaluation.step] = self.run.task.validation_score(evaluation.metrics)
        return []

    def state(self) -> dict[str, Any]:
        return {"scores": [[step, score] for step, score in self.scores.items()]}

    def load(self, state: dict[str, Any], step: int) -> None:
        self.scores = {int(at): score for at, score in state["scores"]}

    def definitions(self) -> tuple[Metric, ...]:
        return self.metrics if self.run.settings.select != "last" else ()

    def stop(self) -> dict[str, Any]:
        if not self.scores:
            return {}
        selected = self.run.task.best_step(self.scores)
        return {
            "selected_step": selected,
            "selected_seconds": sum(step.seconds for step in self.steps[:selected]),
        }
