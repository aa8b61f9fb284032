"""Runs of a results folder, read for reports and lists."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from hpml_bench.records.files import MAX_RECORD_BYTES, RECORD, TRACKING, is_plain_file
from hpml_bench.records.folder import RunFolder
from hpml_bench.records.load import load_record
from hpml_bench.records.run import RunRecord, Status, in_words


@dataclass(frozen=True)
class LoadedRuns:
    """Runs of a results folder."""

    records: tuple[RunRecord, ...]
    """Readable records, oldest first."""
    problems: tuple[str, ...]
    """One sentence per record that is left out, naming the file."""
    named: Mapping[str, str] = field(default_factory=dict)
    """run_id (the folder's name) -> the id written in the record."""


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
        if why := RunFolder(path.parent).changed(record):
            problems.append(f"{path.parent.name}/{why}; {again}")
        else:
            named[path.parent.name] = record.run_id
            record = record.model_copy(update={"run_id": path.parent.name})  # of a copied folder, its own name
            records.append(_sharing(record, records[-1]) if records else record)
    return LoadedRuns(
        tuple(sorted(records, key=lambda record: (record.started, record.run_id))), tuple(problems), named
    )


def _of_runs(folder: Path) -> list[Path]:
    """Return every run.json one level below a folder, sorted; a tracker's folder holds none that counts."""
    return sorted(path for path in folder.glob(f"*/{RECORD}") if path.parent.name not in TRACKING)


def _sharing(record: RunRecord, other: RunRecord) -> RunRecord:
    """Return a record that shares its equal fields with another one, which saves memory over thousands."""
    alike = ("definitions", "environment", "notes", "digests", "label_names")
    return record.model_copy(
        update={name: getattr(other, name) for name in alike if getattr(record, name) == getattr(other, name)}
    )


class Headline(BaseModel):
    """The few fields of a record that a list of runs shows; reading them alone is several times quicker."""

    model_config = ConfigDict(frozen=True)

    class Spec(BaseModel):
        """The suite's name."""

        suite: str

    class Definition(BaseModel):
        """How a metric is shown."""

        name: str = ""
        title: str = ""
        format: str = ""

    schema_version: Literal[2]
    run_id: str
    spec: Spec
    status: Status
    seconds: float
    headline: str | None
    metrics: dict[str, float | None]
    definitions: list[Definition] = []

    @property
    def shown(self) -> str:
        """The headline metric's title and value; empty if there is none."""
        value = self.metrics.get(self.headline or "")
        defined = next((metric for metric in self.definitions if metric.name == self.headline), self.Definition())
        return "" if value is None else in_words(defined.title, defined.format, value)


def headlines(folder: Path) -> Iterator[Headline]:
    """Yield readable records' headlines by folder's name, one at a time: a list of thousands slows the collector."""
    for path in _of_runs(folder):
        with suppress(OSError, ValueError):
            if is_plain_file(path) and not path.parent.is_symlink() and path.stat().st_size <= MAX_RECORD_BYTES:
                headline = Headline.model_validate_json(path.read_bytes())
                yield headline.model_copy(update={"run_id": path.parent.name})
