"""Methods, by what differs between them and nothing else does: options and learning rate."""

from __future__ import annotations

from hpml_bench.report.blocks import Section
from hpml_bench.report.results import Results
from hpml_bench.report.tables import Cell, table

order = 110


def section(results: Results) -> Section | None:
    """Return a row a compared method."""
    if not results.compared:
        return None
    rows: list[list[Cell]] = []
    for label in results.methods:
        spec = results.runs(label)[0].spec.method
        options = ", ".join(f"{key} = {_shown(value)}" for key, value in spec.options.items())
        rows.append([label, spec.method, (f"{spec.lr:g}", spec.lr), options or "none"])
    columns = ("method", "Kind", "Learning rate", "Options")
    caption = "What differs between the methods; every other setting is the same"
    return Section(slug="methods", title="Methods", blocks=(table("methods", caption, columns, rows),))


def _shown(value: object) -> str:
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(str, value))}]"
    return "none" if value is None else str(value)
