"""Times of the phases of a run."""

import time
from functools import partial
from typing import Any

from hpml_bench.plugins.probe import Evaluation, Finished, Probe, Run, Step
from hpml_bench.records.run import Metric, Point

_metric = partial(Metric.define, group="time", depends_on_machine=True)
METRICS = (
    _metric(
        "first_step_seconds",
        "launch to first step",
        "s",
        "lower",
        ".2f",
        "From the moment the run's processes are launched to the first training step: processes "
        "forked, process "
        "group joined, data and weights opened, model built. Not known when torchrun starts them.",
        over_ranks="max",
        phase="setup",
    ),
    _metric(
        "setup_seconds",
        "set-up time",
        "s",
        "lower",
        ".2f",
        "From the moment a rank begins its work (libraries imported) to the first training step: "
        "data and weights opened, model built, process group joined.",
        over_ranks="max",
        phase="setup",
    ),
    _metric(
        "train_seconds",
        "training time",
        "s",
        "lower",
        ".2f",
        "The slowest rank's wall time between the moments at which all ranks meet, summed over the "
        "steps: batch, forward, backward, all-reduce, clipping, optimizer, and all that lies "
        "between two steps. Evaluation, the writing of points and start-up lie outside.",
        over_steps="sum",
        phase="train",
    ),
    _metric(
        "train_seconds_second_clock",
        "training time, second clock",
        "s",
        "neither",
        ".2f",
        "The same by another clock of the system (CLOCK_MONOTONIC_RAW on Linux), read only where "
        "the ranks meet and after the last step before they meet again; the slowest rank's, "
        "summed. A self-check compares.",
        over_steps="sum",
        phase="train",
    ),
    _metric(
        "evaluation_seconds",
        "validation time",
        "s",
        "lower",
        ".2f",
        (
            "Sum over the evaluations on the validation rows during training, each the slowest "
            "rank's time."
        ),
        over_steps="sum",
        phase="validation",
    ),
    _metric(
        "total_seconds",
        "total time",
        "s",
        "lower",
        ".2f",
        "From the moment a rank begins its work to the end of the evaluation on the test rows, "
        "writing what is "
        "kept included; latency measurements and the start of processes lie outside.",
        over_ranks="max",
        phase="run",
    ),
)
ANSWERS = tuple(
    _metric(
        f"{split}_answer_seconds",
        f"{split} answers' time",
        "s",
        "lower",
        ".2f",
        f"{when}, the slowest rank's time to answer all rows, by generation or choice. It is in "
        "neither the validation nor the inference time, which are of losses.",
        over_steps=steps,
        phase=split,
    )
    for split, when, steps in (
        ("validation", "Sum over the evaluations on the validation rows during training", "sum"),
        ("test", "At the evaluation on the test rows", "once"),
    )
)
"""Times of language models' answers."""


class RuntimeProbe(Probe):
    """Reads the clock at the start and end of each phase."""

    metrics = (*METRICS, *ANSWERS)
    resumed = False
    """Whether the run went on from a checkpoint."""

    def definitions(self) -> tuple[Metric, ...]:
        return self.metrics if self.run.answers else METRICS

    def start(self, run: Run) -> None:
        super().start(run)
        self.values = dict.fromkeys((metric.name for metric in METRICS), 0.0)
        self.values |= {"setup_seconds": None, "first_step_seconds": None}

    def before_training(self) -> None:
        now, run = time.monotonic(), self.run
        self.values["setup_seconds"] = (
            None if run.method.command else now - run.began
        )  # its program trained meanwhile
        if run.launched is not None and run.method.trains:
            self.values["first_step_seconds"] = now - run.launched

    def after_steps(self, window: list[Step]) -> list[Point]:
        self.values["train_seconds"] += sum(step.seconds for step in window)
        self.values["train_seconds_second_clock"] += sum(
            step.second_clock or 0.0 for step in window
        )
        return [
            Point(
                metric="step_seconds",
                step=step.index,
                value=step.seconds,
                ranks=step.rank_seconds,
                tokens=step.padded_tokens,
                real_tokens=step.real_tokens,
                **({"again": True} if step.again else {}),
            )
            for step in window
        ]

    def state(self) -> dict[str, Any]:
        names = (
            "setup_seconds",
            "first_step_seconds",
            "evaluation_seconds",
            "validation_answer_seconds",
        )
        return {name: self.values[name] for name in names if name in self.values}

    def load(self, state: dict[str, Any], step: int) -> None:
        """Take the first start's times; none is the total's, as steps were repeated (the
        record's segments say).
        """
        self.values |= state
        self.resumed = True

    def after_eval(self, evaluation: Evaluation) -> list[Point]:
        if evaluation.answer_seconds is not None:
            name = f"{evaluation.phase}_answer_seconds"
            self.values[name] = self.values.get(name, 0.0) + evaluation.answer_seconds
        if evaluation.phase == "validation":
            self.values["evaluation_seconds"] += evaluation.seconds
        elif self.resumed:
            self.values["total_seconds"] = None
        else:
            self.values["total_seconds"] = time.monotonic() - self.run.began
        return []

    @classmethod
    def implied(cls, run: Finished) -> dict[str, float]:
        return {"train_seconds": sum(step.seconds for step in run.steps)} if run.steps else {}
