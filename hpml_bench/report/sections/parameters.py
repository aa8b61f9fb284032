"""What is trained, stored and sent: parameters, saved size, and bytes reduced over ranks per step."""

from __future__ import annotations

from hpml_bench.report.blocks import Section
from hpml_bench.report.results import Results
from hpml_bench.report.tables import by_method

order = 90
METRICS = (
    "trainable_parameters", "head_parameters", "total_parameters", "trainable_percent", "saved_bytes",
    "allreduced_bytes_per_step", "grad_norm", "grad_norm_per_sqrt_parameter",
)  # fmt: skip


def section(results: Results) -> Section | None:
    """Return the table of sizes."""
    notes = [
        "The classification head is trained with every method and counted apart. Gradient norms of methods with "
        "different numbers of parameters do not compare; the one per √parameter does better."
    ]
    table = by_method(results, "parameters", "Parameters and what they weigh", METRICS, notes)
    return Section(slug="parameters", title="Parameters and gradients", blocks=(table,)) if table else None
