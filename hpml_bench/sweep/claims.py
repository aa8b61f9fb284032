"""Claims of jobs on units, by which at most one living job works on a unit.

A claim is a folder, `claims/UNIT`, that holds the record of its owner. A job makes the folder
elsewhere and renames it to that place, which succeeds for one job only. A claim is broken by a
restart of the same job, or where its owner is known to have ended, by its host or the engine; never
for its age.
"""

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from hpml_bench.plugins.engine import Engine
from hpml_bench.records.folder import TAKEN
from hpml_bench.records.jobs import CLAIMS, OWNER, Job, claims, ended_here, holder
from hpml_bench.system.errors import UserError


class Claim:
    """The claim of a job on a unit."""

    def __init__(self, folder: Path, job: Job) -> None:
        self.path = folder / CLAIMS / str(job.unit)
        self.job = job

    @property
    def held(self) -> bool:
        """Whether this start of the job still holds the unit: the job may have been restarted
        elsewhere.
        """
        return holder(self.path) == self.job

    def take(self) -> bool:
        """Take the unit unless a job holds it; return whether it was taken."""
        # whole before it can be seen: nobody ever finds a claim without its owner's record
        prepared = _hidden(self.path)
        prepared.mkdir(parents=True)
        (prepared / OWNER).write_text(self.job.model_dump_json(), encoding="utf-8")
        try:
            # os.rename, since shutil.move would put it inside a claim that lies there
            os.rename(prepared, self.path)  # noqa: PTH104
        except OSError as error:
            shutil.rmtree(prepared, ignore_errors=True)
            if error.errno not in TAKEN:
                raise
            return False
        return True

    def release(self) -> None:
        """Give the unit up if this start of the job still holds it."""
        with suppress(UserError):  # a claim that can't be read may be another's: it stays
            if self.held:
                discard(self.path, self.job)


def discard(path: Path, owner: Job | None) -> None:
    """Remove a claim that was seen with this owner; None if its owner's record was cut.

    If another job has taken the unit since, its claim is put back.
    """
    # The claim is moved away before its owner is compared, so that nobody can replace it between
    # the comparison and its removal. Whoever dies between the two renames leaves the unit free: a
    # job whose claim went so sees at its next look that it no longer holds the unit, and ends.
    away = _hidden(path)
    try:
        os.rename(path, away)  # noqa: PTH104 - of two processes that remove it, one fails here
    except FileNotFoundError:
        return
    current = holder(away)
    belongs_to_another = current is not None and (owner is None or current != owner)
    if belongs_to_another:
        try:
            os.rename(away, path)  # noqa: PTH104 - fails where a claim lies there
        except OSError:
            pass  # a third job has taken the unit meanwhile: the second sees that its claim is gone
        else:
            return
    shutil.rmtree(away, ignore_errors=True)


@contextmanager
def claimed(folder: Path, job: Job, engine: Engine) -> Iterator[Claim]:
    """Hold a unit while the body runs.

    Raises UserError if another job holds it and is not known to have ended.
    """
    claim = Claim(folder, job)
    while not claim.take():
        owner = holder(claim.path)
        if owner is not None and not _may_be_broken(owner, job, engine):
            raise UserError(
                f"unit {job.unit} is held by job {owner.job} on {owner.host}; wait for it, or end "
                f"it and remove {claim.path}"
            )
        # without an owner the claim is gone already, or a crash cut its record
        discard(claim.path, owner)
    try:
        yield claim
    finally:
        claim.release()


def _may_be_broken(owner: Job, job: Job, engine: Engine) -> bool:
    """Return whether `job` may take a unit from this owner."""
    earlier_start = owner.job == job.job and owner.restart < job.restart
    return earlier_start or ended_here(owner) or engine.dead(owner)


def holders(folder: Path, engine: Engine, release: bool = False) -> tuple[Job, ...]:
    """Return the jobs that hold units and aren't known to have ended.

    With `release` the claims of the others are removed.
    """
    owners = claims(folder)
    ended = engine.dead_among(owners)
    ended = ended | {owner.name for owner in owners if ended_here(owner)}
    for owner in owners:
        if release and owner.name in ended:
            discard(folder / CLAIMS / str(owner.unit), owner)
    return tuple(owner for owner in owners if owner.name not in ended)


def _hidden(path: Path) -> Path:
    """Return a new name beside a claim, which no reader of claims takes for one."""
    return path.with_name(f".{path.name}.{secrets.token_hex(6)}")
