"""Runs of a results folder that wandb has already: publishing again sends only new ones."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from hpml_bench.builtin.trackers.wandb.content import group_of
from hpml_bench.builtin.trackers.wandb.mode import Mode
from hpml_bench.records.files import read_json, write_atomically
from hpml_bench.records.run import RunRecord
from hpml_bench.system.hashing import digest


@dataclass
class PublishedEntry:
    """One wandb run: its id, the state that was published, and where ("" while it isn't whole)."""

    id: str
    state: str
    place: str


class PublishedRuns:
    """The entries of a results folder, by run id or comparison, in its `wandb/published.json`."""

    def __init__(self, directory: Path) -> None:
        """Read the entries; a damaged file counts as none."""
        self._path = directory / "wandb" / "published.json"
        self.entries: dict[str, PublishedEntry] = {}
        with suppress(TypeError):
            self.entries = {name: PublishedEntry(**entry) for name, entry in (read_json(self._path) or {}).items()}

    def has(self, name: str, state: str, place: Mode) -> bool:
        """Return whether this state is at `place`; an online one needs no offline copy."""
        entry = self.entries.get(name)
        return entry is not None and entry.state == state and entry.place in {place, "online"}

    def identity(self, record: RunRecord) -> str:
        """Return wandb's id of an attempt, the same each time, so that a second publishing replaces the first."""
        entry = self.entries.get(record.run_id)
        if entry is not None and entry.state == record.started:
            return entry.id
        return identity(group_of(record.spec), record.run_id, record.started)

    def note(self, entries: dict[str, PublishedEntry]) -> None:
        """Add or replace entries, on disk."""
        self.entries |= entries
        content = {name: vars(entry) for name, entry in self.entries.items()}
        write_atomically(self._path, json.dumps(content, indent=1))


def identity(*what: str) -> str:
    """Return a wandb id; the start time among `what` makes it differ from those of others' runs of the same suite."""
    return digest(what, 16)
