"""Rows of conversations as data sets give them, texts without turns, notes on lengths; metrics
and scores of rows.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from hpml_bench.plugins.dataset import IGNORE_INDEX
from hpml_bench.plugins.scorer import Scorer
from hpml_bench.plugins.task import Guess, flat, linearised_ratio, loss_metrics
from hpml_bench.records.predictions import Answers, Predictions, TextAnswers
from hpml_bench.records.run import Metric

if TYPE_CHECKING:
    import pyarrow as pa

    from hpml_bench.plugins.tokenizer import Encoder

UNREAD = "expected answers that the scorer can't read, so that every answer to them scores 0"
"""Name of the note, and the beginning of the counts' names, of which one has the first row."""


class ConversationRow(NamedTuple):
    """A row as it was loaded."""

    roles: list[str]
    contents: list[str]
    choices: list[str]
    weights: list[float] | None
    fields: list[str] | None  # JSON of the further keys of each turn
    tools: str | None
    place: str | None
    messages: (
        bool | None
    )  # whether the data set gives it as turns, not as a prompt and a completion

    def of_each_answer(self) -> Iterator[ConversationRow]:
        """Yield the conversation up to each answer to learn that has a prompt; a text without
        one as it is.
        """
        for place, role in enumerate(self.roles):
            learnt = role == "assistant" and (not self.weights or self.weights[place])
            if learnt and (place or len(self.roles) == 1):
                end = place + 1
                fields = self.fields and self.fields[:end]
                yield self._replace(
                    roles=self.roles[:end],
                    contents=self.contents[:end],
                    fields=fields,
                    weights=None,
                )

    @classmethod
    def read(cls, written: str, choices: list[str]) -> Self:
        """Return a row that `written` wrote, with its choices."""
        roles, contents, weights, fields, tools = json.loads(written)
        return cls(roles, contents, choices, weights, fields, tools, None, None)

    @property
    def written(self) -> str:
        """The row as JSON, without its choices and place."""
        return json.dumps([self.roles, self.contents, self.weights, self.fields, self.tools])

    @property
    def keys(self) -> list[dict[str, Any]]:
        """Further keys of each turn; none where no turn has any."""
        return [json.loads(keys) if keys else {} for keys in self.fields or ()]

    @property
    def definitions(self) -> list[Any] | None:
        return json.loads(self.tools) if self.tools else None

    def after(self, examples: Sequence[ConversationRow], end: str) -> ConversationRow:
        """Return the conversation with examples, each with `end` after it, as earlier turns that
        are not learnt.

        A system prompt is the row's own, and stays in front.
        """
        shown: list[tuple[Any, ...]] = []
        for one in examples:
            texts = [*one.contents[:-1], one.contents[-1] + end]
            turns = zip(
                one.roles, texts, one.fields or [""] * len(texts), [0.0] * len(texts), strict=True
            )
            shown += [turn for turn in turns if turn[0] != "system"]
        size, front = len(self.roles), int(self.roles[0] == "system")
        own = [
            *zip(
                self.roles,
                self.contents,
                self.fields or [""] * size,
                self.weights or [1.0] * size,
                strict=True,
            )
        ]
        parts = zip(*own[:front], *shown, *own[front:], strict=True)
        changed: Any = dict(
            zip(("roles", "contents", "fields", "weights"), map(list, parts), strict=True)
        )
        return self._replace(**changed)


def conversation_rows(batch: Mapping[str, list[Any]]) -> Iterator[ConversationRow]:
    nothing = [None] * len(batch["roles"])
    return map(
        ConversationRow._make,
        zip(*(batch.get(name, nothing) for name in ConversationRow._fields), strict=True),
    )


def place_of(rows: pa.Table, split: str, row: int) -> str:
    """Return a row's file and number where the data set gives them, else its split and number."""
    return (
        rows.column("place")[row].as_py()
        if "place" in rows.column_names
        else f"{split} row {row + 1}"
    )


def encode_texts(texts: list[str], encoder: Encoder) -> dict[str, list[Any]]:
    """Return texts as the tokenizer gives them, cut at `max_length`: every token but the first is a
    target.

    An end token that the tokenizer sets behind a text, also behind one that is cut, is left out.
    """
    tokenised = encoder.tokenizer(texts, truncation=True, max_length=encoder.max_length)[
        "input_ids"
    ]
    end = encoder.tokenizer.eos_token_id
    whole = (
        (text, ids[:-1] if ids[-1:] == [end] else ids)
        for text, ids in zip(texts, tokenised, strict=True)
    )
    kept = [(text, ids) for text, ids in whole if len(ids) > 1]
    nothing: dict[str, Any] = {
        "prompt": 0,
        "cut": 0,
        "question": "",
        "turns": "",
        "choices": [],
        "choice_ids": [],
    }
    return {
        **{name: [value] * len(kept) for name, value in nothing.items()},
        "input_ids": [ids for _, ids in kept],
        "label": [[IGNORE_INDEX, *ids[1:]] for _, ids in kept],
        "expected": [text for text, _ in kept],
        "bytes": [len(text.encode()) for text, _ in kept],
    }


