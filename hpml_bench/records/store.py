"""Run folders on disk: append points, commit a record atomically, load what is there, tell what is damaged."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from pydantic_core import from_json

from hpml_bench.records import schema1
from hpml_bench.records.run import SCHEMA_VERSION, Point, RunRecord, Status, protocol_id
from hpml_bench.system.redaction import redact_files

if TYPE_CHECKING:
    pass

RECORD = "run.json"
SUITE = "suite.json"
"""What was asked for, written beside the runs by the sweep: description and order for the report."""
POINTS = "points.jsonl"
OUTCOME = "outcome.json"
PREDICTIONS = "predictions.parquet"
READABLE = (1, SCHEMA_VERSION)
"""Schema versions that are read."""
MAX_RECORD_BYTES = 50_000_000
AT_ONCE_BYTES = 1_000_000
"""Size up to which a file of points is read at once, several times as quickly as line by line."""
MAX_DEPTH = 32
"""Levels of nesting in a record."""
MAX_LINE = 10_000
"""Characters of a line of points.jsonl; a longer one is none of ours."""
LARGEST_INTEGER = 2**63 - 1
_POINTS = TypeAdapter(list[Point])
_AS_ZEROS = bytes(b"0"[0] if 48 <= code < 58 else b"."[0] if code == 46 else b" "[0] for code in range(256))
"""Every digit a zero, the point itself, all else a space."""
SET_ASIDE = "set-aside"
"""Folder beside the runs for those that turned out damaged."""


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
    remove(folder)
    folder.mkdir(parents=True)


def remove(folder: Path) -> None:
    """Remove a run's folder if it is there; of a link only the link, not what it leads to."""
    if folder.is_symlink():
        folder.unlink()
    elif folder.exists():
        shutil.rmtree(folder)


def sweep_up(folder: Path) -> None:
    """Remove what a kill in the middle of `write_atomically` left in a folder that nobody else writes to."""
    for path in folder.glob(".*.tmp"):
        path.unlink(missing_ok=True)


def redact_abandoned_logs(folder: Path) -> None:
    """Redact the ranks' logs of runs without a record; with one, it was done before the run was committed."""
    for run in folder.glob("*/"):
        if not run.is_symlink() and not (run / RECORD).exists():
            redact_files(*run.glob("rank*.log"))


def commit(folder: Path, record: RunRecord) -> None:
    """Write run.json: from here on the run counts."""
    write_atomically(folder / RECORD, record.model_dump_json(indent=1) + "\n")


