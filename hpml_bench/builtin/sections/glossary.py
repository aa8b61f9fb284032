"""Glossary of every metric: unit, direction, definition and how ranks and steps were reduced."""

from __future__ import annotations

from hpml_bench.plugins.blocks import Section
from hpml_bench.report.results import Results
from hpml_bench.report.tables import table

order = 150


def section(results: Results) -> Section | None:
    """Return one row per metric, as its probe declared it."""
    rows = [
        [
            m.title[:1].upper() + m.title[1:],
            m.name,
            m.unit or "1",
            m.better,
            m.phase,
            f"{m.over_ranks} / {m.over_steps}",
            m.definition,
        ]
        for m in results.definitions.values()
    ]
    if not rows:
        return None
    columns = ("Metric", "Name", "Unit", "Better", "Phase", "Over ranks / steps", "Definition")
    return Section(
        slug="glossary",
        title="Glossary",
        blocks=(table("glossary", "Every metric, as its probe defines it", columns, rows),),
    )
