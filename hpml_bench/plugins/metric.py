"""Metrics by which methods are ranked in place of their task's score (`rank_by`): the base
class, and ranked tasks.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np
from numpy.typing import NDArray

from hpml_bench.plugins.dataset import Target
from hpml_bench.plugins.task import Guess, Task
from hpml_bench.records.predictions import Answers, Predictions, TextAnswers
from hpml_bench.records.run import Metric

if TYPE_CHECKING:
    import pyarrow as pa

quality = partial(
    Metric.define, unit="", better="higher", form=".3f", phase="test", group="quality"
)


class RowMetric(ABC):
    """A metric of the answers to n rows, by row: `target`, `metric` and `rows` are required."""

    plugin_kind: ClassVar[str] = "metrics"
    target: ClassVar[Target]
    """What the tasks learn that it can rank: `class` or `number`."""
    metric: ClassVar[Metric]
    """Its definition, with bounds; named `test_` and its file's name."""

    def __init__(self, classes: int) -> None:
        """Keep the number of classes, 0 if unknown; a UserError where the metric isn't defined
        for so many.
        """
        self.classes = classes

    @classmethod
    def ranked(cls, task: type[Task]) -> type[Task]:
        """Return the class of a task whose score is this metric."""
        return cast(type[Task], type(task.__name__, (_RankedTask, task), {"by": cls}))

    @abstractmethod
    def rows(self, predictions: Predictions) -> NDArray[np.float64]:
        """Return a value per row [n], whose mean is exactly the metric.

        It is the metric and its derivative by the row's share (the influence function: Hampel 1974,
        J. Am. Stat. Assoc. 69; as an infinitesimal jackknife: Efron 1982, ch. 6).
        """

    def check(self, reference: NDArray[Any]) -> None:  # noqa: B027 - most are defined for all
        """Check the expected answers of all test rows, [n].

        Raises UserError: the metric isn't defined for them.
        """

    def weights(self, reference: NDArray[Any]) -> NDArray[np.float64]:
        """Return how much each row counts, [n]: by default, rows of each class together as much."""
        return np.asarray(1 / np.bincount(reference)[reference])


def correlation(
    both: NDArray[np.float64], first: NDArray[np.float64], second: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return a correlation's values per row [n] from those of the covariance and of both
    variances; 0 without these.
    """
    covariance, one, other = (float(values.mean()) for values in (both, first, second))
    if min(one, other) <= 1e-12:
        return np.zeros(len(both))
    r = covariance / np.sqrt(one * other)
    return np.asarray(
        r + (both - covariance) / np.sqrt(one * other) - r / 2 * (first / one + second / other - 2)
    )


class _RankedTask(Task):
    """A task whose score is another metric; mixed into the task's class."""

    by: ClassVar[type[RowMetric]]

    def __init__(
        self,
        options: Any,
        label_names: tuple[str, ...] = (),
        facts: Mapping[str, float] | None = None,
    ):
        super().__init__(options, label_names, facts)
        self.ranking, own = self.by(len(label_names)), self.by.metric
        self.headline, self.binary = own.name, False
        self.metrics = (*(metric for metric in self.metrics if metric.name != own.name), own)

    def test_notes(self, test: pa.Table) -> dict[str, str]:
        self.ranking.check(test.column("label").to_numpy())
        return super().test_notes(test)

    def evaluate(self, predictions: Predictions) -> dict[str, float]:
        found = super().evaluate(predictions)  # type: ignore[safe-super]
        return found | {self.headline.removeprefix("test_"): float(self.scores(predictions).mean())}

    def scores(self, predictions: Predictions) -> NDArray[Any]:
        return self.ranking.rows(predictions)

    def weights(self, reference: Answers) -> NDArray[np.float64]:
        return self.ranking.weights(np.asarray(reference))

    def guess(self, reference: Answers, texts: TextAnswers | None = None) -> Guess:
        """Answer the most frequent class, with the classes' shares as probabilities, or one
        number.
        """
        own, right = super().guess(reference, texts), np.asarray(reference)  # type: ignore[safe-super]
        counts = np.bincount(right) if self.target == "class" else np.zeros(1)
        loss = (
            -np.log(counts[right] / len(right)) if self.target == "class" else np.zeros(len(right))
        )
        answer = np.full(len(right), counts.argmax())
        shares = (
            np.tile(np.float32(counts / len(right)), (len(right), 1))
            if self.target == "class"
            else None
        )
        scores = self.scores(
            Predictions(np.arange(len(right)), right, answer, loss, probabilities=shares)
        )
        sentence = f"{own.sentence} Its {self.by.metric.title} is {scores.mean():.3f}."
        return replace(own, sentence=sentence, scores=scores, chance=float(scores.mean()))
