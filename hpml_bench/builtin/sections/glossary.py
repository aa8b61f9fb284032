"""Glossary of every metric: unit, direction, definition and how ranks and steps were reduced."""

from __future__ import annotations

from hpml_bench.plugins.blocks import Section
from hpml_bench.report.results import Results
from hpml_bench.report.tables import capitalized, section_of, table

order = 150
question = "reading"
about = "every metric, as its probe defines it"


def section(results: Results) -> Section | None:
    """Return one row per metric, as its probe declared it."""
    rows = [
        [
            capitalized(m.title),
            m.name,
            m.unit or "1",
            m.better,
            m.phase,
            f"{m.over_ranks} / {m.over_steps}",
            m.definition,
        ]
        for m in results.definitions.values()
    ]
    columns = ("Metric", "Name", "Unit", "Better", "Phase", "Over ranks / steps", "Definition")
    shown = table("glossary", "Every metric, as its probe defines it", columns, rows)
    return section_of("glossary", "Glossary", shown)
