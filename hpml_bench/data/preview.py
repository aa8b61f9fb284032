"""Preview of prepared rows as the model sees them, token by token, with their target tokens."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hpml_bench.data.prepare import prepare
from hpml_bench.plugins.rows import Rows
from hpml_bench.plugins.task import IGNORE_INDEX, make_task
from hpml_bench.plugins.tokenizer import Encoder, load_tokenizer
from hpml_bench.suite.settings import Settings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

END = 40
"""Characters shown of a prompt's end."""


@dataclass(frozen=True)
class SeenRow:
    """A prepared row."""

    split: str
    number: int
    pieces: tuple[tuple[str, bool], ...]
    """Text in parts, each with whether its tokens are targets."""
    ids: tuple[int, ...]
    learnt: int
    """Number of target tokens; 0 for a row with one label."""
    label: str
    """Label or expected answer, as text."""
    full: bool
    """Whether it has `max_length` tokens, so that it may have been cut."""
    cut: int
    """Tokens cut off its prompt, as far as the task records them."""
    prompt: int
    """Tokens of its prompt; 0 for a row without one."""
    prompt_end: str
    """Last characters of the prompt."""


@dataclass(frozen=True)
class Preview:
    """Rows of a suite as the model sees them."""

    facts: tuple[str, ...]
    """Sentences on model, template and rows."""
    rows: tuple[SeenRow, ...]


def preview(settings: Settings, count: int, split: str = "train") -> Preview:
    """Prepare model and data, and return the first rows of a split."""
    prepared = prepare(settings)
    tokenizer = load_tokenizer(Path(prepared.backbone))
    task = make_task(settings.task, prepared.label_names, prepared.facts)
    encoder = Encoder(tokenizer, settings.max_length, None, settings.backbone)
    rows = Rows(Path(prepared.data) / split, prepared.pad_id)
    facts = [f"{name}: {text}" for name, text in (*task.sources(encoder).items(), *prepared.notes.items())]
    if task.decoding is not None:
        ends = [repr(tokenizer.convert_ids_to_tokens(token)) for token in prepared.stop_ids]
        facts.append(f"an answer ends with {' or '.join([*ends, *map(repr, task.decoding.stop)]) or 'max_new_tokens'}")
    cuts, prompts = (rows.column(name) if rows.has(name) else [0] * len(rows) for name in ("cut", "prompt"))
    seen = []
    for number in range(min(count, len(rows))):
        ids = tuple(rows.tokens(number).tolist())
        labels = [IGNORE_INDEX] * len(ids) if rows.token_labels is None else rows.token_labels[number]
        targets = [bool(label != IGNORE_INDEX) for label in labels]
        seen.append(
            SeenRow(
                split=split,
                number=number,
                pieces=tuple(_pieces(ids, targets, tokenizer)),
                ids=ids,
                learnt=sum(targets),
                label=_label(rows, number, prepared.label_names),
                full=len(ids) == settings.max_length and task.cuts_texts,
                cut=cuts[number],
                prompt=prompts[number],
                prompt_end=str(tokenizer.decode(ids[: prompts[number]], clean_up_tokenization_spaces=False))[-END:],
            )
        )
    return Preview(tuple(facts), tuple(seen))


def _pieces(
    ids: tuple[int, ...], targets: list[bool], tokenizer: PreTrainedTokenizerFast
) -> Iterator[tuple[str, bool]]:
    """Yield each stretch of target tokens or of other tokens: the text that it adds to the text before, and which."""
    start, before = 0, ""
    for place in range(1, len(ids) + 1):
        if place == len(ids) or targets[place] != targets[start]:
            text = str(tokenizer.decode(list(ids[:place]), clean_up_tokenization_spaces=False))
            yield text[len(before) :], targets[start]
            start, before = place, text


def _label(rows: Rows, number: int, names: tuple[str, ...]) -> str:
    if rows.has("expected"):
        return str(rows.column("expected")[number])
    if rows.token_labels is not None:
        return " ".join(names[label] for label in rows.token_labels[number] if label != IGNORE_INDEX)
    label = rows.labels[number]
    return names[int(label)] if names else f"{label:g}"
