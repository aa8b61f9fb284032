"""Runs that go on from a checkpoint: after kills they end with the bits of an undisturbed run."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers import tiny
from hpml_bench.data.prepared import Prepared
from hpml_bench.launch import fork_server
from hpml_bench.records.files import CHECKPOINTS
from hpml_bench.records.plan import Limits
from hpml_bench.records.points import read_points
from hpml_bench.records.predictions import read_predictions
from hpml_bench.records.run import RunRecord
from hpml_bench.system import heartbeat

TIMES = ("step_seconds",)
SAVING = Limits(stall=120, checkpoint_steps=8)


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """Rows and a backbone, and the fork server that has the libraries."""
    fork_server.start_fork_server()
    return tiny.prepared(tmp_path_factory.mktemp("prepared"))


@contextmanager
def killed(folder: Path, step: int, rank: int) -> Iterator[None]:
    """Let the body's run be hit by a SIGKILL of a rank once that has begun a step."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.001):
            for beat in heartbeat.read(folder):
                if beat.rank == rank and beat.where.startswith("training step") and int(beat.where.split()[2]) >= step:
                    os.kill(beat.pid, signal.SIGKILL)
                    return

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def content(folder: Path, record: RunRecord) -> dict[str, Any]:
    """Return all that must not differ from an undisturbed run's."""
    assert record.status == "ok", record.error
    points = read_points(folder)
    predictions = read_predictions(folder)
    assert predictions is not None
    timed = {metric.name for metric in record.definitions if metric.depends_on_machine} | {"timed_steps"}
    return {
        "points": [point.model_dump() for point in points if point.metric not in TIMES],
        "steps": [(p.step, p.tokens, p.real_tokens) for p in points if p.metric in TIMES],
        "predictions": [np.asarray(getattr(predictions, name)).tolist() for name in ("index", "prediction", "loss")],
        "metrics": {name: value for name, value in record.metrics.items() if name not in timed},
        "consumed": record.consumed,
    }


def test_a_killed_run_goes_on(rows: Prepared, tmp_path: Path) -> None:
    """Two kills, the second in the part that went on: the same points, predictions and metrics to the bit."""
    spec = tiny.spec("lora", steps=60, dropout=0.1)
    expected = content(tmp_path / "whole", tiny.run(spec, rows, tmp_path / "whole"))
    folder = tmp_path / "run"
    for step, rank in ((21, 1), (42, 0)):
        with killed(folder, step, rank):
            assert tiny.run(spec, rows, folder, SAVING).status == "killed"
        assert (folder / CHECKPOINTS).is_dir()
    record = tiny.run(spec, rows, folder, SAVING)
    assert content(folder, record) == expected
    assert not (folder / CHECKPOINTS).exists()
    parts = [(part.first, part.last) for part in record.segments]
    assert [first for first, _ in parts] == [1, *(last + 1 for _, last in parts[:-1])]
    assert parts[-1][1] == 60
    assert len(parts) == 3
    assert all(check.passed for check in record.checks)
