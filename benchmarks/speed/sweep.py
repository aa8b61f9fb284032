"""Sweep: `run-all quickstart` as a user calls it, its wall time, the share of training, the time to a first step."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from hpml_bench.records.load import load_records
from hpml_bench.records.run import RunRecord
from hpml_bench.system.environment import PROCESS_ENVIRONMENT
from speed.target import Target

SWEEP_SECONDS, LEAST_TRAINING, FIRST_STEP, FIRST_RUN = 100.0, 0.7, 0.7, 5.0
SEEDS = 5
"""Of the suite."""
TRAINING = ("train_seconds", "evaluation_seconds", "inference_seconds")


def measure(seeds: int) -> list[Target]:
    """Return the sweep's targets; with other than the suite's seeds its time and shares are not held to theirs."""
    with tempfile.TemporaryDirectory() as name:
        began = time.monotonic()
        run_all(Path(name), "--seeds", str(seeds))
        wall = time.monotonic() - began
        records = sorted(load_records(Path(name) / "quickstart").records, key=lambda record: record.order or 0)
    if bad := [record.run_id for record in records if record.status != "ok"]:
        raise RuntimeError(f"these runs did not end well: {', '.join(bad)}")
    first, *later = [_measured(record, "first_step_seconds") for record in records]
    spent = sum(_training(record) for record in records)
    raw = {
        "runs": len(records),
        "wall_seconds": wall,
        "training_seconds": spent,
        "run_seconds": [r.seconds for r in records],
    }
    spread, whole = (min(later), max(later)), seeds == SEEDS
    first_title = "launch to first step, first run (the fork server's imports come before)"
    return [
        Target(
            f"run-all quickstart, {len(records)} runs, report included", wall, "s",
            SWEEP_SECONDS if whole else None, "at most", raw,
        ),
        Target(
            "of that, training and evaluation", spent / wall, "",
            LEAST_TRAINING if whole else None, "at least", raw,
        ),
        Target(
            "launch to first step, second and later runs of a sweep, 2 ranks", statistics.median(later), "s",
            FIRST_STEP, "at most", {"seconds": later}, spread,
        ),
        Target(first_title, first, "s", FIRST_RUN, "at most", {"seconds": [first]}),
    ]  # fmt: skip


def run_all(out: Path, *options: str) -> None:
    """Call `hpml-bench run-all quickstart` in an environment without our settings, which it makes itself."""
    environment = {key: value for key, value in os.environ.items() if key not in PROCESS_ENVIRONMENT}
    command = [sys.executable, "-m", "hpml_bench", "run-all", "quickstart", "--out", str(out), "--wandb", "off"]
    subprocess.run([*command, *options], env=environment, check=True, stdout=sys.stderr)


def _training(record: RunRecord) -> float:
    return sum(_measured(record, name) for name in TRAINING)


def _measured(record: RunRecord, metric: str) -> float:
    value = record.metrics[metric]
    if value is None:
        raise RuntimeError(f"{record.run_id} has no {metric}")
    return value
