"""Differences between a tuning and the runs that took its rates: settings, and what both started from."""

from __future__ import annotations

from hpml_bench.records.tuning import TuningRecord
from hpml_bench.report.comparability import settings_of
from hpml_bench.report.results import Results

TRAINS_NOTHING = frozenset(
    {"test_samples", "eval_batch", "eval_every", "log_every", "warmup_steps", "latency_samples", "device", "world_size",
     "threads"}
)  # fmt: skip
"""Settings that may differ between tuning and comparison without a note."""


def other_settings(results: Results, record: TuningRecord) -> list[str]:
    """Return the settings that bear on training and differ between tuning and comparison, defaults resolved."""
    here, there = settings_of(record.settings), settings_of(results.reference.spec.settings)
    return [key for key in here if here[key] != there[key] and key not in TRAINS_NOTHING]


def other_starts(results: Results, record: TuningRecord) -> list[str]:
    """Return the parts, of weights, tokenizer and data, that differ from the compared runs'; unrecorded ones do."""
    compared = results.reference.digests
    if compared is None:
        return []
    return [part for part in ("weights", "tokenizer", "data") if record.digests.get(part) != getattr(compared, part)]
