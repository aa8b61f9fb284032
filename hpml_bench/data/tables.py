"""Tables as the splits of a task: their cells become texts, words, classes, numbers, tags or conversations."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from hpml_bench.data.columns import (
    Columns,
    TableOptions,
    check_columns,
    choose,
    column_errors_as_user_errors,
    column_named,
    mapped,
    short,
    some,
)
from hpml_bench.data.conversations import Shape, as_conversations, find_shape
from hpml_bench.data.draw import split_off_test
from hpml_bench.plugins.dataset import GROUP, LoadedData, Target
from hpml_bench.suite.settings import Settings
from hpml_bench.system.errors import UserError

if TYPE_CHECKING:
    from datasets import Dataset

BATCH = 1000
BAD_ROWS = "bad rows left out"

Index = dict[str, int]  # value as text -> index
Row = Callable[..., tuple[Any, Any]]  # function of a row's cells; a ValueError of it continues `FILE: row 3`


class Splits(NamedTuple):
    """The tables of a data set, each with its name in errors."""

    train: tuple[Dataset, str]
    validation: tuple[Dataset, str] | None
    test: tuple[Dataset, str] | None
    """None: split off the training rows after their conversion, so that errors name a row by its number in its file."""


class FoundColumns(NamedTuple):
    """Columns of a table by name."""

    columns: Columns | Shape
    group: str | None


def find(
    train: Dataset, where: str, target: Target, options: TableOptions, label: str | None = None, *, named: bool = True
) -> FoundColumns:
    """Return the columns that a target needs: as the options say, else by name, else by content.

    `where` is the table's name in errors, `label` the column of the label where the options name none (not of answers),
    and `named` whether the table has column names of its own.
    """
    text = options.text if isinstance(options.text, tuple) else (options.text,)
    group = None if options.group is None else column_named(options.group, list(train.column_names), where, "group")
    if target == "answer":
        return FoundColumns(find_shape(train, where, text, options.label), group)
    given = label if options.label is None else options.label
    return FoundColumns(choose(train, where, target, text, given, group=group, named=named), group)


def load(
    splits: Splits,
    settings: Settings,
    found: FoundColumns,
    target: Target,
    options: TableOptions,
    notes: Mapping[str, str],
) -> LoadedData:
    """Return the splits with the columns that a target has (plugins.dataset.LoadedData), and further notes.

    The settings say how many test rows are split off, and whether bad conversations are dropped. Classes and tags
    become 0..C-1.

    Raises:
        UserError: a column or a cell is missing, a label is not among the training rows' or the given names, a
            cell is no number, or a row is no conversation and `bad_rows` of the task is not `drop`.

    """
    if isinstance(found.columns, Shape):
        return _in_conversations(splits, settings, found.columns, options.separator, notes, found.group)
    columns = found.columns
    with column_errors_as_user_errors(splits.train[1]):
        names, row, types = _conversion(splits.train, columns, target, options)

    def rows(split: tuple[Dataset, str]) -> Dataset:
        with column_errors_as_user_errors(split[1]):
            check_columns(*split, (*columns.text, columns.label))
            return mapped(split[0], _by_row, types, file=split[1], columns=columns, row=row, names=tuple(types))

    what = "words: {}; tags: {}" if target == "tags" else "text: {}; label: {}"
    all_notes = {"columns": what.format(", ".join(columns.text), columns.label), **notes}
    return _loaded(splits, settings, rows, names, all_notes, found.group)


def _in_conversations(
    splits: Splits, settings: Settings, shape: Shape, separator: str, notes: Mapping[str, str], group: str | None
) -> LoadedData:
    """Return the splits as conversations; between the parts of a prompt a single space means an empty line."""
    drop_bad = settings.task.options.get("bad_rows") == "drop"
    between = "\n\n" if separator == " " else separator
    unread: set[str] = set()
    bad: list[str] = []

    def rows(split: tuple[Dataset, str]) -> Dataset:
        converted = as_conversations(*split, shape, between, drop_bad=drop_bad)
        unread.update(key for keys in converted["unread"] for key in keys)
        reasons = converted["bad"][:]
        bad.extend(reason for reason in reasons if reason)
        good = [place for place, reason in enumerate(reasons) if not reason]
        return (converted if len(good) == len(converted) else converted.select(good)).remove_columns(["unread", "bad"])

    loaded = _loaded(splits, settings, rows, (), {"columns": str(shape), **notes}, group)
    left = {"keys of turns left unread": ", ".join(sorted(unread))} if unread else {}
    dropped = {BAD_ROWS: f"{len(bad):,}, such as {bad[0]}"} if bad else {}
    return replace(loaded, notes={**loaded.notes, **left}, warnings=dropped)


def _loaded(
    splits: Splits,
    settings: Settings,
    convert: Callable[[tuple[Dataset, str]], Dataset],
    names: tuple[str, ...],
    notes: Mapping[str, str],
    group: str | None,
) -> LoadedData:
    """Return the splits with converted rows; without a table of test rows, these are split off the training rows."""
    numbers: Index = {}

    def rows(split: tuple[Dataset, str]) -> Dataset:
        converted = convert(split)
        return converted if group is None else converted.add_column(GROUP, _groups(*split, group, numbers))

    if group is not None:
        notes = {**notes, "columns": f"{notes['columns']}; group: {group}"}
    train = rows(splits.train)
    validation = rows(splits.validation) if splits.validation else None
    if splits.test is not None:
        return LoadedData(train, validation, rows(splits.test), names, notes)
    train, test = split_off_test(train, settings, splits.train[1])
    note = f"{len(test)} rows split off {splits.train[1]}, as no test rows were given"
    return LoadedData(train, validation, test, names, {"test": note, **notes})


def _groups(dataset: Dataset, file: str, column: str, numbers: Index) -> list[int]:
    """Return the number of each row's group; `numbers` has the groups of earlier tables, and gets the new ones."""
    check_columns(dataset, file, (column,))
    cells = (cell for batch in dataset.select_columns([column]).iter(BATCH) for cell in batch[column])
    found = []
    for number, cell in enumerate(cells, 1):
        if (value := as_text(cell)) is None:
            raise UserError(f"{file}: row {number} {_empty('group', column)}")
        found.append(numbers.setdefault(value, len(numbers)))
    return found


