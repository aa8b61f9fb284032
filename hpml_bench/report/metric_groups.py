"""Groups of metrics as sections: a table of each group's measured metrics, with bar charts.

A metric's `group` decides which table shows it. The harness's metrics have an order of their own; a plug-in's metric
joins the table of its group, with a bar chart, and a group without a section gets a table in the section `others`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from hpml_bench.plugins.blocks import Figure, Section, Table
from hpml_bench.report.results import Results
from hpml_bench.report.tables import Quantity, by_method

OVER_SEEDS = "mean ± standard deviation over seeds"
ELSEWHERE = frozenset({
    "first_step_seconds",  # the time budget
    "train_seconds_second_clock",  # a self-check
    "frozen_bf16_percent",  # a note on the throughput
    "communication_ms", "communication_percent",  # scaling
    "nvml_used_setup_mb", "nvml_used_train_mb", "nvml_used_evaluation_mb",  # the glossary: of the whole device
})  # fmt: skip
"""The harness's metrics that other tables show, or that serve as a check: no columns of their groups' tables."""


@dataclass(frozen=True)
class GroupSection:
    """A section that shows one group of metrics, or several."""

    slug: str
    """Anchor of the section, and name of its table."""
    title: str
    caption: str
    groups: tuple[str, ...]
    metrics: tuple[str, ...] = ()
    """Columns of the harness's own metrics in their order, also of other groups; other metrics of `groups` follow."""
    notes: Callable[[Results], list[str]] = lambda _: []
    chart: Callable[[Results], Figure | None] = lambda _: None

    def __call__(self, results: Results) -> Section | None:
        """Return the section; None if no metric of the groups was measured."""
        added = self.added(results)
        own = results.measured(*(m.name for m in results.definitions.values() if m.group in self.groups))
        shown = (*self.metrics, *added) if own else ()  # columns of other groups alone make no table
        table = by_method(results, self.slug, self.caption, shown, self.notes(results))
        if table is None:
            return None
        blocks: tuple[Table | Figure | None, ...] = (table, self.chart(results), *bar_charts(results, self.slug, added))
        return Section(slug=self.slug, title=self.title, blocks=tuple(b for b in blocks if b is not None))

    def added(self, results: Results) -> tuple[str, ...]:
        """Return the measured metrics of the groups beyond the section's own: those of plug-ins."""
        return added_to(results, self.groups)


HARNESS = {
    "throughput": (
        "samples_per_second", "tokens_per_second", "padded_tokens_per_second", "virtual_tokens",
        "step_ms_p50", "step_ms_p90", "step_ms_p99", "setup_seconds", "train_seconds", "total_seconds", "energy_joules",
    ),
    "steady_state": (
        "timed_steps", "timed_seconds", "step_time_cv", "step_time_drift", "step_time_drift_low",
        "step_time_drift_high", "step_time_outliers", "slowest_rank_share",
    ),
    "memory": (
        "peak_memory_over_setup_mb", "peak_memory_mb", "host_before_training_mb",
        *(f"{kind}_{phase}_mb" for kind in ("cuda_allocated", "cuda_reserved", "host")
          for phase in ("setup", "train", "evaluation")),
    ),
    "inference": (
        "inference_seconds", "inference_samples_per_second", "latency_ms_p50", "latency_ms_p99",
        "merged_latency_ms_p50", "merged_latency_ms_p99", "evaluation_seconds", "first_token_ms_p50",
        "generated_tokens_per_second",
    ),
    "language": (
        "test_perplexity", "test_bits_per_byte", "test_token_accuracy", "test_cut_answers", "test_near_ties",
        "answers_read_anew",
    ),
    "forgetting": ("forgetting", "forgetting_error", "retention_loss", "base_retention_loss", "retention_texts"),
    "merging": (
        "test_loss", "merged_test_loss", "test_score", "merged_test_score", "merged_answers_changed",
        "merged_logit_difference", "dequantized_test_loss", "dequantized_test_score", "dequantized_answers_changed",
        "dequantized_bytes",
    ),
    "parameters": (
        "trainable_parameters", "head_parameters", "total_parameters", "trainable_percent", "frozen_bytes",
        "saved_bytes", "allreduced_bytes_per_step", "within_nodes_bytes_per_step", "between_nodes_bytes_per_step",
        "grad_norm", "grad_norm_per_sqrt_parameter", "skipped_steps",
    ),
}  # fmt: skip
"""Table -> columns of the harness's own metrics, in their order."""
SHOWN = {
    "throughput": ("throughput", "time", "energy"),
    "memory": ("memory",),
    "inference": ("inference",),
    "parameters": ("parameters", "communication", "gradient"),
    "language": ("language",),
    "forgetting": ("forgetting",),
    "merging": ("merging",),
}
"""Table -> groups that it shows. Those of `quality` are columns of the summary."""
_OWN = ELSEWHERE.union(*HARNESS.values())


def added_to(results: Results, groups: tuple[str, ...]) -> tuple[str, ...]:
    """Return the measured metrics of groups that are not the harness's own, in the order of definition."""
    return results.measured(*(m.name for m in results.definitions.values() if m.group in groups and m.name not in _OWN))


def other_groups(results: Results) -> tuple[str, ...]:
    """Return the groups that no section shows, in the order of definition."""
    known = {"quality"}.union(*SHOWN.values())
    return tuple(dict.fromkeys(m.group for m in results.definitions.values() if m.group not in known))


def bar_charts(results: Results, name: str, metrics: tuple[str, ...]) -> tuple[Figure, ...]:
    """Return a bar chart for the metrics of each unit."""
    from hpml_bench.report.figures import bars

    by_unit: dict[tuple[str, float], list[Quantity]] = {}
    for metric in metrics:
        quantity = Quantity.of(results, metric)
        by_unit.setdefault((quantity.unit, quantity.scale), []).append(quantity)
    figures = []
    for (unit, scale), quantities in by_unit.items():
        labels: Mapping[str, str] = {q.metric.name: q.title if len(quantities) > 1 else "" for q in quantities}
        title = quantities[0].heading if len(quantities) == 1 else name.replace("_", " ").capitalize()
        header = f"{title} ({unit})" if unit else title
        figures.append(
            bars(results, labels, f"bars_{quantities[0].metric.name}", f"{title}: mean over seeds", header, scale)
        )
    return tuple(figure for figure in figures if figure is not None)
