"""Orders to a tracker's helper process: what is sent. No secrets, no folders, nothing about the machine."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from hpml_bench.plugins.blocks import Table
from hpml_bench.records.run import FINAL, Point, RunRecord
from hpml_bench.suite.settings import RunSpec, identity
from hpml_bench.system.text import digest, map_texts

Order = dict[str, Any]
"""An order to the helper: its name under `do`, and its arguments."""
SECRET_OPTION = re.compile(r"(?i)(^|_)(api_?key|access_key|auth|token|secret|password|passwd|credentials?)$")
PATH = re.compile(r"^(path:|~|/|[A-Za-z]:[\\/])")


def group_of(spec: RunSpec) -> str:
    """Return the name of the group of a sweep: its suite and what its runs have in common."""
    return f"{spec.suite}-{digest(identity(spec.settings), 12)}"


def config_of(spec: RunSpec) -> dict[str, Any]:
    """Return a specification as a config: of paths the last part alone, no options named like secrets."""

    def without_folders(text: str) -> str:
        if not PATH.match(text):
            return text
        source = "path:" if text.startswith("path:") else ""
        return source + re.split(r"[\\/]", text.removeprefix(source).rstrip("\\/"))[-1]

    dumped = spec.model_dump(mode="json")
    config: dict[str, Any] = map_texts(dumped, without_folders, lambda key: bool(SECRET_OPTION.search(key)))
    return config


def opening(spec: RunSpec, own: str) -> Order:
    """Return the order that opens a run; `own` identifies it at the service."""
    names = {"group": group_of(spec), "name": spec.run_id, "job_type": spec.method.name}
    return {"do": "open", "id": own, **names, "config": config_of(spec)}


def history(points: Iterable[Point]) -> Iterator[Order]:
    """Yield one order per step; consecutive points at the same step go together."""
    finite = (point for point in points if point.value is not None)
    for step, group in groupby(finite, key=lambda point: point.step):
        yield {"do": "log", "step": step, "values": {point.metric: point.value for point in group}}


def closing(record: RunRecord | None) -> Order:
    """Return the order that ends a run, with its final metrics; without a record the run has crashed."""
    if record is None:
        return {"do": "close", "summary": {}, "exit_code": 1}
    summary = {name: value for name, value in record.metrics.items() if value is not None}
    facts = {"status": record.status, "run_seconds": record.seconds, "protocol_id": record.protocol_id}
    return {"do": "close", "summary": summary | facts, "exit_code": 0 if record.status in FINAL else 1}


def comparison(spec: RunSpec, own: str, tables: Sequence[Table], page: Path | None) -> list[Order]:
    """Return the orders for the comparison run of a suite: its page, and tables with raw values where JSON has them."""

    def cell(value: float | str | None, shown: str) -> float | str | None:
        return shown if isinstance(value, float) and not math.isfinite(value) else value

    def cells(table: Table) -> list[list[float | str | None]]:
        rows = table.rows if table.values is None else table.values
        return [list(map(cell, row, shown)) for row, shown in zip(rows, table.rows, strict=True)]

    names = {"group": group_of(spec), "name": "comparison", "job_type": "comparison"}
    shown = [{"name": table.name, "columns": table.columns, "rows": cells(table)} for table in tables]
    return [
        {"do": "open", "id": own, **names, "config": {"suite": spec.suite}},
        {"do": "tables", "tables": shown, "page": page and str(page.resolve())},
        {"do": "close", "summary": {}, "exit_code": 0},
    ]
