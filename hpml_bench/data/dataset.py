"""What a data set loads, and what is prepared from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pydantic import Field

from hpml_bench.config.base import Frozen
from hpml_bench.records.run import Digests

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True)
class TaskData:
    """What a task loads: splits of rows with columns `text` (str) and `label` (int, an index into `label_names`)."""

    train: Dataset
    validation: Dataset | None
    """None: `prepare` splits it off the training rows."""
    test: Dataset
    label_names: tuple[str, ...]
    notes: Mapping[str, str] = field(default_factory=dict)
    """Facts worth printing with the results, such as the best possible accuracy."""


class Prepared(Frozen):
    """Model and data on local disk, ready for the ranks."""

    backbone: str
    """Folder of the pretrained model."""
    data: str
    """Folder with train, validation and test as Arrow datasets of `input_ids` (list of int32) and `label`."""
    label_names: tuple[str, ...]
    digests: Digests
    notes: dict[str, str] = Field(default_factory=dict)
    pad_id: int
