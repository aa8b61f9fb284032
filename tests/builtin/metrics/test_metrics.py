"""Metrics by which a suite may rank: equal to scikit-learn's and scipy's, by rows that show each
row's influence.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from scipy.special import softmax
from scipy.stats import spearmanr
from sklearn.calibration import calibration_curve
from sklearn.metrics import average_precision_score, brier_score_loss, f1_score, matthews_corrcoef

from helpers import tiny
from hpml_bench.data.prepared import Prepared
from hpml_bench.page.pictures.charts import reliability_chart
from hpml_bench.plugins.task import make_task
from hpml_bench.records.files import PREDICTIONS
from hpml_bench.records.predictions import Predictions, read_predictions, write_predictions
from hpml_bench.statistics import share_interval
from hpml_bench.statistics.calibration import reliability
from hpml_bench.suite import registry
from hpml_bench.suite.settings import TaskSpec
from hpml_bench.system.errors import UserError

ROWS = 300
Value = Callable[[Predictions], float]


def classified(classes: int, rare: float, seed: int = 0) -> Predictions:
    """Return answers and losses of a model that is right in most rows, one class being rare."""
    draw = np.random.default_rng([classes, seed])
    reference = draw.choice(classes, ROWS, p=[rare, *[(1 - rare) / (classes - 1)] * (classes - 1)])
    logits = draw.normal(size=(ROWS, classes)) + 1.5 * np.eye(classes)[reference]
    for of in (reference, logits):  # ties
        of[:30] = of[30:60]
    loss = np.log(np.exp(logits).sum(1)) - logits[np.arange(ROWS), reference]
    return Predictions(
        np.arange(ROWS), reference, logits.argmax(1), loss, probabilities=softmax(logits, axis=1)
    )


def numbers() -> Predictions:
    """Return predicted numbers, many of them equal."""
    draw = np.random.default_rng(5)
    reference = draw.normal(size=ROWS).round(1)
    return Predictions(
        np.arange(ROWS), reference, (reference + draw.normal(size=ROWS)).round(1), np.zeros(ROWS)
    )


def probability_of_rare(of: Predictions) -> tuple[NDArray[Any], NDArray[Any]]:
    rare = np.asarray(of.reference) == 0
    return rare, np.where(rare, np.exp(-of.loss), -np.expm1(-of.loss))


def brier(of: Predictions, classes: int) -> float:
    given, known = np.asarray(of.probabilities), [*range(classes)]
    if classes == 2:  # of the second class alone
        return 2 * float(
            brier_score_loss(
                of.reference, given[:, 1], pos_label=1, labels=known, scale_by_half=True
            )
        )
    return float(brier_score_loss(of.reference, given, labels=known, scale_by_half=False))


CASES: dict[str, tuple[str, Predictions, Value]] = {
    "macro-F1": (
        "macro_f1",
        classified(4, 0.05),
        lambda of: f1_score(of.reference, of.prediction, average="macro"),
    ),
    "MCC, two classes": (
        "mcc",
        classified(2, 0.1),
        lambda of: matthews_corrcoef(of.reference, of.prediction),
    ),
    "MCC, four": (
        "mcc",
        classified(4, 0.05),
        lambda of: matthews_corrcoef(of.reference, of.prediction),
    ),
    "average precision": (
        "average_precision",
        classified(2, 0.1),
        lambda of: average_precision_score(*probability_of_rare(of)),
    ),
    "Brier score, two classes": ("brier", classified(2, 0.1), lambda of: brier(of, 2)),
    "Brier score, four": ("brier", classified(4, 0.05), lambda of: brier(of, 4)),
    "Spearman's rho": (
        "spearman",
        numbers(),
        lambda of: spearmanr(of.reference, of.prediction).statistic,
    ),
}


def by_thresholds(rare: NDArray[Any], probability: NDArray[Any]) -> float:
    """Return average precision by its definition, a threshold after the other."""
    area, recall = 0.0, 0.0
    for threshold in sorted({*probability.tolist()}, reverse=True):
        shown = probability >= threshold
        hits = np.count_nonzero(rare & shown)
        before, recall = recall, hits / np.count_nonzero(rare)
        area += (recall - before) * hits / np.count_nonzero(shown)
    return area


@pytest.mark.parametrize("levels", [2, 5, 40])
def test_average_precision_has_one_threshold_for_equal_probabilities(levels: int) -> None:
    """Where rows of both classes share a probability, their order counts for nothing: the value is
    that of the definition, and scikit-learn's, also with losses of float32.
    """
    draw = np.random.default_rng(levels)
    rare = draw.random(ROWS) < 0.1
    place = (draw.random(ROWS) + rare).clip(max=1.5) / 1.5
    probability = (1 + np.floor(place * (levels - 1))) / (levels + 1)
    loss = -np.log(np.where(rare, probability, 1 - probability))
    reference = np.where(rare, 0, 1)
    expected = by_thresholds(rare, probability)
    assert average_precision_score(rare, probability) == pytest.approx(expected, abs=1e-12)
    metric = registry.plugin("metrics", "average_precision")(2)
    for kept in (loss, loss.astype(np.float32)):
        rows = metric.rows(Predictions(np.arange(ROWS), reference, reference, kept))
        assert rows.mean() == pytest.approx(expected, abs=1e-12)


def taken(of: Predictions, rows: NDArray[Any]) -> Predictions:
    fields = (np.asarray(part)[rows] for part in (of.reference, of.prediction, of.loss))
    given = None if of.probabilities is None else of.probabilities[rows]
    return Predictions(np.arange(len(rows)), *fields, probabilities=given)


@pytest.mark.parametrize("case", CASES)
def test_rows_have_the_metric_as_their_mean_and_its_influence(case: str) -> None:
    """The mean is the library's value; a row is what leaving it out changes."""
    name, of, value = CASES[case]
    rows = registry.plugin("metrics", name)(0).rows(of)
    assert rows.mean() == pytest.approx(value(of), abs=1e-12)
    every = np.arange(ROWS)
    some = every[::5]
    left_out = np.array([value(taken(of, every[every != row])) for row in some])
    assert np.allclose(
        rows[some] - rows.mean(), (ROWS - 1) * (value(of) - left_out), atol=0.06 * np.ptp(rows)
    )


