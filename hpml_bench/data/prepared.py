"""Model and data on local disk, from which the ranks start."""

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
    """Facts that the task computed from the training rows, such as the mean of the targets."""
    digests: Digests
    rows: dict[str, int] = Field(default_factory=dict)
    """Split -> number of rows."""
    notes: dict[str, str] = Field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    """Sentences for the user before the runs start, such as on rows left out for their length."""
    pad_id: int
    stop_ids: tuple[int, ...] = ()
    """Tokens that end a generated answer."""
    scaffold: Scaffold = Scaffold()
    """Text that the template puts around the content of a generated answer."""
