"""Made-up results folders of tasks whose rows are numbers, tags or rare classes."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from helpers import made_records
from hpml_bench.plugins.task import Task, make_task
from hpml_bench.records.folder import RunFolder
from hpml_bench.records.predictions import Predictions, write_predictions
from hpml_bench.records.run import Metric, Point, RunRecord
from hpml_bench.suite import registry
from hpml_bench.suite.settings import TaskSpec

RARE = ("quiet", "alarm")
TAGS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
ROWS = 400


def write(
    folder: Path,
    task: str,
    methods: Sequence[str] = made_records.METHODS,
    seeds: int = 5,
    rank_by: str | None = None,
) -> Path:
    changes = {"task": TaskSpec(name=task), "test_samples": ROWS, "rank_by": rank_by}
    settings = made_records.SETTINGS.model_copy(update=changes)
    target = registry.plugin("tasks", task).target
    labels = {"tags": TAGS, "class": RARE}.get(target, ())
    made = make_task(settings.task, labels, rank_by=rank_by)
    answers = {"number": _ratings, "tags": _names, "class": _alarms}[target]
    for item in made_records.sweep(methods, seeds, settings=settings):
        predictions = answers(item)
        scores = {f"test_{key}": value for key, value in made.evaluate(predictions).items()}
        course = _points(item, made, scores)
        commit(folder / item.run_id, item, made, predictions, course, label_names=labels)
    return folder


def commit(
    place: Path,
    item: RunRecord,
    task: Task,
    predictions: Predictions,
    course: Sequence[Point],
    probes: Sequence[Metric] = (),
    **fields: Any,
) -> None:
    """Write a run of a task with the scores of its predictions, metrics of further probes, and
    other fields.
    """
    scores = {f"test_{key}": value for key, value in task.evaluate(predictions).items()}
    own = {key: value for key, value in item.metrics.items() if not key.startswith("test_")}
    others = [metric for metric in item.definitions if metric.group != "quality"]
    place.mkdir(parents=True)
    write_predictions(place, predictions, task.scores(predictions))
    made_records.write_points(place, course)
    made: dict[str, Any] = {
        "label_names": (),
        "notes": {},
        "headline": task.headline,
        "metrics": own | scores,
        "definitions": (*others, *probes, *task.metrics),
    }
    RunFolder(place).commit(item.model_copy(update=made | fields))


def _difficulty(item: RunRecord) -> float:
    """Return the share of rows that a run gets wrong."""
    return 1 - (item.metrics["test_accuracy"] or 0.0)


def _noise(item: RunRecord) -> np.ndarray:
    """Return how far each row is off, of standard deviation 1: much of it the row's own, the
    same for every run.
    """
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
    """Return tags of rows of two names each; the rows that are furthest off lack one, or have
    its end wrong.
    """
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
    losses = np.where(np.isin(np.arange(ROWS), wrong), 1.0, 0.5).astype(np.float32)
    return Predictions(np.arange(ROWS), tuple(references), tuple(answers), losses)


def _alarms(item: RunRecord) -> Predictions:
    """Return answers to rows of which one in ten is an alarm; `full` finds half of them for as
    many false ones.
    """
    row = np.arange(ROWS)
    reference = (row % 10 == 0).astype(int)
    answer = ((item.spec.method.name == "full") & (row % 20 < 2)).astype(int)
    odds = np.where(answer == 1, 1.0 + reference, -3.0) + 0.1 * _noise(item)
    loss = np.log1p(np.exp(np.where(reference == 1, -odds, odds)))
    return Predictions(np.arange(ROWS), reference, answer, loss)


def _points(item: RunRecord, task: Task, scores: dict[str, float]) -> list[Point]:
    points: list[Point] = []
    end, better = scores[task.headline], task.headline == "test_f1"
    for step in range(10, 101, 10):
        left = math.exp(-step / 25)
        values: dict[str, Any] = {
            "train_loss": 0.3 + left,
            "validation_loss": 0.4 + left,
            "grad_norm": 1 + left,
            f"validation_{task.headline.removeprefix('test_')}": end * (1 - left)
            if better
            else end + left,
        }
        points += [Point(metric=name, step=step, value=value) for name, value in values.items()]
    return points + made_records.steps_of(item)
