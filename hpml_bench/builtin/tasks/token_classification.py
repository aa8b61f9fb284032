"""Token classification: a BIO tag for each word; cross-entropy, and F1 of whole entities as
conlleval counts it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hpml_bench.plugins.dataset import IGNORE_INDEX
from hpml_bench.plugins.task import (
    Guess,
    RowOptions,
    Task,
    first_true,
    flat,
    linearised_ratio,
    loss_metrics,
    not_likeliest,
)
from hpml_bench.records.predictions import Answers, Predictions, TextAnswers
from hpml_bench.records.run import Metric
from hpml_bench.system.errors import UserError
from hpml_bench.system.text import sanitize

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset
    from torch import Tensor, nn

    from hpml_bench.plugins.tokenizer import Encoder

OUTSIDE = "O"  # tag of a word that belongs to no entity


def _share(name: str, title: str, definition: str) -> Metric:
    return Metric.define(
        name,
        title,
        "",
        "higher",
        ".1%",
        definition,
        phase="test",
        group="quality",
        bounds=(0.0, 1.0),
    )


class TokenClassification(Task):
    """A linear layer on the hidden state of each word's first token gives one logit per tag.

    Words that `max_length` cuts off are neither trained on nor scored.
    """

    title = "Token classification"
    target = "tags"
    columns = ("tags", "words")
    pipeline = ("token-classification", "AutoModelForTokenClassification")
    Options = RowOptions
    headline = "test_f1"
    metrics = (
        *loss_metrics("nats", "Cross-entropy a word"),
        _share(
            "test_f1",
            "entity F1",
            "2TP / (2TP + FP + FN) over the entities of all test rows, after the last step. An "
            "entity is right when its type and both its ends are; an I- tag after another type or "
            "after O begins one, as conlleval has it. Words that max_length cuts off are left out.",
        ),
        _share(
            "test_precision",
            "precision",
            "Share of the predicted entities of the test rows that are right.",
        ),
        _share(
            "test_recall",
            "recall",
            "Share of the entities of the test rows that are predicted right.",
        ),
        _share(
            "test_word_accuracy",
            "word accuracy",
            "Share of the words of the test rows whose tag is right.",
        ),
    )

    def check(self, split: str, labels: pa.Array, rows: pa.Table) -> None:
        for name in self.label_names:
            if not re.fullmatch(r"O|[BI]-.+", name):
                numbers = (
                    "where tags are numbers, give their names in order with "
                    "dataset.options.label_names"
                )
                advice = numbers if name.isdecimal() else "rename it"
                raise UserError(
                    f"the tag {sanitize(name, 60)!r} is none of O, B-TYPE and I-TYPE; {advice}"
                )
        row = _wrong_row(labels, rows.column("words").combine_chunks(), len(self.label_names))
        if row is not None:
            words = sanitize(" ".join(map(str, rows.column("words")[row].as_py() or [])), 60)
            raise UserError(
                f"a {split} row doesn't have one tag per word, each an index into the "
                f"{len(self.label_names)} names ({', '.join(self.label_names)}): {words!r}"
            )

    def facts(self, train: Dataset) -> dict[str, float]:
        for row in train.with_format("arrow").iter(1000):
            seen = row.column("tags").combine_chunks().flatten().unique().to_pylist()
            if not {*seen} <= {*self._outside}:
                return {}
        raise UserError(
            f"none of the {len(train)} training rows holds an entity; tagging needs some"
        )

    def encode(self, rows: Mapping[str, list[Any]], encoder: Encoder) -> dict[str, list[Any]]:
        """Return token ids and one label per token: a word's tag on its first token,
        IGNORE_INDEX on all others.
        """
        ids, numbers = encoder.words(rows["words"])
        labels = [
            [tags[number] if number >= 0 else IGNORE_INDEX for number in row]
            for row, tags in zip(numbers, rows["tags"], strict=True)
        ]
        return {"input_ids": ids, "label": labels}

    def build(
        self, encoder: nn.Module, hidden_size: int, virtual_tokens: int, seed: int
    ) -> nn.Module:
        """Put a linear layer on every hidden state; outputs are logits [B, L, C]."""
        from hpml_bench.plugins.model import TaskModel, every_token, new_head

        return TaskModel(
            encoder, new_head(hidden_size, len(self.label_names), seed), every_token, virtual_tokens
        )

    def row_losses(self, outputs: Tensor, labels: Tensor) -> Tensor:
        from torch.nn.functional import cross_entropy

        losses = cross_entropy(
            outputs.transpose(1, 2), labels, ignore_index=IGNORE_INDEX, reduction="none"
        )
        return losses.sum(dim=1)

    def predict(self, outputs: Tensor, labels: Tensor) -> Tensor:
        return outputs.argmax(dim=-1)

    def evaluate(self, predictions: Predictions) -> dict[str, float]:
        counts = self._counts(predictions.reference, predictions.prediction)
        right, reference, predicted = (int(count.sum()) for count in counts)
        words = flat(predictions.reference)
        return {
            "loss": _ratio(float(np.sum(predictions.loss, dtype=np.float64)), len(words)),
            "f1": _ratio(2 * right, reference + predicted),
            "precision": _ratio(right, predicted),
            "recall": _ratio(right, reference),
            "word_accuracy": _ratio(int((words == flat(predictions.prediction)).sum()), len(words)),
        }

    def scores(self, predictions: Predictions) -> NDArray[Any]:
        """Return the linearised F1 of each row: F1 is sum(2TP) / sum(2TP + FP + FN)."""
        right, reference, predicted = self._counts(predictions.reference, predictions.prediction)
        return linearised_ratio(2 * right, reference + predicted)

    def contradicted(self, predictions: Predictions) -> NDArray[np.bool_]:
        return not_likeliest(predictions, len(self.label_names) or 1e9)

    def weights(self, reference: Answers) -> NDArray[np.float64]:
        entities = self._counts(reference, reference)[1].astype(np.float64)
        return entities if entities.any() else np.ones(len(entities))

    def guess(self, reference: Answers, texts: TextAnswers | None = None) -> Guess:
        """Tag nothing: no entity is found, and F1 is 0."""
        words = flat(reference)
        share = f"{100 * _ratio(int(np.isin(words, self._outside).sum()), len(words)):.1f} %"
        sentence = (
            f"Tagging nothing gets {share} of the words of the test rows right and finds no "
            f"entity: its F1 is 0."
        )
        return Guess(sentence, scores=np.zeros(len(reference)), chance=0.0)

    @property
    def _outside(self) -> list[int]:
        return [index for index, name in enumerate(self.label_names) if name == OUTSIDE]

    def _counts(self, reference: Answers, prediction: Answers) -> tuple[NDArray[np.int64], ...]:
        """Return how many entities each row [n] has predicted right, has, and has predicted.

        A tag without a name is a ValueError, as is a row with more or fewer predictions than
        references.
        """
        if [len(row) for row in reference] != [len(row) for row in prediction]:
            raise ValueError("predictions and references have different numbers of words")
        rows = np.repeat(np.arange(len(reference)), [len(row) + 1 for row in reference])
        expected, predicted = (
            _Entities.of(tuple(answers), self.label_names) for answers in (reference, prediction)
        )
        ends = np.full(len(rows), -1)
        ends[predicted.starts] = predicted.ends
        same = (ends[expected.starts] == expected.ends) & (
            expected.types == predicted.type_at[expected.starts]
        )
        counted = (expected.starts[same], expected.starts, predicted.starts)
        return tuple(np.bincount(rows[starts], minlength=len(reference)) for starts in counted)


class _Entities(NamedTuple):
    """The entities of all rows, by place in the words of all rows; one empty place follows each
    row.
    """

    starts: NDArray[np.int64]
    ends: NDArray[np.int64]  # place of the last word
    types: NDArray[np.int64]
    type_at: NDArray[np.int64]  # type at every place, -1 outside

    @classmethod
    def of(cls, answers: tuple[NDArray[Any], ...], names: tuple[str, ...]) -> _Entities:
        """Return the entities by the rules of conlleval (Tjong Kim Sang and Buchholz 2000), for
        tags O, B- and I-.
        """
        kinds = sorted({name[2:] for name in names})
        types = np.array(
            [*(-1 if name == OUTSIDE else kinds.index(name[2:]) for name in names), -1]
        )
        begins = np.array([*(name.startswith("B-") for name in names), False])
        between = len(names)  # the last of both: outside
        tags = np.concatenate(
            [part for row in answers for part in (row, [between])] or [np.zeros(0)]
        ).astype(np.int64)
        if len(tags) and not 0 <= tags.min() <= tags.max() <= between:
            raise ValueError(f"a tag is outside the {len(names)} names")
        type_at = types[tags]
        before = np.concatenate([[-1], type_at[:-1]])
        inside = type_at >= 0
        starts = inside & (begins[tags] | (before != type_at))
        following = np.concatenate([starts[1:] | ~inside[1:], [True]])
        return cls(
            np.flatnonzero(starts), np.flatnonzero(inside & following), type_at[starts], type_at
        )


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def _wrong_row(tags: pa.Array, words: pa.Array, names: int) -> int | None:
    """Return the first row without one tag per word, or with a tag that is no index into the
    names.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    lists = all(
        pa.types.is_list(column.type) or pa.types.is_large_list(column.type)
        for column in (tags, words)
    )
    if not lists or not pa.types.is_integer(tags.type.value_type):
        return 0
    row = first_true(pc.not_equal(pc.list_value_length(tags), pc.list_value_length(words)))
    if row is not None:
        return row
    values = tags.flatten()
    wrong = first_true(pc.or_(pc.less(values, 0), pc.greater_equal(values, names)))
    return None if wrong is None else int(pc.list_parent_indices(tags)[wrong].as_py())
