"""Groups of metrics as sections: a table of each group's measured metrics, with bar charts.

A metric's `group` decides which table shows it. The harness's metrics have an order of their own; a plug-in's metric
joins the table of its group, with a bar chart, and a group without a section gets a table in the section `others`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from hpml_bench.plugins.blocks import Section
from hpml_bench.plugins.picture import Picture
from hpml_bench.report.results import Results
from hpml_bench.report.tables import Quantity, by_method, section_of

OVER_SEEDS = "mean ± standard deviation over seeds"
ELSEWHERE = frozenset({
    "first_step_seconds",  # the time budget
    "train_seconds_second_clock",  # a self-check
    "frozen_bf16_percent",  # a note on the throughput
    "communication_ms", "communication_percent",  # scaling
    "nvml_used_setup_mb", "nvml_used_train_mb", "nvml_used_evaluation_mb",  # the glossary: of the whole device
})  # fmt: skip
"""The harness's metrics that other tables show, or that serve as a check: no columns of their groups' tables."""


class Columns(NamedTuple):
    """What a table of metrics shows."""

    groups: tuple[str, ...]
    metrics: tuple[str, ...]
    """The harness's own metrics in their order, also of other groups; other metrics of `groups` follow."""


TABLES = {
    "throughput": Columns(("throughput", "time", "energy"), (
        "samples_per_second", "tokens_per_second", "padded_tokens_per_second", "virtual_tokens",
        "step_ms_p50", "step_ms_p90", "step_ms_p99", "setup_seconds", "train_seconds", "total_seconds", "energy_joules",
    )),
    "steady_state": Columns((), (
        "timed_steps", "timed_seconds", "step_time_cv", "step_time_drift", "step_time_drift_low",
        "step_time_drift_high", "step_time_outliers", "slowest_rank_share",
    )),
    "memory": Columns(("memory",), (
        "peak_memory_over_setup_mb", "peak_memory_mb", "host_before_training_mb",
        *(f"{kind}_{phase}_mb" for kind in ("cuda_allocated", "cuda_reserved", "host")
          for phase in ("setup", "train", "evaluation")),
    )),
    "inference": Columns(("inference",), (
        "inference_seconds", "inference_samples_per_second", "latency_ms_p50", "latency_ms_p99",
        "merged_latency_ms_p50", "merged_latency_ms_p99", "evaluation_seconds", "first_token_ms_p50",
        "generated_tokens_per_second",
    )),
    "language": Columns(("language",), (
        "test_perplexity", "test_bits_per_byte", "test_token_accuracy", "test_cut_answers", "test_near_ties",
        "answers_read_anew",
    )),
    "forgetting": Columns(("forgetting",), (
        "forgetting", "forgetting_error", "retention_loss", "base_retention_loss", "retention_texts",
    )),
    "merging": Columns(("merging",), (
        "test_loss", "merged_test_loss", "test_score", "merged_test_score", "merged_answers_changed",
        "merged_logit_difference", "dequantized_test_loss", "dequantized_test_score", "dequantized_answers_changed",
        "dequantized_bytes",
    )),
    "parameters": Columns(("parameters", "communication", "gradient"), (
        "trainable_parameters", "head_parameters", "total_parameters", "trainable_percent", "frozen_bytes",
        "saved_bytes", "allreduced_bytes_per_step", "within_nodes_bytes_per_step", "between_nodes_bytes_per_step",
        "grad_norm", "grad_norm_per_sqrt_parameter", "skipped_steps",
    )),
}  # fmt: skip
"""Columns of each table; the metrics of `quality` are columns of the summary."""
_OWN = ELSEWHERE.union(*(table.metrics for table in TABLES.values()))
Bars = tuple[Mapping[str, str], str, str, str]
"""Labels of metrics, and name, caption and header of their bar chart."""


@dataclass(frozen=True)
class GroupSection:
    """A section that shows the metrics of one of `TABLES`."""

    slug: str
    """Anchor of the section, and name of its table."""
    title: str
    caption: str = ""
    """The title where there is none."""
    notes: Callable[[Results], list[str]] = lambda _: []
    chart: Callable[[Results], Bars | None] = lambda _: None

    def __call__(self, results: Results) -> Section | None:
        """Return the section; None if no metric of the groups was measured."""
        from hpml_bench.report.pictures.charts import bars

        groups, metrics = TABLES[self.slug]
        added, caption = added_to(results, groups), self.caption or f"{self.title}, {OVER_SEEDS}"
        shown = (*metrics, *added) if _of(results, groups) else ()  # columns of other groups alone make no table
        table = by_method(results, self.slug, caption, shown, self.notes(results))
        if table is None:
            return None
        chart = self.chart(results)
        own = bars(results, *chart) if chart else None
        return section_of(self.slug, self.title, table, own, *bar_charts(results, self.slug, added))


def _of(results: Results, groups: tuple[str, ...]) -> tuple[str, ...]:
    return results.measured(*(m.name for m in results.definitions.values() if m.group in groups))


def added_to(results: Results, groups: tuple[str, ...]) -> tuple[str, ...]:
    """Return the measured metrics of groups that are not the harness's own, in the order of definition."""
    return tuple(name for name in _of(results, groups) if name not in _OWN)


def other_groups(results: Results) -> tuple[str, ...]:
    """Return the groups that no section shows, in the order of definition."""
    known = {"quality"}.union(*(table.groups for table in TABLES.values()))
    return tuple(dict.fromkeys(m.group for m in results.definitions.values() if m.group not in known))


def bar_charts(results: Results, name: str, metrics: tuple[str, ...]) -> tuple[Picture, ...]:
    """Return a bar chart for the metrics of each unit."""
    from hpml_bench.report.pictures.charts import bars

    by_unit: dict[tuple[str, float], list[Quantity]] = {}
    for metric in metrics:
        quantity = Quantity.of(results, metric)
        by_unit.setdefault((quantity.unit, quantity.scale), []).append(quantity)
    figures = []
    for (unit, scale), quantities in by_unit.items():
        labels = {q.metric.name: q.title if len(quantities) > 1 else "" for q in quantities}
        title = quantities[0].heading if len(quantities) == 1 else name.replace("_", " ").capitalize()
        header = f"{title} ({unit})" if unit else title
        chart = f"bars_{quantities[0].metric.name}"
        figures.append(bars(results, labels, chart, f"{title}: mean over seeds", header, scale))
    return tuple(figure for figure in figures if figure is not None)
