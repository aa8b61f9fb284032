"""Data sets: the base class of loaders, and the splits that they return."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

from hpml_bench.suite import registry
from hpml_bench.suite.base import Frozen
from hpml_bench.suite.registry import validate_options
from hpml_bench.suite.settings import Settings

if TYPE_CHECKING:
    from datasets import Dataset

# name of the note on splits with fewer rows than the settings ask for
FEWER = "fewer rows than asked for"

Target = Literal["class", "number", "tags", "answer"]
"""The target that a task learns from a row: a class, a number, a tag for every word, or an
answer in words.
"""
IN_WORDS: dict[Target, str] = {
    "class": "a class",
    "number": "a number",
    "tags": "a tag for every word",
    "answer": "an answer",
}

IGNORE_INDEX = -100
"""Label of a token without a target, and of padding: no loss is taken there, and nothing is
answered.
"""
GROUP = "group"  # column of numbers that are equal for rows that belong together
PAIR = "text_pair"  # column of the second texts of pairs
# column of the numbers that tell the two texts of a pair apart, one for each token
SEGMENTS = "token_type_ids"


@dataclass(frozen=True)
class LoadedData:
    """The splits of a data set, and the names of their labels.

    The columns depend on the task's target: `text` (str) and `label` (int, an index into
    `label_names`) for a class; `text` and `label` (float) for a number, both with `text_pair` (str)
    where a row has two texts; `words` (list of str) and `tags` (list of int, indices into
    `label_names`) for tags; `contents` and `roles` (lists of str: the turns of a conversation, each
    by system, user, assistant or tool, the last by the assistant) and `choices` (list of str:
    answers to choose from, or none) for an answer; there may be `place` (str), the file and row
    that a row comes from, for errors; `group` (int), which is equal for rows that belong together,
    over all splits; and for an answer `weights` (list of float, empty or one per turn: 0 for a turn
    that is no target), `fields` (list of str, empty or one per turn: its further keys that
    templates read, such as `tool_calls`, as a JSON mapping, or empty), `tools` (str, empty or a
    JSON list of tools' definitions) and `messages` (bool, whether the row was written as turns).
    """

    train: Dataset
    validation: Dataset | None  # none: `prepare` splits it off the training rows
    test: Dataset
    label_names: tuple[str, ...] = ()
    notes: Mapping[str, str] = field(default_factory=dict)
    """Facts worth printing with the results, such as the best possible accuracy."""
    warnings: Mapping[str, str] = field(default_factory=dict)
    """Notes that are also shown before the runs, such as rows that were left out."""
    retention: Dataset | None = None
    """General text, on which forgetting is measured: rows with an answer, one turn each; not
    trained on.
    """


class DatasetLoader(ABC):
    """A data set, or a way to read one: `load` and `targets` are required."""

    plugin_kind: ClassVar[str] = "datasets"
    targets: ClassVar[tuple[Target, ...]]
    """Targets that its rows have."""
    Options: ClassVar[type[Frozen]] = Frozen
    """Its own options."""

    def __init__(self, options: Any) -> None:
        self.options = options

    @abstractmethod
    def load(self, settings: Settings, target: Target) -> LoadedData:
        """Return at least as many rows as the settings ask for, with the columns for `target`.

        Drawing rows, splitting off validation rows and tokenising are common to all data sets
        (data.prepare). Raises UserError: the rows can't be read, or don't suit the settings.
        """


def make_loader(settings: Settings) -> DatasetLoader:
    """Return the data set that the settings name.

    Raises UserError: there is none of that name, or its options are wrong.
    """
    name = settings.dataset.name
    options = validate_options("datasets", name, settings.dataset.options, "dataset.options")
    return cast(DatasetLoader, registry.plugin("datasets", name)(options))
