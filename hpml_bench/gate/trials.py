"""Trials of the gate on disk: a folder with a file for each, and a line for each that was started."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import Timeout
from pydantic import ValidationError

from hpml_bench.gate.records import CheckTrial, TrialStarted
from hpml_bench.records.files import write_atomically
from hpml_bench.system import disk
from hpml_bench.system.errors import UserError


class TrialFolder:
    """A folder of trials, locked by `held` while they are made."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._started = path / "begun.jsonl"

    @contextmanager
    def held(self) -> Iterator[None]:
        """Lock the folder, and make it where it doesn't exist; a `UserError` where another self-test has locked it."""
        lock = disk.file_lock(self.path / ".lock", timeout=0)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            disk.acquire_lock(lock, "name another with --out")
        except Timeout:  # which is an OSError too
            reason = "another self-test writes there; wait for it, or name another with --out"
            raise UserError(f"{self.path}: {reason}") from None
        except OSError as error:
            raise UserError(f"{self.path}: can't be made ({error.strerror}); name another with --out") from None
        try:
            yield
        finally:
            lock.release()

    def trials(self) -> list[tuple[Path, CheckTrial]]:
        """Return the trials in order, each with its file; a `UserError` where one can't be read."""
        trials = []
        for path in sorted(self.path.glob("trial-*.json")):
            try:
                trials.append((path, CheckTrial.model_validate_json(path.read_text(encoding="utf-8"))))
            except (OSError, ValidationError):
                raise UserError(f"{path}: is no trial that can be read; remove it, or name another --out") from None
        return trials

    def started(self) -> list[TrialStarted]:
        """Return the trials that were started, in order; a `UserError` where their file can't be read."""
        try:
            lines = self._started.read_text(encoding="utf-8").splitlines() if self._started.exists() else []
            return [TrialStarted.model_validate_json(line) for line in lines]
        except (OSError, ValidationError):
            raise UserError(
                f"{self._started}: can't be read as the trials that were started; name another --out"
            ) from None

    def session(self, done: Iterable[CheckTrial]) -> str:
        """Return the name of the one session whose trials these are; a new one in a new folder."""
        names = {line.session for line in self.started()} | {trial.session for trial in done}
        if len(names) > 1:
            named = ", ".join(sorted(names))
            raise UserError(f"{self.path}: holds trials of several sessions ({named}); name another --out")
        return names.pop() if names else secrets.token_hex(4)

    def start(self, trial: TrialStarted) -> None:
        """Note that a trial is about to be made."""
        known = "".join(f"{line.model_dump_json()}\n" for line in [*self.started(), trial])
        write_atomically(self._started, known)

    def keep(self, trial: CheckTrial) -> None:
        """Write a trial."""
        write_atomically(self.path / f"trial-{trial.number:04d}.json", trial.model_dump_json(indent=1))


def conditions(described: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return the parts of a report's environment that must be equal in trials whose rates are pooled."""
    return tuple(described.get(key) for key in ("fingerprint", "python", "packages", "gate", "settings"))