def note_on_lengths(count: Counter[str]) -> str:
    """Return a note on a split's rows that are too long; empty where there are none."""
    dropped = (
        f"{count['dropped rows']:,} of {count['rows']:,} rows left out "
        f"({count['dropped tokens']:,} tokens)"
    )
    cut = f"{count['cut rows']:,} prompts cut ({count['cut tokens']:,} tokens)"
    return ", ".join(
        [*([dropped] if count["dropped rows"] else []), *([cut] if count["cut rows"] else [])]
    )


def note_on_unread(counts: Mapping[str, Counter[str]]) -> dict[str, str]:
    """Return a note on the expected answers of validation and test rows that the scorer can't
    read, with the first of each; none where there are none.
    """
    parts = []
    for split, count in counts.items():
        if split == "train" or not count[UNREAD]:
            continue
        first = next(name for name in count if name.startswith(UNREAD) and name != UNREAD)
        parts.append(f"{count[UNREAD]:,} {split}, the first {first.removeprefix(UNREAD)}")
    return {UNREAD: "; ".join(parts)} if parts else {}


# Metrics and scores


_metric = partial(Metric.define, phase="test", group="language")

LOSSES = (
    *loss_metrics("nats/token", "Cross-entropy a learnt token"),
    _metric(
        "test_perplexity",
        "perplexity",
        "",
        "lower",
        ".3f",
        (
            "exp of the test loss: how many equally likely tokens the model hesitates between, on "
            "average."
        ),
    ),
    _metric(
        "test_bits_per_byte",
        "bits a byte",
        "bits/byte",
        "lower",
        ".3f",
        "Summed loss of the learnt tokens of all test rows in bits, divided by the UTF-8 bytes of "
        "their text: it can be compared between tokenizers.",
    ),
    _metric(
        "test_token_accuracy",
        "token accuracy",
        "",
        "higher",
        ".1%",
        "Share of the learnt tokens of the test rows that are the model's most likely one, given "
        "all tokens before it as they are.",
        bounds=(0.0, 1.0),
    ),
)

NORMALISED = _metric(
    "test_score_normalised",
    "right choices, normalised",
    "",
    "higher",
    ".1%",
    "Share of the test rows whose right choice has the largest log-likelihood a character "
    "(lm-evaluation-harness's acc_norm).",
    group="quality",
    bounds=(0.0, 1.0),
)

ANSWERED = (
    _metric(
        "test_cut_answers",
        "cut answers",
        "",
        "lower",
        ".1%",
        "Share of the test rows whose answer reached max_new_tokens, or the model's last position, "
        "before it ended.",
        bounds=(0.0, 1.0),
    ),
    _metric(
        "test_near_ties",
        "near ties",
        "",
        "neither",
        ".1%",
        "Share of the test rows in whose answer two tokens' logits lay within 1e-4 of each other "
        "at the top somewhere, or in half precision within a step of the type (2^-7 of the largest "
        "in bfloat16): there rounding, which differs with the batch, can decide.",
        bounds=(0.0, 1.0),
    ),
)


def scored(scorer: Scorer) -> tuple[Metric, ...]:
    """Return the metrics of a task whose answers or choices are scored."""
    form: Any = {"group": "quality", "bounds": (0.0, 1.0)}
    score = _metric("test_score", scorer.title, "", "higher", ".1%", scorer.definition, **form)
    return (score, *LOSSES, *(ANSWERED if scorer.of == "answers" else (NORMALISED,)))


def linearised_loss(reference: Answers, losses: NDArray[Any]) -> NDArray[np.float64]:
    """Return one value per row [n] whose mean is exactly the loss per token, sum(loss) /
    sum(tokens).
    """
    return linearised_ratio(losses, np.array([len(row) for row in reference], dtype=np.float64))


def guess_tokens(reference: Answers) -> Guess:
    tokens = flat(reference)
    kinds, counts = np.unique(tokens, return_counts=True)
    cost = dict(zip(kinds.tolist(), (-np.log(counts / counts.sum())).tolist(), strict=True))
    losses = np.array([sum(cost[token] for token in np.asarray(row).tolist()) for row in reference])
    mean = float(losses.sum() / max(1, len(tokens)))
    return Guess(
        f"Guessing every token by how often it occurs in these rows has a loss of {mean:.3f} "
        f"nats/token.",
        scores=linearised_loss(reference, losses),
        chance=mean,
    )


def texts_of(predictions: Predictions) -> TextAnswers:
    if predictions.texts is None:
        raise ValueError("the predictions have no answers in words")
    return predictions.texts
