"""Conversion of a table's cells to texts, words, classes, numbers and tags; errors name the row, counted from 1."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hpml_bench.data.columns import short, some
from hpml_bench.system.errors import UserError

if TYPE_CHECKING:
    from datasets import Dataset

Batch = Mapping[str, list[Any]]
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


def class_index(train: Dataset, file: str, column: str, given: Sequence[str]) -> tuple[tuple[str, ...], Index]:
    """Return the names of the classes, and the index that each value of a column stands for."""
    known = getattr(train.features[column], "names", None)  # a ClassLabel knows them
    return _index(train.unique(column), file, known, given)


def tag_index(train: Dataset, file: str, column: str, given: Sequence[str]) -> tuple[tuple[str, ...], Index]:
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


def texts_and_labels(
    batch: Batch,
    positions: list[int],
    file: str,
    text: tuple[str, ...],
    label: str,
    separator: str,
    index: Index | None,
) -> dict[str, list[Any]]:
    """Return a batch's texts and the indices of their classes; without an index their numbers, all finite."""
    labels: list[float] = []
    for position, raw in zip(positions, batch[label], strict=True):
        if index is None:
            labels.append(_number(raw, file, position, label))
        elif as_text(raw) is None:
            raise _empty(file, position, "label", f"'{label}'")
        else:
            labels.append(_looked_up(raw, index, file, position, "label"))
    return {"text": _texts(batch, positions, file, text, separator), "label": labels}


def words_and_tags(
    batch: Batch, positions: list[int], file: str, words: str, tags: str, index: Index
) -> dict[str, list[Any]]:
    """Return a batch's words and the indices of their tags, one per word."""
    all_words, all_tags = [], []
    for position, row_words, row_tags in zip(positions, batch[words], batch[tags], strict=True):
        if not row_words:
            raise _empty(file, position, "words", f"'{words}'")
        if not isinstance(row_words, list) or not all(isinstance(word, str) for word in row_words):
            raise UserError(f"{file}: row {position + 1} holds no list of words in column '{words}'")
        if not isinstance(row_tags, list) or len(row_tags) != len(row_words):
            count = len(row_tags) if isinstance(row_tags, list) else 0
            raise UserError(
                f"{file}: row {position + 1} has {len(row_words)} words and {count} tags; give one tag per word"
            )
        all_words.append(row_words)
        all_tags.append([_looked_up(tag, index, file, position, "tag") for tag in row_tags])
    return {"words": all_words, "tags": all_tags}


def groups(values: list[Any], first: int, file: str, column: str, numbers: Index) -> list[int]:
    """Return the number of each cell's group, new ones added to `numbers`. The first cell is at position `first`."""
    group_numbers = []
    for position, raw in enumerate(values, first):
        if (value := as_text(raw)) is None:
            raise _empty(file, position, "group", f"'{column}'")
        group_numbers.append(numbers.setdefault(value, len(numbers)))
    return group_numbers


def _looked_up(raw: Any, index: Index, file: str, position: int, what: str) -> int:
    value = as_text(raw)
    if value not in index:
        raise UserError(
            f"{file}: row {position + 1} has the {what} '{short(value or '')}', which is not among the {len(index)} "
            f"known ones ({some([*map(short, index)], 12)})"
        )
    return index[value]


def _number(raw: Any, file: str, position: int, column: str) -> float:
    """Return a cell as a number; Python's own `1_000` and truth values are refused."""
    if raw is None or (isinstance(raw, str) and not raw.strip()):
        raise _empty(file, position, "number", f"'{column}'")
    try:
        value = math.nan if isinstance(raw, bool) or "_" in str(raw) else float(raw)
    except (TypeError, ValueError, OverflowError):
        value = math.nan
    if not math.isfinite(value):
        raise UserError(
            f"{file}: row {position + 1} has '{short(str(raw))}' in column '{column}', which is no finite number"
        )
    return value


def _texts(batch: Batch, positions: Sequence[int], file: str, columns: tuple[str, ...], separator: str) -> list[str]:
    texts = []
    for position, *cells in zip(positions, *(batch[column] for column in columns), strict=True):
        texts.append(separator.join(str(cell) for cell in cells if cell is not None))
        if not texts[-1].strip():
            raise _empty(file, position, "text", " or ".join(f"'{column}'" for column in columns))
    return texts


def _empty(file: str, position: int, what: str, where: str) -> UserError:
    return UserError(f"{file}: row {position + 1} has no {what} in column {where}; fill it or remove the row")
