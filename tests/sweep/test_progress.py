"""What is said of a sweep: lines and bars while it goes on, and `hpml-bench status` on this
machine.
"""

import io
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from helpers import made_records
from helpers.commands import called
from helpers.fake_slurm import asked, record_of, resolved
from helpers.made_records import failed, sweep
from helpers.quick_runs import arrange, suite_of
from helpers.waiting import until
from hpml_bench.records.files import NOT_SAVED, PLAN, POINTS, SUITE
from hpml_bench.records.folder import RunFolder
from hpml_bench.records.points import Tail
from hpml_bench.records.run import RunRecord
from hpml_bench.suite.suite import MethodEntry, Suite, load_suite
from hpml_bench.sweep.execute import SweepProgress, in_words
from hpml_bench.sweep.jobs import JobSweep
from hpml_bench.sweep.local import run_sweep
from hpml_bench.sweep.request import SweepRequest
from hpml_bench.sweep.status import local_state, plain_sweep
from hpml_bench.system import heartbeat
from hpml_bench.system.errors import UserError
from hpml_bench.system.heartbeat import Beat


def test_a_tail_gives_whole_lines_once(tmp_path: Path) -> None:
    """A line comes when its end has come, and once; it is decoded as one, and what is no UTF-8
    stops nothing.

    A file that isn't there yet has none.
    """
    path = tmp_path / "log"
    tail = Tail(path)
    assert tail.lines() == []
    with path.open("ab", buffering=0) as file:
        for written, lines in (
            (b"one\ntw", ["one"]),
            (b"", []),
            (b"o\nthree\nfo", ["two", "three"]),
            (b"ur\n", ["four"]),
            (b"gr\xc3", []),
            (b"\xbcn\n\xff\n", ["gr\u00fcn", "\ufffd"]),
        ):
            file.write(written)
            assert tail.lines() == lines


def test_a_job_whose_run_left_a_checkpoint_unused_says_why(tmp_path: Path) -> None:
    """Its log isn't followed here, so that the reason comes from the record, with its line."""
    console = Console(file=io.StringIO(), width=200)
    why = "checkpoints/24 is not used: it was saved by 2 ranks, and there are 4"
    record = made_records.record("lora", 0).model_copy(update={"unused_checkpoints": (why,)})
    with SweepProgress(console, 1) as progress:
        progress.finished_elsewhere(record)
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue().splitlines()[-1] == f"  {why}"


@pytest.mark.parametrize("line", ["checkpoints/24 is not used: damaged", "rank 1: damaged"])
def test_a_line_on_checkpoints_is_shown_to_everyone(line: str, tmp_path: Path) -> None:
    """Also where the log isn't: such a run does steps again, or can't go on later."""
    console = Console(file=io.StringIO(), width=200)
    record = made_records.record("lora", 0)
    log = tmp_path / "rank0.log"
    with SweepProgress(console, 1) as progress, progress.run(record.spec, tmp_path, 10):
        log.write_text(f"loading\n{NOT_SAVED}{line}\n")
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue().splitlines() == [f"  rank 0: no checkpoint: {line}"]


@pytest.mark.parametrize("status", ["ok", "failed"])
def test_a_run_is_a_line_where_there_is_no_terminal(status: str, tmp_path: Path) -> None:
    """Its place, method, seed, status and what matters most; control characters of a message
    stay inert.
    """
    console = Console(file=io.StringIO(), width=200)
    message = "lost\x1b[31m [bold]all\nsecond line"
    record = (
        made_records.record("lora", 3)
        if status == "ok"
        else made_records.failed("lora", 3, status, message)
    )
    with SweepProgress(console, 2) as progress:
        with progress.run(record.spec, tmp_path, 10):
            pass
        progress.finished(record)
        progress.finished(
            record.model_copy(update={"metrics": record.metrics | {"selected_step": 1200.0}})
        )
    text = console.file.getvalue()
    assert text.count("of step 1,200 by validation rows") == 1
    assert f"[1/2] lora seed 3: {status}" in text
    assert ("accuracy" in text) == (status == "ok")
    assert "\x1b" not in text
    assert "second line" not in text
    assert ("[bold]all" in text) == (status == "failed")


