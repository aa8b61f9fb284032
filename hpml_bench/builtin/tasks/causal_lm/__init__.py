"""Causal language modelling: supervised fine-tuning on conversations; loss per token, score of
generated answers.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hpml_bench.builtin.tasks.causal_lm.options import CausalLMOptions
from hpml_bench.builtin.tasks.causal_lm.rows import (
    LOSSES,
    UNREAD,
    ConversationRow,
    conversation_rows,
    encode_texts,
    guess_tokens,
    linearised_loss,
    note_on_lengths,
    note_on_unread,
    place_of,
    scored,
    texts_of,
)
from hpml_bench.plugins.dataset import IGNORE_INDEX, LoadedData, Target
from hpml_bench.plugins.decoding import Decoding, Scaffold
from hpml_bench.plugins.scorer import make_scorer
from hpml_bench.plugins.task import (
    KEPT,
    NOTHING,
    RETENTION,
    Asked,
    Guess,
    Task,
    first_true,
    flat,
    not_likeliest,
    target_positions,
)
from hpml_bench.records.predictions import Answers, Predictions, TextAnswers, same_answers
from hpml_bench.records.run import Metric
from hpml_bench.system.errors import Unsupported, UserError
from hpml_bench.system.text import sanitize

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset
    from torch import Tensor, nn

    from hpml_bench.data.chat import Conversations
    from hpml_bench.plugins.rows import Rows
    from hpml_bench.plugins.tokenizer import Encoder

NO_LIMIT = 10**9  # `max_length` of rows whose length doesn't matter
OF_LENGTHS = ("rows", "dropped rows", "dropped tokens", "cut rows", "cut tokens")
"""Counts of rows by their length; every other count has a note of its own."""
MOST_NAMED = 3  # rows that a refusal names
LARGEST_EXPONENT = 700.0  # largest loss whose perplexity a float can represent


class CausalLM(Task):
    """Fine-tuning of a causal language model on the answers of conversations; its answers to the
    test rows are scored.

    The model is a whole causal language model, its own output layer included. With a scorer the
    test score is the headline; without one the test loss is, and nothing is generated.
    """

    title = "Causal language modelling"
    target = "answer"
    columns = ("contents", "roles", "choices")
    optional_columns = ("weights", "tools", "fields")
    headline = "test_loss"
    metrics: tuple[Metric, ...] = LOSSES
    model_kind = "language_model"
    max_length = 1024
    most_validation_rows = 100
    cuts_texts = False
    encodes_in_python = True

    Options = CausalLMOptions

    def __init__(
        self,
        options: Any,
        label_names: tuple[str, ...] = (),
        facts: Mapping[str, float] | None = None,
    ):
        super().__init__(options, label_names, facts)
        self.scorer = make_scorer(options.scorer, options.decimal_mark) if options.scorer else None
        if self.scorer is not None:
            self.headline = "test_score"
            self.binary = self.scorer.binary
            self.metrics = scored(self.scorer)

    # Rows

    @property
    def loads(self) -> Target:
        return "class" if self.options.question else "answer"

    def converted(self, loaded: LoadedData) -> LoadedData:
        from hpml_bench.data.conversations import ask_for_classes

        return ask_for_classes(loaded, self.options.question) if self.options.question else loaded

    @property
    def decoding(self) -> Decoding | None:
        if self.scorer is None or self.scorer.of != "answers":
            return None
        options = self.options
        return Decoding(options.max_new_tokens, options.stop, options.temperature, options.top_p)

    @property
    def compares_choices(self) -> bool:
        return self.scorer is not None and self.scorer.of == "choices"

    @property
    def retention(self) -> tuple[str, int] | None:
        options = self.options
        return (options.retention, options.retention_samples) if options.retention else None

    def check(self, split: str, labels: pa.Array, rows: pa.Table) -> None:
        import pyarrow.compute as pc

        turns = pc.list_value_length(labels)
        if pc.min(turns).as_py() == 0:
            raise UserError(f"a {split} row has no turn at all")
        if split == RETENTION:
            return
        text = first_true(pc.equal(turns, 1)) if self.decoding is not None else None
        if text is not None:
            raise UserError(
                f"{place_of(rows, split, text)} is a text without a prompt, so that there is "
                "nothing to answer; leave task.options.scorer empty, or give rows with prompts"
            )
        few = (
            first_true(pc.less(pc.list_value_length(rows.column("choices")), 2))
            if self.compares_choices
            else None
        )
        if few is not None:
            where = place_of(rows, split, few)
            raise UserError(
                f"{where} has no choices, which the scorer {self.options.scorer} compares"
            )

    def facts(self, train: Dataset) -> dict[str, float]:
        if self.scorer is not None:
            self.scorer.check()
        return {}

    def sources(self, encoder: Encoder) -> dict[str, str]:
        """Return the template, end tokens that neither it nor the tokenizer names, and parts of
        answers not scored.
        """
        chat = self.conversations(encoder)
        texts = {"template": chat.template}
        if left := chat.left_to_template:
            texts["before a text the tokenizer puts, and before a chat only the template"] = left
        own = self.stop_ids(replace(encoder, ends=())) if encoder.ends else ()
        if more := [token for token in encoder.ends if token not in own]:
            texts["end tokens of the model"] = " ".join(
                map(encoder.tokenizer.convert_ids_to_tokens, more)
            )
        parts = (
            {"begins": chat.scaffold.before, "ends": chat.scaffold.after}
            if self.decoding is not None
            else {}
        )
        written = {how: repr(text) for how, text in parts.items() if text.strip()}
        return texts | {
            f"the template {how} an answer with, not scored": text for how, text in written.items()
        }

    def encode(self, rows: Mapping[str, list[Any]], encoder: Encoder) -> dict[str, list[Any]]:
        return self._encoded(self._examples(rows, encoder), self.conversations(encoder))

    def with_examples(self, rows: Rows, examples: Rows, encoder: Encoder) -> dict[str, list[Any]]:
        from hpml_bench.data.chat_template import PLAIN

        if self.scorer is None:
            raise Unsupported(
                "examples stand before prompts whose answers are scored; the task has no scorer"
            )
        of_all = self.options.loss_on == "all"
        chat = self.conversations(encoder)
        chat = replace(chat, too_long="drop", loss_on="last" if of_all else chat.loss_on)
        shown = [ConversationRow.read(written, []) for written in examples.column("turns")]
        end = "\n\n" if chat.template == PLAIN else ""
        read = map(ConversationRow.read, rows.column("turns"), rows.column("choices"))
        try:
            encoded = self._encoded(enumerate(row.after(shown, end) for row in read), chat)
        except UserError as error:
            raise Unsupported(f"with examples, {error}") from None
        kept = set(encoded[KEPT])
        lost = [place for place in range(len(rows)) if place not in kept]
        if lost:
            raise Unsupported(
                f"with {len(shown)} examples {len(lost)} of {len(rows)} {rows.split} rows have "
                f"more than max_length {encoder.max_length} tokens, or are refused by the chat "
                f"template: {_rows_named(rows, lost)}; take fewer examples, or raise max_length"
            )
        if of_all:
            targets = zip(encoded["input_ids"], rows.targets, strict=True)
            encoded["label"] = [
                [*[IGNORE_INDEX] * (len(ids) - count), *ids[-count:]] for ids, count in targets
            ]
        longer = np.array([*map(len, encoded["input_ids"])]) > rows.lengths
        learnt = tuple(
            np.array([token for token in row if token != IGNORE_INDEX]) for row in encoded["label"]
        )
        if not longer.all() or not same_answers(learnt, rows.references):
            raise Unsupported(
                "the template leaves earlier turns out, or writes a row otherwise after examples"
            )
        return {
            name: encoded[name] for name in ("input_ids", "label", "prompt", "cut", "choice_ids")
        }

    def asked(self, rows: Rows, encoder: Encoder) -> list[Asked]:
        chat, found = self.conversations(encoder), []
        read = map(ConversationRow.read, rows.column("turns"), rows.column("choices"))
        for place, (row, prompt, cut) in enumerate(
            zip(read, rows.column("prompt"), rows.column("cut"), strict=True)
        ):
            turns = chat.turns(row.roles, row.contents, row.keys)[:-1]
            found.append(
                Asked(turns, row.definitions, tuple(rows.tokens(place)[:prompt].tolist()), cut)
            )
        return found

    def _encoded(
        self, examples: Iterable[tuple[int, ConversationRow]], chat: Conversations
    ) -> dict[str, list[Any]]:
        """Return the columns of conversations, each given with its row's number, as `encode`
        does.
        """
        from hpml_bench.data.chat_template import RefusedError

        encoder, encoded = chat.encoder, list[dict[str, Any]]()
        no_template = self.options.template is None and not encoder.tokenizer.chat_template
        silent = replace(chat, counts=Counter(), encoder=replace(encoder, max_length=NO_LIMIT))
        for number, row in examples:
            compared = row.choices if self.compares_choices else []
            more = (row.weights or (), row.definitions, row.keys)
            try:
                others = [
                    silent.example(row.roles, [*row.contents[:-1], choice], 0, *more)
                    for choice in compared
                ]
                longest = max((len(other.ids) for other in others if other is not None), default=0)
                example = chat.example(row.roles, row.contents, longest, *more)
            except UserError as error:
                if self.options.bad_rows == "drop" and isinstance(error, RefusedError):
                    encoder.counts["bad rows left out, which the chat template refuses"] += 1
                    continue
                beginning = f"{error} (the row begins with {sanitize(row.contents[0], 60)!r})"
                raise UserError(f"{row.place}: {beginning}" if row.place else beginning) from None
            if example is None or None in others:
                continue
            if self.decoding is not None and self._is_refused(row, example.expected, encoder):
                encoder.counts[UNREAD] += 1
            elif self.decoding is not None and not chat.reads(example):
                encoder.counts[
                    "rows that lose points even for the right answer, as its tokens decode "
                    "to another text; check tokenizer and template"
                ] += 1
            if row.messages and no_template:
                encoder.counts[
                    (
                        "rows whose turns stand one after the other, as the tokenizer has no chat "
                        "template"
                    )
                ] += 1
            encoded.append(
                {
                    KEPT: number,
                    "input_ids": list(example.ids),
                    "label": list(example.labels),
                    # the text with which the template begins every answer is no part of a choice
                    "prompt": example.content if compared else example.prompt,
                    "question": example.question,
                    "expected": example.expected,
                    "bytes": example.target_bytes,
                    "cut": example.cut,
                    "turns": row.written,
                    "choices": row.choices,
                    "choice_ids": [chat.answer_of(other) for other in others if other is not None],
                }
            )
        names = (KEPT, "input_ids", "label", *self.extra_types())
        return {name: [row[name] for row in encoded] for name in names}

    def _is_refused(self, row: ConversationRow, expected: str, encoder: Encoder) -> bool:
        """Return whether the scorer can't read an expected answer; the first is counted by its
        sentence.
        """
        refusal = self.scorer and self.scorer.refusal(expected)
        if not refusal:
            return False
        if not encoder.counts[UNREAD]:
            place = row.place or f"the row that begins with {sanitize(row.contents[0], 60)!r}"
            written = sanitize(expected, 60)
            encoder.counts[f"{UNREAD}{place}: {written!r} {refusal}"] += 1
        return True

    def _examples(
        self, rows: Mapping[str, list[Any]], encoder: Encoder
    ) -> Iterator[tuple[int, ConversationRow]]:
        """Yield the examples of a batch of rows, each with its row's number: one of a row, or
        one of each answer.
        """
        for number, row in enumerate(conversation_rows(rows)):
            examples = list(row.of_each_answer()) if self.splits_rows else [row]
            if not examples:
                encoder.counts["rows whose text has no token to learn, left out"] += 1
            if len(examples) > 1:
                encoder.counts["examples made of rows of several answers, one of each answer"] += (
                    len(examples)
                )
            yield from ((number, example) for example in examples)

    @property
    def splits_rows(self) -> bool:
        return bool(self.options.loss_on == "each")

    def encode_general(
        self, rows: Mapping[str, list[Any]], encoder: Encoder
    ) -> dict[str, list[Any]]:
        return encode_texts([contents[-1] for contents in rows["contents"]], encoder)

    def conversations(self, encoder: Encoder) -> Conversations:
        from hpml_bench.data.chat import Conversations
        from hpml_bench.data.chat_template import chat_template

        options = self.options
        return Conversations(
            encoder=encoder,
            template=chat_template(encoder, options.template),
            options=options.template_options,
            system=options.system,
            loss_on="last" if self.splits_rows else options.loss_on,
            too_long=options.too_long,
            counts=encoder.counts,
        )

    def stop_ids(self, encoder: Encoder) -> tuple[int, ...]:
        return self.conversations(encoder).stop_ids

    def chat_template(self, encoder: Encoder) -> str:
        from hpml_bench.data.chat_template import standing_template

        chat = self.conversations(encoder)
        return standing_template(chat.template, chat.options, chat.system)

    def scaffold(self, encoder: Encoder) -> Scaffold:
        return self.conversations(encoder).scaffold

    def extra_types(self) -> dict[str, pa.DataType]:
        """Return the columns beside ids and labels: tokens of the prompt and cut off it, texts,
        turns, target bytes.
        """
        import pyarrow as pa

        numbers = dict.fromkeys(("prompt", "bytes", "cut"), pa.int32())
        texts = dict.fromkeys(("question", "expected", "turns"), pa.string())
        return {
            **numbers,
            **texts,
            "choices": pa.list_(pa.string()),
            "choice_ids": pa.list_(pa.list_(pa.int32())),
        }

    def length_notes(self, full: float, counts: Mapping[str, Counter[str]]) -> dict[str, str]:
        parts = [
            f"{split} {note}" for split, count in counts.items() if (note := note_on_lengths(count))
        ]
        notes = {"rows longer than max_length": "; ".join(parts) or NOTHING}
        total = sum(counts.values(), Counter[str]())
        return (
            notes
            | note_on_unread(counts)
            | {
                name: f"{number:,}"
                for name, number in total.items()
                if name not in OF_LENGTHS and not name.startswith(UNREAD)
            }
        )

    # Model

    def build(
        self, encoder: nn.Module, hidden_size: int, virtual_tokens: int, seed: int
    ) -> nn.Module:
        from hpml_bench.training.causal_lm import LanguageModel

        return LanguageModel(encoder, virtual_tokens, self.options.router_loss)

    def loss(self, outputs: Tensor, labels: Tensor) -> Tensor:
        from torch.nn.functional import cross_entropy

        if outputs.dim() == 1:  # losses, which a model of many logits returns while it trains
            return outputs.sum()
        return cross_entropy(
            outputs, labels[:, 1:][target_positions(labels, len(outputs))], reduction="sum"
        )

    def row_losses(self, outputs: Tensor, labels: Tensor) -> Tensor:
        from torch.nn.functional import cross_entropy

        rows, places = target_positions(labels, len(outputs))
        losses = cross_entropy(outputs, labels[:, 1:][rows, places], reduction="none")
        return losses.new_zeros(len(labels)).index_add(0, rows, losses)

    def predict(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Return the most likely token in place of each target token [B, L]."""
        answers = labels.new_full(labels.shape, IGNORE_INDEX)
        answers[:, 1:][target_positions(labels, len(outputs))] = outputs.argmax(dim=-1)
        return answers

    # Scores

    def evaluate(self, predictions: Predictions) -> dict[str, float]:
        reference, prediction = (
            flat(answers) for answers in (predictions.reference, predictions.prediction)
        )
        nats = float(np.sum(predictions.loss, dtype=np.float64))
        loss, texts = nats / max(1, len(reference)), texts_of(predictions)
        metrics: dict[str, float] = {}
        if not len(prediction) or np.any(prediction != IGNORE_INDEX):  # a server tells no losses
            metrics = {
                "loss": loss,
                "perplexity": math.exp(min(loss, LARGEST_EXPONENT)),
                "bits_per_byte": nats / math.log(2) / max(1, int(texts.bytes.sum())),
                "token_accuracy": float((reference == prediction).mean())
                if len(reference)
                else 0.0,
            }
        if (
            self.scorer is None or texts.answer is None
        ):  # a validation during training, of the loss alone
            return metrics
        metrics = {"score": float(self.scores(predictions).mean()), **metrics}
        for name, of_rows in (("cut_answers", texts.cut), ("near_ties", texts.near_tie)):
            metrics |= {} if of_rows is None else {name: float(of_rows.mean())}
        if texts.normalised is not None:
            pairs = zip(texts.normalised, texts.expected, strict=True)
            metrics["score_normalised"] = float(
                np.mean([answer == expected for answer, expected in pairs])
            )
        return metrics

    def scores(self, predictions: Predictions) -> NDArray[Any]:
        if self.scorer is None:
            return linearised_loss(predictions.reference, predictions.loss)
        if (texts := texts_of(predictions)).answer is None:
            raise ValueError("there are no answers to score")
        rows = zip(texts.question, texts.answer, texts.expected, strict=True)
        scores = np.array([self.scorer.score_row(*row) for row in rows], dtype=np.float64)
        return scores.astype(bool) if self.binary else scores

    def contradicted(self, predictions: Predictions) -> NDArray[np.bool_]:
        return not_likeliest(predictions)

    def guess(self, reference: Answers, texts: TextAnswers | None = None) -> Guess:
        """Answer nothing, which scores 0, or draw a choice; without a scorer guess each token by
        its frequency.
        """
        if self.compares_choices and texts is not None and texts.choices is not None:
            drawn = 1 / texts.choices
            mean = float(drawn.mean())
            if self.options.question:
                name, count = Counter(texts.expected).most_common(1)[0]
                share = (
                    f"Guessing the most frequent class gets {count / len(drawn):.1%} of the test "
                    f"rows right"
                )
                right = np.array([expected == name for expected in texts.expected], dtype=float)
                return Guess(f"{share}; chance is {mean:.1%}.", right, chance=mean)
            return Guess(
                f"Choosing at random is right in {mean:.1%} of the test rows on average.",
                drawn,
                chance=mean,
            )
        if self.scorer is not None:
            return Guess("An empty answer scores 0.", scores=np.zeros(len(reference)), chance=0.0)
        return guess_tokens(reference)


def _rows_named(rows: Rows, places: Sequence[int]) -> str:
    """Return the first of some rows by their numbers in the split and beginnings of their
    questions, and how many more there are.
    """
    questions = rows.column("question")
    named = [
        f"row {place + 1} ({sanitize(questions[place], 40)!r})" for place in places[:MOST_NAMED]
    ]
    more = len(places) - len(named)
    return ", ".join(named) + (f" and {more} more" if more else "")
