"""A sweep by jobs knows what is to be done: once a call, and not after it was stopped."""

import os
import re
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner
from rich.console import Console

from helpers import made_records
from helpers.commands import called
from helpers.fake_slurm import asked, line, on_slurm, opened, record_of, resolved
from hpml_bench.cli import main, on
from hpml_bench.records.folder import RunFolder, SharedResults, locked
from hpml_bench.records.jobs import Job, read_plan, write_job
from hpml_bench.records.plan import Plan
from hpml_bench.records.run import RunRecord, Status
from hpml_bench.suite.settings import Digests, RunSpec
from hpml_bench.suite.suite import load_suite
from hpml_bench.sweep.jobs import JobSweep, find
from hpml_bench.sweep.local import run_sweep
from hpml_bench.sweep.request import plan_jobs
from hpml_bench.sweep.status import state
from hpml_bench.sweep.watch import FRUITLESS_LIMIT
from hpml_bench.system.errors import UserError

JOB = Job(engine="x", job="j", restart=0, unit=0, host="n1", pid=1, began="2026-01-01T00:00:00Z")
OTHER = Digests(weights="other", tokenizer="t", data="d")


def record(status: Status, call: int | None) -> RunRecord:
    """Return the record of a run that a job made in a call of run-all; None: none did."""
    made = made_records.sweep(("lora",), 1)[0]
    environment = made.environment | ({} if call is None else {"where": {"call": call}})
    return made.model_copy(update={"status": status, "environment": environment})


@pytest.fixture
def one_run(tmp_path: Path) -> tuple[JobSweep, RunSpec]:
    """A sweep of one run by hand whose settings are resolved, and the run."""
    sweep = JobSweep.open(*asked(), tmp_path / "quickstart", print)
    resolved(sweep)
    (spec,) = sweep.watch.refresh().runs
    return sweep, spec


@pytest.mark.parametrize(
    ("status", "call", "again", "settled"),
    [
        ("ok", 1, False, True),
        ("ok", 1, True, True),
        ("failed", 1, False, False),  # before it was asked for again
        ("failed", None, False, False),
        ("failed", 2, False, True),
        ("failed", 2, True, False),
        ("timeout", 2, False, True),
    ],
)
def test_a_failed_run_is_done_again_once_a_call(
    status: Status, call: int | None, again: bool, settled: bool, tmp_path: Path
) -> None:
    """By jobs of the call that asks for it again, and not by further jobs of one in which it
    failed.
    """
    planned = plan_jobs(*asked(), tmp_path, plan_jobs(*asked(), tmp_path, None))
    assert planned.call == 2
    made = record(status, call)
    plan = Plan(((made.spec,),), made.digests, since=None if again else planned.call)
    assert plan.settles(made) is settled
    assert plan.remaining([made]) == ((() if settled else (made.spec,)),)
    assert not replace(plan, digests=OTHER).settles(made)
    stale = made.model_copy(update={"protocol_id": "of other settings"})
    assert not plan.settles(stale)


def test_who_waits_for_a_stopped_sweep_submits_nothing(tmp_path: Path) -> None:
    """`stop` in another terminal ends the waiting too; the same call begins again."""
    said: list[str] = []
    sweep = JobSweep.open(*asked(), tmp_path / "quickstart", said.append)
    JobSweep(sweep.folder, read_plan(sweep.folder), sweep.engine, print).stop()
    assert not sweep.wait(lambda _: None)
    assert sweep.submit(again=True) == ()
    assert said == ["the sweep was stopped"] * 2
    assert not read_plan(JobSweep.open(*asked(), sweep.folder, print).folder).stopped


def test_two_that_submit_at_once_do_so_one_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second waits until the first one's jobs can be seen, and gives up after a while."""
    said: list[str] = []
    monkeypatch.setattr("hpml_bench.sweep.jobs.SUBMITTED_SECONDS", 0.2)
    monkeypatch.setattr("hpml_bench.sweep.jobs.OPENED_SECONDS", 0.1)
    sweep = JobSweep.open(*asked(), tmp_path / "quickstart", said.append)
    with locked(sweep.folder), pytest.raises(UserError, match="in use by process"):
        sweep.submit(again=True)
    assert "in use by process" in said[0]
    assert said[0].endswith("; waiting for it")
    assert len(sweep.submit(again=True)) == 1


