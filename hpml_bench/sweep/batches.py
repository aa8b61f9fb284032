"""Batches of a sweep's jobs, and their submission one after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from hpml_bench.errors import UserError
from hpml_bench.plugins.engine import Engine, JobBatch
from hpml_bench.records.files import PLAN
from hpml_bench.records.jobs import JobPlan


def unit_batches(plan: JobPlan, folder: Path, engine: Engine, units: Sequence[int]) -> tuple[JobBatch, ...]:
    """Return the jobs of units in batches, in the order of submission."""
    arguments = ("work", str(folder / PLAN), "--unit", "{unit}")
    return tuple(engine.parts(JobBatch(plan, folder, tuple(units), arguments)))


def preparation_batch(plan: JobPlan, folder: Path) -> JobBatch:
    """Return the job that prepares model and data."""
    return JobBatch(plan, folder, (), ("work", str(folder / PLAN), "--prepare"), kind="prepare")


def report_batch(plan: JobPlan, folder: Path, ended: tuple[str, ...]) -> JobBatch:
    """Return the job that writes the report when others have ended."""
    return JobBatch(plan, folder, (), ("report", str(folder)), kind="report", ended=ended)


def give(
    batches: Sequence[JobBatch], take: Callable[[JobBatch], str], say: Callable[[str], None], prepared: str | None
) -> tuple[int, ...]:
    """Pass batches to `take`, each after the one before; return the units of those accepted, perhaps not all.

    A preparation comes first; `prepared` is the name of an earlier one's job. `take` returns a batch's name. Where it
    refuses the preparation or the first units, its UserError is raised; later, `say` gets a sentence.
    """
    taken, ended = tuple[int, ...](), tuple[str, ...]()
    for batch in batches:
        try:
            name = take(replace(batch, prepared=prepared, ended=ended))
        except UserError as error:
            if not taken:
                raise
            left = sum(len(other.units) for other in batches) - len(taken)
            say(f"{error}; the other {left} jobs are submitted when those before have ended")
            break
        if batch.kind == "prepare":
            prepared = name
            continue
        taken, ended = taken + batch.units, (name,)
    return taken