def test_a_line_tells_the_time_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other runs are taken to go on at the pace of this call's runs, without what came
    before; at the end none.
    """
    now = iter([960.0, 960.0, 1020.0])
    monkeypatch.setattr("hpml_bench.sweep.execute.time.monotonic", lambda: next(now))
    console = Console(file=io.StringIO(), width=200)
    with SweepProgress(console, 4) as progress:
        progress.skip(2)
        for seed in (0, 1):
            record = made_records.record("lora", seed, seconds=60.0)
            with progress.run(record.spec, tmp_path, 10):
                pass
            progress.finished(record)
    first, last = console.file.getvalue().splitlines()[1:]
    assert first.endswith("; about 60 s left")
    assert "left" not in last
    assert [in_words(s) for s in (0.2, 40, 720, 12_600)] == ["1 s", "40 s", "12 min", "3.5 h"]


def test_a_closed_pipe_does_not_end_a_sweep() -> None:
    """As under `| head`: what is said is lost, what comes after it (runs, report) is done."""
    program = "import sys; from hpml_bench.sweep.execute import SweepProgress\n"
    program += "from hpml_bench.page.terminal import terminal\n"
    program += (
        "sys.stdin.read()\nwith SweepProgress(terminal(), 1) as progress: progress.say('lost')\n"
    )
    program += "print('went on', file=sys.stderr)"
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=pipe, stdout=pipe, stderr=pipe, text=True
    ) as child:
        child.stdout.close()
        child.stdin.close()
        assert child.stderr.read() == "went on\n"


def test_a_run_under_way_moves_both_bars(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From its first second the bar names the stage; steps count as a share; why no state is
    saved is said.
    """
    monkeypatch.setattr("hpml_bench.sweep.execute.POLL_SECONDS", 0.01)
    beats = [Beat(0, 1, 1, "building the model", 0.0)]
    monkeypatch.setattr("hpml_bench.sweep.execute.heartbeat.read", lambda _: beats)
    console = Console(file=io.StringIO(), width=200, force_terminal=True)
    with (
        SweepProgress(console, 4) as progress,
        progress.run(made_records.record("lora", 0).spec, tmp_path, 10),
    ):
        overall, bar = progress._bars.tasks
        assert until(lambda: bar.description == "lora seed 0, building the model")
        beats[0] = Beat(0, 1, 2, "training step 5", 0.0)
        (tmp_path / POINTS).write_text('{"metric": "loss", "step": 5, "value": 1.0}\n')
        assert until(lambda: overall.completed == 0.5)
        assert until(lambda: bar.description == "lora seed 0")
        assert bar.completed == 5
        (tmp_path / "rank0.log").write_text("the rest\nno checkpoint: a plug-in\n")
        assert until(lambda: "no checkpoint: a plug-in" in console.file.getvalue())
        assert "the rest" not in console.file.getvalue()
    assert overall.completed == 1


# `hpml-bench status` of a sweep on this machine: done, failed, under way, left


