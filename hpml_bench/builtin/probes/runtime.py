"""Times of the phases of a run."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

from hpml_bench.plugins.probe import Evaluation, Finished, Probe, Run, Step
from hpml_bench.records.run import Metric, Point

_seconds = partial(Metric, unit="s", better="lower", format=".2f", group="time", depends_on_machine=True)
METRICS = (
    _seconds(
        name="first_step_seconds", title="launch to first step", over_ranks="max", over_steps="once", phase="setup",
        definition="From the moment the run's processes are launched to the first training step: processes forked, "
        "process group joined, data and weights opened, model built. Not known when torchrun starts them.",
    ),
    _seconds(
        name="setup_seconds", title="set-up time", over_ranks="max", over_steps="once", phase="setup",
        definition="From the moment a rank begins its work (libraries imported) to the first training step: data and "
        "weights opened, model built, process group joined.",
    ),
    _seconds(
        name="train_seconds", title="training time", over_ranks="same", over_steps="sum", phase="train",
        definition="The slowest rank's wall time between the moments at which all ranks meet, summed over the steps: "
        "batch, forward, backward, all-reduce, clipping, optimizer, and all that lies between two steps. Evaluation, "
        "the writing of points and start-up lie outside.",
    ),
    _seconds(
        name="train_seconds_second_clock", title="training time, second clock", better="neither",
        over_ranks="same", over_steps="sum", phase="train",
        definition="The same by another clock of the system (CLOCK_MONOTONIC_RAW on Linux), read only where the ranks "
        "meet and after the last step before they meet again; the slowest rank's, summed. A self-check compares.",
    ),
    _seconds(
        name="evaluation_seconds", title="validation time", over_ranks="same", over_steps="sum", phase="validation",
        definition="Sum over the evaluations on the validation rows during training, each the slowest rank's time.",
    ),
    _seconds(
        name="total_seconds", title="total time", over_ranks="max", over_steps="once", phase="run",
        definition="From the moment a rank begins its work to the end of the evaluation on the test rows, "
        "writing what is kept included; latency measurements and the start of processes lie outside.",
    ),
)  # fmt: skip


class RuntimeProbe(Probe):
    """Reads the clock at the start and end of each phase."""

    metrics = METRICS

    def start(self, run: Run) -> None:
        """Note when the run began; set-up goes on, with other probes, DDP and the optimizer."""
        self.began = run.began
        self.launched = run.launched if run.method.trains else None  # without steps there is no first one
        self.setup: float | None = None
        self.first_step: float | None = None
        self.train = self.second_clock = self.evaluation = self.total = 0.0

    def before_training(self) -> None:
        """End the set-up."""
        self.setup = time.monotonic() - self.began
        self.first_step = None if self.launched is None else time.monotonic() - self.launched

    def after_steps(self, window: list[Step]) -> list[Point]:
        """Sum the steps; keep each one's time with the numbers from which rates and drift are computed."""
        self.train += sum(step.seconds for step in window)
        self.second_clock += sum(step.second_clock or 0.0 for step in window)
        return [
            Point(
                metric="step_seconds", step=step.index, value=step.seconds, ranks=step.rank_seconds,
                tokens=step.padded_tokens, real_tokens=step.real_tokens,
            )
            for step in window
        ]  # fmt: skip

    def after_eval(self, evaluation: Evaluation) -> list[Point]:
        """Sum the validations; the test evaluation ends the run."""
        if evaluation.phase == "validation":
            self.evaluation += evaluation.seconds
        else:
            self.total = time.monotonic() - self.began
        return []

    def stop(self) -> dict[str, Any]:
        """Return the times."""
        return {
            "first_step_seconds": self.first_step,
            "setup_seconds": self.setup,
            "train_seconds": self.train,
            "train_seconds_second_clock": self.second_clock,
            "evaluation_seconds": self.evaluation,
            "total_seconds": self.total,
        }

    @classmethod
    def implied(cls, run: Finished) -> dict[str, float]:
        """Return the sum of the points' steps."""
        return {"train_seconds": sum(step.seconds for step in run.steps)} if run.steps else {}
