"""Seconds of the run's parts."""

from __future__ import annotations

import time
from typing import Any

from hpml_bench.probes import Evaluation, Probe, Run, Step
from hpml_bench.records import Metric, Point

metrics = (
    Metric(
        name="setup_seconds",
        title="set-up time",
        unit="s",
        better="lower",
        over_ranks="max",
        over_steps="once",
        phase="setup",
        format=".2f",
        definition="From the moment a rank begins its work (libraries imported) to the first training step: data and "
        "weights opened, model built, process group joined.",
    ),
    Metric(
        name="train_seconds",
        title="training time",
        unit="s",
        better="lower",
        over_ranks="same",
        over_steps="sum",
        phase="train",
        format=".2f",
        definition="Sum over all optimizer steps of the slowest rank's time: batch, forward, backward, all-reduce, "
        "clipping, optimizer. Evaluation, logging and start-up lie outside.",
    ),
    Metric(
        name="evaluation_seconds",
        title="validation time",
        unit="s",
        better="lower",
        over_ranks="same",
        over_steps="sum",
        phase="validation",
        format=".2f",
        definition="Sum over the evaluations on the validation rows during training, each the slowest rank's time.",
    ),
    Metric(
        name="total_seconds",
        title="total time",
        unit="s",
        better="lower",
        over_ranks="max",
        over_steps="once",
        phase="run",
        format=".2f",
        definition="From the moment a rank begins its work to the end of the evaluation on the test rows, "
        "writing what is kept included; latency measurements and the start of processes lie outside.",
    ),
)


class Measure(Probe):
    """Reads the clock at the borders of phases."""

    def start(self, run: Run) -> None:
        """End of the set-up."""
        self.began = run.began
        self.setup = time.monotonic() - run.began
        self.train = self.evaluation = self.total = 0.0

    def after_steps(self, window: list[Step]) -> list[Point]:
        """Sum the steps and keep each one's time."""
        self.train += sum(step.seconds for step in window)
        return [Point(metric="step_seconds", step=step.index, value=step.seconds) for step in window]

    def after_eval(self, evaluation: Evaluation) -> list[Point]:
        """Sum the validations; the test evaluation ends the run."""
        if evaluation.phase == "validation":
            self.evaluation += evaluation.seconds
        else:
            self.total = time.monotonic() - self.began
        return []

    def stop(self) -> dict[str, Any]:
        """Return the four times."""
        return {
            "setup_seconds": self.setup,
            "train_seconds": self.train,
            "evaluation_seconds": self.evaluation,
            "total_seconds": self.total,
        }
