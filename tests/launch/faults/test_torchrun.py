"""Ranks that torchrun started and that raise: one record, of the rank that failed by itself."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from helpers import tiny
from hpml_bench.records.load import load_record
from hpml_bench.records.run import RunRecord

pytestmark = pytest.mark.suites


def run(folder: Path, plug_in: Path, fault: str, rank: int) -> RunRecord:
    methods = {"faulty": {"lr": 1e-3, "options": {"fault": fault, "rank": rank}}}
    path = tiny.local_suite(folder, more={"methods": methods})
    places = os.pathsep.join([str(plug_in), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*command, "-m", "hpml_bench", "run", "faulty", str(path), "--out", str(folder / "out")],
        env=os.environ | {"PYTHONPATH": places}, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    (found,) = (folder / "out").rglob("run.json")
    assert (found.parents[1] / "suite.json").exists()
    return load_record(found)


@pytest.mark.parametrize(
    ("fault", "rank", "status", "kind"),
    [("memory, and peers wait", 1, "oom_cuda", "OutOfMemoryError"), ("raise", 0, "failed", "ArithmeticError")],
)
def test_a_rank_that_raises_leaves_a_record(
    fault: str, rank: int, status: str, kind: str, plug_in: Path, tmp_path: Path
) -> None:
    """As under our launcher: with that rank's own status and traceback, and not what the other says of a lost peer."""
    record = run(tmp_path, plug_in, fault, rank)
    assert record.status == status, record.error
    assert (record.error.kind, record.error.rank) == (kind, rank)
    assert "after_step" in (record.error.traceback or "")
