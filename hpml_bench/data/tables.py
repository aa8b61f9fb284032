"""Conversion of a data set's tables to the splits of a task: texts or words, and classes, numbers or tags."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from hpml_bench.data import cells
from hpml_bench.data.cells import BATCH, Index, class_index, tag_index
from hpml_bench.data.columns import (
    Columns,
    TableOptions,
    check_columns,
    choose,
    column_errors_as_user_errors,
    column_named,
    mapped,
)
from hpml_bench.data.conversations import Shape, as_conversations, find_shape
from hpml_bench.data.groups import groups_of, whole_groups
from hpml_bench.plugins.dataset import GROUP, LoadedData, Target
from hpml_bench.suite.settings import Settings
from hpml_bench.system.errors import UserError

if TYPE_CHECKING:
    from datasets import Dataset

TEST_SHARE = 10
"""One row in this many becomes a test row, where there is neither a test set nor `test_samples`."""
BAD_ROWS = "bad rows left out"


class Splits(NamedTuple):
    """The tables of a data set, each with its name in errors."""

    train: tuple[Dataset, str]
    validation: tuple[Dataset, str] | None
    test: tuple[Dataset, str] | None
    """None: split off the training rows after their conversion, so that errors name a row by its number in its file."""


def _split_off(train: Dataset, settings: Settings, where: str) -> tuple[Dataset, Dataset]:
    """Return training rows and the test rows drawn from them with `data_seed`: `test_samples`, or a tenth.

    Groups of rows are drawn whole, so that there may be a few more test rows.
    """
    import numpy as np

    count = settings.test_samples or max(1, len(train) // TEST_SHARE)
    if count >= len(train):
        raise UserError(f"{where}: has {len(train)} rows, too few to split off {count} test rows; lower test_samples")
    random = np.random.default_rng([settings.data_seed, 3])
    if (groups := groups_of(train)) is not None:
        chosen = whole_groups(groups, count, random)
        if chosen.all():
            raise UserError(
                f"{where}: its {len(np.unique(groups))} groups are too large to split off {count} test rows; lower "
                "test_samples, or name another column with dataset.options.group"
            )
        return train.select(np.flatnonzero(~chosen)), train.select(np.flatnonzero(chosen))
    order = random.permutation(len(train))
    return train.select(np.sort(order[count:])), train.select(np.sort(order[:count]))


class Found(NamedTuple):
    """Columns of a table by name."""

    columns: Columns | Shape
    group: str | None


def find(
    train: Dataset, where: str, target: Target, options: TableOptions, label: str | None = None, *, named: bool = True
) -> Found:
    """Return the columns that a target needs: as the options say, else by name, else by content.

    `where` is the table's name in errors, `label` the column of the label where the options name none (not of answers),
    and `named` whether the table has column names of its own.
    """
    text = options.text if isinstance(options.text, tuple) else (options.text,)
    names = list(train.column_names)
    group = None if options.group is None else column_named(options.group, names, where, "group")
    if target == "answer":
        return Found(find_shape(train, where, text, options.label), group)
    given = label if options.label is None else options.label
    return Found(choose(train, where, target, text, given, group=group, named=named), group)


def load(
    splits: Splits, settings: Settings, found: Found, target: Target, options: TableOptions, notes: Mapping[str, str]
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
        names, convert, types = _conversion(splits.train, columns, target, options)

    def rows(split: tuple[Dataset, str]) -> Dataset:
        with column_errors_as_user_errors(split[1]):
            check_columns(*split, (*columns.text, columns.label))
            return mapped(split[0], convert, types, file=split[1])

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
    train, test = _split_off(train, settings, splits.train[1])
    note = f"{len(test)} rows split off {splits.train[1]}, as no test rows were given"
    return LoadedData(train, validation, test, names, {"test": note, **notes})


def _groups(dataset: Dataset, file: str, column: str, numbers: Index) -> list[int]:
    """Return the number of each row's group; `numbers` has the groups of earlier tables."""
    check_columns(dataset, file, (column,))
    group_numbers: list[int] = []
    for batch in dataset.select_columns([column]).iter(BATCH):
        group_numbers += cells.groups(batch[column], len(group_numbers), file, column, numbers)
    return group_numbers


Convert = Callable[..., dict[str, list[Any]]]
"""Function of a batch, the positions of its rows and the file's name; returns the converted columns."""


def _conversion(
    train: tuple[Dataset, str], columns: Columns, target: Target, options: TableOptions
) -> tuple[tuple[str, ...], Convert, dict[str, Any]]:
    """Return the labels' names, the function that converts a batch, and the types of the converted columns."""
    from datasets import Value

    names: tuple[str, ...] = ()
    index: Index | None = None
    if target == "tags":
        names, index = tag_index(*train, columns.label, options.label_names)
        convert = partial(cells.words_and_tags, words=columns.text[0], tags=columns.label, index=index)
        return names, convert, {"words": [Value("string")], "tags": [Value("int64")]}
    if target == "class":
        names, index = class_index(*train, columns.label, options.label_names)
    elif options.label_names:
        raise UserError(f"{train[1]}: dataset.options.label_names are of classes or tags; numbers have none")
    convert = partial(
        cells.texts_and_labels, text=columns.text, label=columns.label, separator=options.separator, index=index
    )
    return names, convert, {"text": Value("string"), "label": Value("float64" if index is None else "int64")}
