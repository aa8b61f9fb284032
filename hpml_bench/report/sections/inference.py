"""What using the tuned model costs: the evaluation pass, and latency of one example with and without merging."""

from __future__ import annotations

from hpml_bench.report.blocks import Section
from hpml_bench.report.results import Results
from hpml_bench.report.tables import by_method

order = 80
FEW = 200
"""Examples under which a 99th percentile lies among the two slowest."""
METRICS = (
    "inference_seconds", "inference_samples_per_second", "latency_ms_p50", "latency_ms_p99", "merged_latency_ms_p50",
    "merged_latency_ms_p99", "evaluation_seconds",
)  # fmt: skip


def section(results: Results) -> Section | None:
    """Return the inference table and a chart of the latencies."""
    from hpml_bench.report.figures import bars

    notes = ["Merged: after the method's weights were folded into the backbone, where the method can do that."]
    samples = results.reference.spec.settings.latency_samples
    if samples and samples < FEW and results.measured("latency_ms_p99"):
        notes.append(f"p99 of {samples} examples is nearly the slowest of them.")
    table = by_method(results, "inference", "Inference, mean ± standard deviation over seeds", METRICS, notes)
    if table is None:
        return None
    groups = {"latency_ms_p50": "median", "latency_ms_p99": "p99", "merged_latency_ms_p50": "median, merged"}
    caption = "Latency of one example: mean over seeds of each run's percentile"
    figure = bars(results, groups, "latency", caption, "Latency of one example (ms)")
    return Section(slug="inference", title="Inference", blocks=(table, *((figure,) if figure else ())))