def test_a_job_that_could_not_be_launched_is_submitted_anew(tmp_path: Path, slurm: Path) -> None:
    """Slurm holds it, and would never begin it; a sweep that gets nowhere this way ends."""
    submitted, cancelled = (
        "$(ls given* 2>/dev/null | wc -l)",
        "$(cat cancelled 2>/dev/null | wc -l)",
    )
    (slurm / "squeue").write_text(
        f"#!/bin/bash\ncd {slurm}\n[ {submitted} -le {cancelled} ] || cat held\n"
    )
    sweep = opened(tmp_path)
    (slurm / "held").write_text(line(sweep, "7_0", "PENDING|launch failed requeued held"))
    assert len(sweep.submit(again=True)) == 1
    assert not sweep.wait(lambda _: None, poll=0.01)
    held = "job 7_0 (1 in all) is held: pending (launch failed requeued held); cancelled"
    assert sweep.said.count(held) == FRUITLESS_LIMIT + 1
    assert len(list(slurm.glob("given*"))) == FRUITLESS_LIMIT + 1


def test_jobs_that_the_engine_would_never_begin_end_the_wait(tmp_path: Path, slurm: Path) -> None:
    """They are cancelled, and Slurm's reason is the sweep's: the same jobs submitted again would
    wait as well.
    """
    sweep = opened(tmp_path)
    assert len(sweep.submit(again=True)) == 1
    (slurm / "queue").write_text(line(sweep, "7_0", "PENDING|PartitionTimeLimit"))
    assert not sweep.wait(lambda _: None, poll=0.01)
    assert len(list(slurm.glob("given*"))) == 1
    assert (slurm / "cancelled").read_text() == "-- 7_[0]\n"
    assert sweep.reasons() == [
        "Slurm would never begin such jobs: PartitionTimeLimit; change the profile's requests"
    ]
    (slurm / "queue").write_text(line(sweep, "7_0", "PENDING|PartitionTimeLimit"))
    assert len(sweep.submit(again=True)) == 1, "of an earlier call, perhaps with another profile"
    assert sweep.reasons() == [
        (
            f"no job has left a log in {sweep.folder / 'logs'}: see that the nodes have this "
            f"folder, under this path"
        )
    ]
    (sweep.folder / "logs" / "7_0.log").write_text("loading\nline 12: module: command not found\n")
    told = "no job began its work; the last line of 7_0.log is: line 12: module: command not found"
    assert sweep.reasons() == [told]
    write_job(
        sweep.folder,
        Job(engine="slurm", job="7_0", restart=0, unit=0, host="n", pid=1, began="2026"),
    )
    assert sweep.reasons() == []


def test_why_jobs_wait_is_said_once(tmp_path: Path, slurm: Path) -> None:
    """While none runs: who waits for hours wants to know for what."""
    sweep = opened(tmp_path)
    queue = [
        line(sweep, "7_0", f"PENDING|{reason}")
        for reason in ("Priority", "None", "Resources", "Priority")
    ]
    find(sweep.folder, print).stop()  # so that it ends when the queue is empty
    in_turn(slurm, *queue, line(sweep, "7_0"), "")
    assert not sweep.wait(lambda _: None, poll=0.01)
    assert sweep.said == [
        "no job runs, 1 wait: Priority",
        "no job runs, 1 wait: Resources",
        "the sweep was stopped",
    ]


