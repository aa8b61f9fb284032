"""Inference: the evaluation pass, and latency of one example with and without merging."""

from __future__ import annotations

from hpml_bench.report.metric_groups import Bars, GroupSection
from hpml_bench.report.results import Results

order = 80
question = "cost"
about = "test pass, and latency of one example"
FEW = 200
"""Examples under which a 99th percentile lies among the two slowest."""


def _notes(results: Results) -> list[str]:
    notes = ["Merged: after the method's weights were folded into the backbone, where the method can do that."]
    samples = results.reference.spec.settings.latency_samples
    if samples and samples < FEW and results.measured("latency_ms_p99"):
        notes.append(f"p99 of {samples} examples is nearly the slowest of them.")
    return notes


LATENCIES = {"latency_ms_p50": "median", "latency_ms_p99": "p99", "merged_latency_ms_p50": "median, merged"}
CAPTION = "Latency of one example: mean over seeds of each run's percentile"
CHART: Bars = (LATENCIES, "latency", CAPTION, "Latency of one example (ms)")
section = GroupSection("inference", "Inference", notes=_notes, chart=lambda _: CHART)
