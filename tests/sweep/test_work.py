"""`hpml-bench work`, by hand or by any scheduler: on two units at once, on a held one, after a
kill, and again.
"""

import os
import shlex
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
from click.testing import CliRunner

from helpers import made_records, tiny
from helpers.commands import called
from helpers.held import Gates
from helpers.waiting import until
from helpers.warm import WarmProcess
from hpml_bench.cli import main
from hpml_bench.plugins.engine import make_engine
from hpml_bench.records.jobs import RESOLVED, Job, JobPlan, claims, read_jobs
from hpml_bench.records.plan import Limits
from hpml_bench.records.run import RunRecord
from hpml_bench.suite.profile import load_profile
from hpml_bench.suite.suite import load_suite
from hpml_bench.sweep.claims import Claim
from hpml_bench.sweep.execute import Ending
from hpml_bench.sweep.job import JobWork
from hpml_bench.sweep.request import SweepRequest, plan_jobs
from hpml_bench.sweep.resolve import resolve_for_job
from hpml_bench.system import heartbeat, processes
from hpml_bench.system.errors import UserError

Unit = Callable[..., WarmProcess]


def planned(suite: Path, room: Path) -> str:
    asked = ["run-all", str(suite), "--on", "manual", "--out", str(room), "--wandb", "off"]
    found = called(*asked)
    return found.output


def begin(room: Path, number: int, **variables: str) -> WarmProcess:
    """Begin the work on a unit of a planned sweep, with variables of its environment."""
    command = [
        sys.executable,
        "-m",
        "hpml_bench",
        "work",
        str(room / "colours/plan.json"),
        "--unit",
        str(number),
    ]
    return WarmProcess(command, {**os.environ, "TMPDIR": str(room), **variables})


@pytest.fixture
def unit(one_rank_suite: Path, room: Path) -> Unit:
    planned(one_rank_suite, room)
    return partial(begin, room)


@pytest.fixture
def held_unit(gates: Gates, room: Path) -> Unit:
    planned(gates.suite, room)
    gates.close("a", "b")
    return partial(begin, room)


def ended(work: WarmProcess, status: int = 0) -> str:
    said, _ = work.communicate(timeout=300)
    assert work.returncode == status, said
    return said


def training(room: Path, work: WarmProcess) -> None:
    deadline = time.monotonic() + 240
    while not any(
        "step" in beat.where for one in room.glob("*/attempts/*/") for beat in heartbeat.read(one)
    ):
        assert work.poll() is None, work.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_plan_and_its_commands_are_all_that_manual_makes(
    one_rank_suite: Path, room: Path
) -> None:
    """A command for each unit, as a shell takes it; --dry-run prints nothing else."""
    said = planned(one_rank_suite, room / "a b")
    plan = room / "a b/colours/plan.json"
    commands = [
        shlex.split(line) for line in said.splitlines() if line.startswith("hpml-bench work ")
    ]
    assert commands == [
        ["hpml-bench", "work", str(plan), "--unit", str(number)] for number in (0, 1)
    ]
    assert plan.is_file()
    assert read_jobs(plan.parent) == ()
    asked = [
        "run-all",
        str(one_rank_suite),
        "--on",
        "manual",
        "--out",
        str(room / "a b"),
        "--dry-run",
    ]
    shown = CliRunner().invoke(main, asked).output.splitlines()
    assert [shlex.split(line) for line in shown] == commands
    stopped = called("stop", plan.parent, status=2)
    assert "are ended by whoever started them" in stopped.output