@pytest.mark.parametrize("name", registry.names("metrics"))
def test_an_answer_that_needs_no_model_is_a_guess(name: str) -> None:
    """A task ranked by the metric has its value as chance, also of a model whose losses of
    float32 are rounded.
    """
    target = registry.plugin("metrics", name).target
    kind = "regression" if target == "number" else "sequence_classification"
    task = make_task(
        TaskSpec(name=kind), ("rare", "other") if target == "class" else (), rank_by=name
    )
    reference = np.asarray(
        numbers().reference if target == "number" else classified(2, 0.1).reference
    )
    others = f1_score(reference != 0, np.ones(ROWS)) / 2
    rare = (reference == 0).mean()
    expected = {"macro_f1": others, "average_precision": rare, "brier": 2 * rare * (1 - rare)}
    expected |= {"mcc": 0.0, "spearman": 0.0}
    guess = task.guess(reference)
    assert guess.chance == pytest.approx(expected.get(name, guess.scores.mean()))
    loss = -np.log(np.where(reference == 0, np.float32(0.1), np.float32(0.9))).astype(np.float32)
    shares = np.tile(np.float32([0.1, 0.9]), (ROWS, 1))
    constant = Predictions(
        np.arange(ROWS), reference, np.ones(ROWS, dtype=int), loss, probabilities=shares
    )
    assert np.allclose(task.scores(constant), guess.scores)
    spread = task.weights(reference).max() / task.weights(reference).mean()
    assert spread > 2 or (name, spread) == ("brier", 1)


# Probabilities of classes

TASK = make_task(TaskSpec(name="sequence_classification"), ("x", "y", "z"))


def test_a_run_records_the_probability_of_every_class(prepared: Prepared, tmp_path: Path) -> None:
    """They are those of its losses and answers, over two ranks too, and give the recorded Brier
    score.
    """
    record = tiny.run(tiny.spec(), prepared, tmp_path / "run")
    stored = read_predictions(tmp_path / "run")
    given, reference = stored.probabilities, np.asarray(stored.reference)
    assert given.dtype == np.float32
    assert np.allclose(given.sum(1), 1)
    assert np.array_equal(given.argmax(1), stored.prediction)
    assert np.allclose(-np.log(given[np.arange(len(given)), reference]), stored.loss, atol=1e-5)
    squares = ((given.astype(float) - np.eye(given.shape[1])[reference]) ** 2).sum(1)
    assert record.metrics["test_brier"] == pytest.approx(squares.mean(), rel=1e-12)
    assert not TASK.contradicted(stored).any()


