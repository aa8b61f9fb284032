"""How fast training ran: samples, real and padded tokens a second, and the spread of step times."""

from __future__ import annotations

from hpml_bench.records import Section
from hpml_bench.report.results import Results
from hpml_bench.report.tables import by_method

order = 60
METRICS = (
    "samples_per_second", "tokens_per_second", "padded_tokens_per_second", "virtual_tokens",
    "step_ms_p50", "step_ms_p90", "step_ms_p99", "setup_seconds", "train_seconds", "total_seconds", "energy_joules",
)  # fmt: skip


def section(results: Results) -> Section | None:
    """Return the throughput table and chart."""
    from hpml_bench.report.figures import strip

    notes = [
        "Throughput counts what all ranks consumed in the timed window, divided by the slowest rank's time; warm-up "
        "steps, "
        "evaluation, logging and saving lie outside it. Virtual tokens a method adds are not counted as tokens."
    ]
    table = by_method(results, "throughput", "Training speed, mean ± standard deviation over seeds", METRICS, notes)
    if table is None:
        return None
    figure = strip(results, "samples_per_second") if results.measured("samples_per_second") else None
    return Section(slug="throughput", title="Throughput", blocks=(table, *((figure,) if figure else ())))