def test_two_at_once_do_a_sweep(unit: Unit, one_rank_suite: Path, room: Path) -> None:
    """With one machine's results to the bit; planned again, it is reported, and nothing is left
    but a damaged run.
    """
    works = [unit(0, HPML_BENCH_JOB="mine.1[0]"), unit(1)]
    for work in works:
        ended(work)
    called("run-all", one_rank_suite, "--out", room / "alone", "--wandb", "off")
    assert tiny.scores(tiny.records(room)) == tiny.scores(tiny.records(room / "alone"))
    assert tiny.records(room)["head", 0].environment["where"]["job"] == "mine-1-0"
    assert tiny.records(room)["head", 1].environment["where"]["unit"] == 1
    assert tiny.records(room)["head", 1].environment["where"]["call"] == 1
    assert claims(room / "colours") == ()
    assert not (room / "colours/report.html").exists()
    said = planned(one_rank_suite, room)
    assert "hpml-bench work " not in said
    assert "4 of 4 runs are recorded already" in said
    assert (room / "colours/report.html").is_file()
    asked = ["run-all", str(one_rank_suite), "--on", "manual", "--out", str(room), "--dry-run"]
    assert CliRunner().invoke(main, asked).output == "there is nothing to submit\n"
    times = {path: path.stat().st_mtime_ns for path in room.glob("colours/*/run.json")}
    assert "2 of 2 runs are recorded already" in ended(unit(0))
    assert {path: path.stat().st_mtime_ns for path in room.glob("colours/*/run.json")} == times
    (victim,) = room.glob(
        "colours/lora-s1-*/points.jsonl"
    )  # as without jobs, a damaged run is set aside
    victim.write_text(victim.read_text()[:-20])
    said = planned(one_rank_suite, room)
    assert "points.jsonl is not the file that was recorded" in said
    assert ["--unit 0" in said, "--unit 1" in said] == [False, True]
    assert not victim.exists()


def test_a_unit_that_is_held_is_refused(held_unit: Unit, gates: Gates, room: Path) -> None:
    """By the name of the job that holds it, which goes on."""
    first = held_unit(0, HPML_BENCH_JOB="one")
    training(room, first)
    said = ended(held_unit(0, HPML_BENCH_JOB="other"), 2)
    assert "unit 0 is held by job one on " in said
    assert "Traceback" not in said
    assert first.poll() is None
    shown = CliRunner().invoke(main, ["status", str(room / "colours")]).output
    assert [line.split()[3] for line in shown.splitlines()[2:4]] == ["running", "not"]
    gates.open()
    ended(first)
    assert [job.job for job in read_jobs(room / "colours")] == ["one"], (
        "one that is refused has done no work"
    )


def test_after_a_kill_the_rest_is_done(held_unit: Unit, gates: Gates, room: Path) -> None:
    """The claim of a process that is gone from this host is taken; of the process itself nothing
    is left.
    """
    first = held_unit(0)
    training(room, first)
    family = psutil.Process(first.pid).children(recursive=True)
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert until(lambda: not any(map(processes.alive, family)))
    assert len(claims(room / "colours")) == 1
    gates.open()
    ended(held_unit(0))
    assert {key: record.status for key, record in tiny.records(room).items()} == {
        ("a", 0): "ok",
        ("b", 0): "ok",
    }
    assert [job.how for job in read_jobs(room / "colours")] == [None, "done"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("plan.json", "--unit", "7"), "the plan has units 0 to 1, and no 7"),
        (("plan.json",), "give either --unit K or --prepare"),
        (("plan.json", "--unit", "0", "--prepare"), "give either --unit K or --prepare"),
        (("nowhere", "--unit", "0"), "there is no plan; run-all SUITE --on PROFILE makes one"),
        (("suite.json", "--unit", "0"), "can't be read as a plan"),
    ],
)
def test_a_mistake_is_one_sentence(
    words: tuple[str, ...], told: str, unit: Unit, room: Path
) -> None:
    """With status 2."""
    found = called("work", room / "colours" / words[0], *words[1:], status=2)
    assert told in found.output
    assert found.output.count("\n") == 1


# Time limits of jobs: which runs are begun, and what counts as too long; and nodes that would
# resolve otherwise


def plan_of(folder: Path, settings: dict[str, Any] | None = None, **profile: Any) -> JobPlan:
    suite = load_suite("quickstart", seeds=1)
    suite = suite.model_copy(update={"settings": suite.settings.model_copy(update=settings or {})})
    request = SweepRequest(suite, folder, ("head",))
    return plan_jobs(request, load_profile("manual", profile.items()), folder, None)


