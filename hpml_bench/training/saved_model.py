"""Saved runs with a head of ours: answers to texts, and classes by which transformers' pipelines
load them.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self, cast

import torch
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedModel, TextClassificationPipeline
from transformers.utils import ModelOutput

from hpml_bench.plugins.dataset import IGNORE_INDEX, PAIR, SEGMENTS
from hpml_bench.plugins.model import TaskModel
from hpml_bench.plugins.tokenizer import (
    Encoder,
    end_id,
    has_segments,
    load_tokenizer,
    separates_pairs,
)
from hpml_bench.system.errors import UserError
from hpml_bench.training.causal_lm import pad
from hpml_bench.training.saving import Saved, load_saved

BATCH = 32


def predict(folder: Path, texts: Sequence[str | tuple[str, str]]) -> list[Any]:
    """Return the answers of a saved run to texts, or pairs of them: names of classes, numbers, or
    words with tags.

    Raises UserError: the folder holds no saved run, its task answers no bare texts, or `texts` is
    no list of them.
    """
    if isinstance(texts, str):
        raise UserError("texts: give a list of texts, such as ['a text', 'another']")
    saved = load_saved(folder)
    if not saved.task.pipeline:
        raise UserError(
            f"{folder}: is no classifier; load it with transformers' pipeline or with load_trained"
        )
    tokenizer = load_tokenizer(folder)
    segments = has_segments(tokenizer, _config(saved))
    encoder = Encoder(
        tokenizer, saved.spec.settings.max_length, None, str(folder), segments=segments
    )
    parts = (list(texts[start : start + BATCH]) for start in range(0, len(texts), BATCH))
    return [answer for part in parts for answer in _answers(saved, encoder, part)]


def _config(saved: Saved) -> dict[str, Any]:
    return dict(cast(Any, saved.model.encoder).config.to_dict())


@torch.no_grad()
def _answers(saved: Saved, encoder: Encoder, given: list[str | tuple[str, str]]) -> Iterator[Any]:
    for text in given:
        pair = isinstance(text, tuple | list) and [*map(type, text)] == [str, str]
        if not pair and not isinstance(text, str):
            raise UserError(f"texts: {text!r} is no text and no pair of texts")
    texts = [text if isinstance(text, str) else text[0] for text in given]
    pairs = [text[1] for text in given if not isinstance(text, str)]
    if len(pairs) not in (0, len(texts)):
        raise UserError("give texts, or pairs of texts, not both")
    words = [text.split() for text in texts]
    data: dict[str, list[Any]] = {"text": texts, "label": [0] * len(texts), "words": words}
    data |= {"tags": [[0] * len(row) for row in words]} | ({PAIR: pairs} if pairs else {})
    rows = saved.task.encode(data, encoder)
    ids, mask = pad([torch.tensor(row) for row in rows["input_ids"]])
    labels = [torch.tensor(label) for label in rows["label"]]
    more = {
        name: pad([torch.tensor(row) for row in rows[name]])[0]
        for name in [SEGMENTS]
        if name in rows
    }
    found = saved.task.predict(
        saved.model(ids, mask, **more), torch.stack(labels) if labels[0].dim() == 0 else ids
    )
    names = saved.task.label_names
    for row, label, own in zip(found, labels, words, strict=True):
        if label.dim():
            places = (label != IGNORE_INDEX).nonzero().flatten()
            yield [(word, names[int(row[place])]) for word, place in zip(own, places, strict=False)]
        else:
            yield names[int(row)] if names else float(row)


class SavedConfig(PretrainedConfig):  # type: ignore[misc]
    """Configuration of a saved run for transformers: the names of the labels."""

    model_type = "hpml_bench"


class SavedModel(PreTrainedModel):  # type: ignore[misc]
    """A saved run as a model of transformers; texts come from the tokenizer saved beside it."""

    config_class = SavedConfig
    saved: Saved
    trained: TaskModel
    end: int | None  # token that the run appended to each text

    @classmethod
    def from_pretrained(cls, folder: Any, *_: Any, config: Any = None, **__: Any) -> Self:
        """Load base model, method and head from a local folder as `load_trained` does, in the
        run's own precision.
        """
        model: Self = cls(config or SavedConfig.from_pretrained(folder))
        model.saved = load_saved(Path(folder))
        model.trained = model.saved.model  # a module: `to` moves it
        model.end = end_id(load_tokenizer(Path(folder)))
        model.eval()
        return model

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        **_: Any,
    ) -> ModelOutput:
        """Return the logits of each text's classes, its number, or the logits of each token's tags.

        A word's tag is that of its first token (`aggregation_strategy="first"`). Texts end and are
        cut as in the run.
        """
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        rows = [self._prepared(row[own.bool()]) for row, own in zip(input_ids, mask, strict=True)]
        more = {}
        if (
            token_type_ids is not None
            and self.end is None
            and (_config(self.saved).get("type_vocab_size") or 0) > 1
        ):
            types = [
                self._prepared(row[own.bool()])
                for row, own in zip(token_type_ids, mask, strict=True)
            ]
            more = {SEGMENTS: pad(types)[0]}
        outputs = self.trained(*pad(rows), **more)
        if not self.saved.task.label_names:  # a number
            outputs = self.saved.task.predict(outputs, input_ids).float()[:, None]
        if outputs.dim() == 2:
            return ModelOutput(logits=outputs)
        if int(mask.sum(1).max()) > outputs.shape[1]:
            raise UserError(
                f"a text has more tokens than the run's max_length "
                f"{self.saved.spec.settings.max_length}"
            )
        logits = outputs.new_zeros(*input_ids.shape, outputs.shape[-1])
        for row, own, found in zip(logits, mask.bool(), outputs, strict=True):
            row[own] = found[: int(own.sum())]
        return ModelOutput(logits=logits)

    def _prepared(self, row: Tensor) -> Tensor:
        row = row if self.end is None else torch.cat([row, row.new_tensor([self.end])])
        most = self.saved.spec.settings.max_length
        return row if len(row) <= most else torch.cat([row[: most - 1], row[-1:]])


class SavedPipeline(TextClassificationPipeline):  # type: ignore[misc]
    """A pipeline that joins the texts of a pair as the run did."""

    def preprocess(self, inputs: Any, **more: Any) -> Any:
        """Return the tokens of a text, or of a pair as {"text": ..., "text_pair": ...}."""
        if (
            isinstance(inputs, dict)
            and inputs.get("text_pair") is not None
            and not separates_pairs(self.tokenizer)
        ):
            inputs = f"{inputs['text']}\n{inputs['text_pair']}"
        return super().preprocess(inputs, **more)
