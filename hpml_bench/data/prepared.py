"""Model and data on local disk: what the ranks start from."""

from __future__ import annotations

from pydantic import Field

from hpml_bench.plugins.task import Scaffold
from hpml_bench.records.run import Digests
from hpml_bench.suite.base import Frozen


class Prepared(Frozen):
    """Model and data on local disk, ready for the ranks."""

    backbone: str
    """Folder of the pretrained model."""
    data: str
    """Folder with train, validation and test as Arrow streams of `input_ids` (list of int32) and `label`."""
    label_names: tuple[str, ...] = ()
    facts: dict[str, float] = Field(default_factory=dict)
    """What the task found in the training rows, such as the mean of a number to predict."""
    digests: Digests
    rows: dict[str, int] = Field(default_factory=dict)
    """How many there are of each split."""
    notes: dict[str, str] = Field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    """What whoever starts the runs should see at once, such as rows that are too long and were left out."""
    pad_id: int
    stop_ids: tuple[int, ...] = ()
    """Tokens that end a generated answer."""
    scaffold: Scaffold = Scaffold()
    """What stands around the content of a generated answer."""
