"""Files of a results folder: their names, and how they are written and read safely."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

RECORD = "run.json"
SUITE = "suite.json"
"""What was asked for, beside the runs: description and order for the report."""
POINTS = "points.jsonl"
OUTCOME = "outcome.json"
PREDICTIONS = "predictions.parquet"
SET_ASIDE = "set-aside"
"""Folder beside the runs for those that turned out damaged."""
MAX_RECORD_BYTES = 50_000_000


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


def remove_temporary(folder: Path) -> None:
    """Remove what a kill in the middle of `write_atomically` left in a folder that nobody else writes to."""
    for path in folder.glob(".*.tmp"):
        path.unlink(missing_ok=True)


def remove(folder: Path) -> None:
    """Remove a folder if it is there; of a link only the link, not what it leads to."""
    if folder.is_symlink():
        folder.unlink()
    elif folder.exists():
        shutil.rmtree(folder)


def is_plain_file(path: Path) -> bool:
    """Tell whether there is a file that ends and is in this place: no link, pipe or device."""
    return path.is_file() and not path.is_symlink()


def read_json(path: Path) -> dict[str, Any] | None:
    """Return a JSON object written by a rank, or None where it is missing or torn."""
    try:
        small = is_plain_file(path) and path.stat().st_size <= MAX_RECORD_BYTES
        content = json.loads(path.read_text(encoding="utf-8")) if small else None
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None
