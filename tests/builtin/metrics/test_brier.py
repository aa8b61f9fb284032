"""Probabilities of classes: recorded with each row, checked against its answer and loss, drawn as scikit-learn does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.special import softmax
from sklearn.calibration import calibration_curve

from helpers import tiny
from hpml_bench.data.prepared import Prepared
from hpml_bench.plugins.task import make_task
from hpml_bench.records.files import PREDICTIONS
from hpml_bench.records.predictions import Predictions, read_predictions, write_predictions
from hpml_bench.report.pictures.charts import reliability_chart
from hpml_bench.statistics import share_interval
from hpml_bench.statistics.calibration import reliability
from hpml_bench.suite.settings import TaskSpec
from hpml_bench.system.errors import UserError

ROWS = 200
NAMES = ("x", "y", "z")
TASK = make_task(TaskSpec(name="sequence_classification"), NAMES)


def answered(seed: int = 0) -> Predictions:
    draw = np.random.default_rng(seed)
    reference, logits = draw.integers(0, 3, ROWS), draw.normal(size=(ROWS, 3)).astype(np.float32)
    logits[np.arange(ROWS), reference] += 1
    given = softmax(logits, axis=1)
    loss = -np.log(given[np.arange(ROWS), reference])
    return Predictions(np.arange(ROWS), reference, given.argmax(1), loss, probabilities=given)


@pytest.mark.parametrize("method", ["lora", "head"])
def test_a_run_records_the_probability_of_every_class(method: str, prepared: Prepared, tmp_path: Path) -> None:
    """They are those of its losses and answers, over two ranks too, and give the recorded Brier score."""
    record = tiny.run(tiny.spec(method), prepared, tmp_path / method)
    stored = read_predictions(tmp_path / method)
    given, reference = stored.probabilities, np.asarray(stored.reference)
    assert given.dtype == np.float32
    assert np.allclose(given.sum(1), 1)
    assert np.array_equal(given.argmax(1), stored.prediction)
    assert np.allclose(-np.log(given[np.arange(len(given)), reference]), stored.loss, atol=1e-5)
    squares = ((given.astype(float) - np.eye(given.shape[1])[reference]) ** 2).sum(1)
    assert record.metrics["test_brier"] == pytest.approx(squares.mean(), rel=1e-12)
    assert not TASK.contradicted(stored).any()


def test_probabilities_come_back_in_row_order_and_may_be_missing(tmp_path: Path) -> None:
    """Files of former versions have none, and no Brier score; a row without its own makes the file unreadable."""
    whole = answered()
    order = np.random.default_rng(1).permutation(ROWS)
    parts = {name: np.asarray(getattr(whole, name))[order] for name in ("reference", "prediction", "loss")}
    shuffled = Predictions(order, **parts, probabilities=whole.probabilities[order])
    write_predictions(tmp_path, shuffled, np.ones(ROWS))
    assert np.array_equal(read_predictions(tmp_path).probabilities, whole.probabilities)
    table = pq.read_table(tmp_path / PREDICTIONS)
    rows: list[Any] = table.column("probabilities").to_pylist()
    for broken in (pa.array([None, *rows[1:]], pa.list_(pa.float32(), 3)), pa.array([[1.0], *rows[1:]])):
        pq.write_table(table.set_column(table.schema.get_field_index("probabilities"), "probabilities", broken),
                       tmp_path / PREDICTIONS)  # fmt: skip
        assert read_predictions(tmp_path) is None
    write_predictions(tmp_path, replace(shuffled, probabilities=None), np.ones(ROWS))
    former = read_predictions(tmp_path)
    assert former.probabilities is None
    assert "brier" not in TASK.evaluate(former)


def test_probabilities_that_contradict_a_row_are_found() -> None:
    """Of another answer, of another loss, or with another sum than 1; those of float32 pass."""
    whole = answered()
    assert not TASK.contradicted(whole).any()
    wrong = whole.probabilities.copy()
    wrong[3] = wrong[3][[1, 2, 0]]
    wrong[5] *= 0.99
    wrong[8] = np.nan
    assert np.flatnonzero(TASK.contradicted(replace(whole, probabilities=wrong))).tolist() == [3, 5, 8]


def test_many_classes_have_no_probabilities() -> None:
    """Up to 100 they are recorded; a suite of more can't be ranked by their Brier score."""
    names = tuple(map(str, range(101)))
    spec = TaskSpec(name="sequence_classification")
    assert [make_task(spec, names[:n]).probable_classes for n in (100, 101)] == [100, 0]
    with pytest.raises(UserError, match="brier is of at most 100 classes, and there are 101"):
        make_task(spec, names, rank_by="brier")


def test_bins_are_those_of_scikit_learn() -> None:
    """Of as many rows each, by rising probability; their mean distance is the calibration error."""
    draw = np.random.default_rng(0)
    given = draw.random(ROWS)
    right = draw.random(ROWS) < given**2
    found = reliability(given, right)
    shares, means = calibration_curve(right, given, n_bins=10, strategy="quantile")
    assert np.allclose(found.right, shares)
    assert np.allclose(found.probability, means)
    assert found.error == pytest.approx(np.abs(shares - means).mean())
    assert [reliability(given[:n], right[:n]).rows for n in (10, 39, 40, 199)] == [10, 39, 20, 22]


def test_the_picture_has_each_methods_bins_with_intervals() -> None:
    """Means over seeds, Wilson's interval of a bin's rows, and the calibration error; without probabilities none."""
    bins, none = {}, SimpleNamespace(reliability=None)
    for seed, name in enumerate(("a0", "a1", "b0")):
        own = answered(seed)
        bins[name] = reliability(own.probabilities.max(1), own.reference == own.prediction)
    stored = {name: SimpleNamespace(reliability=of) for name, of in bins.items()} | {"c0": none}
    results = SimpleNamespace(
        methods=("a", "b", "c"), quality="q", means=lambda _: {"a": 1.0, "b": 2.0},
        definitions={"q": SimpleNamespace(better="lower")}, selection=SimpleNamespace(stored=stored),
        runs=lambda method: [SimpleNamespace(run_id=name) for name in stored if name[0] == method],
    )  # fmt: skip
    picture = reliability_chart(cast(Any, results))
    a, b = picture.series
    assert np.allclose([y for _, y in a.points], 50 * (bins["a0"].right + bins["a1"].right))
    assert b.label == f"b ({100 * bins['b0'].error:.1f})"
    line, first = picture.segments[0], picture.segments[1]
    assert line.start[0] == line.start[1]
    low, high = share_interval(a.points[0][1] / 100, 20)
    assert (first.start, first.end) == ((a.points[0][0], 100 * low), (a.points[0][0], 100 * high))
    stored.update(dict.fromkeys(bins, none))
    assert reliability_chart(cast(Any, results)) is None
