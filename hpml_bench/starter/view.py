"""Model, rows and tokenizer, from which the kinds of work choose."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from hpml_bench.plugins.dataset import LoadedData
from hpml_bench.plugins.tokenizer import Encoder
from hpml_bench.starter.entries import Entry
from hpml_bench.starter.model import Model
from hpml_bench.starter.rows import Data
from hpml_bench.starter.target import Learnt


@dataclass(frozen=True)
class View:
    """A model and the rows that it is to learn from."""

    model: Model
    data: Data
    learnt: Learnt
    loaded: LoadedData
    """The rows as the data set gives them, of large files the first ones."""
    encoder: Encoder
    """The model's tokenizer, which cuts nothing."""

    @property
    def whole(self) -> bool:
        """Whether all rows are looked at."""
        return self.data.whole


class Kind(NamedTuple):
    """A kind of work, and what a suite says of it."""

    task: str
    options: Callable[[View], tuple[Entry, ...]]
    """Returns the task's options."""
    names: Callable[[View], tuple[Entry, ...]]
    """Returns the data set's options on names of labels; none where rows have none."""
    facts: Callable[[View], tuple[str, ...]]
    """Returns sentences on what is learnt."""


def nothing(view: View) -> tuple[Any, ...]:  # noqa: ARG001 - as the other functions of a kind
    """Return nothing, of a kind without options, names or facts."""
    return ()


def plain(entries: tuple[Entry, ...]) -> dict[str, Any]:
    """Return chosen entries as a mapping of plain values."""
    return {
        entry.key: plain(entry.value) if entry.value and isinstance(entry.value, tuple) else entry.value
        for entry in entries
        if entry.chosen
    }
