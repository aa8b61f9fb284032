"""`hpml-bench status` of a sweep on this machine: done, failed, under way, left."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from helpers import made_records
from helpers.made_records import failed, sweep
from hpml_bench.cli import main
from hpml_bench.records.files import PLAN, POINTS, SUITE
from hpml_bench.records.run import RunRecord
from hpml_bench.suite.suite import MethodEntry, Suite
from hpml_bench.sweep.status import local_state, plain_sweep
from hpml_bench.system import heartbeat
from hpml_bench.system.errors import UserError

METHODS = ("lora", "full")
BEAT = heartbeat.PATTERN.replace("*", "0")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return the folder of a sweep of two methods and three seeds, of which all but one run are done."""
    records = sweep(METHODS, 3)
    path = tmp_path / "quickstart"
    made_records.write(path, records)
    entries = {r.spec.method.name: MethodEntry(**r.spec.method.model_dump(exclude={"name"})) for r in records}
    spec = records[0].spec
    suite = Suite(name=spec.suite, settings=spec.settings, methods=entries, seeds=3)
    (path / SUITE).write_text(suite.model_dump_json())
    assert {run.run_id for run in suite.runs()} == {record.run_id for record in records}
    return path


def run_of(folder: Path, method: str, seed: int) -> tuple[RunRecord, Path]:
    item = next(r for r in sweep(METHODS, 3) if (r.spec.method.name, r.spec.seed) == (method, seed))
    return item, folder / item.run_id


def begin(folder: Path, pid: int | None = None) -> Path:
    """Let a process, by default this one, work on the last run; return the run's folder."""
    _, place = run_of(folder, "full", 2)
    shutil.rmtree(place)
    place.mkdir()
    (place / BEAT).write_text(f"{pid or os.getpid()}\t7\ttraining step 40\n")
    return place


def test_a_run_under_way_shows_its_step_and_the_time_left(folder: Path) -> None:
    """A run without a record, whose process lives, is under way; the rest takes as long as its method's runs so far."""
    (begin(folder) / POINTS).write_text(
        '{"metric":"step_seconds","step":39,"value":0.5}\n{"metric":"train_loss","step":40,"value":1.0}\n'
    )
    said, rows = local_state(folder)
    assert said.startswith("5 of 6 runs are done; about ")
    assert said.endswith(" left")
    assert rows[2][-1] == "seed 2, step 40 of 100, 32 samples/s"


@pytest.mark.parametrize(("pid", "since"), [(4194305, None), (os.getpid(), 1e9)], ids=["gone", "a later process"])
def test_a_run_of_a_dead_process_is_not_under_way(pid: int, since: float | None, folder: Path) -> None:
    """After a kill, also where a later process has its number: the line says how the sweep goes on."""
    beat = begin(folder, pid) / BEAT
    if since is not None:
        os.utime(beat, (since, since))
    said, rows = local_state(folder)
    assert said == "5 of 6 runs are done; none is under way, and the same run-all goes on"
    assert rows[2][-1] == ""


def test_failed_runs_take_no_time_of_this_call(folder: Path) -> None:
    """Whether this call tries them again isn't known, so the time left is that of the others, and says so."""
    begin(folder)
    before = local_state(folder)[0].partition("about ")[2]
    item, place = run_of(folder, "lora", 1)
    shutil.rmtree(place)
    made_records.write(folder, [failed("lora", 1, "diverged", "loss is NaN", run_id=item.run_id)])
    said, rows = local_state(folder)
    assert said.startswith("4 of 6 runs are done, 1 failed; about ")
    assert said.partition("about ")[2] == f"{before}, failed runs aside"
    assert rows[1][:3] == ("lora", "2 of 3", "1")


def test_a_folder_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    """A mistyped name gets no advice about jobs."""
    shown = CliRunner().invoke(main, ["status", str(tmp_path / "nothere")])
    assert shown.exit_code == 2
    assert "nothere: there is no such folder" in shown.output
    assert "jobs" not in shown.output


def test_status_finds_the_only_sweep(folder: Path) -> None:
    """A folder of one sweep is enough to name, a row counts a method's runs; one with a plan is a sweep by jobs."""
    assert [row[:3] for row in local_state(folder)[1][1:]] == [("lora", "3 of 3", "0"), ("full", "3 of 3", "0")]
    assert plain_sweep(folder.parent) == plain_sweep(folder) == folder
    shown = CliRunner().invoke(main, ["status", str(folder.parent)])
    assert shown.exit_code == 0
    assert shown.output.splitlines()[0] == "6 of 6 runs are done"
    (folder / PLAN).write_text("{}")
    assert plain_sweep(folder) is None


def test_a_damaged_suite_is_a_sentence(folder: Path) -> None:
    """A suite.json that can't be read is named."""
    (folder / SUITE).write_text("{")
    with pytest.raises(UserError, match="no sweep was begun here"):
        local_state(folder)