def file_digests(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of the files that belong to a run's record, by name."""
    found = {}
    for name in (POINTS, PREDICTIONS):
        if is_plain_file(folder / name):
            with (folder / name).open("rb") as file:
                found[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def damage(folder: Path) -> str | None:
    """Return what is wrong with a run's files, such as `run.json is not readable`; None where nothing is.

    A run without a record is none: it was not finished.
    """
    if not (folder / RECORD).exists():
        return None
    try:
        record = load_record(folder / RECORD)
    except ValueError as error:
        return f"{RECORD} is {error}"
    return changed(folder, record)


def changed(folder: Path, record: RunRecord) -> str | None:
    """Return which file is not the one that the record was committed with, or is gone; None where all are there."""
    there = file_digests(folder)
    for name, value in record.files.items():
        if name not in there:
            return f"{name} is missing"
        if there[name] != value:
            return f"{name} is not the file that was recorded"
    return None


def set_aside(folder: Path) -> Path:
    """Move a damaged run's folder out of the way, its record under another name; return where to."""
    room = folder.parent / SET_ASIDE
    if room.is_symlink():
        room.unlink()  # the link only: none is followed
    room.mkdir(exist_ok=True)
    number = next(number for number in count(1) if not os.path.lexists(room / f"{folder.name}.{number}"))
    target = room / f"{folder.name}.{number}"
    if not folder.is_symlink() and (folder / RECORD).exists():
        (folder / RECORD).replace(folder / f"{RECORD}.damaged")
    folder.replace(target)
    return target


def load_record(path: Path) -> RunRecord:
    """Read one run.json.

    Raises:
        ValueError: it is damaged or of another schema version; the message says which.

    """
    if path.parent.is_symlink() or (path.exists() and not is_plain_file(path)):
        raise ValueError("a link, or no file, and none is followed")
    try:
        if path.stat().st_size > MAX_RECORD_BYTES:
            raise ValueError(f"larger than {MAX_RECORD_BYTES} bytes")
        raw = path.read_bytes()
        content = from_json(raw)
    except OSError as error:
        raise ValueError(f"not readable ({error.strerror or type(error).__name__})") from None
    except ValueError as error:
        raise ValueError(f"not readable as JSON ({error})") from None
    if odd := _oddity(content, raw):
        raise ValueError(f"not a run record: it holds {odd}")
    version = content.get("schema_version") if isinstance(content, dict) else None
    if version not in READABLE:
        raise ValueError(f"of schema version {version!r:.40}, and this is {SCHEMA_VERSION}")
    try:
        if version == SCHEMA_VERSION:
            return RunRecord.model_validate(content)
        record = RunRecord.model_validate(schema1.upgraded(content))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise ValueError(f"not a run record: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    if record.digests is None:
        return record
    return record.model_copy(update={"protocol_id": protocol_id(record.spec.settings, record.digests)})


def is_plain_file(path: Path) -> bool:
    """Tell whether there is a file that ends and is in this place: no link, pipe or device."""
    return path.is_file() and not path.is_symlink()


def _oddity(content: Any, raw: bytes) -> str | None:
    """Return what no record holds but JSON can, and what reads records would stumble over.

    Looks at the fields that may hold anything, and at all where a number is long: the record's own types see to the
    rest, and a walk through everything takes longer than they do.
    """
    todo = [(content, 0)] if _holds_long_number(raw) else [(value, 0) for value in _untyped(content)]
    while todo:
        value, depth = todo.pop()
        if depth > MAX_DEPTH:
            return f"values nested deeper than {MAX_DEPTH} levels"
        if isinstance(value, int) and abs(value) > LARGEST_INTEGER:
            return "an integer of more than 64 bits"
        if isinstance(value, dict):
            todo += [(key, depth) for key in value]
        if isinstance(value, dict | list):
            todo += [(item, depth + 1) for item in (value.values() if isinstance(value, dict) else value)]
    return None


def _holds_long_number(raw: bytes) -> bool:
    """Tell whether 19 digits or more begin anywhere but after a point; a regular expression takes ten times as long."""
    return b" " + b"0" * 19 in b" " + raw.translate(_AS_ZEROS)


def _untyped(content: Any) -> list[Any]:
    """Return the values of a record's fields that are declared as Any."""
    found = []
    for path in (
        ("environment",),
        ("spec", "settings", "task", "options"),
        ("spec", "settings", "dataset", "options"),
        ("spec", "method", "options"),
    ):
        value = content
        for key in path:
            value = value.get(key) if isinstance(value, dict) else None
        found.append(value)
    return found


class Headline(BaseModel):
    """The few fields of a record that a list of runs shows; reading them alone is several times quicker."""

    model_config = ConfigDict(frozen=True)

    class Spec(BaseModel):
        """The suite's name."""

        suite: str

    schema_version: Literal[1, 2]
    run_id: str
    spec: Spec
    status: Status
    seconds: float
    metrics: dict[str, float | None]


def headlines(folder: Path) -> list[Headline]:
    """Return the headline of every record one level below `folder` that can be read, by folder's name."""
    found = []
    for path in sorted(folder.glob(f"*/{RECORD}")):
        with suppress(OSError, ValueError):
            if is_plain_file(path) and not path.parent.is_symlink() and path.stat().st_size <= MAX_RECORD_BYTES:
                headline = Headline.model_validate_json(path.read_bytes())
                found.append(headline.model_copy(update={"run_id": path.parent.name}))
    return found


def load_records(folder: Path) -> LoadedRuns:
    """Read every run.json one level below `folder`; damaged ones are told, never averaged."""
    records: list[RunRecord] = []
    problems: list[str] = []
    for path in sorted(folder.glob(f"*/{RECORD}")):
        again = "it is left out, and run-all will run it again"
        try:
            record = load_record(path)
        except ValueError as error:
            problems.append(f"{path.parent.name}/{RECORD} is {error}; {again}")
            continue
        why = changed(path.parent, record)
        if why:
            problems.append(f"{path.parent.name}/{why}; {again}")
        else:
            record = record.model_copy(update={"run_id": path.parent.name})  # of a copied folder: where its files lie
            records.append(_sharing(record, records[-1]) if records else record)
    return LoadedRuns(tuple(sorted(records, key=lambda record: (record.started, record.run_id))), tuple(problems))


def _sharing(record: RunRecord, other: RunRecord) -> RunRecord:
    """Return a record that holds what is equal in another one once: thousands differ in their figures alone."""
    alike = ("definitions", "environment", "notes", "digests", "label_names")
    return record.model_copy(
        update={name: getattr(other, name) for name in alike if getattr(record, name) == getattr(other, name)}
    )


def settled(folder: Path) -> RunRecord | None:
    """Return a run's record, or None where there is none that can be read."""
    try:
        return load_record(folder / RECORD)
    except ValueError:
        return None


def iterate_points(folder: Path) -> Iterator[Point]:
    """Yield the points of a run in the order written; a torn line (a crash, or a write under way) is left out."""
    path = folder / POINTS
    if not is_plain_file(path):
        return
    quickly = _all_points(path)
    if quickly is not None:
        yield from quickly
        return
    with path.open(encoding="utf-8", errors="replace") as file:
        while line := file.readline(MAX_LINE):
            try:
                point = Point.model_validate_json(line)
            except ValidationError:
                continue
            if abs(point.step) <= LARGEST_INTEGER:
                yield point


def _all_points(path: Path) -> list[Point] | None:
    """Return the points of a file, read at once; None where it is large or a line of it is not whole."""
    if path.stat().st_size > AT_ONCE_BYTES:
        return None
    lines = path.read_bytes().split(b"\n")
    if lines.pop():  # torn, or still being written
        return None
    try:
        points = _POINTS.validate_json(b"[" + b",".join(lines) + b"]")
    except ValidationError:
        return None
    whole = len(points) == len(lines) and not any(abs(point.step) > LARGEST_INTEGER for point in points)
    return points if whole else None


def read_points(folder: Path) -> list[Point]:
    """Return all points of a run."""
    return list(iterate_points(folder))


class PointWriter:
    """Appends points to points.jsonl, a line each; what was flushed survives the process."""

    def __init__(self, folder: Path) -> None:
        self._file: IO[str] = (folder / POINTS).open("a", encoding="utf-8")

    def write(self, points: list[Point]) -> None:
        """Append and flush."""
        self._file.write("".join(f"{point.model_dump_json(exclude_unset=True)}\n" for point in points))
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_json(path: Path) -> dict[str, Any] | None:
    """Return a JSON object written by a rank, or None where it is missing or torn."""
    try:
        small = is_plain_file(path) and path.stat().st_size <= MAX_RECORD_BYTES
        content = json.loads(path.read_text(encoding="utf-8")) if small else None
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None
