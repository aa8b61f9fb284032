"""Names of classes and tags, and the index that each value in a table stands for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from hpml_bench.data.columns import short, some
from hpml_bench.errors import UserError

if TYPE_CHECKING:
    from datasets import Dataset

Index = dict[str, int]
"""Value as text -> index."""
BATCH = 1000


def as_text(label: Any) -> str | None:
    """Return a label as text, so that 1, 1.0 and "1" are the same; None where the cell is empty."""
    if label is None or label == "" or label != label:  # noqa: PLR0124 - NaN
        return None
    if isinstance(label, float) and label.is_integer():
        label = int(label)
    return str(label).strip() or None


def _is_integer(value: str) -> bool:
    return value.removeprefix("-").isdecimal() and len(value) < 20  # a class's number, and not a text of digits


def class_index(train: Dataset, file: str, column: str, given: Sequence[str]) -> tuple[tuple[str, ...], Index]:
    """Return the names of the classes, and the index that each value of a column stands for.

    Raises:
        UserError: the names given are not those of the values.

    """
    known = getattr(train.features[column], "names", None)  # a ClassLabel knows them
    return _index(train.unique(column), file, known, given)


def tag_index(train: Dataset, file: str, column: str, given: Sequence[str]) -> tuple[tuple[str, ...], Index]:
    """Return the names of the tags, and the index that each value in the lists of a column stands for.

    Raises:
        UserError: the column holds no lists, or the names given are not those of the values.

    """
    feature = train.features[column]
    tag_feature = feature[0] if isinstance(feature, list) else getattr(feature, "feature", None)
    if tag_feature is None:
        raise UserError(
            f"{file}: column '{column}' has no lists of tags; give a json, jsonl or parquet file with lists"
        )
    batches = train.select_columns([column]).with_format("arrow").iter(BATCH)
    values: set[Any] = set()
    for batch in batches:
        values.update(batch.column(column).combine_chunks().flatten().unique().to_pylist())
    return _index(values, file, getattr(tag_feature, "names", None), given)


def _index(
    labels: Iterable[Any], file: str, known: Sequence[str] | None, given: Sequence[str]
) -> tuple[tuple[str, ...], Index]:
    """Return names and index: the data set's own names, the sorted values themselves, or the names given."""
    if known and not given:
        return tuple(known), {str(i): i for i in range(len(known))}
    values = {as_text(label) for label in labels} - {None}
    integers = bool(values) and all(_is_integer(str(value)) for value in values)
    ordered = sorted(map(str, values), key=int if integers else str)
    if not given:
        return tuple(ordered), {value: i for i, value in enumerate(ordered)}
    if len(set(given)) != len(given):
        raise UserError(f"{file}: dataset.options.label_names holds a name twice: {some([*map(short, given)])}")
    if not integers or values <= set(given):
        return tuple(given), {name: i for i, name in enumerate(given)}
    if len(ordered) == len(given):
        return tuple(given), {value: i for i, value in enumerate(ordered)}
    if all(0 <= int(value) < len(given) for value in ordered):
        return tuple(given), {str(i): i for i in range(len(given))}
    raise UserError(
        f"{file}: the {len(ordered)} labels {some([*map(short, ordered)], 12)} don't fit the {len(given)} label_names "
        "given"
    )
