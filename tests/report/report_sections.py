"""Results made for one test, a section of them, and what it says."""

from __future__ import annotations

from pathlib import Path

from helpers import made_records
from helpers.made_records import SETTINGS, sweep
from hpml_bench.plugins.blocks import Section, Table, Text
from hpml_bench.records.run import RunRecord
from hpml_bench.report.results import Results
from hpml_bench.suite import registry


def of(changes: dict[str, dict[str, list[float]]], seeds: int = 5) -> list[RunRecord]:
    """Return a sweep of methods with metrics of their own: method -> metric -> a value a seed."""
    return [
        with_metrics(r, **{name: values[r.spec.seed] for name, values in changes[r.spec.method.name].items()})
        for r in sweep(list(changes), seeds)
    ]


def with_metrics(run: RunRecord, **own: float | None) -> RunRecord:
    """Return a run with other values of some metrics."""
    return run.model_copy(update={"metrics": run.metrics | own})


def elsewhere(run: RunRecord) -> RunRecord:
    """Return a run as if it came from another machine."""
    return run.model_copy(update={"environment": made_records.ENVIRONMENT | {"fingerprint": "another"}})


def without(method: str, *seeds: int) -> list[RunRecord]:
    """Return a sweep in which a method lacks seeds."""
    return [r for r in sweep() if not (r.spec.method.name == method and r.spec.seed in seeds)]


ONE_RANK = SETTINGS.model_copy(update={"world_size": 1})


def load(folder: Path, records: list[RunRecord]) -> Results:
    """Write records and read them as a report does."""
    return Results.load(made_records.write(folder, records))


def section(name: str, results: Results) -> Section | None:
    """Return one registered section of the results."""
    made: Section | None = registry.get("sections", name).section(results)
    return made


def said(name: str, results: Results) -> str:
    """Return all text of a section."""
    made = section(name, results)
    lines: list[str] = []
    for block in made.leaves if made else ():
        if isinstance(block, Text):
            lines += block.sentences
        elif isinstance(block, Table):
            lines += [*block.notes, *(" | ".join(row) for row in block.rows)]
    return "\n".join(lines)
