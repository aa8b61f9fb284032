"""Which columns of a table are text and label, and what the labels are called: shared by tasks that read tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from hpml_bench.config.base import Frozen
from hpml_bench.config.settings import Settings
from hpml_bench.errors import UserError
from hpml_bench.plugins.dataset import LoadedData
from hpml_bench.system.cache import disk_error

if TYPE_CHECKING:
    from datasets import Dataset

LABEL_NAMES = ("label", "labels", "class", "category", "target", "topic", "sentiment")
TEXT_NAMES = (
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
)
SAMPLE_ROWS = 1000
"""First rows that decide what a column holds, where its name doesn't."""
MOST_CLASSES = 100
TEST_SHARE = 10
"""One row in so many becomes a test row, where there is no test set and `test_samples` doesn't say how many."""

Column = str | int
"""A column's name, or its position counted from 1."""


class Splits(NamedTuple):
    """The tables of a task, each with what to call it in an error."""

    train: tuple[Dataset, str]
    validation: tuple[Dataset, str] | None
    test: tuple[Dataset, str]


class Columns(Frozen):
    """The chosen columns, by name."""

    text: tuple[str, ...]
    label: str


def choose(
    dataset: Dataset, where: str, text: Sequence[Column] = (), label: Column | None = None, *, named: bool = True
) -> Columns:
    """Return the text and label columns: as given, else by name, else by content.

    The label: the column called label, class, category, target, topic or sentiment; else the one with the fewest
    different values among the first rows. The text: all columns called title, text, description and the like, in the
    table's order; else the column with the longest texts, or, in a table without column names, all columns that don't
    hold numbers.

    Args:
        dataset: the table.
        where: what to call it in an error.
        text: names or 1-based positions of text columns; empty to find them.
        label: the label column; None to find it.
        named: whether the table has column names of its own.

    Raises:
        UserError: a given column isn't there, or none is found.

    """
    names = list(dataset.column_names)
    with _told(where):
        sample: dict[str, list[Any]] = dataset[:SAMPLE_ROWS]
        chosen_text = tuple(_given(column, names, where, "text") for column in text)
        rest = [name for name in names if name not in chosen_text]
        chosen_label = _given(label, names, where, "label") if label is not None else _find_label(rest, sample, where)
        if not chosen_text:
            chosen_text = _find_text([name for name in names if name != chosen_label], sample, where, named=named)
        return Columns(text=chosen_text, label=chosen_label)


@contextmanager
def _told(where: str) -> Iterator[None]:
    """Make one sentence of what the libraries say to columns of lists or mappings, or of text in no encoding."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        unreadable = UserError(f"{where}: its columns can't be read as text and label: {reason}")
        raise disk_error(error) or unreadable from None


def _given(column: Column, names: list[str], where: str, what: str) -> str:
    if isinstance(column, str) and column in names:
        return column
    if isinstance(column, int) and 1 <= column <= len(names):
        return names[column - 1]
    raise UserError(f"{where}: there is no {what} column {column!r}; the columns are {_listed(names)}")


def _listed(names: Sequence[str]) -> str:
    return _some([f"{position} '{short(name)}'" for position, name in enumerate(names, 1)])


def short(value: str) -> str:
    """Return a cell or a column's name as an error shows it."""
    return value if len(value) <= 60 else f"{value[:59]}…"


def _some(values: Sequence[str], most: int = 30) -> str:
    return ", ".join([*values[:most], *(["..."] if len(values) > most else [])])


