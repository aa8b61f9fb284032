"""General text, on which a run shows what it forgets: a data set's own, or a file's lines or rows."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hpml_bench.config.settings import Settings
from hpml_bench.data.conversations import as_conversations, find_shape
from hpml_bench.data.sources import resolve
from hpml_bench.errors import UserError
from hpml_bench.plugins.dataset import LoadedData
from hpml_bench.system.cache import cache_folder, disk_error
from hpml_bench.system.text import first_line

if TYPE_CHECKING:
    from datasets import Dataset

OWN = "dataset"
"""The source that stands for the data set's own general text."""
STREAM = 4
"""Of the random numbers that draw the rows."""
LOADERS = {".txt": "text", ".csv": "csv", ".json": "json", ".jsonl": "json", ".parquet": "parquet"}


def retention_rows(source: str, most: int, loaded: LoadedData, settings: Settings) -> Dataset:
    """Return at most so many texts, drawn with `data_seed`, each as a conversation of one turn.

    Raises:
        UserError: the data set has no such text, or the file can't be read or has none.

    """
    if source == OWN:
        if loaded.retention is None:
            raise UserError(
                f"task.options.retention: the data set {settings.dataset.name} has no general text of its own; "
                "name a file with path: or wheel:, or leave it empty"
            )
        rows = loaded.retention
    else:
        rows = _of_file(resolve(source).folder_or_file)
    order = np.random.default_rng([settings.data_seed, STREAM]).permutation(len(rows))
    return rows.select(order[:most])


def _of_file(file: Path) -> Dataset:
    from datasets import Features, Value, load_dataset

    suffix = file.suffix.lower()
    if not file.is_file() or suffix not in LOADERS:
        raise UserError(
            f"task.options.retention: {file} is no file that can be read; it must end in {', '.join(LOADERS)}"
        )
    arguments: dict[str, Any] = {}
    try:
        if suffix == ".csv":  # every cell is text, NA and 01 too
            with file.open(encoding="utf-8-sig", newline="") as lines:
                names = next(csv.reader(lines))
            arguments = {"features": Features(dict.fromkeys(names, Value("string"))), "keep_default_na": False}
        cache = str(cache_folder() / "datasets")
        rows = load_dataset(LOADERS[suffix], data_files=str(file), split="train", cache_dir=cache, **arguments)
    except Exception as error:
        unreadable = UserError(f"{file}: can't be read as {suffix[1:]}: {first_line(error.__cause__ or error)}")
        raise disk_error(error) or unreadable from None
    if suffix == ".txt":
        rows = rows.filter(lambda row: bool(row["text"].strip()))
    if not len(rows):
        raise UserError(f"task.options.retention: {file} holds no text")
    shape = find_shape(rows, str(file))
    return as_conversations(rows, str(file), shape)