def _conversion(
    train: tuple[Dataset, str], columns: Columns, target: Target, options: TableOptions
) -> tuple[tuple[str, ...], Row, dict[str, Any]]:
    """Return the labels' names, the function that converts a row's cells, and the types of what it returns."""
    from datasets import Value

    if target == "tags":
        names, index = _tag_index(*train, columns.label, options.label_names)
        words_and_tags = partial(_words_and_tags, columns=columns, index=index)
        return names, words_and_tags, {"words": [Value("string")], "tags": [Value("int64")]}
    row = partial(_text_and_label, columns=columns, separator=options.separator)
    if target == "class":
        known = getattr(train[0].features[columns.label], "names", None)  # a ClassLabel knows them
        names, index = _index(train[0].unique(columns.label), train[1], known, options.label_names)
        return names, partial(row, index=index), {"text": Value("string"), "label": Value("int64")}
    if options.label_names:
        raise UserError(f"{train[1]}: dataset.options.label_names are of classes or tags; numbers have none")
    return (), partial(row, index=None), {"text": Value("string"), "label": Value("float64")}


# Labels


def as_text(label: Any) -> str | None:
    """Return a label as text, so that 1, 1.0 and "1" are the same; None where the cell is empty."""
    if label is None or label == "" or label != label:  # noqa: PLR0124 - NaN
        return None
    if isinstance(label, float) and label.is_integer():
        label = int(label)
    return str(label).strip() or None


def _tag_index(train: Dataset, file: str, column: str, given: Sequence[str]) -> tuple[tuple[str, ...], Index]:
    """Return the names of the tags, and the index that each value in the lists of a column stands for."""
    feature = train.features[column]
    tag_feature = feature[0] if isinstance(feature, list) else getattr(feature, "feature", None)
    if tag_feature is None:
        raise UserError(
            f"{file}: column '{column}' has no lists of tags; give a json, jsonl or parquet file with lists"
        )
    values: set[Any] = set()
    for batch in train.select_columns([column]).with_format("arrow").iter(BATCH):
        values.update(batch.column(column).combine_chunks().flatten().unique().to_pylist())
    return _index(values, file, getattr(tag_feature, "names", None), given)


