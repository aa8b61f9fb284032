"""Columns of a table: the text and the target, as given, else found by name, else by content."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

from hpml_bench.data.keyboard import MARKS
from hpml_bench.data.numbers import plain_number
from hpml_bench.plugins.dataset import Target
from hpml_bench.suite.base import Frozen
from hpml_bench.system.cache import disk_error
from hpml_bench.system.disk import explained
from hpml_bench.system.errors import UserError
from hpml_bench.system.text import shortened

if TYPE_CHECKING:
    from datasets import Dataset

LABEL_NAMES = ("label", "labels", "class", "category", "target", "topic", "sentiment")
NUMBER_NAMES = ("label", "labels", "score", "target", "value", "rating", "stars")
WORD_NAMES = ("words", "tokens", "word", "token")
TAG_NAMES = ("tags", "ner_tags", "tag", "ner_tag")
TEXT_NAMES = frozenset(
    {
        "title",
        "headline",
        "subject",
        "text",
        "sentence",
        "description",
        "content",
        "body",
        "review",
        "document",
    }
)
ID_NAMES = frozenset({"", "id", "idx", "index", "row", "unnamed: 0", "nr", "no", "number"})
"""Names of columns that count rows."""
SAMPLE_ROWS = (
    1000  # number of first rows by whose cells a column is found, where its name doesn't decide
)
MOST_CLASSES = 100
MOSTLY_NUMBERS = 0.9  # share of numbers from which on the other cells are likely to be slips
PAIR_NAMES = (
    ("premise", "hypothesis"),
    ("question", "sentence"),
    ("question", "passage"),
    ("question", "context"),
    ("query", "passage"),
    ("query", "document"),
    ("text", "text_pair"),
)
PAIRED = re.compile(
    r"(.+?)[ _-]?([12ab])", re.IGNORECASE
)  # sentence1 and sentence2, text_a and text_b
DATE = re.compile(r"\s*(\d{4}([-./])\d\d?\2\d\d?|\d\d?([-./])\d\d?\3\d{4})(?!\d)")
"""Start of a date, which a time may follow."""
LONG_TEXT, MOSTLY, VARIED = 5, 0.5, 0.2
"""Words of a long text in the mean; share of rows from which on most have something; least share
of different texts among those of a pair.
"""

Column = str | int  # a column's name, or its position counted from 1
Row = Callable[
    ..., tuple[Any, ...]
]  # function of a row's cells; a ValueError of it continues `FILE: row 3`


class TableOptions(Frozen):
    """Options of data sets that read tables."""

    text: Column | tuple[Column, ...] = ()
    """Column or columns of the text or the prompt, or the one with lists of words or turns, by
    name or by position from 1; empty to find them.
    """
    text_pair: Column | None = None
    """Column of the second text of a pair (a premise's hypothesis, a question's passage) for a
    class or a number, by name or by position from 1. The tokenizer encodes both as a pair; where
    it has nothing between the texts of a pair, as GPT-2's, they are joined by a line break.
    Empty: none, or where `text` is empty, found by name.
    """
    label: Column | None = None
    """Column of the label (a class, a number, a list of tags, or a prompt's completion), by name
    or by position from 1; empty to find it.
    """
    label_names: tuple[str, ...] = ()
    """Names of classes or tags, in the order of the sorted label values; empty to take the
    values themselves.
    """
    normalize_labels: bool = False
    """Whether classes or tags that differ only in case or white space are one, named by its most
    frequent spelling unless `label_names` names it.
    """
    group: Column | None = None
    """Column that says which rows belong together (the questions of one document, near-copies),
    by name or by position from 1: they stay in one split where splits are drawn, and test rows
    of one group are tested together. Empty where each row stands alone.
    """
    separator: str = " "
    """Separator of the texts of several columns; between parts of a prompt a single space means
    an empty line.
    """


Kind = Literal["class", "number", "tags", "turns", "prompt", "text"]
NAMES: dict[Kind, tuple[str, str]] = {
    "class": ("text", "label"),
    "number": ("text", "label"),
    "tags": ("words", "tags"),
    "turns": ("turns", ""),
    "prompt": ("prompt", "completion"),
    "text": ("text", ""),
}
"""Words for the columns of text and label; the last three kinds are conversations."""


class Columns(Frozen):
    """Columns of a table by their content."""

    kind: Kind
    text: tuple[str, ...]
    """Columns of texts or of a prompt, which are joined; or one column of lists of words, or of
    turns (`role` and `content`, or ShareGPT's `from` and `value`).
    """
    label: str | None = None  # column of classes or numbers, of lists of tags, or of completions
    pair: str | None = None  # column of the second texts
    choices: str | None = None
    system: str | None = None  # column of a system prompt, which may be empty
    tools: str | None = None  # column of tools' definitions, lists or JSON, which may be empty
    group: str | None = None
    unread: tuple[str, ...] = ()  # all others

    @property
    def read(self) -> tuple[str, ...]:
        """Columns whose cells make a row: the text's, the second text's and the label's first."""
        return (
            *self.text,
            *filter(None, (self.pair, self.label, self.choices, self.system, self.tools)),
        )

    def __str__(self) -> str:
        text, label = NAMES[self.kind]
        found = {
            text: ", ".join(self.text),
            "second text": self.pair,
            label: self.label,
            "choices": self.choices,
        }
        found |= {"system prompt": self.system, "tools": self.tools, "group": self.group}
        return "; ".join(f"{what} from {columns}" for what, columns in found.items() if columns)


def choose(
    dataset: Dataset,
    where: str,
    target: Target,
    options: TableOptions,
    label: Column | None,
    *,
    kept_out: Collection[str],
    named: bool,
) -> Columns:
    """Return the columns of text and label: as given, else by name, else by content but for
    those kept out.
    """
    names = list(dataset.column_names)
    text = options.text if isinstance(options.text, tuple) else (options.text,)
    with column_errors_as_user_errors(where):
        chosen_text = tuple(column_named(column, names, where, "text") for column in text)
        chosen_label = None if label is None else column_named(label, names, where, "label")
        pair = (
            None
            if options.text_pair is None
            else column_named(options.text_pair, names, where, "text_pair")
        )
        if target == "tags":
            if len(text) > 1:
                raise UserError(
                    f"{where}: dataset.options.text names {len(text)} columns of words; tags are "
                    f"of one"
                )
            words = chosen_text[0] if chosen_text else first_named(names, WORD_NAMES)
            tags = chosen_label or first_named(names, TAG_NAMES)
            if words and tags:
                return Columns(kind="tags", text=(words,), label=tags)
            what, option, usual = (
                ("tags", "label", TAG_NAMES) if words else ("words", "text", WORD_NAMES)
            )
            raise UserError(
                f"{where}: no column is called {' or '.join(usual[:2])}; name the one with lists "
                f"of {what} with dataset.options.{option} ({listed(names)})"
            )
        sample: dict[str, list[Any]] = dataset[:SAMPLE_ROWS]
        if chosen_label is None:
            rest = [name for name in names if name not in {*chosen_text, pair, *kept_out}]
            known, find = (
                (LABEL_NAMES, _find_label) if target == "class" else (NUMBER_NAMES, _find_number)
            )
            chosen_label = first_named(rest, known) or find(rest, sample, where)
        if not chosen_text:
            rest = [name for name in names if name not in {chosen_label, pair}]
            chosen_text, found = _find_text(rest, sample, where, kept_out, named=named)
            pair = pair or found
        return Columns(kind=cast(Kind, target), text=chosen_text, label=chosen_label, pair=pair)


def first_named(names: Sequence[str], wanted: Sequence[str]) -> str | None:
    """Return the column with the first of the wanted names that exists, in any case; else None."""
    return next((name for known in wanted for name in names if name.strip().lower() == known), None)


def column_errors_as_user_errors(where: str) -> AbstractContextManager[None]:
    """Raise the libraries' errors on columns of lists, mappings or undecodable text as one
    sentence.
    """

    def explain(error: Exception) -> UserError:
        reason = shortened(" ".join(str(error).split()), 200) or type(error).__name__
        return disk_error(error) or UserError(
            f"{where}: its columns can't be read as text and label: {reason}"
        )

    return explained(explain)


def column_named(column: Column, names: list[str], where: str, what: str = "") -> str:
    """Return a column by its name, or by its position from 1; `what` is the word for it in
    errors, such as `text`.
    """
    if column in names:
        return str(column)
    column = (
        int(column) if isinstance(column, str) and column.isdecimal() else column
    )  # of a command line
    if isinstance(column, int) and 1 <= column <= len(names):
        return names[column - 1]
    raise UserError(
        f"{where}: there is no {f'{what} ' if what else ''}column {column!r}; the columns are "
        f"{listed(names)}"
    )


def check_columns(dataset: Dataset, file: str, columns: Sequence[str]) -> None:
    missing = [column for column in columns if column not in dataset.column_names]
    if missing:
        raise UserError(
            f"{file}: there is no column '{missing[0]}'; there is {listed(dataset.column_names)}"
        )


def converted(
    dataset: Dataset, file: str, read: Sequence[str], row: Row, types: Mapping[str, Any]
) -> Dataset:
    """Return a table converted row by row: a function of the cells of `read` returns values of
    these types.

    A column `bad` has the reason where a row can't be converted, else an empty text, and `place`
    the row's number.
    """
    from datasets import Features, Value

    check_columns(dataset, file, read)
    with column_errors_as_user_errors(file):
        return dataset.map(
            _by_row,
            batched=True,
            with_indices=True,
            remove_columns=dataset.column_names,
            features=Features({**types, **dict.fromkeys(("place", "bad"), Value("string"))}),
            fn_kwargs={"file": file, "read": tuple(read), "row": row, "names": tuple(types)},
        )


def _by_row(
    batch: Mapping[str, list[Any]],
    positions: list[int],
    file: str,
    read: Sequence[str],
    row: Row,
    names: Sequence[str],
) -> dict[str, list[Any]]:
    rows = []
    for position, *cells in zip(positions, *(batch[name] for name in read), strict=True):
        place = f"{file}: row {position + 1}"
        try:
            rows.append((*row(*cells), place, ""))
        except ValueError as error:
            rows.append((*[None] * len(names), place, f"{place} {error}"))
    return {
        name: list(values)
        for name, values in zip((*names, "place", "bad"), zip(*rows, strict=True), strict=True)
    }


def listed(names: Sequence[str]) -> str:
    return some([f"{position} '{short(name)}'" for position, name in enumerate(names, 1)])


def short(value: str) -> str:
    return shortened(value, 60)


def some(values: Sequence[str], most: int = 30) -> str:
    return ", ".join([*values[:most], *(["..."] if len(values) > most else [])])


def label_candidates(names: Sequence[str], sample: Mapping[str, list[Any]]) -> list[str]:
    """Return the columns with few different values, the fewest first, which may be classes; dates
    are none.
    """
    most = min(MOST_CLASSES, len(next(iter(sample.values()), [])) // 2)
    counts = {}
    for name in names:
        values = {*map(str, sample[name])}
        dates = all(DATE.match(value) for value in values - {"", "None"})
        if 2 <= len(values) <= most and _full(sample[name]) and not dates:
            counts[name] = len(values)
    return sorted(counts, key=counts.__getitem__)


def _find_label(names: list[str], sample: Mapping[str, list[Any]], where: str) -> str:
    candidates = label_candidates(names, sample)
    if not candidates:
        sep = (
            "; if its cells are separated otherwise, say how with dataset.options.sep"
            if len(sample) == 1
            else ""
        )
        raise UserError(
            f"{where}: no column looks like a label; name it with dataset.options.label "
            f"({listed(list(sample))}){sep}"
        )
    return candidates[0]


def _find_number(names: list[str], sample: Mapping[str, list[Any]], where: str) -> str:
    numeric = [
        name
        for name in names
        if sample[name] and all(is_number(str(value)) for value in sample[name])
    ]
    strays = [found for name in names if (found := stray(name, sample[name]))]
    counting = [name for name in numeric if counts_rows(name, sample[name])]
    named_as_ids = [name for name in counting if name.strip().lower() in ID_NAMES]
    # a column that counts rows is learnt only where no other one could have been meant
    left_out = counting if len(counting) < len(numeric) or strays else named_as_ids
    numeric = [name for name in numeric if name not in left_out]
    if len(numeric) != 1:
        if numeric:
            what = f"{len(numeric)} columns hold numbers"
        elif strays:
            what = strays[0].sentence
        else:
            what = "no column holds numbers"
        raise UserError(
            f"{where}: {what}; name the one to learn with dataset.options.label ({listed(names)})"
        )
    return numeric[0]


def _find_text(
    names: list[str],
    sample: Mapping[str, list[Any]],
    where: str,
    kept_out: Collection[str],
    *,
    named: bool,
) -> tuple[tuple[str, ...], str | None]:
    """Return the columns of the text, and that of the second texts of pairs.

    In a table without column names, all that don't hold numbers; else a pair by name; else all with
    a name of a text or the one with the longest texts, and other columns of long texts.
    """
    called = [name for name in names if name.strip().lower() in TEXT_NAMES]
    texts = {
        name: values
        for name in names
        if name not in kept_out
        and (values := [v for v in sample[name] if isinstance(v, str)])
        and not all(is_number(v) for v in values)
    }
    if not called and not texts:
        raise UserError(
            f"{where}: no column holds text; name it with dataset.options.text "
            f"({listed(list(sample))})"
        )
    if not named:
        return tuple(texts), None
    # two columns whose names are those of a pair, unless several are
    full = {name: values for name, values in texts.items() if _full(sample[name])}
    by_name = {
        name.strip().lower(): name
        for name, values in full.items()
        if len({*values}) >= VARIED * len(values)
    }
    pairs = [(by_name[a], by_name[b]) for a, b in PAIR_NAMES if a in by_name and b in by_name]
    halves: dict[str, list[str]] = {}
    for known, name in by_name.items():
        if match := PAIRED.fullmatch(known):
            halves.setdefault(match[1], []).append(name)
    pairs += [(two[0], two[1]) for two in halves.values() if len(two) == 2]
    if len(pairs) == 1:
        return (pairs[0][0],), pairs[0][1]
    chosen = called or [max(texts, key=lambda name: sum(map(len, texts[name])) / len(texts[name]))]
    for name in long_texts({name: sample[name] for name in texts if name not in chosen}):
        # cells that are part of another column's, as quotations are, add nothing to it
        parts = (
            sum((a or "") in (b or "") for a, b in zip(sample[name], sample[of], strict=True))
            for of in chosen
        )
        if all(count <= MOSTLY * len(sample[name]) for count in parts):
            chosen.append(name)
    return tuple(name for name in names if name in chosen), None


def long_texts(sample: Mapping[str, list[Any]]) -> list[str]:
    """Return the columns of different texts of several words."""
    return [
        name
        for name, cells in sample.items()
        if _full(cells)
        and all(isinstance(cell, str | None) for cell in cells)
        and sum(len((cell or "").split()) for cell in cells) >= LONG_TEXT * len(cells)
        and len({*cells}) > MOSTLY * len(cells)
    ]


def _full(cells: Sequence[Any]) -> bool:
    return sum(cell not in (None, "") for cell in cells) >= MOSTLY * len(cells)


@dataclass(frozen=True)
class Stray:
    """A column of numbers among which a few cells are something else."""

    sentence: str  # on the first of these cells
    distinct: int  # number of different numbers


def stray(name: str, cells: Sequence[Any]) -> Stray | None:
    """Return what is known of a column of numbers with a few other cells; None for other columns,
    and for one that counts the rows.
    """
    if any(isinstance(cell, bool | list | dict) for cell in cells):
        return None
    texts = ["" if cell is None else str(cell) for cell in cells]
    filled = [text for text in texts if text.strip()]
    numbers = without_strays(filled)
    if len(numbers) == len(filled) or counts_rows(name, numbers):
        return None
    row, text = next(
        (row, text) for row, text in enumerate(texts, 1) if text.strip() and not is_number(text)
    )
    sentence = (
        f"row {row} of column '{short(name)}' has '{short(text)}', and {len(numbers):,} of "
        f"{len(filled):,} cells are numbers"
    )
    return Stray(sentence, len({*numbers}))


def without_strays(texts: list[str]) -> list[str]:
    """Return the numbers among texts where nearly all are numbers, else all of them."""
    numbers = [text for text in texts if is_number(text)]
    return numbers if len(numbers) >= MOSTLY_NUMBERS * len(texts) else texts


def counts_rows(name: str, cells: Sequence[Any]) -> bool:
    """Return whether a column counts its rows, as an id or a row's number does."""
    try:
        values = {float(cell) for cell in cells}
    except (TypeError, ValueError):
        return False
    if not len(values) == len(cells) > 1 or not all(map(float.is_integer, values)):
        return False
    return name.strip().lower() in ID_NAMES or max(values) - min(values) < 2 * len(values)


def is_number(text: str) -> bool:
    """Return whether a text is a number, with a decimal point or comma."""
    return is_float(text) or any(plain_number(text, mark) is not None for mark in MARKS)


def is_float(text: str) -> bool:
    """Return whether Python reads a text as a number: with a decimal point, and no groups."""
    try:
        float(text)
    except ValueError:
        return False
    return True
