"""Results made for one test, a section of them, and its text."""

from pathlib import Path

from helpers import made_records
from helpers.made_records import SETTINGS, sweep
from hpml_bench.judge.results import Results
from hpml_bench.plugins.blocks import Fold, Section, Table, Text
from hpml_bench.records.run import RunRecord
from hpml_bench.suite import registry

MODULES = {
    "comparisons": ("matrix", "deciding", "comparisons", "each"),
    "speed": ("time-budget", "scaling", "checkpointing"),
    "training": ("time-to-", "curves"),
    "setup": ("methods", "protocol", "jobs", "environment", "runs"),
    "cautions": ("cautions", "failures"),
    "reading": ("definitions", "glossary"),
    "published": ("document",),
    "measurements": (
        "language",
        "forgetting",
        "throughput",
        "memory",
        "inference",
        "merging",
        "parameters",
        "others",
    ),
}
"""Module -> slugs of its sections, or their beginnings; the others have one section, of their
name.
"""


def of(changes: dict[str, dict[str, list[float]]], seeds: int = 5) -> list[RunRecord]:
    """Return a sweep of methods with metrics of their own: method -> metric -> a value a seed."""
    return [
        with_metrics(
            r, **{name: values[r.spec.seed] for name, values in changes[r.spec.method.name].items()}
        )
        for r in sweep(list(changes), seeds)
    ]


def with_metrics(run: RunRecord, **own: float | None) -> RunRecord:
    """Return a run with other values of some metrics."""
    return run.model_copy(update={"metrics": run.metrics | own})


def renamed(run: RunRecord, name: str) -> RunRecord:
    """Return a run under another method's name."""
    method = run.spec.method.model_copy(update={"name": name})
    spec = run.spec.model_copy(update={"method": method})
    return run.model_copy(update={"spec": spec, "run_id": spec.run_id})


def elsewhere(run: RunRecord) -> RunRecord:
    """Return a run as if it came from another machine."""
    return run.model_copy(
        update={"environment": made_records.ENVIRONMENT | {"fingerprint": "another"}}
    )


def without(method: str, *seeds: int) -> list[RunRecord]:
    """Return a sweep in which a method lacks seeds."""
    return [r for r in sweep() if not (r.spec.method.name == method and r.spec.seed in seeds)]


ONE_RANK = SETTINGS.model_copy(update={"world_size": 1})


def load(folder: Path, records: list[RunRecord]) -> Results:
    """Write records and read them as a report does."""
    return Results.load(made_records.write(folder, records))


def sections(module: str, results: Results) -> list[Section]:
    """Return the sections of a registered module."""
    found = registry.get("sections", module)
    made = found.sections(results) if hasattr(found, "sections") else [found.section(results)]
    return [section for section in made if section is not None]


def section(slug: str, results: Results) -> Section | None:
    """Return the section whose slug begins so."""
    module = next(
        (name for name, slugs in MODULES.items() if slug.startswith(slugs)), slug.replace("-", "_")
    )
    return next((made for made in sections(module, results) if made.slug.startswith(slug)), None)


def tables(slug: str, results: Results) -> dict[str, Table]:
    """Return the tables of a section by name, those of its folds too; none where there is no
    such section.
    """
    made = section(slug, results)
    return {block.name: block for block in made.leaves if isinstance(block, Table)} if made else {}


def said(slug: str, results: Results) -> str:
    """Return all text of a section."""
    made = section(slug, results)
    lines: list[str] = []
    for block in made.leaves if made else ():
        if isinstance(block, Text):
            lines += block.sentences
        elif isinstance(block, Table):
            lines += [*block.notes, *(" | ".join(row) for row in block.rows)]
    if made:
        lines += [block.about for block in made.blocks if isinstance(block, Fold)]
    return "\n".join(lines)
