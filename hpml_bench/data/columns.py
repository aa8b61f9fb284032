"""Columns of a table: the text and the target, as given, else found by name, else by content."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from hpml_bench.plugins.dataset import Target
from hpml_bench.suite.base import Frozen
from hpml_bench.system.cache import disk_error
from hpml_bench.system.errors import UserError

if TYPE_CHECKING:
    from datasets import Dataset

LABEL_NAMES = ("label", "labels", "class", "category", "target", "topic", "sentiment")
NUMBER_NAMES = ("label", "labels", "score", "target", "value", "rating", "stars")
WORD_NAMES = ("words", "tokens")
TAG_NAMES = ("tags", "ner_tags")
TEXT_NAMES = frozenset(
    {"title", "headline", "subject", "text", "sentence", "description", "content", "body", "review", "document"}
)
SAMPLE_ROWS = 1000  # number of first rows by whose cells a column is found, where its name doesn't decide
MOST_CLASSES = 100

Column = str | int  # a column's name, or its position counted from 1


class TableOptions(Frozen):
    """Options of data sets that read tables."""

    text: Column | tuple[Column, ...] = ()
    """Column or columns of the text or the prompt, or the one with lists of words or turns, by name or by position
    from 1; empty to find them."""
    label: Column | None = None
    """Column of the label (a class, a number, a list of tags, or a prompt's completion), by name or by position
    from 1; empty to find it."""
    label_names: tuple[str, ...] = ()
    """Names of classes or tags, in the order of the sorted label values; empty to take the values themselves."""
    group: Column | None = None
    """Column that says which rows belong together (the questions of one document, near-copies), by name or by
    position from 1: they stay in one split where splits are drawn, and test rows of one group are tested together.
    Empty where each row stands alone."""
    separator: str = " "
    """Separator of the texts of several columns; between parts of a prompt a single space means an empty line."""


class Columns(Frozen):
    """Columns of a text and its target, by name."""

    text: tuple[str, ...]
    """Columns of texts, which are joined; or one column of lists of words."""
    label: str
    """Column of classes or numbers, or of lists of tags."""


def choose(
    dataset: Dataset,
    where: str,
    target: Target,
    text: Sequence[Column],
    label: Column | None,
    *,
    group: str | None,
    named: bool,
) -> Columns:
    """Return the columns of text and label: as given, else by name, else by content.

    A class: the column called label, class, category, target, topic or sentiment; else the one with the fewest
    different values among the first rows. A number: the column called label, score, target, value, rating or stars;
    else the only one of numbers. The text: all columns called title, text, description and the like, in the table's
    order; else the column with the longest texts, or, in a table without column names, all columns that don't hold
    numbers. Words and tags: the columns called words or tokens, and tags or ner_tags. The column of groups is no label,
    and no text unless its name is one of a text.
    """
    names = list(dataset.column_names)
    with column_errors_as_user_errors(where):
        chosen_text = tuple(column_named(column, names, where, "text") for column in text)
        chosen_label = None if label is None else column_named(label, names, where, "label")
        if target == "tags":
            return _words_and_tags(names, where, chosen_text, chosen_label)
        sample: dict[str, list[Any]] = dataset[:SAMPLE_ROWS]
        if chosen_label is None:
            rest = [name for name in names if name not in {*chosen_text, group}]
            known, find = (LABEL_NAMES, _find_label) if target == "class" else (NUMBER_NAMES, _find_number)
            chosen_label = first_named(rest, known) or find(rest, sample, where)
        if not chosen_text:
            rest = [name for name in names if name != chosen_label]
            chosen_text = _find_text(rest, sample, where, group, named=named)
        return Columns(text=chosen_text, label=chosen_label)


def _words_and_tags(names: list[str], where: str, text: tuple[str, ...], label: str | None) -> Columns:
    if len(text) > 1:
        raise UserError(f"{where}: dataset.options.text names {len(text)} columns of words; tags are of one")
    words = text[0] if text else first_named(names, WORD_NAMES)
    tags = label or first_named(names, TAG_NAMES)
    if words is None or tags is None:
        what, option = ("words", "text") if words is None else ("tags", "label")
        known = " or ".join(WORD_NAMES if words is None else TAG_NAMES)
        raise UserError(
            f"{where}: no column is called {known}; name the one with lists of {what} with dataset.options.{option} "
            f"({listed(names)})"
        )
    return Columns(text=(words,), label=tags)


def first_named(names: Sequence[str], wanted: Sequence[str]) -> str | None:
    """Return the column with the first of the wanted names that exists, in any case; else None."""
    return next((name for known in wanted for name in names if name.strip().lower() == known), None)


@contextmanager
def column_errors_as_user_errors(where: str) -> Iterator[None]:
    """Raise the libraries' errors on columns of lists, mappings or undecodable text as one sentence."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        unreadable = UserError(f"{where}: its columns can't be read as text and label: {reason}")
        raise disk_error(error) or unreadable from None


def column_named(column: Column, names: list[str], where: str, what: str = "") -> str:
    """Return a column by its name, or by its position from 1; `what` is the word for it in errors, such as `text`."""
    if column in names:
        return str(column)
    if isinstance(column, int) and 1 <= column <= len(names):
        return names[column - 1]
    raise UserError(
        f"{where}: there is no {f'{what} ' if what else ''}column {column!r}; the columns are {listed(names)}"
    )


def check_columns(dataset: Dataset, file: str, columns: Sequence[str]) -> None:
    missing = [column for column in columns if column not in dataset.column_names]
    if missing:
        raise UserError(f"{file}: there is no column '{missing[0]}'; there is {listed(dataset.column_names)}")


def mapped(dataset: Dataset, convert: Callable[..., Any], types: Mapping[str, Any], **arguments: Any) -> Dataset:
    """Return a table converted batch by batch, by a function of the batch, the positions of its rows and arguments."""
    from datasets import Features

    return dataset.map(
        convert,
        batched=True,
        with_indices=True,
        remove_columns=dataset.column_names,
        features=Features(types),
        fn_kwargs=arguments,
    )


def listed(names: Sequence[str]) -> str:
    return some([f"{position} '{short(name)}'" for position, name in enumerate(names, 1)])


def short(value: str) -> str:
    return value if len(value) <= 60 else f"{value[:59]}…"


def some(values: Sequence[str], most: int = 30) -> str:
    return ", ".join([*values[:most], *(["..."] if len(values) > most else [])])


def _find_label(names: list[str], sample: Mapping[str, list[Any]], where: str) -> str:
    most = min(MOST_CLASSES, len(next(iter(sample.values()), [])) // 2)
    few = {name: count for name in names if 2 <= (count := len({*map(str, sample[name])})) <= most}
    if not few:
        raise UserError(f"{where}: no column looks like a label; name it with dataset.options.label ({listed(names)})")
    return min(few, key=few.__getitem__)


def _find_number(names: list[str], sample: Mapping[str, list[Any]], where: str) -> str:
    numeric = [name for name in names if sample[name] and all(is_number(str(value)) for value in sample[name])]
    if len(numeric) != 1:
        what = "no column holds numbers" if not numeric else f"{len(numeric)} columns hold numbers"
        raise UserError(f"{where}: {what}; name the one to learn with dataset.options.label ({listed(names)})")
    return numeric[0]


def _find_text(
    names: list[str], sample: Mapping[str, list[Any]], where: str, group: str | None, *, named: bool
) -> tuple[str, ...]:
    if called := tuple(name for name in names if name.strip().lower() in TEXT_NAMES):
        return called
    lengths = {
        name: sum(map(len, values)) / len(values)
        for name in names
        if name != group
        and (values := [v for v in sample[name] if isinstance(v, str)])
        and not all(is_number(v) for v in values)
    }
    if not lengths:
        raise UserError(f"{where}: no column holds text; name it with dataset.options.text ({listed(list(sample))})")
    return (max(lengths, key=lengths.__getitem__),) if named else tuple(lengths)


def is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
