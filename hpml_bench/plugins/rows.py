"""Tokenised rows on disk, shared by all ranks through the page cache, and batches of them."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from hpml_bench.plugins.dataset import IGNORE_INDEX, SEGMENTS
from hpml_bench.records.predictions import Answers

FILE = "rows.arrow"


@dataclass(frozen=True)
class Batch:
    """Right-padded token ids [B, L] int64, mask [B, L] int64 (1 = real token), labels [B], or
    [B, L] for tokens.
    """

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    labels: torch.Tensor
    real_tokens: int
    learnt: int | None = None
    """Number of a language model's target tokens: those after each row's first that have a
    label. Known without waiting for the device.
    """
    more: Mapping[str, torch.Tensor] = field(default_factory=dict)
    """Further arguments of the model: `token_type_ids` [B, L] int64, which tell the two texts of
    a pair apart.
    """

    @property
    def padded_tokens(self) -> int:
        return self.input_ids.numel()

    def to(self, device: torch.device) -> "Batch":
        if device.type == "cpu":
            return self
        parts = {
            name: getattr(self, name) for name in ("input_ids", "attention_mask", "labels")
        } | dict(self.more)
        moved: dict[str, Any] = {
            name: part.pin_memory().to(device, non_blocking=True) for name, part in parts.items()
        }
        return replace(self, more={name: moved.pop(name) for name in self.more}, **moved)


def write_rows(
    folder: Path,
    batches: Iterable[Mapping[str, list[Any]]],
    label: pa.DataType,
    extra: Mapping[str, pa.DataType] | None = None,
) -> None:
    """Write a split's token ids, labels and other columns, batch by batch, as one Arrow stream
    in a new folder.
    """
    folder.mkdir(parents=True)
    schema = pa.schema({"input_ids": pa.list_(pa.int32()), "label": label, **(extra or {})})
    with (folder / FILE).open("wb") as file, pa.ipc.new_stream(file, schema) as stream:
        for batch in batches:
            stream.write_batch(pa.record_batch(dict(batch), schema=schema))


class Ragged:
    """A memory-mapped column of lists; a row is copied only into its batch."""

    def __init__(self, column: pa.ChunkedArray) -> None:
        self._column = column
        self.lengths: np.ndarray = pc.list_value_length(column).to_numpy()

    def __getitem__(self, number: int) -> np.ndarray:
        """Return one row, [length]."""
        row: np.ndarray = self._column[number].values.to_numpy()
        return row


def read_rows(folder: Path) -> pa.Table:
    """Return the table that `write_rows` wrote, memory-mapped: a row is in memory only once it
    is read.
    """
    return pa.ipc.open_stream(pa.memory_map(str(folder / FILE))).read_all()


class Rows:
    """A split, or some rows of it: memory-mapped token ids and their labels."""

    def __init__(
        self, source: Path | pa.Table, pad_id: int, chosen: np.ndarray | None = None
    ) -> None:
        """Open a split's folder or table, or its `chosen` rows by their numbers there, in this
        order.
        """
        table = read_rows(source) if isinstance(source, Path) else source
        self._table = table
        self.split = source.name if isinstance(source, Path) else ""
        """Name of the split; empty for rows of a table in memory."""
        self.pad_id = pad_id
        self._tokens = Ragged(table.column("input_ids"))
        self._segments = Ragged(table.column(SEGMENTS)) if SEGMENTS in table.column_names else None
        self.numbers = np.arange(table.num_rows) if chosen is None else chosen
        """Numbers of the rows on disk, [n]."""
        self.lengths = self._tokens.lengths[self.numbers]
        label = table.column("label")
        self.token_labels = Ragged(label) if pa.types.is_list(label.type) else None
        """Labels per token, where rows have them."""
        self._labels: np.ndarray | None = (
            None if self.token_labels else label.to_numpy()[self.numbers]
        )
        counts = ((own != IGNORE_INDEX).sum() for own in self._labels_of(range(len(self))))
        self.targets = (
            np.fromiter(counts, np.int64)
            if self.token_labels
            else np.ones(len(self), dtype=np.int64)
        )
        """Number of targets of each row, [n]; the loss is a mean over targets."""

    def __len__(self) -> int:
        return len(self.lengths)

    def _labels_of(self, indices: Iterable[int]) -> Iterator[np.ndarray]:
        """Return the labels of the tokens of some rows, one row after another."""
        labels: Any = self.token_labels
        return (labels[int(self.numbers[index])] for index in indices)

    def column(self, name: str) -> list[Any]:
        """Return a column that the task wrote beside token ids and labels, [n]."""
        values = self._table.column(name).to_pylist()
        return [values[number] for number in self.numbers]

    def has(self, name: str) -> bool:
        return name in self._table.column_names

    def replaced(self, columns: Mapping[str, list[Any]]) -> "Rows":
        """Return all rows of the split with other values in these columns, in memory."""
        table = self._table
        for name, values in columns.items():
            column = table.schema.field(name)
            place = table.schema.get_field_index(name)
            table = table.set_column(
                place, column, pa.chunked_array([pa.array(values, column.type)])
            )
        return Rows(table, self.pad_id)

    def tokens(self, index: int) -> np.ndarray:
        row: np.ndarray = self._tokens[int(self.numbers[index])]
        return row

    @property
    def labels(self) -> np.ndarray:
        """The label of each row, [n]; for rows with one label each."""
        assert self._labels is not None  # noqa: S101 - rows have labels of one kind
        return self._labels

    @property
    def references(self) -> Answers:
        """Reference answers: the label of each row, or the labels of each row's tokens that have
        one.
        """
        if self.token_labels is None:
            return self.labels
        return tuple(own[own != IGNORE_INDEX] for own in self._labels_of(range(len(self))))

    def answers(self, predictions: np.ndarray) -> Answers:
        """Return predictions, [n, 1] or [n, longest row], in the form of `references`."""
        if self.token_labels is None:
            return predictions[:, 0].astype(self.labels.dtype)
        pairs = zip(predictions, self._labels_of(range(len(self))), strict=True)
        return tuple(row[: len(own)][own != IGNORE_INDEX].astype(own.dtype) for row, own in pairs)

    def batch(self, indices: np.ndarray) -> Batch:
        """Return these rows, padded on the right to the longest of them."""
        lengths = self.lengths[indices]
        ids = np.full((len(indices), int(lengths.max())), self.pad_id, dtype=np.int64)
        types = np.zeros_like(ids)
        for row, index in enumerate(indices):
            ids[row, : lengths[row]] = self.tokens(int(index))
            if self._segments is not None:
                types[row, : lengths[row]] = self._segments[int(self.numbers[index])]
        mask = (np.arange(ids.shape[1]) < lengths[:, None]).astype(np.int64)
        if self.token_labels is None:
            labels, learnt = self.labels[indices], None
        else:
            labels = np.full(ids.shape, IGNORE_INDEX, dtype=np.int64)
            for row, own in enumerate(self._labels_of(indices)):
                labels[row, : len(own)] = own
            learnt = int((labels[:, 1:] != IGNORE_INDEX).sum())
        parts = torch.from_numpy(ids), torch.from_numpy(mask), torch.from_numpy(labels)
        more = {} if self._segments is None else {SEGMENTS: torch.from_numpy(types)}
        return Batch(*parts, int(lengths.sum()), learnt, more)
