"""Run folders on disk: append points, commit a record atomically, load what is there, tell what is damaged."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from pydantic import ValidationError

from hpml_bench.records import SCHEMA_VERSION, Point, RunRecord

if TYPE_CHECKING:
    import pandas as pd

RECORD = "run.json"
SUITE = "suite.json"
"""What was asked for, written beside the runs by the sweep: description and order for the report."""
POINTS = "points.jsonl"
OUTCOME = "outcome.json"
PREDICTIONS = "predictions.parquet"
MAX_RECORD_BYTES = 50_000_000


@dataclass(frozen=True)
class LoadedRuns:
    """What a results folder holds."""

    records: tuple[RunRecord, ...]
    """The readable ones, oldest first."""
    problems: tuple[str, ...]
    """One sentence for each record that was set aside, naming the file."""


def write_atomically(path: Path, text: str) -> None:
    """Write a file so that, whatever happens, it is the old one or the new one, whole."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the new name itself must survive a crash
    finally:
        os.close(folder)


def begin(folder: Path) -> None:
    """Empty a run's folder: an attempt is never mixed with another."""
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)


def commit(folder: Path, record: RunRecord) -> None:
    """Write run.json: from here on the run counts."""
    write_atomically(folder / RECORD, record.model_dump_json(indent=1) + "\n")


def load_record(path: Path) -> RunRecord:
    """Read one run.json.

    Raises:
        ValueError: it is damaged or of another schema version; the message says which.

    """
    try:
        if path.stat().st_size > MAX_RECORD_BYTES:
            raise ValueError(f"larger than {MAX_RECORD_BYTES} bytes")
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"not readable ({type(error).__name__})") from None
    version = content.get("schema_version") if isinstance(content, dict) else None
    if version != SCHEMA_VERSION:
        raise ValueError(f"of schema version {version!r:.40}, and this is {SCHEMA_VERSION}")
    try:
        return RunRecord.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise ValueError(f"not a run record: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def load_records(folder: Path) -> LoadedRuns:
    """Read every run.json one level below `folder`; damaged ones are told, never averaged."""
    records, problems = [], []
    for path in sorted(folder.glob(f"*/{RECORD}")):
        try:
            records.append(load_record(path))
        except ValueError as error:
            problems.append(f"{path.parent.name}/{RECORD} is {error}; it is left out, and run-all will run it again")
    return LoadedRuns(tuple(sorted(records, key=lambda record: (record.started, record.run_id))), tuple(problems))


def settled(folder: Path) -> RunRecord | None:
    """Return a run's record, or None where there is none that can be read."""
    try:
        return load_record(folder / RECORD)
    except ValueError:
        return None


def iterate_points(folder: Path) -> Iterator[Point]:
    """Yield the points of a run in the order written; a torn line (a crash, or a write under way) is left out."""
    path = folder / POINTS
    if not path.exists():
        return
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                yield Point.model_validate_json(line)
            except ValidationError:
                continue


def read_points(folder: Path) -> list[Point]:
    """Return all points of a run."""
    return list(iterate_points(folder))


def read_predictions(folder: Path) -> pd.DataFrame | None:
    """Return a run's predictions: columns index, label, prediction, loss; None where there are none."""
    import pandas as pd

    path = folder / PREDICTIONS
    try:
        return pd.read_parquet(path) if path.exists() else None
    except (OSError, ValueError):
        return None


class PointWriter:
    """Appends points to points.jsonl, a line each; what was flushed survives the process."""

    def __init__(self, folder: Path) -> None:
        self._file: IO[str] = (folder / POINTS).open("a", encoding="utf-8")

    def write(self, points: list[Point]) -> None:
        """Append and flush."""
        self._file.write("".join(f"{point.model_dump_json()}\n" for point in points))
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_json(path: Path) -> dict[str, Any] | None:
    """Return a JSON object written by a rank, or None where it is missing or torn."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None
