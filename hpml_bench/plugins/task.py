"""Tasks: the base class of a kind of work, from rows to scores."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from hpml_bench.plugins.dataset import IGNORE_INDEX, LoadedData, Target
from hpml_bench.plugins.decoding import Decoding, Scaffold
from hpml_bench.records.predictions import Answers, Predictions, TextAnswers
from hpml_bench.records.run import Metric
from hpml_bench.suite import registry
from hpml_bench.suite.base import Frozen
from hpml_bench.suite.registry import validate_options
from hpml_bench.suite.settings import MAX_LENGTH, TaskSpec
from hpml_bench.system.errors import Unsupported

if TYPE_CHECKING:
    from collections import Counter

    import pyarrow as pa
    from datasets import Dataset
    from torch import Tensor, nn

    from hpml_bench.plugins.rows import Rows
    from hpml_bench.plugins.tokenizer import Encoder


def target_positions(labels: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return rows and columns, [count] each, of a language model's target tokens in labels[:, 1:],
    row by row.

    The first of a row's labels [B, L] is no target. `count` is their number: the host need not wait
    for the device.
    """
    rows, columns = (labels[:, 1:] != IGNORE_INDEX).nonzero_static(size=count).unbind(1)
    return rows, columns


ROUNDING = 1e-3  # relative error of a row's loss, in float32
MOST_PROBABILITIES = (
    100  # most classes whose probabilities are recorded, at four bytes a row and class
)
KEPT = "kept"  # key of the indices of the rows that `encode` kept, where it leaves some out
NOTHING = "none"  # value of a note on changed rows where no row was changed
# the split of general text, beside train, validation and test, on which forgetting is measured
RETENTION = "retention"


@dataclass(frozen=True)
class Guess:
    """An answer that needs no model, and its scores on the test rows, which a method must
    exceed.
    """

    sentence: str  # the guess and its result in words, shown beside the scores
    scores: NDArray[
        np.float64
    ]  # [rows], the task's scores of that answer, or the expected ones where it is drawn
    # value of the headline metric from which learning is counted: the expected one of an untrained
    # model
    chance: float


class RowOptions(Frozen):
    """Treatment of rows."""

    bad_rows: Literal["refuse", "drop"] = "refuse"
    """Treatment of a row without text or label, or with one that can't be read, or of an
    answer's row that is no conversation or that the template refuses: the preparation ends, or
    the row is left out and counted.
    """


class Asked(NamedTuple):
    """A row as a server is asked it."""

    turns: list[dict[str, Any]]  # the conversation up to the answer, with a suite's system prompt
    tools: list[Any] | None
    ids: tuple[int, ...]  # token ids of the prompt
    cut: int  # tokens cut off the prompt


