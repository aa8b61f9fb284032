"""Records of schema 1, read as schema 2.

In schema 1, `task` named a data set and pooling was a setting (suite.settings.modernised reads both), a metric did not
name its table and whether it depends on the machine, and every run classified texts.
"""

from __future__ import annotations

from typing import Any

ESTIMATED = frozenset({"validation", "test", "inference"})
"""Phases whose metrics are noisy even if a few seeds happen to agree."""
MACHINE_FREE = frozenset({"", "nats", "%", "bytes", "tokens/sample"})
"""Units of values that are the same on every machine; times, rates, memory in MB and energy have others."""
COUNTED_SHARES = frozenset({"setup", "validation", "test"})
"""Phases whose shares are of rows or parameters; those of others are of time or memory."""
COUNTS = frozenset({"", "%", "bytes"})
"""Units of values that may be exact counts."""


def upgraded(content: dict[str, Any]) -> dict[str, Any]:
    """Return a record of schema 1 with the fields that schema 2 added; the reader computes ids anew."""
    definitions = content.get("definitions")
    named = [_metric(metric) for metric in definitions] if isinstance(definitions, list) else definitions
    return content | {"definitions": named, "headline": "test_accuracy"}


def _metric(metric: Any) -> Any:
    if not isinstance(metric, dict):
        return metric
    name, unit, phase = (str(metric.get(key, "")) for key in ("name", "unit", "phase"))
    share = unit == "%" or str(metric.get("format", "")).endswith("%")
    machine_free = unit in MACHINE_FREE and (not share or phase in COUNTED_SHARES)
    return metric | {
        "group": group_of(name),
        "depends_on_machine": not machine_free,
        "noisy": phase in ESTIMATED or unit not in COUNTS,
        "bounds": [0.0, 1.0] if name == "test_accuracy" else [None, None],
    }


def group_of(name: str) -> str:
    """Return the table that shows a metric of schema 1, by its name; `other` for a plug-in's."""
    endings = (
        ("quality", ("_loss", "_accuracy", "_macro_f1")),
        ("inference", ("latency_ms_p50", "latency_ms_p99", "inference_seconds", "inference_samples_per_second")),
        ("time", ("first_step_seconds", "setup_seconds", "train_seconds", "second_clock", "evaluation_seconds",
                  "total_seconds")),
        ("throughput", ("_per_second", "virtual_tokens", "step_ms_p50", "step_ms_p90", "step_ms_p99", "timed_steps",
                        "timed_seconds", "step_time_cv", "step_time_drift", "step_time_drift_low",
                        "step_time_drift_high", "step_time_outliers", "slowest_rank_share")),
        ("memory", ("memory_mb", "over_setup_mb", "host_before_training_mb", "_setup_mb", "_train_mb",
                    "_evaluation_mb")),
        ("parameters", ("_parameters", "_percent", "saved_bytes")),
        ("communication", ("allreduced_bytes_per_step", "communication_ms", "communication_percent")),
        ("energy", ("energy_joules",)),
        ("gradient", ("grad_norm", "grad_norm_per_sqrt_parameter")),
    )  # fmt: skip
    if name.startswith("communication"):
        return "communication"
    return next((group for group, ends in endings if name.endswith(ends)), "other")