METHODS = ("lora", "full")
BEAT = heartbeat.PATTERN.replace("*", "0")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return the folder of a sweep of two methods and three seeds, of which all but one run are
    done.
    """
    records = sweep(METHODS, 3)
    path = tmp_path / "quickstart"
    made_records.write(path, records)
    entries = {
        r.spec.method.name: MethodEntry(**r.spec.method.model_dump(exclude={"name"}))
        for r in records
    }
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
    """A run without a record, whose process lives, is under way; the rest takes as long as its
    method's runs so far.

    Whether this call tries failed runs again isn't known, so the time left is that of the others,
    and says so.
    """
    (begin(folder) / POINTS).write_text(
        '{"metric":"step_seconds","step":39,"value":0.5}\n{"metric":"train_loss","step":40,"value":1.0}\n'
    )
    before, rows = local_state(folder)
    assert before.startswith("5 of 6 runs are done; about ")
    assert before.endswith(" left")
    assert rows[2][-1] == "seed 2, step 40 of 100, 32 samples/s"
    item, place = run_of(folder, "lora", 1)
    shutil.rmtree(place)
    made_records.write(folder, [failed("lora", 1, "diverged", "loss is NaN", run_id=item.run_id)])
    said, rows = local_state(folder)
    assert said.startswith("4 of 6 runs are done, 1 failed; about ")
    assert said.partition("about ")[2] == f"{before.partition('about ')[2]}, failed runs aside"
    assert rows[1][:3] == ("lora", "2 of 3", "1")


@pytest.mark.parametrize(
    ("pid", "since"), [(4194305, None), (os.getpid(), 1e9)], ids=["gone", "a later process"]
)
def test_a_run_of_a_dead_process_is_not_under_way(
    pid: int, since: float | None, folder: Path
) -> None:
    """After a kill, also where a later process has its number: the line says how the sweep goes
    on.
    """
    beat = begin(folder, pid) / BEAT
    if since is not None:
        os.utime(beat, (since, since))
    said, rows = local_state(folder)
    assert said == "5 of 6 runs are done; none is under way, and the same run-all goes on"
    assert rows[2][-1] == ""


def test_status_finds_the_only_sweep(folder: Path) -> None:
    """A folder of one sweep is enough to name, a row counts a method's runs; one with a plan is a
    sweep by jobs.

    A mistyped name gets no advice about jobs; a suite.json that can't be read is named.
    """
    assert [row[:3] for row in local_state(folder)[1][1:]] == [
        ("lora", "3 of 3", "0"),
        ("full", "3 of 3", "0"),
    ]
    assert plain_sweep(folder.parent) == plain_sweep(folder) == folder
    shown = called("status", folder.parent)
    assert shown.output.splitlines()[0] == "6 of 6 runs are done"
    (folder / PLAN).write_text("{}")
    assert plain_sweep(folder) is None
    shown = called("status", folder / "nothere", status=2)
    assert "nothere: there is no such folder" in shown.output
    assert "jobs" not in shown.output
    (folder / PLAN).unlink()
    (folder / SUITE).write_text("{")
    with pytest.raises(UserError, match=r"can.t be read as a suite"):
        local_state(folder)


def quick_sweep(out: Path, **options: Any) -> None:
    """Call run-all, as without jobs, on a suite of two methods and two seeds."""
    run_sweep(SweepRequest(suite_of("x", "y"), out, **options), Console(quiet=True))


def status_lines(folder: Path) -> list[str]:
    return called("status", folder).output.splitlines()


def test_status_shows_the_last_call_with_or_without_jobs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call without jobs is shown in place of the plan that the folder has, which is named; a
    single run changes nothing, and the next call by jobs is shown again.
    """
    arrange(monkeypatch, {})
    by_jobs = asked(suite=suite_of("x", "y"), methods=None)
    folder = tmp_path / "quick"
    JobSweep.open(*by_jobs, folder, print)
    planned = "0 of 4 runs are done; units: 2 not begun"
    assert status_lines(folder)[0] == planned
    quick_sweep(tmp_path, methods=("x",), seeds=(0,))
    assert status_lines(folder)[0] == planned

    quick_sweep(tmp_path)
    shown = status_lines(folder)
    assert shown[0] == (
        "4 of 4 runs are done; this is the last run-all, without jobs; plan.json is of an earlier "
        "one by jobs"
    )
    assert [line.split()[0] for line in shown[2:]] == ["x", "y"]

    JobSweep.open(*by_jobs, folder, print)
    assert status_lines(folder)[0].endswith("; units: 2 not begun")


def test_status_counts_the_methods_of_the_last_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that `--methods` chose, with jobs or without; all others of the suite aren't left."""
    arrange(monkeypatch, {})
    folder = tmp_path / "quick"
    quick_sweep(tmp_path, methods=("y",))
    shown = status_lines(folder)
    assert shown[0] == "2 of 2 runs are done"
    assert [line.split()[0] for line in shown[2:]] == ["y"]
    quick_sweep(tmp_path)
    assert status_lines(folder)[0] == "4 of 4 runs are done"
    JobSweep.open(*asked(suite=suite_of("x", "y"), methods=("x",)), folder, print)
    assert status_lines(folder)[0] == "0 of 2 runs are done; units: 2 not begun"


@pytest.mark.parametrize("name", ["quickstart", "renamed"])
def test_status_of_a_moved_sweep_by_jobs_shows_its_records(name: str, tmp_path: Path) -> None:
    """Its runs done, failed and left are those of its plan; the jobs belong to the old place, and
    the line says how to go on in this one.
    """
    request = asked(suite=load_suite("quickstart", seeds=3), methods=("head", "lora"))
    sweep_by_jobs = JobSweep.open(*request, tmp_path / "before" / "quickstart", print)
    resolved(sweep_by_jobs)
    runs = sweep_by_jobs.watch.refresh()
    assert runs is not None
    for spec, status in zip(runs.runs, ("ok", "ok", "failed"), strict=False):
        run_folder = RunFolder(sweep_by_jobs.folder / spec.run_id)
        run_folder.begin()
        run_folder.commit(record_of(spec).model_copy(update={"status": status}))
    moved = tmp_path / "after" / name
    moved.parent.mkdir()
    sweep_by_jobs.folder.rename(moved)

    shown = status_lines(moved)
    rename = "" if name == "quickstart" else "name this folder quickstart, and "
    assert shown[0] == (
        f"2 of 6 runs are done, 1 failed; none is under way, and to go on here, {rename}call "
        f"run-all with --out {moved.parent}; plan.json was made for another folder, as of one "
        f"that was moved or copied, and its jobs, if any live, belong to that one"
    )
    assert {line.split()[0] for line in shown[2:]} == {"head", "lora"}
