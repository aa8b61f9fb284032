"""Reading of records: one, or a folder's for reports and lists; damaged ones are left out with
the reason.
"""

import errno
import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import AliasPath, BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import from_json

from hpml_bench.records.files import KEPT, POINTS, PREDICTIONS, RECORD, TRACKING
from hpml_bench.records.points import MOST_BYTES
from hpml_bench.records.run import (
    SCHEMA_VERSION,
    RunRecord,
    Status,
    headline_in_words,
    protocol_id,
    wall_seconds_of,
)
from hpml_bench.suite import registry
from hpml_bench.suite.settings import RunSpec
from hpml_bench.system.errors import UserError
from hpml_bench.system.files import (
    MAX_RECORD_BYTES,
    is_plain_file,
    mostly_holes,
    open_plain,
    read_bytes,
)

MAX_DEPTH = 32  # levels of nesting in a record
LARGEST_INTEGER = 2**63 - 1


def load_record(path: Path) -> RunRecord:
    """Read one run.json; raises ValueError with the reason if it is damaged or of another schema
    version.
    """
    if path.parent.is_symlink() or (os.path.lexists(path) and not is_plain_file(path)):
        raise ValueError("a link or no regular file, which is not read")
    try:
        content = from_json(read_bytes(path, MAX_RECORD_BYTES))
    except OSError as error:
        raise ValueError(f"not readable ({error.strerror or type(error).__name__})") from None
    except ValueError as error:
        raise ValueError(f"not readable as JSON ({error})") from None
    if odd := _oddity(content):
        raise ValueError(f"not a run record: it holds {odd}")
    version = content.get("schema_version") if isinstance(content, dict) else None
    if version != SCHEMA_VERSION:
        raise ValueError(
            f"of schema version {version!r:.40}, and this version of hpml-bench reads "
            f"{SCHEMA_VERSION}"
        )
    try:
        return RunRecord.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise ValueError(
            f"not a run record: {'.'.join(map(str, first['loc']))}: {first['msg']}"
        ) from None


def wrong_id(record: RunRecord, run_id: str) -> str | None:
    """Return a sentence on an id that isn't that of the record's settings, method, seed and
    digests; None if all are.

    `run_id` is the id written in the record, which the folder's name may differ from. Ids of
    plug-ins that aren't installed aren't checked: ids leave out defaults, which are then unknown.
    """
    spec, settings = record.spec, record.spec.settings
    if not installed(spec):
        return None
    if run_id != spec.run_id:
        return f"its id {run_id} is not that of its settings, method and seed, {spec.run_id}"
    if record.digests is not None and record.protocol_id != (
        own := protocol_id(settings, record.digests)
    ):
        return (
            f"its protocol id {record.protocol_id} is not that of its settings and digests, {own}"
        )
    return None


def installed(spec: RunSpec) -> bool:
    """Return whether all plug-ins whose options are part of a run's ids are installed."""
    settings, optimizer = spec.settings, spec.method.optimizer or spec.settings.optimizer
    with suppress(UserError):
        registry.plugin("tasks", settings.task.name)
        registry.plugin("datasets", settings.dataset.name)
        registry.plugin("methods", spec.method.method)
        return all(
            registry.plugin("optimizers", one.name) for one in (settings.optimizer, optimizer)
        )
    return False


def _oddity(value: Any, levels: int = MAX_DEPTH) -> str | None:
    """Return what no record may have in a value, in words; None if nothing."""
    if isinstance(value, int) and abs(value) > LARGEST_INTEGER:
        return "an integer of more than 64 bits"
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    if not levels and inner:
        return f"values nested deeper than {MAX_DEPTH} levels"
    return next(filter(None, (_oddity(one, levels - 1) for one in inner)), None)


def read_record(folder: Path) -> RunRecord | None:
    """Return a run's record; None if it is missing or unreadable."""
    try:
        return load_record(folder / RECORD)
    except ValueError:
        return None


def digests_of(folder: Path) -> dict[str, str]:
    return {
        name: sha256(folder / name)
        for name in (POINTS, PREDICTIONS)
        if is_plain_file(folder / name)
    }