def _index(
    labels: Iterable[Any], file: str, known: Sequence[str] | None, given: Sequence[str]
) -> tuple[tuple[str, ...], Index]:
    """Return names and index: the data set's own names, the sorted values themselves, or the names given."""
    if known and not given:
        return tuple(known), {str(i): i for i in range(len(known))}
    values = {value for label in labels if (value := as_text(label)) is not None}
    # a class's number, and not a text of digits
    integers = bool(values) and all(v.removeprefix("-").isdecimal() and len(v) < 20 for v in values)
    ordered = sorted(values, key=int if integers else str)
    by_value = {value: i for i, value in enumerate(ordered)}
    if not given:
        return tuple(ordered), by_value
    if len(set(given)) != len(given):
        raise UserError(f"{file}: dataset.options.label_names holds a name twice: {some([*map(short, given)])}")
    if not integers or values <= set(given):
        return tuple(given), {name: i for i, name in enumerate(given)}
    if len(ordered) == len(given):
        return tuple(given), by_value
    if all(0 <= int(value) < len(given) for value in ordered):
        return tuple(given), {str(i): i for i in range(len(given))}
    raise UserError(
        f"{file}: the {len(ordered)} labels {some([*map(short, ordered)], 12)} don't fit the {len(given)} label_names "
        "given"
    )


# Rows


def _by_row(
    batch: Mapping[str, list[Any]], positions: list[int], file: str, columns: Columns, row: Row, names: tuple[str, ...]
) -> dict[str, list[Any]]:
    """Return a batch converted row by row: the label's cell and those of the text become two values."""
    converted = []
    for position, *cells in zip(positions, *(batch[name] for name in (columns.label, *columns.text)), strict=True):
        try:
            converted.append(row(*cells))
        except ValueError as error:
            raise UserError(f"{file}: row {position + 1} {error}") from None
    return {name: [values[place] for values in converted] for place, name in enumerate(names)}


def _text_and_label(
    label: Any, *texts: Any, columns: Columns, separator: str, index: Index | None
) -> tuple[str, float]:
    value = _number(label, columns.label) if index is None else _looked_up(label, index, "label", columns.label)
    text = separator.join(str(cell) for cell in texts if cell is not None)
    if not text.strip():
        raise _empty("text", *columns.text)
    return text, value


def _words_and_tags(tags: Any, words: Any, columns: Columns, index: Index) -> tuple[list[str], list[int]]:
    if not words:
        raise _empty("words", *columns.text)
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise ValueError(f"holds no list of words in column '{columns.text[0]}'")
    count = len(tags) if isinstance(tags, list) else 0
    if count != len(words):
        raise ValueError(f"has {len(words)} words and {count} tags; give one tag per word")
    return words, [_looked_up(tag, index, "tag") for tag in tags]


def _looked_up(raw: Any, index: Index, what: str, column: str = "") -> int:
    value = as_text(raw)
    if value is None and column:
        raise _empty(what, column)
    if value not in index:
        raise ValueError(
            f"has the {what} '{short(value or '')}', which is not among the {len(index)} known ones "
            f"({some([*map(short, index)], 12)})"
        )
    return index[value]


def _number(raw: Any, column: str) -> float:
    """Return a cell as a number; Python's own `1_000` and truth values are refused."""
    if raw is None or (isinstance(raw, str) and not raw.strip()):
        raise _empty("number", column)
    try:
        value = math.nan if isinstance(raw, bool) or "_" in str(raw) else float(raw)
    except (TypeError, ValueError, OverflowError):
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"has '{short(str(raw))}' in column '{column}', which is no finite number")
    return value


def _empty(what: str, *columns: str) -> ValueError:
    where = " or ".join(f"'{column}'" for column in columns)
    return ValueError(f"has no {what} in column {where}; fill it or remove the row")