def _find_label(names: list[str], sample: Mapping[str, list[Any]], where: str) -> str:
    for wanted in LABEL_NAMES:
        for name in names:
            if name.strip().lower() == wanted:
                return name
    rows = len(next(iter(sample.values()), []))
    distinct = {name: len({str(value) for value in sample[name]}) for name in names}
    few = {name: count for name, count in distinct.items() if 2 <= count <= min(MOST_CLASSES, rows // 2)}
    if not few:
        raise UserError(f"{where}: no column looks like a label; name it with dataset.options.label ({_listed(names)})")
    return min(few, key=few.__getitem__)


def _find_text(names: list[str], sample: Mapping[str, list[Any]], where: str, *, named: bool) -> tuple[str, ...]:
    called = tuple(name for name in names if name.strip().lower() in TEXT_NAMES)
    if called:
        return called
    lengths = {
        name: sum(map(len, values)) / len(values)
        for name in names
        if (values := [v for v in sample[name] if isinstance(v, str)]) and not all(is_number(v) for v in values)
    }
    if not lengths:
        raise UserError(f"{where}: no column holds text; name it with dataset.options.text ({_listed(list(sample))})")
    return (max(lengths, key=lengths.__getitem__),) if named else tuple(lengths)


def is_number(text: str) -> bool:
    """Tell whether a cell holds a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def split_off(train: Dataset, settings: Settings, where: str) -> tuple[Dataset, Dataset]:
    """Return the training rows without the test rows, and these, drawn with `data_seed`: `test_samples`, or a tenth.

    Raises:
        UserError: there are too few rows.

    """
    import numpy as np

    count = settings.test_samples or max(1, len(train) // TEST_SHARE)
    if count >= len(train):
        raise UserError(f"{where}: has {len(train)} rows, too few to split off {count} test rows; lower test_samples")
    order = np.random.default_rng([settings.data_seed, 3]).permutation(len(train))
    return train.select(np.sort(order[count:])), train.select(np.sort(order[:count]))


def labelled(
    splits: Splits,
    columns: Columns,
    separator: str = " ",
    label_names: Sequence[str] = (),
    notes: Mapping[str, str] | None = None,
) -> LoadedData:
    """Return the splits with the columns `text` and `label`, the labels mapped to 0..C-1.

    Args:
        splits: the tables.
        columns: the chosen columns; all tables must have them.
        separator: stands between the texts of several columns.
        label_names: names in the order of the labels; empty to take the values themselves, sorted.
        notes: facts to print with the results.

    Raises:
        UserError: a column or a cell is missing, or a label is not among the training rows' or the given names.

    """
    with _told(splits.train[1]):
        names, index = _label_index(*splits.train, columns.label, label_names)

    def rows(split: tuple[Dataset, str]) -> Dataset:
        with _told(split[1]):
            return _rows(*split, columns, separator, index)

    return LoadedData(
        train=rows(splits.train),
        validation=rows(splits.validation) if splits.validation else None,
        test=rows(splits.test),
        label_names=names,
        notes={"columns": f"text: {', '.join(columns.text)}; label: {columns.label}", **(notes or {})},
    )


def _value(label: Any) -> str | None:
    """Return a label as text, so that 1, 1.0 and "1" are the same; None where the cell is empty."""
    if label is None or label == "" or label != label:  # noqa: PLR0124 - NaN
        return None
    if isinstance(label, float) and label.is_integer():
        label = int(label)
    return str(label).strip() or None


def _is_integer(value: str) -> bool:
    return value.removeprefix("-").isdecimal() and len(value) < 20  # a class's number, and not a text of digits


def _label_index(
    train: Dataset, file: str, column: str, given: Sequence[str]
) -> tuple[tuple[str, ...], dict[str, int]]:
    """Return the label names, and the index that each value in the files stands for."""
    feature_names = getattr(train.features[column], "names", None)  # a ClassLabel knows them
    if feature_names and not given:
        return tuple(feature_names), {str(i): i for i in range(len(feature_names))}
    values = {_value(label) for label in train.unique(column)} - {None}
    integers = bool(values) and all(_is_integer(str(value)) for value in values)
    ordered = sorted(map(str, values), key=int if integers else str)
    if not given:
        return tuple(ordered), {value: i for i, value in enumerate(ordered)}
    if len(set(given)) != len(given):
        raise UserError(f"{file}: dataset.options.label_names holds a name twice: {_some([*map(short, given)])}")
    if not integers or values <= set(given):
        return tuple(given), {name: i for i, name in enumerate(given)}
    if len(ordered) == len(given):
        return tuple(given), {value: i for i, value in enumerate(ordered)}
    if all(0 <= int(value) < len(given) for value in ordered):
        return tuple(given), {str(i): i for i in range(len(given))}
    raise UserError(
        f"{file}: the {len(ordered)} labels {_some([*map(short, ordered)], 12)} don't fit the {len(given)} label_names "
        "given"
    )


def _rows(dataset: Dataset, file: str, columns: Columns, separator: str, index: dict[str, int]) -> Dataset:
    from datasets import Features, Value

    missing = [column for column in (*columns.text, columns.label) if column not in dataset.column_names]
    if missing:
        raise UserError(f"{file}: there is no column '{missing[0]}'; there is {_listed(dataset.column_names)}")
    return dataset.map(
        _convert,
        batched=True,
        with_indices=True,
        remove_columns=dataset.column_names,
        features=Features({"text": Value("string"), "label": Value("int64")}),
        fn_kwargs={"file": file, "text": columns.text, "label": columns.label, "separator": separator, "index": index},
    )


def _convert(
    batch: Mapping[str, list[Any]],
    positions: list[int],
    file: str,
    text: tuple[str, ...],
    label: str,
    separator: str,
    index: dict[str, int],
) -> dict[str, list[Any]]:
    """Return a batch's texts and label indices; an error names the row, counted from 1 without the header."""
    labels = []
    for position, raw in zip(positions, batch[label], strict=True):
        value = _value(raw)
        if value is None:
            raise UserError(f"{file}: row {position + 1} has no label in column '{label}'; fill it or remove the row")
        if value not in index:
            known = list(index)
            raise UserError(
                f"{file}: row {position + 1} has the label '{short(value)}', which is not among the {len(known)} known "
                f"ones ({_some([*map(short, known[:13])], 12)})"
            )
        labels.append(index[value])
    texts = []
    for position, *cells in zip(positions, *(batch[column] for column in text), strict=True):
        texts.append(separator.join(str(cell) for cell in cells if cell is not None))
        if not texts[-1].strip():
            where = " or ".join(f"'{column}'" for column in text)
            raise UserError(f"{file}: row {position + 1} has no text in column {where}; fill it or remove the row")
    return {"text": texts, "label": labels}
