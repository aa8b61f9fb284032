"""Conversion of a table's cells to texts, words, classes, numbers and tags; errors name the row, counted from 1."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from hpml_bench.data.columns import short, some
from hpml_bench.data.names import Index, as_text
from hpml_bench.errors import UserError

Batch = Mapping[str, list[Any]]


def texts_and_classes(
    batch: Batch, positions: list[int], file: str, text: tuple[str, ...], label: str, separator: str, index: Index
) -> dict[str, list[Any]]:
    """Return a batch's texts and the indices of their classes.

    Raises:
        UserError: a cell is empty, or a class has no index.

    """
    labels = []
    for position, raw in zip(positions, batch[label], strict=True):
        if as_text(raw) is None:
            raise _empty(file, position, "label", f"'{label}'")
        labels.append(_looked_up(raw, index, file, position, "label"))
    return {"text": _texts(batch, positions, file, text, separator), "label": labels}


def texts_and_numbers(
    batch: Batch, positions: list[int], file: str, text: tuple[str, ...], label: str, separator: str
) -> dict[str, list[Any]]:
    """Return a batch's texts and their numbers, all finite.

    Raises:
        UserError: a cell is empty, or is no finite number.

    """
    numbers = []
    for position, raw in zip(positions, batch[label], strict=True):
        if raw is None or (isinstance(raw, str) and not raw.strip()):
            raise _empty(file, position, "number", f"'{label}'")
        numbers.append(_number(raw, file, position, label))
    return {"text": _texts(batch, positions, file, text, separator), "label": numbers}


def words_and_tags(
    batch: Batch, positions: list[int], file: str, words: str, tags: str, index: Index
) -> dict[str, list[Any]]:
    """Return a batch's words and the indices of their tags.

    Raises:
        UserError: a row has no words, another number of tags than words, or a tag without an index.

    """
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
    """Return the number of each cell's group; new groups are added to `numbers`.

    Raises:
        UserError: a cell is empty; the row's number in it counts from `first`, the position of the first value.

    """
    group_numbers = []
    for position, raw in enumerate(values, first):
        value = as_text(raw)
        if value is None:
            raise _empty(file, position, "group", f"'{column}'")
        group_numbers.append(numbers.setdefault(value, len(numbers)))
    return group_numbers


def _looked_up(raw: Any, index: Index, file: str, position: int, what: str) -> int:
    value = as_text(raw)
    if value not in index:
        known = list(index)
        raise UserError(
            f"{file}: row {position + 1} has the {what} '{short(value or '')}', which is not among the {len(known)} "
            f"known ones ({some([*map(short, known[:13])], 12)})"
        )
    return index[value]


def _number(raw: Any, file: str, position: int, column: str) -> float:
    """Return a cell as a number; Python's own `1_000` and truth values are refused."""
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
    missing = "no words" if what == "words" else f"no {what}"
    return UserError(f"{file}: row {position + 1} has {missing} in column {where}; fill it or remove the row")
