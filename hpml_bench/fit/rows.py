"""Rows of a prediction: the suite's own where they can be read without network, else rows of the largest size."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import pyarrow as pa
from huggingface_hub import constants

from hpml_bench.data.prepare import prepare_rows
from hpml_bench.data.prepared import Prepared
from hpml_bench.data.sources import Resolved
from hpml_bench.plugins.rows import write_rows
from hpml_bench.plugins.task import RETENTION, make_task
from hpml_bench.records.run import Digests
from hpml_bench.suite.settings import Settings
from hpml_bench.system.errors import UserError
from hpml_bench.system.text import first_line

TOKEN = 5
"""Token id of made-up rows: no special one of the usual tokenizers."""
LABELS = 32
"""Number of labels where the rows, which tell it, can't be read; a head of 32 outputs takes little memory."""


class RowsFound(NamedTuple):
    """Prepared rows, and why they are made up; empty where they are the suite's own."""

    prepared: Prepared
    made_up: str = ""


def find_rows(settings: Settings, model: Resolved, folder: Path) -> RowsFound:
    """Return a suite's rows, tokenised and cached as for a run, or write made-up ones to a folder.

    Made-up rows have `max_length` tokens, each a target where tokens have labels: no row of the suite takes more.
    """
    try:
        with _offline():
            return RowsFound(prepare_rows(settings, model))
    except UserError as error:
        return RowsFound(_largest_rows(settings, model, folder), first_line(error))


@contextmanager
def _offline() -> Iterator[None]:
    """Let hub and package index be used from their caches alone."""
    with mock.patch.object(constants, "HF_HUB_OFFLINE", new=True), mock.patch.dict(os.environ, PIP_NO_INDEX="1"):
        yield


def _largest_rows(settings: Settings, model: Resolved, folder: Path) -> Prepared:
    """Write rows of `max_length` tokens for all splits, as many as the largest batch takes."""
    names = tuple(f"label {number}" for number in range(LABELS))
    task, length = make_task(settings.task, names), settings.max_length
    ids, kind = [TOKEN] * length, task.label_type()
    label: Any = ids if pa.types.is_list(kind) else 0
    columns = {"input_ids": ids, "label": label}
    columns |= {name: _largest_value(extra, length) for name, extra in task.extra_types().items()}
    counts = {"train": settings.global_batch, **dict.fromkeys(("validation", "test", RETENTION), settings.eval_batch)}
    for split, rows in counts.items():
        batch = {name: [value] * rows for name, value in columns.items()}
        write_rows(folder / split, [batch], kind, task.extra_types())
    digests = Digests(weights="", tokenizer="", data="")
    facts = dict.fromkeys(("mean", "sd", "deviation", "baseline_mae"), 1.0)
    backbone = str(model.folder_or_file)
    return Prepared(backbone=backbone, data=str(folder), label_names=names, facts=facts, digests=digests, pad_id=0)


def _largest_value(kind: pa.DataType, length: int) -> Any:
    """Return a value of a task's further column: a prompt of all tokens but one, or two choices of one token."""
    if pa.types.is_list(kind):
        return [_largest_value(kind.value_type, 1)] * 2 if not pa.types.is_integer(kind.value_type) else [TOKEN]
    return "" if pa.types.is_string(kind) else length - 1
