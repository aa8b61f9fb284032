"""Neighbours of a run are the runs of other jobs on any of its hosts while it ran."""

from __future__ import annotations

import json
import os
import socket
from contextlib import nullcontext
from pathlib import Path

import pytest

from helpers import made_records
from hpml_bench.records.folder import SharedResults
from hpml_bench.records.jobs import RUNNING, Job
from hpml_bench.records.run import RunRecord
from hpml_bench.sweep.job import Neighbours
from hpml_bench.sweep.watch import Claim
from hpml_bench.system import processes

HERE = socket.gethostname()
JOB = Job(engine="x", job="j", restart=0, unit=0, host=HERE, pid=os.getpid(), began="2026-01-01T00:00:00Z")
RECORDS = made_records.sweep(("lora", "full", "head"), 1)


def under_way(folder: Path, record: RunRecord, *hosts: str) -> Neighbours:
    name = record.spec.method.name
    unit = RECORDS.index(record)
    job = JOB.model_copy(update={"job": name, "unit": unit, "host": hosts[0]})
    Claim(folder, job).take()
    return Neighbours(SharedResults(folder, job), record.spec, hosts)


def told(folder: Path, run: Neighbours, record: RunRecord, do: bool = True) -> tuple[str, ...]:
    """Return the neighbours in a run's record; `do`: the run isn't done yet."""
    with run if do else nullcontext():
        pass
    SharedResults(folder, run._results.job).begin(record.spec).path.mkdir()
    return run.commit(record).neighbours


def test_runs_over_nodes_see_those_on_each_node(tmp_path: Path) -> None:
    """Whoever came first, and also where one is named with its domain; a run elsewhere is none."""
    both, second, third = RECORDS
    over, beside = under_way(tmp_path, both, HERE, "n2.cluster"), under_way(tmp_path, second, "n2")
    elsewhere = under_way(tmp_path, third, "n3")
    with over, beside, elsewhere:
        pass
    assert told(tmp_path, over, both, do=False) == (second.spec.run_id,)
    assert told(tmp_path, beside, second, do=False) == (both.spec.run_id,)
    assert told(tmp_path, elsewhere, third, do=False) == ()


@pytest.mark.parametrize("where", ["gone", "a later process has its number", "its job holds no unit"])
def test_a_run_whose_process_was_killed_is_no_neighbour(where: str, tmp_path: Path) -> None:
    """Its file is removed: here for the process, elsewhere for the claim."""
    first, killed, _ = RECORDS
    (tmp_path / RUNNING).mkdir()
    left = tmp_path / RUNNING / "killed.json"
    pid = 2**22 + 1 if where == "gone" else os.getpid()  # above the kernel's largest
    host = "n2" if where == "its job holds no unit" else HERE
    home = processes.home()
    owner = JOB.model_copy(update={"job": "k", "host": host, "pid": pid, "process": f"{home}:{processes.boot()}:3"})
    left.write_text(json.dumps({"run": killed.spec.run_id, "hosts": ["n2", HERE], "owner": owner.model_dump()}))
    assert told(tmp_path, under_way(tmp_path, first, HERE), first) == ()
    assert not left.exists()


@pytest.mark.parametrize("content", ["{}", "[]", '{"run": 3}', '{"run": "x", "hosts": 7}', "x"])
def test_a_run_of_another_shape_is_no_neighbour(content: str, tmp_path: Path) -> None:
    """As whoever writes to the folder may leave it."""
    (tmp_path / RUNNING).mkdir()
    (tmp_path / RUNNING / "x.json").write_text(content)
    assert told(tmp_path, under_way(tmp_path, RECORDS[0], HERE), RECORDS[0]) == ()


def test_a_run_that_began_on_another_host_is_seen_by_its_claim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its process is not to be seen from here; while its job holds a unit it is under way."""
    first, second, third = RECORDS
    with monkeypatch.context() as there:
        there.setattr(socket, "gethostname", lambda: "n2")
        over = under_way(tmp_path, first, "n2", HERE)
        over.__enter__()
    assert told(tmp_path, under_way(tmp_path, second, HERE), second) == (first.spec.run_id,)
    Claim(tmp_path, over._results.job).release()
    assert told(tmp_path, under_way(tmp_path, third, HERE), third) == ()
