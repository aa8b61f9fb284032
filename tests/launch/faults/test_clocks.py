"""Wall clocks that jump: no negative or absurd times."""

from __future__ import annotations

import ast
import itertools
import time
from pathlib import Path

import pytest
from faulty_runs import faulty

import hpml_bench
from helpers import tiny
from hpml_bench.data.prepared import Prepared
from hpml_bench.records.plan import Limits
from hpml_bench.records.run import RunRecord

ROOT = Path(hpml_bench.__path__[0])


def seconds(record: RunRecord) -> dict[str, float]:
    """Return all times of a record, in seconds."""
    found = {name: value for name, value in record.metrics.items() if "seconds" in name and "per_second" not in name}
    found |= {name: value / 1000 for name, value in record.metrics.items() if "_ms" in name and value is not None}
    return {"whole": record.seconds, **{name: value for name, value in found.items() if value is not None}}


def test_a_stepped_wall_clock(prepared_for_faults: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a clock that goes back another hour whenever it is read, in parent and rank, every time is as it was."""
    clock, hours = time.time, itertools.count(1)
    monkeypatch.setattr(time, "time", lambda: clock() - 3600 * next(hours))
    began = time.monotonic()
    record = tiny.run(
        faulty("clock", rank=0), prepared_for_faults, tmp_path / "run", limits=Limits(stall=30, run_timeout=60)
    )
    whole = time.monotonic() - began
    assert record.status == "ok", record.error
    assert {"train_seconds", "timed_seconds", "step_ms_p50"} <= set(seconds(record))
    assert all(0 < value <= whole for value in seconds(record).values()), seconds(record)


def _wall(tree: ast.AST) -> list[str]:
    calls = [ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return [call for call in calls if call in {"time.time", "time.time_ns", "datetime.now", "datetime.utcnow"}]


def test_durations_come_from_clocks_that_do_not_jump() -> None:
    """The wall clock is read only to name a moment (the start of a run) or to compare with a given one."""
    # These are time stamps of files, and the moments at which a job was submitted and a time limit ends it.
    assert _wall(ast.parse("import time\nx = time.time() - 1")) == ["time.time"]
    reads = {
        str(path.relative_to(ROOT)): calls
        for path in ROOT.rglob("*.py")
        if (calls := _wall(ast.parse(path.read_text(encoding="utf-8"))))
    }
    stamps = {"system/cache.py", "system/temporary.py", "doctor/machine.py"}
    jobs = {"sweep/job.py", "sweep/watch.py", "builtin/engines/ray.py"}
    shown = {"builtin/trackers/accelerate.py"}  # the moment of a metric, which MLflow keeps
    assert {
        name for name, calls in reads.items() if any("datetime" not in call for call in calls)
    } <= stamps | jobs | shown
