"""Runs side by side on one machine: each in its part of it, with the results that they have one
after another.
"""

import os
import signal
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import psutil
import pytest
from click.testing import CliRunner

from helpers import tiny
from helpers.cli_process import Command
from helpers.held import Gates
from hpml_bench.builtin.engines import local
from hpml_bench.builtin.engines.local import Local, slots
from hpml_bench.cli import main
from hpml_bench.plugins.engine import JobBatch
from hpml_bench.records.jobs import LOGS, Job, JobPlan, Unit, UnitRun, claims, read_jobs
from hpml_bench.records.plan import Limits
from hpml_bench.suite.profile import Profile
from hpml_bench.suite.suite import load_suite
from hpml_bench.system import environment, gpus, heartbeat
from hpml_bench.system.errors import UserError

two_cores = pytest.mark.skipif(environment.cores() < 2, reason="needs two cores")
SIDE_BY_SIDE = ("--parallel", "2", "--nproc", "1")


def working(command: Command) -> tuple[Job, ...]:
    """Return the jobs under way once two take steps, else nothing."""
    beats = [
        beat for folder in command.out.glob("*/attempts/*/") for beat in heartbeat.read(folder)
    ]
    stepping = sum("step" in beat.where and psutil.pid_exists(beat.pid) for beat in beats)
    return claims(command.out / "colours") if stepping >= 2 else ()


# A sweep


@two_cores
def test_the_results_are_those_of_runs_one_after_another(gates: Gates, room: Path) -> None:
    """To the bit; what ran beside a run, and the cores it had, are in its record."""
    Command(gates.suite, room / "one", "--nproc", "1").ends(0, 300)
    gates.close("a", "b")
    command = Command(gates.suite, room / "two", *SIDE_BY_SIDE)
    command.until(lambda: working(command), 100)
    gates.open()
    said = command.ends(0, 300)
    assert "4 jobs for 4 runs given to this machine, 2 at a time" in said
    assert "[4/4] " in said
    alone, beside = tiny.records(room / "one"), tiny.records(room / "two")
    assert tiny.scores(beside) == tiny.scores(alone)
    assert {record.run_id for record in beside.values()} == {
        record.run_id for record in alone.values()
    }
    assert {record.neighbours for record in alone.values()} == {None}
    ids = {record.run_id for record in beside.values()}
    assert any(record.neighbours for record in beside.values())
    for record in beside.values():
        assert set(record.neighbours or ()) <= ids - {record.run_id}
        assert record.environment["hardware"]["cores"] == environment.cores() // 2
        assert record.environment["where"]["engine"] == "local"
        assert not record.environment["where"]["exclusive"]
    for record in beside.values():  # of two that ran side by side, each tells of the other
        for other in record.neighbours or ():
            assert record.run_id in next(r for r in beside.values() if r.run_id == other).neighbours  # type: ignore[operator]
    assert (room / "two/colours/report.html").is_file()


@two_cores
def test_it_goes_on_after_ctrl_c_and_a_kill(gates: Gates, room: Path) -> None:
    """Jobs and ranks on cores of their own, other commands refused; either end leaves nothing, and
    what is done stays.

    The same command, `run-all` without --parallel and `stop` are refused while runs are under way.
    """
    gates.close("a", "b")
    command = Command(gates.suite, room / "out", *SIDE_BY_SIDE)
    jobs: list[Job] = []
    command.until(lambda: jobs.extend(working(command)) or jobs, 100)
    allowed = []
    for job in jobs:
        family = [psutil.Process(job.pid), *psutil.Process(job.pid).children(recursive=True)]
        assert len(family) >= 3, "the job, its fork server, and a rank"
        allowed.append({core for process in family for core in process.cpu_affinity()})
    assert not allowed[0] & allowed[1]
    out = str(room / "out")
    for words, told in (
        (
            ["run-all", str(gates.suite), "--out", out, "--wandb", "off", *SIDE_BY_SIDE],
            "in use by process",
        ),
        (
            ["run-all", str(gates.suite), "--out", out, "--wandb", "off", "--nproc", "1"],
            "in use by process",
        ),
        (["stop", out], "press Ctrl-C there"),
    ):
        refused = CliRunner().invoke(main, words)
        assert (refused.exit_code, told in refused.output) == (2, True), refused.output
    assert "2 running" in CliRunner().invoke(main, ["status", out]).output.splitlines()[0]
    os.killpg(command.process.pid, signal.SIGINT)
    assert "the same command goes on from here" in command.ends(130)
    assert list((room / "tmp").iterdir()) == []
    assert claims(room / "out/colours") == ()
    assert {job.how for job in read_jobs(room / "out/colours")} == {"interrupted"}

    def done() -> dict[tuple[str, int], str]:
        return {
            key: record.started
            for key, record in tiny.records(room / "out").items()
            if record.status == "ok"
        }

    gates.open()
    gates.close("b")
    command = Command(gates.suite, room / "out", *SIDE_BY_SIDE)
    command.until(lambda: working(command) and done(), 100)
    before = done()
    command.process.kill()
    command.ended()
    assert len(command.family) >= 6, "two jobs with a fork server and a rank each"
    assert command.left() == []
    gates.open()
    said = Command(gates.suite, room / "out", *SIDE_BY_SIDE).ends(0, 300)
    assert f"{len(before)} of 4 runs are recorded already" in said
    assert done().items() >= before.items()
    assert len(done()) == 4, said