def job_work(folder: Path, plan: JobPlan, name: str = "j") -> JobWork:
    job = Job(
        engine="x",
        job=name,
        restart=0,
        unit=0,
        host="n1",
        pid=os.getpid(),
        began="2026-01-01T00:00:00Z",
    )
    return JobWork(plan, folder, job, Claim(folder, job), make_engine(plan.profile))


@pytest.mark.parametrize(
    ("left", "profile", "longest", "begun"),
    [
        (3600, {}, 300, (True, True)),
        (3600, {}, 3500, (True, False)),  # no job has more for its first run
        (600, {}, 600, (True, False)),
        (600, {"time": "1:00:00"}, 600, (False, False)),  # another job has
        (3600, {"time": "1:00:00"}, 3500, (True, False)),
        (3300, {"time": "1:00:00"}, 3000, (True, False)),  # a slow start took the rest
        (None, {"time": "1:00:00"}, 3500, (True, False)),
        (None, {}, 10**9, (True, True)),
    ],
)
def test_a_run_is_begun_where_it_can_end_or_no_job_has_longer(
    left: int | None,
    profile: dict[str, str],
    longest: float,
    begun: tuple[bool, bool],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of a job's runs the first and a later one, by the longest so far, whoever says what the
    limit is.
    """
    if left is not None:
        monkeypatch.setenv("HPML_BENCH_UNTIL", str(int(time.time()) + left))
    slowest = made_records.sweep(("head",), 1)[0].model_copy(update={"seconds": float(longest)})
    made_records.write(tmp_path, [slowest])
    found = job_work(tmp_path, plan_of(tmp_path, **profile))
    found.claim.take()
    for later, expected in enumerate(begun):
        found._begun = bool(later)
        ended = found.stop()
        assert (ended and ended.how) == (None if expected else "time")


def test_attempts_of_an_earlier_call_do_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After more time a run has two attempts again; the limit is named, and why no state was
    saved.
    """
    made = made_records.sweep(("head",), 1)[0].model_copy(update={"status": "interrupted"})
    monkeypatch.setenv("HPML_BENCH_UNTIL", str(int(time.time()) + 1800))

    def late(name: str, call: int) -> RunRecord | None:
        record = made.model_copy(
            update={"environment": made.environment | {"where": {"call": call}}}
        )
        found = job_work(tmp_path, plan_of(tmp_path).model_copy(update={"call": call}), name)
        found.until = time.time() + 30
        folder = found.results.begin(record.spec)
        folder.begin()
        (folder.path / "rank0.log").write_text("no checkpoint: a plug-in\nthe end\n")
        assert found.interrupted(record) == Ending("time")
        return found.results.run_folder(record.spec).record()

    assert late("a", 1) is None
    assert late("b", 2) is None
    second = late("c", 2)
    reason = (
        "not done in the job's time limit of 30 minutes, 2 times without progress (no checkpoint: "
        "a plug-in); give"
    )
    assert second.error.message == f"{reason} the profile more time"


@pytest.mark.parametrize(
    ("settings", "named"), [({"threads": None}, "threads"), ({"device": "auto"}, "device")]
)
def test_a_node_that_would_resolve_otherwise_is_refused(
    settings: dict[str, Any], named: str, tmp_path: Path
) -> None:
    """The first job decides what the suite leaves open; a later one on another kind of node says
    what differs.
    """
    plan = plan_of(tmp_path, settings)
    first = resolve_for_job(plan, tmp_path, Limits()).suite.settings
    assert resolve_for_job(plan, tmp_path, Limits()).suite.settings == first
    other = {"threads": 999, "device": "cuda"}[named]
    (tmp_path / RESOLVED).write_text(first.model_copy(update={named: other}).model_dump_json())
    with pytest.raises(UserError, match=f"this node would run with {named} .* instead of {other}"):
        resolve_for_job(plan, tmp_path, Limits())
