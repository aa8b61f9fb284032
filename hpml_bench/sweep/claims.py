"""Claims: at most one living job works on a unit.

A claim is a folder with its owner's record in it, moved to its place by a rename, which succeeds for one job only. It
is broken by a restart of the same job, or where the engine knows that its owner has ended; never for its age.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from hpml_bench.plugins.engine import Engine
from hpml_bench.records.files import read_model
from hpml_bench.records.folder import TAKEN
from hpml_bench.records.jobs import CLAIMS, OWNER, Job, claims
from hpml_bench.system.errors import UserError


class Claim:
    """The claim of a job on a unit."""

    def __init__(self, folder: Path, job: Job) -> None:
        self.path, self.job = folder / CLAIMS / str(job.unit), job

    def owner(self) -> Job | None:
        """Return the job that holds the unit; None if none does, or its record is unreadable."""
        return read_model(self.path / OWNER, Job)

    @property
    def held(self) -> bool:
        """Whether this start of the job still holds the unit: the job may have been restarted elsewhere."""
        owner = self.owner()
        return owner is not None and owner.name == self.job.name

    def take(self) -> bool:
        """Take the unit unless a job holds it; return whether it was taken."""
        own = self.path.with_name(f".{self.path.name}.{secrets.token_hex(6)}")
        own.mkdir(parents=True)
        (own / OWNER).write_text(self.job.model_dump_json(), encoding="utf-8")
        try:
            os.rename(own, self.path)  # noqa: PTH104 - fails where a claim lies there
        except OSError as error:
            shutil.rmtree(own, ignore_errors=True)
            if error.errno not in TAKEN:
                raise
            return False
        return True

    def release(self) -> None:
        """Release the unit if it is still held."""
        if self.held:
            discard(self.path, self.job)


def discard(path: Path, owner: Job | None) -> None:
    """Remove a claim that was seen with this owner; None if its owner's record was unreadable.

    Another job may have removed it and taken the unit since: then that job's claim is put back.
    """
    away = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    try:
        os.rename(path, away)  # noqa: PTH104 - of two that remove it, one fails here
    except FileNotFoundError:
        return
    current = read_model(away / OWNER, Job)
    if current is not None and (owner is None or current.name != owner.name):
        with suppress(OSError):  # a third has taken the unit meanwhile: the second sees that its claim is gone
            os.rename(away, path)  # noqa: PTH104 - fails where a claim lies there
            return
    shutil.rmtree(away, ignore_errors=True)


@contextmanager
def claimed(folder: Path, job: Job, engine: Engine) -> Iterator[Claim]:
    """Hold a unit while the body runs; raises UserError if another job holds it and is not known to have ended."""
    claim = Claim(folder, job)
    while not claim.take():
        owner = claim.owner()
        if owner is not None and owner.job != job.job and not engine.dead(owner):
            raise UserError(
                f"unit {job.unit} is held by job {owner.job} on {owner.host}; wait for it, or end it and remove "
                f"{claim.path}"
            )
        discard(claim.path, owner)
    try:
        yield claim
    finally:
        claim.release()


def release_dead(folder: Path, engine: Engine) -> tuple[Job, ...]:
    """Remove the claims of jobs that have ended, and return the owners of the other claims."""
    owners = claims(folder)
    dead = engine.dead_among(owners)
    for owner in owners:
        if owner.name in dead:
            discard(folder / CLAIMS / str(owner.unit), owner)
    return tuple(owner for owner in owners if owner.name not in dead)
