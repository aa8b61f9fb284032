"""Wall clocks that jump and machines that are suspended: no negative or absurd times, and the window is flagged."""

from __future__ import annotations

import ast
import itertools
import os
import signal
import tempfile
import time
from pathlib import Path

import pytest
import yaml
from faulty_runs import faulty

import hpml_bench
from helpers import tiny
from helpers.cli_process import Command
from hpml_bench.data.prepared import Prepared
from hpml_bench.records.load import load_records
from hpml_bench.records.plan import Limits
from hpml_bench.records.run import RunRecord
from hpml_bench.report.caveats import paused
from hpml_bench.system import processes

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


def test_all_processes_are_suspended(
    plug_in: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped within a step, for longer than the stall limit, the run is ok: nobody hung. Its window is flagged."""
    monkeypatch.setenv("PYTHONPATH", str(plug_in))
    suite = tiny.local_suite(tmp_path_factory.mktemp("suite"), steps=40)
    options = yaml.safe_load(suite.read_text())
    options["methods"] = {"faulty": {"options": {"fault": "suspend", "step": 20}}}
    suite.write_text(yaml.safe_dump(options))
    with tempfile.TemporaryDirectory(prefix="hpml-test-", dir="/tmp") as name:
        command = Command(suite, Path(name) / "out", "--seeds", "1", "--stall", "8")
        command.until(lambda: processes.stopped(command.process.pid))
        time.sleep(10)
        os.killpg(command.process.pid, signal.SIGCONT)
        status, said = command.ended()
        assert status == 0, said
        (record,) = load_records(Path(name) / "out/colours").records
    assert record.status == "ok"
    assert all(0 < value < 120 for value in seconds(record).values()), seconds(record)
    assert (record.metrics["step_time_outliers"] or 0) >= 1
    assert "one step took" in (paused(record) or ""), record.metrics
