"""The sections on where time goes and on what more ranks bring."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_sections import load, section, tables, with_metrics

from helpers import made_records
from hpml_bench.records.run import Check, RunRecord

PARTS = {"first_step_seconds": 1.0, "train_seconds": 5.0, "evaluation_seconds": 2.0, "inference_seconds": 1.0}


def runs(ranks: int = 2, **metrics: float | None) -> list[RunRecord]:
    """Return two methods x two seeds of ten seconds each, on some ranks, with some metrics."""
    settings = made_records.SETTINGS.model_copy(update={"world_size": ranks})
    found = made_records.sweep(("lora", "full"), 2, settings=settings)
    return [run.model_copy(update={"seconds": 10.0, "metrics": {**run.metrics, **metrics}}) for run in found]


def both(**changes: Any) -> list[RunRecord]:
    """Return runs on one rank at 100 samples/s and on two at 150."""
    one, two = runs(1, samples_per_second=100.0), runs(2, samples_per_second=150.0)
    return [run.model_copy(update=changes) for run in one] + two


def over(fingerprint: str = made_records.ENVIRONMENT["fingerprint"]) -> list[RunRecord]:  # type: ignore[assignment]
    """Return the runs of `both`, those on two ranks over two nodes; with the fingerprint of one of the nodes."""
    crossing = {"within_nodes_bytes_per_step": 0.0, "between_nodes_bytes_per_step": 8000.0}
    hardware = {**made_records.ENVIRONMENT["hardware"], "nodes": 2, "ranks_per_node": [1, 1]}  # type: ignore[dict-item]
    environment = {
        **made_records.ENVIRONMENT, "hardware": hardware, "fingerprint": "two", "node_fingerprint": fingerprint,
    }  # fmt: skip
    return [
        run.model_copy(update={"environment": environment, "metrics": run.metrics | crossing})
        if run.spec.settings.world_size == 2
        else run
        for run in both()
    ]


def both_ways(**changes: Any) -> list[RunRecord]:
    """Return runs that keep their activations, and of lora alone some that compute them again."""
    settings = made_records.SETTINGS.model_copy(update={"gradient_checkpointing": True})
    again = made_records.sweep(("lora",), 2, settings=settings)
    costs = {"train_seconds": 6.0, "peak_memory_mb": 300.0}
    kept = runs(2, train_seconds=4.0, peak_memory_mb=500.0)
    return [*kept, *(run.model_copy(update={"metrics": {**run.metrics, **costs}} | changes) for run in again)]


def apart() -> list[RunRecord]:
    """Return the runs of `over` whose nodes differ from each other."""
    for run in (made := over()):
        run.environment.pop("node_fingerprint", None)
    return made


ELSEWHERE = {"environment": {**made_records.ENVIRONMENT, "fingerprint": "ffffffffffff"}}
FAILED = {"checks": (Check(name="samples", passed=False, detail="9 of 10"),)}


@pytest.mark.parametrize(("slug", "made"), [
    ("scaling", over("another")), ("scaling", apart()), ("scaling", both(**ELSEWHERE)), ("scaling", runs(2)),
    ("checkpointing", both_ways(**ELSEWHERE)), ("checkpointing", both_ways(**FAILED)), ("checkpointing", runs(2)),
    ("time-budget", runs(**PARTS | {"first_step_seconds": None})),
], ids=["nodes elsewhere", "unlike nodes", "elsewhere", "one number", "elsewhere", "failed", "one way", "a part lacks"],
)  # fmt: skip
def test_runs_that_differ_in_more_show_nothing(slug: str, made: list[RunRecord], tmp_path: Path) -> None:
    """Nor do runs on one number of ranks, or without times of all their parts."""
    assert section(slug, load(tmp_path, made)) is None


def test_a_speed_up_is_paired_within_seeds(tmp_path: Path) -> None:
    """The factors of two seeds, 1.2 and 1.875, give their geometric mean with Student's interval of logarithms."""
    rates = {(1, 0): 100.0, (2, 0): 120.0, (1, 1): 80.0, (2, 1): 150.0}
    records = [
        with_metrics(run, samples_per_second=rates[run.spec.settings.world_size or 1, run.spec.seed]) for run in both()
    ]
    found = tables("scaling", load(tmp_path, records))["scaling"]
    assert found.values is not None
    assert found.values[1][4] == pytest.approx(1.5)
    logs = np.log([1.2, 1.875])
    half = 12.706 * logs.std(ddof=1) / math.sqrt(2)
    assert found.rows[1][5] == f"[{math.exp(logs.mean() - half):.2f}, {math.exp(logs.mean() + half):.2f}]"