@two_cores
def test_what_no_job_can_do_is_told_once(
    tmp_path: Path, room: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job's sentence is the command's; it isn't left in a log."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    suite = tiny.local_suite(tmp_path)
    said = Command(suite, room / "out", *SIDE_BY_SIDE, "--seeds", "1", "--device", "cuda").ends(
        1, 300
    )
    assert said.count("a job ended: settings.device is cuda, but no GPU is visible") == 1
    assert "left 2 of 2 units undone" in said


# The machine's parts


CORES = (0, 1, 4, 5)
TWINS = [(core, core + 6) for core in range(6)]
"""Threads of six physical cores with two each."""


def machine(
    monkeypatch: pytest.MonkeyPatch, cards: str, cores: Iterable[int] = CORES, usable: int = 4
) -> None:
    found = tuple({"uuid": uuid, "index": index} for index, uuid in enumerate(cards))
    monkeypatch.setattr(gpus, "shareable_gpus", lambda: found)
    monkeypatch.setattr(environment, "cores", lambda: usable)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(cores))
    monkeypatch.setattr(local, "CORES", Path("/no such folder"))


@pytest.mark.parametrize(
    ("asked", "cards", "expected"),
    [
        ((2, None, None), "abcde", [((0, 1), ("a", "b")), ((4, 5), ("c", "d"))]),
        ((2, 1, 1), "abcde", [((0,), ("a",)), ((1,), ("b",))]),
        ((2, 0, None), "abcde", [((0, 1), ()), ((4, 5), ())]),
        ((4, None, None), "", [((core,), ()) for core in CORES]),
        (
            (5, None, None),
            "ab",
            r"5 runs side by side need 5 CPU cores, and 4 may be used here; give --parallel 4",
        ),
        ((3, None, 2), "ab", r"3 runs side by side need 6 CPU cores, and 4 .*--parallel 2"),
        (
            (4, None, None),
            "ab",
            r"4 runs side by side need 4 GPUs, and 2 .*--parallel 2; .*CUDA_VISIBLE_DEVICES=",
        ),
        ((2, 2, None), "ab", r"2 runs side by side need 4 GPUs, and 2 .*--parallel 1"),
    ],
)
def test_slots_are_equal_parts(
    asked: Any, cards: str, expected: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of cores and of GPUs by UUID, the same whatever is visible; too many are refused with what
    would fit.
    """
    machine(monkeypatch, cards)
    if isinstance(expected, str):
        with pytest.raises(UserError, match=expected):
            slots(*asked)
    else:
        assert [(slot.cores, slot.cards) for slot in slots(*asked)] == expected


@pytest.mark.parametrize(("count", "each", "expected"), [
    # five threads each, of which one would be the other's sibling
    (2, None, [(0, 6, 1, 7), (2, 8, 3, 9)]),
    (4, 1, [(0,), (1,), (2,), (3,)]),
    (2, 3, [(0, 1, 2), (3, 4, 5)]),
    (3, 4, [(0, 6, 1, 7), (2, 8, 3, 9), (4, 10, 5, 11)]),
    (12, 1, [(thread,) for threads in TWINS for thread in threads]),
])  # fmt: skip
def test_parts_share_no_physical_core(
    count: int,
    each: int | None,
    expected: list[tuple[int, ...]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Threads of a core go together, or one of each is taken where that is enough."""
    machine(monkeypatch, "", range(12), 12 if each else 10)
    monkeypatch.setattr(local, "CORES", tmp_path)
    for thread in range(12):
        folder = tmp_path / f"cpu{thread}" / "topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text("{},{}\n".format(*TWINS[thread % 6]))
    assert [slot.cores for slot in slots(count, None, each)] == expected


class Printing(Local):
    """Jobs that print what they were given, and end once they may."""

    def command(self, batch: JobBatch, unit: int) -> list[str]:
        shown = (
            "os.environ['CUDA_VISIBLE_DEVICES'], *os.sched_getaffinity(0), "
            "os.environ['HPML_BENCH_JOB']"
        )
        waiting = f"while not os.path.exists({str(batch.folder / 'end')!r}): time.sleep(0.02)"
        return ["-c", f"import os, time; print({shown}, flush=True)\n{waiting}"]


def printing(folder: Path, parallel: int) -> tuple[Printing, JobBatch]:
    """Return such an engine that has been checked, and three jobs."""
    profile = Profile(engine="local", unit="run", parallel=parallel)
    units = tuple(Unit(tasks=(UnitRun(method="head", seed=seed),)) for seed in range(3))
    plan = JobPlan(
        id="hpml-1",
        suite=load_suite("quickstart"),
        profile=profile,
        units=units,
        limits=Limits(stall=300),
    )
    made = Printing(profile)
    made.check()
    return made, JobBatch(plan, folder, (0, 1, 2), ("work",))


@two_cores
def test_a_job_sees_the_gpus_of_its_slot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And its cores; a slot that is free goes to the next job, so that no two have one at a
    time.
    """
    found = ({"uuid": "GPU-a", "index": 0}, {"uuid": "GPU-b", "index": 1})
    monkeypatch.setattr(gpus, "shareable_gpus", lambda: found)
    made, batch = printing(tmp_path, 2)
    made.submit(batch)
    assert [(job.unit, job.running) for job in made.live(batch.plan)] == [
        (0, True),
        (1, True),
        (2, False),
    ]
    (tmp_path / "end").touch()
    while made.live(batch.plan):
        made.wait(5)
    told = [(tmp_path / LOGS / f"unit-{unit}.log").read_text().split() for unit in range(3)]
    assert [words[0] for words in told] == ["GPU-a", "GPU-b", told[2][0]]
    assert told[0][1:-1] != told[1][1:-1]
    jobs = [words[-1] for words in told]
    assert all(job.startswith(f"{os.getpid()}-{unit}-") for unit, job in enumerate(jobs))
    assert len({*jobs}) == 3