class Task(ABC):
    """A kind of work, such as classifying texts: what a row becomes, what the model answers, how
    answers are scored.

    Required: `title`, `target`, `headline`, `metrics`, `columns`, and the abstract methods. The
    order of the calls:

        check(rows, ...), facts(train)                  in the preparation, on loaded rows
        encode(rows, encoder) -> input_ids, label       batch by batch; what is written to disk
        build(encoder, hidden_size, ...)                in every rank
        for each step: loss(outputs, labels)            the loop divides it by `divisor`, the
            targets of the global batch
        for each evaluation batch: predict, row_losses
        decoding, stop_ids, scaffold                    whether and how answers are generated
        evaluate(predictions), scores(predictions)      on numpy arrays, again when a report is made

    `evaluate`, `scores` and `guess` must not import a training library: reports are made without
    one. A score is a number per row whose mean over the rows is exactly the headline metric;
    intervals over rows are built on it. For a metric that is no mean of rows it is the linearised
    value (infinitesimal jackknife: Efron 1982, The Jackknife, the Bootstrap and Other Resampling
    Plans, ch. 6).
    """

    plugin_kind: ClassVar[str] = "tasks"
    title: ClassVar[str]
    """Name in prose."""
    target: ClassVar[Target]
    """What is learnt from a row; data sets provide the columns for it."""
    columns: ClassVar[tuple[str, ...]]
    """Columns of the loaded rows, the labels first."""
    optional_columns: ClassVar[tuple[str, ...]] = ()
    """Columns that loaded rows may have besides."""
    headline: str
    """Name of the metric that is ranked, tuned and drawn over the steps, one of `metrics`; it
    begins with `test_`.
    """
    metrics: tuple[Metric, ...]
    """Definitions of the metrics that `evaluate` returns, named `test_` and its key, and of
    `train_loss`.
    """
    binary: bool = False
    """Whether scores are 0 or 1, right or wrong: McNemar's test is for these."""
    model_kind: ClassVar[Literal["encoder", "language_model"]] = "encoder"
    """Model that methods change: a bare backbone, on which the task puts a head, or a whole
    causal language model.
    """
    pipeline: ClassVar[tuple[str, ...]] = ()
    """Pipeline of transformers for a model of this task with our head, and the class that it
    loads models with.
    """
    max_length: ClassVar[int] = MAX_LENGTH
    """Default of the setting of this name."""
    most_validation_rows: ClassVar[int] = 500
    """Most validation rows where a suite leaves their number open."""
    cuts_texts: ClassVar[bool] = True
    """Whether texts of more than `max_length` tokens are cut at the end."""
    encodes_in_python: ClassVar[bool] = False
    """Whether `encode` takes Python milliseconds a row, so that several processes share it;
    tokenizers have threads.
    """
    Options: ClassVar[type[Frozen]] = Frozen
    """The task's own options, with their defaults."""

    def __init__(
        self,
        options: Any,
        label_names: tuple[str, ...] = (),
        facts: Mapping[str, float] | None = None,
    ):
        """Keep the options, the names of the labels, and the result of `facts`."""
        self.options = options
        self.label_names = label_names
        self.found = dict(facts or {})

    def validation_score(self, metrics: Mapping[str, float]) -> float:
        """Return the headline metric of an evaluation of validation rows."""
        return metrics[self.headline.removeprefix("test_")]

    def best_step(self, scores: Mapping[int, float]) -> int:
        """Return the step, the first of equals, with the best validation score; NaN is the
        worst.
        """
        better = next(metric.better for metric in self.metrics if metric.name == self.headline)
        sign = 1 if better == "lower" else -1
        return min(scores, key=lambda step: (math.isnan(scores[step]), sign * scores[step]))

    def early_end(self, scores: Mapping[int, float], patience: int | None) -> int | None:
        """Return the first step behind `patience` evaluations without a better score than
        before; None if none is.
        """
        best, since = -1, 0
        for step in sorted(scores) if patience is not None else ():
            best, since = (
                self.best_step({at: scores[at] for at in (best, step) if at in scores}),
                since + 1,
            )
            since = 0 if best == step else since
            if since == patience:
                return step
        return None

    # Rows

    @property
    def loads(self) -> Target:
        """The target that data sets load rows for; `converted` makes rows for the task's own of
        them.
        """
        return self.target

    def converted(self, loaded: LoadedData) -> LoadedData:
        """Return loaded rows with the task's columns."""
        return loaded

    @abstractmethod
    def check(self, split: str, labels: pa.Array, rows: pa.Table) -> None:
        """Check a batch of loaded rows of a split, `labels` their values of the first of `columns`.

        Raises UserError: a label is not one the task can learn; names the row.
        """

    def facts(self, train: Dataset) -> dict[str, float]:
        """Return the facts about the training rows that the task needs.

        Raises UserError: nothing can be learnt from them.
        """
        return {}

    def notes(self, facts: Mapping[str, float]) -> dict[str, str]:
        """Return notes for the report on what `facts` returned."""
        return {}

    def test_notes(self, test: pa.Table) -> dict[str, str]:
        """Return warnings, by what they are about, on the encoded test rows; none by default.

        Raises UserError: the score isn't defined for them.
        """
        return {}

    @abstractmethod
    def encode(self, rows: Mapping[str, list[Any]], encoder: Encoder) -> dict[str, list[Any]]:
        """Return `input_ids` and `label` of a batch of rows: a label per row or per token,
        IGNORE_INDEX for none.

        A task that leaves rows out returns the others' indices in the batch as `kept`.
        """

    def asked(self, rows: Rows, encoder: Encoder) -> list[Asked]:
        """Return prepared rows as a server is asked them; none where the task generates no
        answers.
        """
        return []

    @property
    def splits_rows(self) -> bool:
        """Whether `encode` makes several rows of one, whose place `kept` then names several
        times: they are a group.
        """
        return False

    def encode_general(
        self, rows: Mapping[str, list[Any]], encoder: Encoder
    ) -> dict[str, list[Any]]:
        """Return the same for general text, on which forgetting is measured."""
        return self.encode(rows, encoder)

    def with_examples(self, rows: Rows, examples: Rows, encoder: Encoder) -> dict[str, list[Any]]:
        """Return the columns of rows that `encode` wrote with answered examples before each row's
        prompt.

        Raises Unsupported: rows have no prompt, or examples don't fit into `max_length`.
        """
        raise Unsupported(
            "examples can stand before a language model's prompts; the task puts a head on the "
            "model"
        )

    def label_type(self) -> pa.DataType:
        """Return the Arrow type of `label`: by the target int64, float64, or a list of int32 for
        a label per token.
        """
        import pyarrow as pa

        kinds = {"class": pa.int64(), "number": pa.float64()}
        return kinds.get(self.target, pa.list_(pa.int32()))

    def extra_types(self) -> dict[str, pa.DataType]:
        """Return the Arrow types of the columns that `encode` returns beside `input_ids` and
        `label`.
        """
        return {}

    def sources(self, encoder: Encoder) -> dict[str, str]:
        """Return texts beside the rows that decide what the model sees, by name: they are part
        of the data's digest.
        """
        return {}

    def length_notes(self, full: float, counts: Mapping[str, Counter[str]]) -> dict[str, str]:
        """Return notes for the report on rows that are too long.

        `full` is the share of all rows that have `max_length` tokens; `counts` those of `encode`,
        by split.
        """
        return {"texts that fill max_length": f"{full:.0%} of all rows (longer ones are cut)"}

    @property
    def decoding(self) -> Decoding | None:
        """Rule by which answers are generated in an evaluation; None where none are."""
        return None

    @property
    def compares_choices(self) -> bool:
        """Whether an evaluation compares how likely a row's choices are; `encode` then writes
        `choice_ids`.
        """
        return False

    @property
    def retention(self) -> tuple[str, int] | None:
        """Source of the general text on which forgetting is measured, and its maximum of rows;
        None for none.
        """
        return None

    def stop_ids(self, encoder: Encoder) -> tuple[int, ...]:
        """Return the tokens that end a generated answer."""
        return ()

    def chat_template(self, encoder: Encoder) -> str | None:
        """Return the chat template to save with a trained model; None for the tokenizer's own."""
        return None

    def scaffold(self, encoder: Encoder) -> Scaffold:
        """Return the text around the content of a generated answer, which is not scored."""
        return Scaffold()

    # Model

    @abstractmethod
    def build(
        self, encoder: nn.Module, hidden_size: int, virtual_tokens: int, seed: int
    ) -> nn.Module:
        """Return the model: the encoder and a head (plugins.model.TaskModel), new weights drawn
        from `seed` alone.
        """

    @abstractmethod
    def row_losses(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of each row [B], summed over its targets; outputs are float32."""

    def loss(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Return the loss summed over all targets of the batch, a scalar."""
        return self.row_losses(outputs, labels).sum()

    def divisor(self, rows: Rows, indices: NDArray[np.int64]) -> float:
        """Return what the sum of `loss` over these rows, a global batch, is divided by: their
        number of targets.
        """
        return max(1, int(rows.targets[indices].sum()))

    @abstractmethod
    def predict(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Return the answers, [B] or one per token [B, L]; those without a label don't count."""

    @property
    def probable_classes(self) -> int:
        """Number of classes whose probabilities are recorded, the softmax of as many outputs; 0
        for none.
        """
        return 0

    # Scores

    @abstractmethod
    def evaluate(self, predictions: Predictions) -> dict[str, float]:
        """Return the metrics of a split by name without `test_`; `loss` among them."""

    @abstractmethod
    def scores(self, predictions: Predictions) -> NDArray[Any]:
        """Return a score per row [n], bool where `binary`; their mean is the headline metric."""

    def contradicted(self, predictions: Predictions) -> NDArray[np.bool_]:
        """Return the rows [n] whose loss no model can have that gave their answers; none where
        nothing is known.

        It goes with `predict` and `row_losses`: a task that overrides one of them overrides it too.
        """
        return np.zeros(len(predictions), dtype=bool)

    def weights(self, reference: Answers) -> NDArray[np.float64]:
        """Return how much each row counts in the score, [n], not all 0: equally, where it is a
        mean over rows.
        """
        return np.ones(len(reference))

    @abstractmethod
    def guess(self, reference: Answers, texts: TextAnswers | None = None) -> Guess:
        """Return an answer that needs no model, and its scores on the references of the test rows.

        `texts` are those of questions and answers, where the task has them.
        """


def flat(answers: Answers) -> NDArray[Any]:
    """Return the answers to all tokens of all rows one after the other."""
    return np.concatenate([np.zeros(0, dtype=np.int64), *answers])


def not_likeliest(predictions: Predictions, classes: float = 1e9) -> NDArray[np.bool_]:
    """Return the rows [n] whose cross-entropy no model can have whose likeliest classes are their
    answers.

    The likeliest of C classes has a probability of at least 1 / C, any other of at most 1/2: a
    wrong answer costs at least ln 2, a right one at most ln C.
    """
    expected, given = predictions.reference, predictions.prediction
    if isinstance(expected, tuple):
        wrong = np.array(
            [np.count_nonzero(row != own) for row, own in zip(expected, given, strict=True)]
        )
        answers = np.array([len(row) for row in expected])
    else:
        wrong, answers = np.not_equal(expected, given), np.ones(1)
    low = predictions.loss < wrong * math.log(2) * (1 - ROUNDING)
    high = predictions.loss > answers * math.log(classes) * (1 + ROUNDING)
    return np.asarray(low | (high & (wrong == 0)))


def first_true(wrong: pa.Array) -> int | None:
    """Return the place of the first truth value or null; None where there is none."""
    import pyarrow.compute as pc

    place = pc.index(wrong.fill_null(True), True).as_py()
    return None if place < 0 else int(place)


def linearised_ratio(parts: NDArray[Any], wholes: NDArray[Any]) -> NDArray[np.float64]:
    """Return one value per row [n] whose mean is exactly sum(parts) / sum(wholes); all 0 where the
    wholes are.

    A ratio of means linearised at them: R + (part_i - R whole_i) / mean(whole) (Cochran 1977,
    Sampling Techniques, ch. 6; as an infinitesimal jackknife: Efron 1982, ch. 6).
    """
    total = float(wholes.sum())
    if not total:
        return np.zeros(len(wholes))
    ratio = float(np.sum(parts, dtype=np.float64)) / total
    linear: NDArray[np.float64] = (
        ratio + (np.asarray(parts, dtype=np.float64) - ratio * wholes) / wholes.mean()
    )
    return linear


def make_task(
    spec: TaskSpec,
    label_names: tuple[str, ...] = (),
    facts: Mapping[str, float] | None = None,
    rank_by: str | None = None,
) -> Task:
    """Return the task that the settings name, its score that of `rank_by` where that is given.

    Raises UserError: there is none of that name, or its options are wrong.
    """
    options = validate_options("tasks", spec.name, spec.options, "task.options")
    kind = registry.plugin("tasks", spec.name)
    if rank_by is not None:
        kind = registry.plugin("metrics", rank_by).ranked(kind)
    return cast(Task, kind(options, label_names, facts))


def loss_metrics(unit: str, what: str) -> tuple[Metric, Metric]:
    """Return the definitions of `train_loss` and `test_loss`; `what` names the loss at the
    beginning of a sentence.
    """
    metric = partial(
        Metric, unit=unit, better="lower", over_ranks="same", format=".3f", group="quality"
    )
    training = f"{what} on the training batches, before the update, mean over the last 20 steps."
    test = (
        f"Mean {what[:1].lower()}{what[1:]} over the test rows, each exactly once, after the last "
        f"step."
    )
    return (
        metric(
            name="train_loss",
            title="training loss",
            over_steps="mean",
            phase="train",
            definition=training,
        ),
        metric(
            name="test_loss", title="test loss", over_steps="once", phase="test", definition=test
        ),
    )
