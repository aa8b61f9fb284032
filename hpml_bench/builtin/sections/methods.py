"""Methods, with all that differs between them: options, learning rate, optimizers of their own."""

from __future__ import annotations

from hpml_bench.plugins.blocks import Section
from hpml_bench.report.results import Results
from hpml_bench.report.tables import Cell, option_list, section_of, table

order = 110
question = "setup"
about = "options and learning rates"
folded = False


def section(results: Results) -> Section | None:
    """Return one row per compared method; with its optimizer, where any has one of its own."""
    runs = [(label, results.runs(label)[0].spec) for label in results.methods]
    own = any(spec.method.optimizer is not None for _, spec in runs)
    rows: list[list[Cell]] = []
    for label, spec in runs:
        method, optimizer = spec.method, spec.method.optimizer or spec.settings.optimizer
        used = ", ".join(part for part in (optimizer.name, option_list(optimizer.options)) if part)
        rate: Cell = (f"{method.lr:g}", method.lr)
        rows.append([label, method.method, rate, *([used] if own else []), option_list(method.options) or "none"])
    columns = ("method", "Kind", "Learning rate", *(("Optimizer",) if own else ()), "Options")
    caption = "What differs between the methods; every other setting is the same"
    return section_of("methods", "Methods", table("methods", caption, columns, rows))
