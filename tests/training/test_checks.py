"""The arithmetic self-checks: each passes on a sound run and fails on the fault it is there for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from helpers import tiny
from hpml_bench.builtin.tasks.sequence_classification import SequenceClassification
from hpml_bench.records.predictions import Predictions
from hpml_bench.records.run import Consumed, Point
from hpml_bench.report.checks import RunFigures, self_checks


def predictions(*index: int) -> Predictions:
    """Return the predictions of these four rows, three of them right."""
    return Predictions(np.array(index), np.array([0, 1, 1, 0]), np.array([0, 1, 1, 1]), np.zeros(4))


def sound() -> dict[str, Any]:
    """Return the figures of a run of 6 steps of 12 that adds up."""
    seconds, losses = [0.5, 0.25, 0.25, 0.25, 0.25, 0.25], [3.0, 2.0, 1.0, 1.0, 0.5, 0.5]
    points = [Point(metric="step_seconds", step=i, value=v) for i, v in enumerate(seconds, 1)]
    points += [Point(metric="train_loss", step=i, value=v) for i, v in enumerate(losses, 1)]
    return {
        "metrics": {
            "samples_per_second": 48.0,
            "train_seconds": 1.75,
            "train_seconds_second_clock": 1.753,
            "train_loss": 8 / 6,
            "test_accuracy": 0.75,
        },
        "points": points,
        "consumed": Consumed(steps=6, samples=72, real_tokens=700, padded_tokens=720, order="o"),
        "settings": tiny.settings(),
        "predictions": predictions(0, 1, 2, 3),
        "test_rows": 4,
        "task": SequenceClassification(None, ("a", "b")),
        "parameters": {"trainable": 10, "in the optimizer": 10, "with a gradient": 10},
    }


def failed(**changes: Any) -> list[str]:
    return [check.name for check in self_checks(RunFigures(**(sound() | changes))) if not check.passed]


def test_a_sound_run_passes_all() -> None:
    """Figures that agree pass every check."""
    assert failed() == []


METRICS, POINTS = sound()["metrics"], sound()["points"]
FAULTS = [
    *(({"metrics": METRICS | {metric: value}}, check) for metric, value, check in (
        ("samples_per_second", 96.0, "throughput"), ("samples_per_second", None, "throughput"),
        ("train_seconds", 1.25, "training time"), ("train_seconds_second_clock", 1.72, "second clock"),
        ("train_seconds_second_clock", None, "second clock"), ("train_loss", 0.5, "training loss"),
        ("test_accuracy", 0.76, "accuracy"),
    )),
    # a rate over all steps, the first included, that fits its own seconds
    ({"metrics": METRICS | {"samples_per_second": 72 / 1.75, "timed_seconds": 1.75}}, "throughput"),
    ({"predictions": predictions(0, 1, 2, 2)}, "predictions"),
    ({"consumed": sound()["consumed"].model_copy(update={"samples": 73})}, "budget"),
    ({"parameters": sound()["parameters"] | {"with a gradient": 9}}, "parameters"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "check"), FAULTS)
def test_a_figure_that_contradicts_its_source_fails(changes: dict[str, Any], check: str) -> None:
    """Metrics that their points don't give, a row predicted twice, other samples than steps x batch, lost gradients."""
    assert failed(**changes) == [check]


def test_time_that_no_step_has_is_found() -> None:
    """A tenth of a second less in one of the points than by the second clock; 1 % and 1 ms a window are let through."""
    points = [p.model_copy(update={"value": 0.15}) if (p.step, p.value) == (6, 0.25) else p for p in sound()["points"]]
    metrics = sound()["metrics"] | {"train_seconds": 1.65, "samples_per_second": 60 / 1.15}
    assert failed(points=points, metrics=metrics) == ["second clock"]
    assert failed(metrics=sound()["metrics"] | {"train_seconds_second_clock": 1.75 + 0.0175 + 0.004}) == []


def test_a_lost_step_is_found() -> None:
    """A step without its point is found."""
    points = [p for p in sound()["points"] if not (p.metric == "train_loss" and p.step == 3)]
    assert "every step" in failed(points=points)