def test_probabilities_come_back_in_row_order_and_may_be_missing(tmp_path: Path) -> None:
    """Files of former versions have none, and no Brier score; a row without its own makes the
    file unreadable.
    """
    whole = classified(3, 0.2)
    order = np.random.default_rng(1).permutation(ROWS)
    parts = {
        name: np.asarray(getattr(whole, name))[order]
        for name in ("reference", "prediction", "loss")
    }
    shuffled = Predictions(order, **parts, probabilities=whole.probabilities[order])
    write_predictions(tmp_path, shuffled, np.ones(ROWS))
    assert np.array_equal(
        read_predictions(tmp_path).probabilities, whole.probabilities.astype(np.float32)
    )
    table = pq.read_table(tmp_path / PREDICTIONS)
    rows: list[Any] = table.column("probabilities").to_pylist()
    for broken in (
        pa.array([None, *rows[1:]], pa.list_(pa.float32(), 3)),
        pa.array([[1.0], *rows[1:]]),
    ):
        pq.write_table(
            table.set_column(
                table.schema.get_field_index("probabilities"), "probabilities", broken
            ),
            tmp_path / PREDICTIONS,
        )
        assert read_predictions(tmp_path) is None
    write_predictions(tmp_path, replace(shuffled, probabilities=None), np.ones(ROWS))
    former = read_predictions(tmp_path)
    assert former.probabilities is None
    assert "brier" not in TASK.evaluate(former)


def test_probabilities_that_contradict_a_row_are_found() -> None:
    """Of another answer, of another loss, or with another sum than 1; those of float32 pass."""
    whole = classified(3, 0.2)
    assert not TASK.contradicted(whole).any()
    wrong = whole.probabilities.copy()
    wrong[3] = wrong[3][[1, 2, 0]]
    wrong[5] *= 0.99
    wrong[8] = np.nan
    assert np.flatnonzero(TASK.contradicted(replace(whole, probabilities=wrong))).tolist() == [
        3,
        5,
        8,
    ]


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


@pytest.mark.parametrize("rows", [60, 200, 1000])
@pytest.mark.parametrize("sure", [1, 8], ids=["unsure", "nearly sure"])
def test_a_calibrated_models_error_lies_in_the_range_by_chance(rows: int, sure: int) -> None:
    """Of models whose answers are right as often as they claim, drawn row by row, 95 % lie in
    it.
    """
    draw = np.random.default_rng([rows, sure])
    given = 0.5 + 0.5 * draw.beta(sure, 1, rows)
    low, high = reliability(given, draw.random(rows) < given).error_by_chance()
    errors = np.array([reliability(given, draw.random(rows) < given).error for _ in range(2000)])
    for beyond, up_to in (
        (errors < low - 1e-9, errors < low + 1e-9),
        (errors > high + 1e-9, errors > high - 1e-9),
    ):
        assert beyond.mean() <= 0.04, (
            "few rows have few values of the error: some are the ends themselves"
        )
        assert up_to.mean() >= 0.01


def test_a_model_that_claims_too_much_has_an_error_beyond_chance() -> None:
    """Answers of which 80 % are right and that claim 95 %; a model that is certain has no error
    by chance.
    """
    given, right = np.full(500, 0.95), np.arange(500) % 5 > 0
    found = reliability(given, right)
    assert found.error > 1.5 * found.error_by_chance()[1]
    assert reliability(np.ones(500), right).error_by_chance() == (0, 0)


def test_the_picture_has_each_methods_bins_with_intervals() -> None:
    """Means over seeds, Wilson's interval of a bin's rows, and the calibration error; without
    probabilities none.
    """
    bins, none = {}, SimpleNamespace(reliability=None)
    for seed, name in enumerate(("a0", "a1", "b0")):
        own = classified(3, 0.2, seed)
        bins[name] = reliability(own.probabilities.max(1), own.reference == own.prediction)
    stored = {name: SimpleNamespace(reliability=of) for name, of in bins.items()} | {"c0": none}
    results = SimpleNamespace(
        methods=("a", "b", "c"),
        quality="q",
        means=lambda _: {"a": 1.0, "b": 2.0},
        definitions={"q": SimpleNamespace(better="lower")},
        stored=stored,
        runs=lambda method: [SimpleNamespace(run_id=name) for name in stored if name[0] == method],
    )
    picture = reliability_chart(cast(Any, results))
    a, b = picture.series
    assert np.allclose([y for _, y in a.points], 50 * (bins["a0"].right + bins["a1"].right))
    low, high = bins["b0"].error_by_chance()
    assert (
        b.label
        == f"b ({100 * bins['b0'].error:.1f}; by chance {100 * low:.1f} to {100 * high:.1f})"
    )
    ends = np.mean([bins["a0"].error_by_chance(), bins["a1"].error_by_chance()], axis=0)
    assert a.label.endswith("; by chance {:.1f} to {:.1f})".format(*(100 * ends)))
    line, first = picture.segments[0], picture.segments[1]
    assert line.start[0] == line.start[1]
    low, high = share_interval(a.points[0][1] / 100, ROWS // 10)
    assert (first.start, first.end) == ((a.points[0][0], 100 * low), (a.points[0][0], 100 * high))
    stored.update(dict.fromkeys(bins, none))
    assert reliability_chart(cast(Any, results)) is None
