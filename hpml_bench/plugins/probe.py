"""Probes: the base class of measurements during a run, and the types of their inputs.

The order of events in every rank:

    start(run)
    wrapped(model)                  under DDP, with several ranks
    before_training()
    where the run goes on from a checkpoint: after_steps(all steps so far), load(state, step)
    for each window, the steps between two writings of points:
        all ranks meet, and their clocks start
        for each step, timed from the end of the one before:
            before_step(index), batch, forward, backward, after_backward(index), optimizer
        after_steps(window)         reduced over ranks, not timed
        every `eval_every` steps:   before_eval("validation"), after_eval(evaluation), not timed
        every `checkpoint_minutes`: state(), not timed
    after_training()
    before_eval("test"), after_eval(evaluation)
    stop() -> this rank's values by metric name; reduced to the run's by each metric's `over_ranks`

A probe must not change what it measures: on a CPU, tests compare the losses with and without it bit
for bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from hpml_bench.records.predictions import Predictions
from hpml_bench.records.run import Metric, Point
from hpml_bench.suite.settings import Settings

if TYPE_CHECKING:
    import numpy as np
    from torch.nn.parallel import DistributedDataParallel

    from hpml_bench.plugins.decoding import Generator
    from hpml_bench.plugins.group import Group
    from hpml_bench.plugins.method import Method
    from hpml_bench.plugins.model import TaskModel
    from hpml_bench.plugins.rows import Rows
    from hpml_bench.plugins.task import Task

Write = Callable[
    [list[Point]], None
]  # takes the points of a window, on every rank; only rank 0 keeps them


@dataclass(frozen=True)
class Run:
    """A run as probes see it."""

    settings: Settings
    group: Group
    model: TaskModel
    method: Method
    task: Task
    test: Rows
    folder: Path
    began: float  # time.monotonic() at which this rank's work began
    launched: float | None = None
    """time.monotonic() at which the parent began to start the ranks; None when torchrun did."""
    retention: Rows | None = None  # general text; None where the task measures no forgetting
    base_losses: np.ndarray | None = None
    """Loss of the base model on each of these texts, before the method changed it, summed over
    tokens, [n] in nats.
    """
    generator: Generator | None = None  # generation of answers; None where the task generates none

    @property
    def answers(self) -> bool:
        """Whether the rows are answered, by text that is generated or by one of several choices."""
        return self.generator is not None or self.task.compares_choices

    @property
    def timed_rows(self) -> list[int]:
        """The first `latency_samples` test rows, twice: what is timed is the second time, after
        first allocations.
        """
        return [*range(min(self.settings.latency_samples, len(self.test)))] * 2

    @cached_property
    def merged(self) -> TaskModel | None:
        """The model with the method folded into the backbone's weights; None where that is
        impossible.

        Folding changes the model, so measure everything else before.
        """
        # some of PEFT's types apply dropout while they merge, unless in evaluation mode
        self.model.eval()
        encoder = self.method.merge(self.model.encoder)
        return None if encoder is None else self.model.with_encoder(encoder)


@dataclass(frozen=True)
class Step:
    """One optimizer step, reduced over ranks."""

    index: int  # number of the step, from 1
    loss: float  # mean over the global batch
    grad_norm: float  # global L2 norm after the all-reduce, before clipping
    lr: float  # learning rate of the method's parameters in this step
    seconds: float
    """Time from when all ranks had ended the step before (or met before the window) until all
    had ended this one. The steps of a window add up to the slowest rank's wall time of it.
    """
    rank_seconds: tuple[
        float, ...
    ]  # each rank's own seconds, from its end of the step before to its end of this one
    samples: int
    real_tokens: int
    padded_tokens: int
    virtual_tokens: int
    again: bool = False
    """Whether it warmed up again, after the run went on from a checkpoint: then it is in no
    timed window.
    """
    second_clock: float | None = None
    """On a window's last step, the slowest rank's wall time of the whole window by another
    clock.
    """

    @property
    def overflowed(self) -> bool:
        """Whether the gradient is NaN or infinite; in fp16 such a step changes nothing."""
        return not math.isfinite(self.grad_norm)


@dataclass(frozen=True)
class Finished:
    """A run as its record and points show it afterwards."""

    settings: Settings
    metrics: Mapping[str, float | None]  # metrics as recorded
    per_rank: Mapping[str, tuple[float | None, ...]]  # the ranks' own values, where they may differ
    steps: tuple[Step, ...]  # its steps from the points; empty where nothing was trained
    test_rows: int

    def value(self, name: str) -> float:
        """Return a recorded metric; NaN where there is none."""
        value = self.metrics.get(name)
        return math.nan if value is None else value


@dataclass(frozen=True)
class Evaluation:
    """An exact pass over a split: every row once, in row order, the same on all ranks."""

    phase: str  # `validation` or `test`
    step: int
    predictions: Predictions
    metrics: Mapping[
        str, float
    ]  # what the task's `evaluate` returns: values by name without the phase
    seconds: float  # time of the slowest rank for losses and labels, without that for answers
    generation_seconds: float | None = None
    """Time of the slowest rank for generating answers alone; None where there are none."""
    answer_seconds: float | None = None
    """Time of the slowest rank for its answers, generated or chosen, None where there are none."""


def evaluated_again(
    prefix: str, titles: tuple[str, str, str, str], after: str, more: str = ""
) -> tuple[Metric, ...]:
    """Return the metrics of `training.evaluation.evaluate_merged` for a model `after` a change,
    with their titles.

    They are its loss, to whose definition `more` is added, its score, the answers changed, and the
    seconds.
    """
    metric, (loss, score, changed, seconds) = (
        partial(Metric.define, phase="run", group="merging"),
        titles,
    )
    return (
        metric(
            f"{prefix}_test_loss",
            loss,
            "nats/token",
            "lower",
            ".3f",
            f"The test loss {after}{more}.",
        ),
        metric(f"{prefix}_test_score", score, "", "higher", ".1%", f"The test score {after}."),
        metric(
            f"{prefix}_answers_changed",
            changed,
            "",
            "lower",
            ".1%",
            f"Share of the test rows that are answered otherwise {after}.",
        ),
        metric(
            f"{prefix}_evaluation_seconds",
            seconds,
            "s",
            "lower",
            ".2f",
            f"The slowest rank's time for losses and answers of the test rows {after}.",
            depends_on_machine=True,
        ),
    )


class Probe:
    """Base class of probes: does nothing at any event; a probe overrides the events it needs."""

    plugin_kind: ClassVar[str] = "probes"
    of_training: ClassVar[bool] = False
    """Whether it measures only training steps: it is left out where nothing is trained."""
    metrics: ClassVar[tuple[Metric, ...]] = ()
    """Definitions of the metrics that `stop` returns; they are stored with each run."""
    tested: Evaluation | None = None
    """The evaluation of the test rows, once it is done."""

    def start(self, run: Run) -> None:
        """Model and data are ready, no step was taken; the base class keeps the run, and begins
        with no values.
        """
        self.run = run
        self.values: dict[str, Any] = {}

    def wrapped(self, model: DistributedDataParallel) -> None:
        """The model is wrapped by DDP, which one rank isn't, and no step was taken."""

    def before_training(self) -> None:
        """Model, optimizer and DDP are ready, and the ranks are about to meet for the first
        step.
        """

    def before_step(self, index: int) -> None:
        """A step is about to begin; it is timed, so be quick."""

    def after_backward(self, index: int) -> None:
        """Gradients are reduced over ranks and not yet clipped; it is timed, so be quick."""

    def after_steps(self, window: list[Step]) -> list[Point]:
        """Some steps are done; return the points to write."""
        return []

    def before_eval(self, phase: str) -> None:
        """An evaluation is about to begin."""

    def after_eval(self, evaluation: Evaluation) -> list[Point]:
        """An evaluation is done; return the points to write. The base class keeps that of the
        test rows as `tested`.
        """
        if evaluation.phase == "test":
            self.tested = evaluation
        return []

    def after_training(self) -> None:
        """The last step and its validation are done; the test rows come next."""

    def state(self) -> dict[str, Any] | None:
        """Return what the training has given beyond its steps, as JSON, for a checkpoint after a
        window; None: unknown.

        A run whose probe returns None saves no checkpoint. Losses of validation rows that a probe
        keeps belong here. The base class knows the state of a probe that overrides no event of the
        training: {}. A probe that overrides one says what it keeps; {} where that follows from the
        steps, which come again, all at once.
        """
        measured = ("before_step", "after_backward", "after_steps", "before_eval", "after_eval")
        hooks = [getattr(type(self), name) for name in measured]
        # what StepsProbe keeps follows from the steps
        overridden = [hook for hook in hooks if hook.__module__ != __name__]
        return None if overridden else {}

    def load(self, state: dict[str, Any], step: int) -> None:
        """Go on from a checkpoint after `step`, before the next; `after_steps` has got all steps
        up to it again.
        """

    def definitions(self) -> tuple[Metric, ...]:
        """Return the metrics that this run can report."""
        return self.metrics

    def stop(self) -> dict[str, Any]:
        """Return this rank's values by metric name; None or NaN for what can't be measured here."""
        return self.values

    @classmethod
    def implied(cls, run: Finished) -> dict[str, float]:  # noqa: ARG003 - for probes that override it
        """Return the metrics that follow from the points and other metrics of a run, by name; NaN
        where unknown.

        `hpml-bench verify` compares them with the recorded ones.
        """
        return {}


class StepsProbe(Probe):
    """Base class of probes that keep all steps of the run, as `steps`."""

    @cached_property
    def steps(self) -> list[Step]:
        """All steps so far."""
        return []

    def after_steps(self, window: list[Step]) -> list[Point]:
        self.steps.extend(window)
        return []
