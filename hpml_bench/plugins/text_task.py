"""Tasks with one label per text: their common options, token ids and head."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from hpml_bench.plugins.dataset import PAIR
from hpml_bench.plugins.task import RowOptions, Task

if TYPE_CHECKING:
    from torch import nn

    from hpml_bench.plugins.tokenizer import Encoder


class TextTask(Task):
    """A task with one label per text: a linear head reads one pooled hidden state of the
    encoder.
    """

    columns = ("label", "text")
    pipeline = ("text-classification", "AutoModelForSequenceClassification")
    optional_columns = (PAIR,)

    class Options(RowOptions):
        """Input of the head, and treatment of bad rows."""

        pooling: Literal["last", "first", "mean"] = "last"
        """Which hidden state the head reads: the last real token's, the first's, or the mean
        over real tokens.
        """

    outputs: ClassVar[int | None] = None
    """Number of the head's outputs; None for one per label."""

    def encode(self, rows: Mapping[str, list[Any]], encoder: Encoder) -> dict[str, list[Any]]:
        if PAIR in rows:
            return {**encoder.pairs(rows["text"], rows[PAIR]), "label": rows["label"]}
        return {"input_ids": encoder.texts(rows["text"]), "label": rows["label"]}

    def build(
        self, encoder: nn.Module, hidden_size: int, virtual_tokens: int, seed: int
    ) -> nn.Module:
        """Return the encoder with a head; outputs are [B, number of outputs]."""
        from hpml_bench.plugins.model import TaskModel, new_head, pool

        head = new_head(hidden_size, self.outputs or len(self.label_names), seed)
        return TaskModel(encoder, head, partial(pool, pooling=self.options.pooling), virtual_tokens)
