"""Regression: metrics against scipy's, the linearised RMSE, and a model that answers in the
target's unit.
"""

import math

import numpy as np
import pyarrow as pa
import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from hpml_bench.builtin.tasks.regression import Regression, linearised_rmse
from hpml_bench.records.predictions import Predictions
from hpml_bench.system.errors import UserError

NUMBERS = st.integers(-50, 50).map(lambda n: n / 4)


def task(**facts: float) -> Regression:
    return Regression(Regression.Options(), (), facts)


def predictions(reference: list[float], prediction: list[float]) -> Predictions:
    there, answered = np.array(reference, dtype=float), np.array(prediction, dtype=float)
    return Predictions(np.arange(len(there)), there, answered, (answered - there) ** 2)


def test_metrics_by_hand() -> None:
    """Errors of 0, 1, -2 and 1: MSE 6/4, RMSE its root, MAE 1; the guess is the mean, its RMSE
    the deviation.
    """
    found = task().evaluate(predictions([1, 2, 3, 4], [1, 3, 1, 5]))
    assert (found["loss"], found["rmse"], found["mae"]) == (1.5, pytest.approx(math.sqrt(1.5)), 1.0)
    guess = task().guess(np.array([0.0, 0.0, 3.0, 3.0]))
    assert guess.chance == guess.scores.mean() == 1.5
    assert (
        guess.sentence
        == "Guessing the mean of the test rows, 1.5, for each of them has an RMSE of 1.5."
    )


@given(st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1, max_size=30))
def test_correlations_are_scipys(pairs: list[tuple[float, float]]) -> None:
    """Pearson's and Spearman's, ties among them; where either is constant both are NaN. The RMSE
    is scores' mean.
    """
    reference, prediction = ([pair[side] for pair in pairs] for side in (0, 1))
    answered = predictions(reference, prediction)
    found = task().evaluate(answered)
    assert task().scores(answered).mean() == pytest.approx(found["rmse"], abs=1e-12)
    if len(set(reference)) == 1 or len(set(prediction)) == 1:
        assert math.isnan(found["pearson"])
        assert math.isnan(found["spearman"])
        return
    assert found["pearson"] == pytest.approx(
        stats.pearsonr(reference, prediction).statistic, abs=1e-9
    )
    assert found["spearman"] == pytest.approx(
        stats.spearmanr(reference, prediction).statistic, abs=1e-9
    )


def test_scores_are_the_first_order_of_the_rmse() -> None:
    """Weighing a row a little more changes the RMSE by as much as its score says: the
    infinitesimal jackknife.
    """
    reference, prediction = np.array([1.0, 2, 3, 4, 7]), np.array([1.5, 1, 3, 6, 7.5])
    scores = linearised_rmse(reference, prediction)
    squares, small = (prediction - reference) ** 2, 1e-6
    for row in range(5):
        weights = np.full(5, (1 - small) / 5)
        weights[row] += small
        slope = (math.sqrt(weights @ squares) - math.sqrt(squares.mean())) / small
        assert scores[row] - scores.mean() == pytest.approx(slope, rel=1e-4, abs=1e-6)


def test_the_facts_are_the_populations_mean_and_deviation() -> None:
    """Of 0, 0, 3 and 3: 1.5 and 1.5; one number alone can't be learnt."""
    rows = Dataset.from_dict({"text": ["a"] * 4, "label": [0.0, 0.0, 3.0, 3.0]})
    assert task().facts(rows) == {"mean": 1.5, "sd": 1.5}
    with pytest.raises(UserError, match="all 2 training rows have the target 4"):
        task().facts(Dataset.from_dict({"text": ["a", "b"], "label": [4.0, 4.0]}))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, None])
def test_what_is_no_number_is_refused_with_its_row(bad: float | None) -> None:
    """The sentence has the value and the row's text."""
    rows = pa.table(
        {"label": pa.array([1.0, bad], pa.float64()), "text": ["fine", "the second text, " * 5]}
    )
    with pytest.raises(
        UserError,
        match=r"a test row has the target .* no finite number: '(the second text, ){3}the…'",
    ):
        task().check("test", rows.column("label").combine_chunks(), rows)


def test_answers_are_in_the_targets_unit() -> None:
    """Mean plus deviation times what the head gives, as their errors are; what is minimised is
    free of the unit.
    """
    import torch
    from torch import nn

    class Encoder(nn.Module):
        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> object:
            self.last_hidden_state = input_ids.unsqueeze(-1).float()
            return self

    regression = task(mean=100.0, sd=10.0)
    model = regression.build(Encoder(), 1, 0, seed=0)
    nn.init.ones_(model.head.weight)
    outputs = model(torch.tensor([[5, 2], [3, 9]]), torch.tensor([[1, 1], [1, 0]]))
    labels = torch.tensor([121.0, 127.0], dtype=torch.float64)
    assert regression.predict(outputs, labels).tolist() == [120.0, 130.0]
    assert regression.row_losses(outputs, labels).tolist() == [1.0, 9.0]
    assert regression.loss(outputs, labels).item() == pytest.approx((1.0 + 9.0) / 10.0**2)


@pytest.mark.parametrize(("scale", "shift"), [(1e-7, 0.0), (1e6, 0.0), (1.0, 1e8)])
def test_the_targets_unit_and_origin_change_nothing(scale: float, shift: float) -> None:
    """In the loss that is minimised and its gradient; a mean of 1e8 doesn't swallow the
    differences.
    """
    import torch

    labels = torch.tensor([11.0, 12.5, 10.5], dtype=torch.float64)
    z = torch.tensor([[0.1], [0.7], [-0.4]], requires_grad=True)
    found = []
    for factor, origin in ((1.0, 0.0), (scale, shift)):
        moved = labels * factor + origin
        regression = task(mean=float(moved.mean()), sd=float(moved.std(unbiased=False)))
        loss = regression.loss(z, moved)
        (gradient,) = torch.autograd.grad(loss, z)
        errors = (regression.row_losses(z, moved) / factor**2).tolist()
        found.append([loss.item(), *gradient.flatten().tolist(), *errors])
    assert found[1] == pytest.approx(found[0], rel=1e-5)
