"""Limits that users set: retries, hours, fail-fast; they change nothing of what is compared;
clocks that jump.
"""

import ast
import itertools
import time
from pathlib import Path
from unittest.mock import Mock

import pytest
from click.testing import CliRunner
from faulty_runs import faulty
from rich.console import Console

import hpml_bench
from helpers import tiny
from helpers.commands import called
from helpers.quick_runs import arrange, suite_of
from hpml_bench.cli import main
from hpml_bench.data.prepared import Prepared
from hpml_bench.launch import launcher, preparation
from hpml_bench.page.render import load_libraries, write_report
from hpml_bench.records.folder import RunFolder
from hpml_bench.records.load import load_record
from hpml_bench.records.plan import Limits
from hpml_bench.records.run import RunRecord
from hpml_bench.sweep import local as sweep
from hpml_bench.sweep import tune
from hpml_bench.sweep.request import SweepRequest
from hpml_bench.sweep.tune import TuningRequest, run_tuning
from hpml_bench.system.errors import UserError


def go(out: Path, *methods: str, **limits: object) -> sweep.SweepResult:
    chosen = Limits(**limits)
    return sweep.run_sweep(
        SweepRequest(suite_of(*methods, seeds=1), out, limits=chosen), Console(quiet=True)
    )


@pytest.mark.parametrize(
    ("statuses", "retries", "attempts"),
    [
        *(
            ([status] * 2, 2, 3)
            for status in ("failed", "killed", "timeout", "oom_host", "oom_cuda")
        ),
        (["failed"] * 9, 2, 3),
        *(([status], 5, 1) for status in ("diverged", "invalid", "unsupported")),
    ],
)
def test_a_run_is_tried_again(
    statuses: list[str],
    retries: int,
    attempts: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As often as was given, unless it would end the same; how earlier attempts ended is in
    record and report.
    """
    ran = arrange(monkeypatch, {"a": statuses})
    result = go(tmp_path, "a", retries=retries)
    assert ran == ["a-0"] * attempts
    (record,) = result.records
    assert record.status == [*statuses, "ok"][attempts - 1]
    assert record.earlier_attempts == (f"{statuses[0]}: as arranged",) * (attempts - 1)
    write_report(result.folder, formats=["md"])
    report = (result.folder / "report.md").read_text().replace("\\", "")
    assert ("Runs that were tried again" in report and f"{statuses[0]}: as arranged" in report) == (
        attempts > 1
    )


def test_an_attempt_that_saved_a_later_state_is_no_retry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three get further, of which each is followed by another; then the one retry is allowed,
    and no more.
    """
    ran = arrange(monkeypatch, {"a": ["killed"] * 9})
    monkeypatch.setattr(RunFolder, "saved", property(lambda _: min(len(ran), 3)))
    (record,) = go(tmp_path, "a", retries=1).records
    assert (record.status, len(ran)) == ("killed", 5)


def test_fail_fast(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sweep ends with the first run that did not end well, and says that runs are left; else it
    goes on.

    A tuning whose last trial fails is done; one with trials left says by what it was ended.
    """
    ran = arrange(monkeypatch, {name: ["failed"] for name in "abc"})
    result = go(tmp_path / "fast", *"abc", fail_fast=True)
    assert (len(ran), result.ending.why) == (1, "--fail-fast")
    ran = arrange(monkeypatch, {name: ["failed"] for name in "abc"})
    result = go(tmp_path / "on", *"abc")
    assert (len(ran), result.ending.why) == (3, None)
    assert [record.status for record in result.records] == ["failed"] * 3
    for trials, ended_by in ((2, "--fail-fast"), (1, None)):
        arrange(monkeypatch, {"a": ["failed"]})
        request = SweepRequest(
            suite_of("a", seeds=1), tmp_path / str(trials), limits=Limits(fail_fast=True)
        )
        tuned = run_tuning(TuningRequest(request, trials), Console(quiet=True))
        assert (tuned.ending.why, tuned.suite_file is None) == (ended_by, ended_by is not None)


def test_no_run_begins_after_the_hours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With none left nothing begins; the result says which limit it was, and the command does,
    with status 1.
    """
    ran = arrange(monkeypatch, {})
    result = go(tmp_path, *"abc", max_hours=0)
    assert (ran, result.ending.why) == ([], "--max-hours 0")
    assert not Limits(max_hours=1).ended(3599)
    assert Limits(max_hours=1).ended(3600)
    options = ["--out", str(tmp_path), "--wandb", "off", "--max-hours", "0"]
    told = called("run-all", "quickstart", *options, status=1)
    assert "ended by --max-hours 0" in told.stderr


def test_no_attempt_begins_after_the_hours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a run or a trial that fails each time; it's recorded as it ended last, and nothing
    follows it.
    """
    limits = Limits(retries=50, max_hours=4 / 3600)
    load_libraries()  # which would take some of the hours
    for name, command in (
        ("run-all", lambda request: sweep.run_sweep(request, Console(quiet=True))),
        ("tune", lambda request: run_tuning(TuningRequest(request, 2), Console(quiet=True))),
    ):
        ran = arrange(monkeypatch, {"a": ["failed"] * 60})
        at_once = launcher.run
        monkeypatch.setattr(
            launcher, "run", lambda *args, run=at_once: (time.sleep(0.8), run(*args))[1]
        )
        began = time.monotonic()
        command(SweepRequest(suite_of("a", seeds=1), tmp_path / name, limits=limits))
        assert 1 <= len(ran) <= 5, name
        assert 4 <= time.monotonic() - began < 40  # of 60 times 0.8 s
        (path,) = (tmp_path / name).rglob("run.json")
        record = load_record(path)
        assert (record.status, len(record.earlier_attempts)) == ("failed", len(ran) - 1)


def test_the_hours_of_a_tuning_begin_before_its_preparation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As those of a sweep do: a preparation that takes them leaves none for trials."""
    ran = arrange(monkeypatch, {})
    monkeypatch.setattr(preparation, "prepare", lambda *_: (time.sleep(1.1), tiny.NOTHING)[1])
    request = SweepRequest(suite_of("a", seeds=1), tmp_path, limits=Limits(max_hours=1 / 3600))
    result = run_tuning(TuningRequest(request, 1), Console(quiet=True))
    assert ran == []
    assert str(result.ending.why).startswith("--max-hours")


@pytest.mark.parametrize("command", [["run-all"], ["run", "lora"], ["tune"]])
def test_the_limits_arrive(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the command line says of each of the five is what the sweep, or the tuning, gets."""
    note = Mock(side_effect=UserError("noted"))
    monkeypatch.setattr(sweep, "run_sweep", note)
    monkeypatch.setattr(tune, "run_tuning", note)
    limits = [
        "--stall",
        "11",
        "--run-timeout",
        "12",
        "--retries",
        "13",
        "--max-hours",
        "14",
        "--fail-fast",
    ]
    for options in ([], limits):
        result = CliRunner().invoke(
            main, [*command, "quickstart", "--out", str(tmp_path), *options]
        )
        assert "noted" in result.output
    requests = [call.args[0] for call in note.call_args_list]
    got = [(of.sweep if isinstance(of, TuningRequest) else of).limits for of in requests]
    assert got == [
        Limits(),
        Limits(stall=11, run_timeout=12, retries=13, max_hours=14, fail_fast=True),
    ]


# Wall clocks that jump: no negative or absurd times


def seconds(record: RunRecord) -> dict[str, float]:
    """Return all times of a record, in seconds."""
    found = {
        name: value
        for name, value in record.metrics.items()
        if "seconds" in name and "per_second" not in name
    }
    found |= {
        name: value / 1000
        for name, value in record.metrics.items()
        if "_ms" in name and value is not None
    }
    return {
        "whole": record.seconds,
        **{name: value for name, value in found.items() if value is not None},
    }


def test_a_stepped_wall_clock(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a clock that goes back another hour whenever it is read, in parent and rank, every
    time is as it was.
    """
    clock, hours = time.time, itertools.count(1)
    monkeypatch.setattr(time, "time", lambda: clock() - 3600 * next(hours))
    began = time.monotonic()
    record = tiny.run(
        faulty("clock", rank=0), prepared, tmp_path / "run", limits=Limits(stall=30, run_timeout=60)
    )
    whole = time.monotonic() - began
    assert record.status == "ok", record.error
    assert {"train_seconds", "timed_seconds", "step_ms_p50"} <= set(seconds(record))
    assert all(0 < value <= whole for value in seconds(record).values()), seconds(record)


def _wall(tree: ast.AST) -> list[str]:
    calls = [ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return [
        call
        for call in calls
        if call in {"time.time", "time.time_ns", "datetime.now", "datetime.utcnow"}
    ]


def test_durations_come_from_clocks_that_do_not_jump() -> None:
    """The wall clock is read only to name a moment (the start of a run) or to compare with a
    given one.
    """
    # These are time stamps of files, and the moments at which a job was submitted and a time limit
    # ends it.
    assert _wall(ast.parse("import time\nx = time.time() - 1")) == ["time.time"]
    root = Path(hpml_bench.__path__[0])
    reads = {
        str(path.relative_to(root)): calls
        for path in root.rglob("*.py")
        if (calls := _wall(ast.parse(path.read_text(encoding="utf-8"))))
    }
    stamps = {"system/cache.py", "system/temporary.py", "doctor/machine.py"}
    jobs = {"sweep/job.py", "sweep/watch.py", "builtin/engines/ray.py"}
    shown = {"builtin/trackers/accelerate.py"}  # the moment of a metric, which MLflow keeps
    found = {name for name, calls in reads.items() if any("datetime" not in call for call in calls)}
    assert found <= stamps | jobs | shown
