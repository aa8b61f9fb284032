"""Made-up results folders of tasks whose rows are numbers or tags: the harness's own, and those of plugin_tasks.py."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from helpers import made_records
from hpml_bench.plugins.task import Task, make_task
from hpml_bench.records.folder import RunFolder
from hpml_bench.records.predictions import Predictions, write_predictions
from hpml_bench.records.run import Point, RunRecord
from hpml_bench.suite.settings import TaskSpec

TAGS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
ROWS = 400


def write(folder: Path, task: str, methods: Sequence[str] = made_records.METHODS, seeds: int = 5) -> Path:
    """Write methods x seeds of a task under `folder`, and return it."""
    settings = made_records.SETTINGS.model_copy(update={"task": TaskSpec(name=task), "test_samples": ROWS})
    for item in made_records.sweep(methods, seeds, settings=settings):
        _write(folder / item.run_id, item)
    return folder


def _write(place: Path, item: RunRecord) -> None:
    task = make_task(item.spec.settings.task, TAGS)
    labels = TAGS if task.target == "tags" else ()
    predictions = _ratings(item) if task.target == "number" else _names(item)
    scores = {f"test_{key}": value for key, value in task.evaluate(predictions).items()}
    own = {key: value for key, value in item.metrics.items() if not key.startswith("test_")}
    others = [metric for metric in item.definitions if metric.group != "quality"]
    place.mkdir(parents=True)
    write_predictions(place, predictions, task.scores(predictions))
    made_records.write_points(place, _points(item, task, scores))
    record = item.model_copy(
        update={
            "label_names": labels, "notes": {}, "headline": task.headline, "metrics": own | scores,
            "definitions": (*others, *task.metrics),
        }
    )  # fmt: skip
    RunFolder(place).commit(record)


def _difficulty(item: RunRecord) -> float:
    """Return the share of rows that a run gets wrong."""
    return 1 - (item.metrics["test_accuracy"] or 0.0)


def _noise(item: RunRecord) -> np.ndarray:
    """Return how far each row is off, of standard deviation 1: much of it the row's own, the same for every run."""
    name = item.spec.method.name
    common = np.random.default_rng(7).standard_normal(ROWS)
    method = np.random.default_rng([sum(map(ord, name)), 3]).standard_normal(ROWS)
    own = np.random.default_rng([item.spec.seed, len(name)]).standard_normal(ROWS)
    return np.asarray(0.9 * common + 0.3 * method + 0.3 * own)


def _ratings(item: RunRecord) -> Predictions:
    stars = np.random.default_rng(8).normal(3, 1.2, ROWS)
    answers = stars + (0.3 + 2 * _difficulty(item)) * _noise(item)
    return Predictions(np.arange(ROWS), stars, answers, ((answers - stars) ** 2).astype(np.float32))


def _names(item: RunRecord) -> Predictions:
    """Return tags of rows of two names each; the rows that are furthest off lack one, or have its end wrong."""
    draw = np.random.default_rng(8)
    references, answers = [], []
    wrong = np.argsort(-np.abs(_noise(item)))[: round(_difficulty(item) * ROWS)]
    for row in range(ROWS):
        words = np.zeros(draw.integers(6, 12), dtype=np.int32)
        words[0:2], words[3] = (1, 2), 3
        said = words.copy()
        if row in wrong:
            said[1 if row % 2 else 3] = 0
        references.append(words)
        answers.append(said)
    return Predictions(np.arange(ROWS), tuple(references), tuple(answers), np.full(ROWS, 0.5, dtype=np.float32))


def _points(item: RunRecord, task: Task, scores: dict[str, float]) -> list[Point]:
    """Return the course of a run towards its scores."""
    points: list[Point] = []
    end, better = scores[task.headline], task.headline == "test_f1"
    for step in range(10, 101, 10):
        left = math.exp(-step / 25)
        values: dict[str, Any] = {
            "train_loss": 0.3 + left, "validation_loss": 0.4 + left, "grad_norm": 1 + left,
            f"validation_{task.headline.removeprefix('test_')}": end * (1 - left) if better else end + left,
        }  # fmt: skip
        points += [Point(metric=name, step=step, value=value) for name, value in values.items()]
    return points + made_records.steps_of(item)