def test_jobs_get_the_path_as_it_was_typed(
    tmp_path: Path, slurm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nodes may have a folder by a link alone; the jobs of a sweep are found by whatever path it
    is named.
    """
    real, link = tmp_path / "real", tmp_path / "home"
    real.mkdir()
    link.symlink_to(real)
    typed = ["--out", str(link / "reports")], ["--out", "reports"]
    monkeypatch.chdir(link)
    monkeypatch.setenv("PWD", str(link))
    for out in typed:
        shown = called("run-all", "quickstart", "--on", "slurm", "--dry-run", *out)
        assert f" {link}/reports/quickstart/plan.json " in shown.output
        assert f"--output={link}/reports/quickstart/logs/" in shown.output
    plans = [
        JobSweep.preview(*on_slurm(), folder / "reports/quickstart", print).plan
        for folder in (link, real)
    ]
    assert plans[0].id == plans[1].id
    monkeypatch.setenv(
        "PWD", str(tmp_path)
    )  # left by something that changed folders without a shell
    shown = CliRunner().invoke(
        main, ["run-all", "quickstart", "--on", "slurm", "--dry-run", "--out", "reports"]
    )
    assert f" {real}/reports/quickstart/plan.json " in shown.output


@pytest.mark.parametrize(
    ("status", "cut", "ended", "said"),
    [
        ("ok", False, 0, ""),
        ("ok", True, 1, "1 of 1 runs did not end well; see the report's failures\n"),
        ("unsupported", False, 1, "all 1 runs are unsupported; see the report's failures\n"),
    ],
)
def test_a_sweep_without_a_good_record_is_no_success(
    status: Status,
    cut: bool,
    ended: int,
    said: str,
    one_run: tuple[JobSweep, RunSpec],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Whether a record was cut after it was counted, or no method can be run with the model."""
    sweep, spec = one_run
    made_records.write(sweep.folder, [record_of(spec).model_copy(update={"status": status})])
    monkeypatch.setattr(on, "_wait", lambda *_: True)
    if cut:
        monkeypatch.setattr(
            on, "write", lambda *_: os.truncate(sweep.folder / spec.run_id / "run.json", 100)
        )
    assert on._submit_and_wait(sweep, {}, detach=False) == ended
    assert capsys.readouterr().err == said


def test_two_sweeps_do_not_mix_in_a_folder(tmp_path: Path, slurm: Path) -> None:
    """The first is told that another was planned, before it has jobs; with jobs the second is
    refused.
    """
    first = opened(tmp_path)
    other = asked(profile=on_slurm()[1], suite=load_suite("quickstart", seeds=2))
    second = JobSweep.open(*other, first.folder, print)
    with pytest.raises(
        UserError, match="another sweep, or this one with another profile, was begun here meanwhile"
    ):
        first.submit(again=True)
    assert len(second.submit(again=True)) == 2
    (slurm / "queue").write_text(line(second, "7_0"))
    with pytest.raises(
        UserError,
        match=r"jobs of another plan, or of another profile, work in it \(7_0\); end them",
    ):
        JobSweep.open(*on_slurm(), first.folder, print)
    with pytest.raises(
        UserError, match=r"work in it \(7_0\); end them with hpml-bench stop"
    ):  # also without jobs
        run_sweep(replace(asked()[0], out=first.folder.parent), Console(quiet=True))


def test_a_folder_whose_engine_does_not_answer_is_refused(tmp_path: Path, slurm: Path) -> None:
    """Jobs of its plan may live: neither runs without jobs nor another plan begin there."""
    sweep = opened(tmp_path)
    (slurm / "squeue").write_text("#!/bin/bash\necho 'Unable to contact' >&2; exit 1\n")
    unknown = r"isn't known whether jobs .* \(squeue: Unable to contact\); try again once Slurm"
    with pytest.raises(UserError, match=unknown):
        run_sweep(replace(asked()[0], out=sweep.folder.parent), Console(quiet=True))
    with pytest.raises(UserError, match=unknown):
        JobSweep.open(*on_slurm(cpus_per_node=3), sweep.folder, print)


def test_jobs_that_resolve_otherwise_do_not_mix(tmp_path: Path, slurm: Path) -> None:
    """Other cores give other threads: such a profile is refused while jobs live; later settings
    are resolved anew.
    """
    sweep = JobSweep.open(*on_slurm(cpus_per_node=8), tmp_path / "quickstart", print)
    kept = resolved(sweep)
    (slurm / "queue").write_text(line(sweep, "7_0"))
    JobSweep.open(*on_slurm(cpus_per_node=8, time="1:00:00"), sweep.folder, print)
    with pytest.raises(UserError, match="of another profile"):
        JobSweep.open(*on_slurm(cpus_per_node=16), sweep.folder, print)
    assert kept.exists()
    assert (
        JobSweep.preview(*on_slurm(cpus_per_node=16), sweep.folder, print).watch.refresh() is None
    )
    (slurm / "queue").unlink()
    JobSweep.open(*on_slurm(cpus_per_node=16), sweep.folder, print)
    assert not kept.exists()
    with pytest.raises(UserError, match="this one with another profile"):
        sweep.submit(again=True)


def test_an_array_that_is_refused_comes_later(tmp_path: Path, slurm: Path) -> None:
    """A limit on jobs in the queue is no reason to give up those that were taken."""
    (slurm / "most").write_text("8")
    sweep = opened(tmp_path, seeds=5, options={"array": 2})
    assert len(sweep.submit(again=True)) == 4
    assert (
        sweep.said[-1]
        == "sbatch: too many jobs; the other 1 jobs are submitted when those before have ended"
    )
    assert "#SBATCH --dependency=afterany:7" in (slurm / "given8").read_text()


def test_a_detached_report_waits_for_all_jobs(tmp_path: Path, slurm: Path) -> None:
    """Also for those of an earlier call; there is one report, and none where no job is left."""
    sweep = opened(tmp_path)
    assert not sweep.submit_report()
    (slurm / "queue").write_text(line(sweep, "3_0") + line(sweep, "5_0"))
    assert sweep.submit_report()
    assert "#SBATCH --dependency=afterany:3,afterany:5" in (slurm / "given7").read_text()
    (slurm / "queue").write_text(
        line(sweep, "3_0") + line(sweep, "7", "PENDING|Dependency", kind="report")
    )
    assert sweep.submit_report()
    assert len(list(slurm.glob("given*"))) == 1
    (slurm / "queue").write_text(line(sweep, "3_0"))
    (slurm / "most").write_text("6")
    assert sweep.submit_report()
    assert "no job writes the report" in sweep.said[-1]


def test_a_dry_run_prints_all_jobs_that_are_not_there(tmp_path: Path, slurm: Path) -> None:
    """A preparation, the units that have no job, the report; names that Slurm gives later stand
    in capitals.
    """
    wanted = on_slurm(prepare="job")
    printed = JobSweep.preview(*wanted, tmp_path / "quickstart", print).script(detach=True)
    assert [text.split()[-1] for text in printed.strip().split("#!/bin/bash")[1:]] == [
        "--prepare",
        '"$SLURM_ARRAY_TASK_ID"',
        str(tmp_path / "quickstart"),
    ]
    assert "--dependency=afterok:PREPARE\n" in printed
    assert "--dependency=afterany:PREPARE,afterany:UNITS\n" in printed
    assert not (tmp_path / "quickstart").exists()
    sweep = JobSweep.open(*wanted, tmp_path / "quickstart", print)
    printed = sweep.script()
    assert sweep.submit(again=True) == (0,)
    given = "\n".join((slurm / name).read_text() for name in ("given7", "given8"))
    given = given.replace("afterok:7", "afterok:PREPARE")
    first, second = (
        re.sub("(?m)^export HPML_BENCH_QUEUED=.*$", "", text).split() for text in (printed, given)
    )
    assert first == second, "the very scripts, but for the time at which they are submitted"
    (slurm / "queue").write_text(line(sweep, "8_0"))
    assert sweep.script() == ""


@pytest.mark.parametrize("threads", [1, 2])
def test_a_fresh_sweep_of_some_methods_removes_runs_of_a_sweep_without_jobs(
    threads: int, tmp_path: Path
) -> None:
    """Whatever a machine decided of settings that are left open; runs of other settings or
    methods stay.
    """
    suite = load_suite("quickstart", seeds=1)
    left_open = suite.settings.model_copy(update={"threads": None, "device": "auto"})
    made = []
    there: list[tuple[str, dict[str, object], dict[str, object]]] = [
        ("head", {}, {}),
        ("head", {"steps": 3}, {}),
        ("head", {"dropout": 0.3}, {}),
        ("head", {}, {"lr": 1e-5}),
        ("lora", {}, {}),
    ]
    for name, setting, option in there:
        settings = suite.settings.model_copy(
            update={"threads": threads, "device": "cpu", **setting}
        )
        (spec,) = suite.model_copy(update={"settings": settings}).runs([name])
        spec = spec.model_copy(update={"method": spec.method.model_copy(update=option)})
        folder = RunFolder(tmp_path / "quickstart" / spec.run_id)
        folder.begin()
        folder.commit(
            made_records.sweep(("head",), 1)[0].model_copy(
                update={"spec": spec, "run_id": spec.run_id}
            )
        )
        made.append(folder.path)
    wanted = asked(suite=suite.model_copy(update={"settings": left_open}), fresh=True)
    JobSweep.open(*wanted, tmp_path / "quickstart", print)
    assert [path.exists() for path in made] == [False, True, True, True, True]


@pytest.mark.parametrize("option", ["--dry-run", "--detach"])
def test_options_of_jobs_without_jobs_are_refused(option: str, tmp_path: Path) -> None:
    """A dry run that runs a sweep would be no dry run."""
    found = called("run-all", "quickstart", option, "--out", tmp_path / "out", status=2)
    assert f"{option} needs --on PROFILE" in found.output
    assert not (tmp_path / "out").exists()


def publish(sweep: JobSweep, record: RunRecord) -> Path:
    results = SharedResults(sweep.folder, JOB)
    attempt = results.begin(record.spec)
    attempt.begin()
    return results.path / results.publish(record.spec, attempt.commit(record)).run_id


def publish_ok(sweep: JobSweep, number: int) -> None:
    for spec in sweep.watch.refresh().units[number]:
        publish(sweep, record_of(spec))


def test_who_waits_reads_a_record_once(
    one_run: tuple[JobSweep, RunSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And again where it was replaced; thousands of records are not read at each look."""
    sweep, spec = one_run
    made = record_of(spec)
    folder = publish(sweep, made)
    looked: list[Path] = []
    read = RunFolder.record
    monkeypatch.setattr(RunFolder, "record", lambda run: looked.append(run.path) or read(run))
    for _ in range(3):
        assert [made.status for made in sweep.watch.records()] == ["ok"]
        sweep.watch.left(again=True)
    assert len(looked) == 1
    replaced = folder.rename(folder.with_name("elsewhere"))
    folder.mkdir()
    (folder / "run.json").write_text("{")
    looked.clear()
    assert sweep.watch.records() == ()
    sweep.watch.left(again=True)
    assert len(looked) == 2, "what couldn't be read is looked at again"
    assert replaced.exists()


def in_turn(slurm: Path, *answers: str) -> None:
    """Let squeue give these answers one after another, and the last one from then on."""
    (slurm / "squeue").write_text(
        f"#!/bin/bash\ncd {slurm}\nnumber=$(($(cat asked 2>/dev/null || echo 0) + 1))\necho "
        f"$number > asked\n"
        f"[ $number -le {len(answers)} ] || number={len(answers)}\ncat answer$number\n"
    )
    for number, text in enumerate(answers, start=1):
        (slurm / f"answer{number}").write_text(text)


def at_each_look(sweep: Any, work: Callable[[int], object], patch: pytest.MonkeyPatch) -> None:
    """Let `work` be done with the number of each look in place of the wait after it; units
    without a job are due.
    """
    looks = count()
    patch.setattr(sweep.engine, "wait", lambda _: work(next(looks)))
    patch.setattr("hpml_bench.sweep.watch.AGAIN_SECONDS", 0.0)


def test_an_old_answer_is_no_absence(
    tmp_path: Path, slurm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where squeue doesn't show a job yet that was submitted, its unit is not submitted again,
    also by another call.
    """
    sweep = opened(tmp_path, lag=60)
    resolved(sweep)
    in_turn(slurm, *[""] * 4, line(sweep, "7_0"), "")
    assert sweep.submit(again=True) == (0,)
    assert JobSweep.open(*on_slurm(lag=60), sweep.folder, print).submit(again=True) == ()
    at_each_look(sweep, lambda look: publish_ok(sweep, 0) if look == 6 else None, monkeypatch)
    assert sweep.wait(lambda _: None, poll=0.01)
    assert len(list(slurm.glob("given*"))) == 1
    assert not any("no job" in text for text in sweep.said)


def test_an_absence_is_believed_after_a_while(
    tmp_path: Path, slurm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once where the job has said that it ended; it is the same unit's last start that
    counts.
    """
    sweep = opened(tmp_path, lag=60)
    assert sweep.submit(again=True) == (0,)
    assert sweep.submit(again=True) == ()
    ended = JOB.model_copy(update={"job": "7_0", "ended": "2026-01-01T00:00:01+00:00"})
    write_job(sweep.folder, ended)
    assert sweep.submit(again=True) == (0,)
    assert sweep.submit(again=True) == (), "7_0 isn't the job that was submitted last"
    write_job(sweep.folder, ended.model_copy(update={"job": "8_0"}))
    restarted = {"job": "8_0", "began": "2020-01-01T00:00:00+00:00", "ended": None, "restart": 1}
    write_job(sweep.folder, ended.model_copy(update=restarted))
    assert sweep.submit(again=True) == (), "on a node whose clock is years behind"
    later = SimpleNamespace(time=lambda: time.time() + 61, monotonic=lambda: time.monotonic() + 61)
    monkeypatch.setattr("hpml_bench.sweep.watch.time", later)
    assert sweep.submit(again=True) == (0,)


def test_a_refused_resubmission_is_tried_again(
    tmp_path: Path, slurm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wait goes on for some minutes, and ends with the engine's own words where nothing
    changes.
    """
    sweep = opened(tmp_path)
    assert sweep.submit(again=True) == (0,)
    (slurm / "most").write_text("7")
    monkeypatch.setattr("hpml_bench.sweep.watch.UNANSWERED_SECONDS", 0.3)
    with pytest.raises(UserError, match="too many jobs"):
        sweep.wait(lambda _: None, poll=0.01)
    assert "sbatch: too many jobs; trying again" in sweep.said


def test_a_full_queue_does_not_end_the_wait(
    tmp_path: Path, slurm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Units that a limit on jobs in the queue leaves out are submitted when others have ended,
    however late.
    """
    sweep = opened(tmp_path, seeds=2, options={"array": 1})
    resolved(sweep)
    (slurm / "most").write_text("7")
    monkeypatch.setattr("hpml_bench.sweep.watch.UNANSWERED_SECONDS", 0.0)
    assert sweep.submit(again=True) == (0,)
    (slurm / "queue").write_text(line(sweep, "7_0"))

    def work(look: int) -> None:
        if look == 5:
            publish_ok(sweep, 0)
            (slurm / "most").write_text("9")
            (slurm / "queue").unlink()
        elif (slurm / "given8").exists():
            publish_ok(sweep, 1)

    at_each_look(sweep, work, monkeypatch)
    assert sweep.wait(lambda _: None)
    assert "sbatch: too many jobs; trying again" in sweep.said
    assert len(list(slurm.glob("given*"))) == 2


def test_a_unit_is_given_up_while_others_go_on(
    tmp_path: Path, slurm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has so many submissions in a row that bring no new run, and doesn't wait for the
    others' end for them.
    """
    sweep = opened(tmp_path, seeds=2)
    resolved(sweep)
    assert sweep.submit(again=True) == (0, 1)
    (slurm / "queue").write_text(line(sweep, "7_0"))

    def work(look: int) -> None:
        if look == 9:
            publish_ok(sweep, 0)
            (slurm / "queue").unlink()

    at_each_look(sweep, work, monkeypatch)
    assert not sweep.wait(lambda _: None)
    assert len(list(slurm.glob("given*"))) == 1 + FRUITLESS_LIMIT
    assert "--array=1%" in (slurm / "given8").read_text()
    assert "1 unit with runs left and no job: submitted" in sweep.said


def test_stop_ends_jobs_that_squeue_does_not_show_yet(tmp_path: Path, slurm: Path) -> None:
    """By the number that sbatch returned; until then another plan is refused, and a report waits
    for them.
    """
    sweep = opened(tmp_path, lag=60)
    assert sweep.submit(again=True) == (0,)
    with pytest.raises(UserError, match=r"of another profile, work in it \(7\)"):
        JobSweep.open(*on_slurm(lag=60, cpus_per_node=3), sweep.folder, print)
    assert sweep.submit_report()
    assert "--dependency=afterany:7\n" in (slurm / "given8").read_text()
    assert find(sweep.folder, print).stop() == 2
    assert (slurm / "cancelled").read_text() == "--quiet -- 7 8\n"
    assert find(sweep.folder, print).stop() == 0


@pytest.mark.parametrize(
    ("status", "said"),
    [
        ("ok", "1 of 1 runs are done; units: 1 ended"),
        ("failed", "0 of 1 runs are done, 1 failed; units: 1 ended"),
        ("interrupted", "0 of 1 runs are done; units: 1 not begun"),
    ],
)
def test_an_interrupted_run_ends_no_unit(
    status: Status, said: str, one_run: tuple[JobSweep, RunSpec]
) -> None:
    """A run that its user ended is left, and didn't fail."""
    sweep, spec = one_run
    made_records.write(sweep.folder, [record_of(spec).model_copy(update={"status": status})])
    assert state(sweep)[0] == said
