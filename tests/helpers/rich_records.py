"""Records that have as much of a report as made ones can: jobs, failures, more ranks, checkpointing, other settings."""

from __future__ import annotations

from pathlib import Path

from helpers import made_records
from helpers.made_records import SETTINGS, by_jobs, failed, record, sweep


def write(folder: Path) -> Path:
    """Write the records and their jobs, and return the folder."""
    methods = ("lora", "full", "head")
    ranks, again = (SETTINGS.model_copy(update=of) for of in ({"world_size": 1}, {"gradient_checkpointing": True}))
    usual = by_jobs(sweep(methods, 3))
    others = [*sweep(("lora",), 3, settings=ranks), *sweep(("lora",), 3, settings=again)]
    where = {run.spec.seed: run.environment for run in usual}
    others = [run.model_copy(update={"environment": where[run.spec.seed]}) for run in others]
    broken = [failed("full", 7, "failed", "an error"), record("head", 8, consumed=None)]
    place = made_records.write(folder, [*usual, *others, *broken])
    made_records.write_jobs(place, usual)
    return place