def kept_digests(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of a run's trained parts, by path within their folder; empty where none
    are there.
    """
    kept = folder / KEPT
    files = () if kept.is_symlink() else sorted(filter(is_plain_file, kept.rglob("*")))
    return {path.relative_to(kept).as_posix(): sha256(path) for path in files}


def sha256(path: Path) -> str:
    """Return a file's SHA-256; raises OSError as `open_plain`, and for one that is mostly holes."""
    with open_plain(path) as file:
        if mostly_holes(file):
            raise OSError(errno.EINVAL, "most of it is holes", str(path))
        return hashlib.file_digest(file, "sha256").hexdigest()


def changed(folder: Path, record: RunRecord) -> str | None:
    """Return the first difference between a run's files and its record, as a sentence; None if
    there is none.
    """
    for name in (POINTS, PREDICTIONS):
        if is_plain_file(folder / name) and (folder / name).stat().st_size > MOST_BYTES:
            return f"{name} is larger than {MOST_BYTES:,} bytes, and isn't read"
    for name, recorded in record.files.items():
        # a name in a record that was given may lead out of the folder
        if name not in {POINTS, PREDICTIONS}:
            return f"{name} is missing"
        try:
            present = sha256(folder / name)
        except FileNotFoundError:
            return f"{name} is missing"
        except OSError as error:
            return f"{name} can't be read: {error.strerror}"
        if present != recorded:
            return f"{name} is not the file that was recorded"
    return None


@dataclass(frozen=True)
class LoadedRuns:
    """Runs of a results folder."""

    records: tuple[RunRecord, ...]  # readable records, oldest first
    problems: tuple[str, ...]  # one sentence per record that is left out, naming the file
    named: Mapping[str, str] = field(
        default_factory=dict
    )  # run_id (the folder's name) -> the id written in the record


def load_records(folder: Path) -> LoadedRuns:
    """Read every run.json one level below `folder`; damaged ones become `problems`."""
    records, problems, named = list[RunRecord](), list[str](), dict[str, str]()
    for path in _of_runs(folder):
        again = "it is left out, and run-all will run it again"
        try:
            record = load_record(path)
        except ValueError as error:
            problems.append(f"{path.parent.name}/{RECORD} is {error}; {again}")
            continue
        if why := changed(path.parent, record):
            problems.append(f"{path.parent.name}/{why}; {again}")
        else:
            named[path.parent.name] = record.run_id
            record = record.model_copy(
                update={"run_id": path.parent.name}
            )  # of a copied folder, its own name
            if records:  # equal fields are shared, which saves memory over thousands
                alike = ("definitions", "environment", "notes", "digests", "label_names")
                before = {name: getattr(records[-1], name) for name in alike}
                same = {
                    name: value for name, value in before.items() if value == getattr(record, name)
                }
                record = record.model_copy(update=same)
            records.append(record)
    return LoadedRuns(
        tuple(sorted(records, key=lambda run: (run.started, run.run_id))), tuple(problems), named
    )


def _of_runs(folder: Path) -> list[Path]:
    """Return every run.json one level below a folder, sorted, also one that can't be read; a
    tracker's folder holds none that counts.
    """
    places = (path / RECORD for path in folder.glob("*/") if path.name not in TRACKING)
    return sorted(filter(_is_there, places))


def _is_there(path: Path) -> bool:
    """Return whether something lies at a path, also where that can't be seen."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


class Headline(BaseModel):
    """The few fields of a record that a list of runs shows; reading them alone is several times
    quicker.
    """

    model_config = ConfigDict(frozen=True)

    class Definition(BaseModel):
        """Format in which a metric is shown."""

        name: str
        title: str
        format: str

    class Part(BaseModel):
        """Time of a segment."""

        seconds: float

    schema_version: Literal[2]
    run_id: str
    suite: str = Field(validation_alias=AliasPath("spec", "suite"))
    status: Status
    seconds: float
    segments: tuple[Part, ...] = ()
    headline: str | None
    metrics: dict[str, float | None]
    definitions: list[Definition] = []
    shown = property(headline_in_words)
    wall_seconds = property(wall_seconds_of)


def headlines(folder: Path) -> Iterator[Headline]:
    """Yield readable records' headlines by folder's name, one at a time: a list of thousands
    slows the collector.
    """
    for path in _of_runs(folder):
        with suppress(OSError, ValueError):
            if not path.parent.is_symlink():
                headline = Headline.model_validate_json(read_bytes(path))
                yield headline.model_copy(update={"run_id": path.parent.name})
