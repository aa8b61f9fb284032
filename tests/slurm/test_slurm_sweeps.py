"""Sweeps on a real Slurm of two nodes: what users do with them, while nothing breaks."""

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from disturbed import Disturbed
from two_nodes import TwoNodes, until

from helpers.commands import called
from hpml_bench.cli import main
from hpml_bench.records.jobs import read_jobs
from hpml_bench.records.load import load_records
from hpml_bench.sweep import job as worker
from hpml_bench.sweep.jobs import find
from hpml_bench.system.errors import UserError

pytestmark = pytest.mark.cluster
Make = Callable[..., Disturbed]


def test_a_sweep_equals_a_local_one(disturbed: Make, truth: dict[str, Any]) -> None:
    """A job a seed, each on its node; all losses, norms and predictions are those of a sweep
    without a cluster.
    """
    sweep = disturbed()
    assert len(sweep.open(seeds=2).submit(again=True)) == 2
    assert sweep.complete()
    assert sweep.content() == truth
    where = [record.environment["where"] for record in load_records(sweep.folder).records]
    assert {(place["unit"], place["host"]) for place in where} in (
        {(0, "n1"), (1, "n2")},
        {(0, "n2"), (1, "n1")},
    )
    assert [how for _, how in sweep.starts()] == ["done", "done"]
    assert not sweep.left()
    assert not sweep.attempts()


@pytest.mark.parametrize("comment", [None, "", "project=x"])
def test_a_second_submission_attaches(
    comment: str | None, disturbed: Make, truth: dict[str, Any], slurm_cluster: TwoNodes
) -> None:
    """The same command while the first one's jobs run: it submits nothing and waits; nobody does
    a unit twice.
    """
    slurm_cluster.do("comments", *([] if comment is None else [comment]))
    sweep = disturbed()
    job = sweep.begin(methods=("held",))
    second = sweep.open(methods=("held",), again=True)
    assert len(second.submit(again=True)) == 0
    assert list(slurm_cluster.jobs()) == [job]
    with pytest.raises(UserError, match=f"unit 0 is held by job {job} on {sweep.node(job)}"):
        worker.work(sweep.folder, 0)
    sweep.pass_on()
    assert second.wait(lambda _: None, poll=0.5)
    assert sweep.complete()
    assert list(sweep.content().values()) == [truth[sweep.record().run_id]]
    assert sweep.starts() == [(f"{job}.0", "done")]


def test_a_waiter_that_is_interrupted_leaves_the_jobs(
    disturbed: Make, slurm_cluster: TwoNodes
) -> None:
    """Ctrl-C ends the waiting with status 130 and the command that ends the jobs, which go on;
    that ends them.
    """
    sweep = disturbed()
    sweep.close()
    command = [sys.executable, "-m", "hpml_bench", *sweep.command()]
    waiter = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    job = sweep.arrived()
    waiter.send_signal(signal.SIGINT)
    said, _ = waiter.communicate(timeout=60)
    assert waiter.returncode == 130
    folder = sweep.out / "colours"
    assert (
        f"the jobs go on; the same command waits for them again, and hpml-bench stop {folder} "
        f"ends them" in said
    )
    assert slurm_cluster.jobs()[job][0] == "RUNNING"
    stopped = CliRunner().invoke(main, ["stop", str(folder)])
    assert (stopped.exit_code, stopped.output) == (0, "1 job was ended\n")
    assert slurm_cluster.jobs() == {}
    assert not list((folder / "claims").iterdir())
    assert [(own.name, own.how) for own in read_jobs(folder)] == [(f"{job}.0", "interrupted")]


def test_a_detached_sweep_reports_by_itself(disturbed: Make, slurm_cluster: TwoNodes) -> None:
    """`--detach` returns at once; `status` shows the jobs; a last job writes the page when the
    others have ended.
    """
    sweep = disturbed()
    sweep.close()
    begun = called(*sweep.command("--detach"))
    job = sweep.arrived()
    folder = sweep.out / "colours"
    assert f"hpml-bench status {folder} shows the jobs" in begun.output
    assert sorted(state for state, _ in slurm_cluster.jobs().values()) == ["PENDING", "RUNNING"]
    shown = CliRunner().invoke(main, ["status", str(folder)]).output.splitlines()
    assert shown[0] == "0 of 1 runs are done; units: 1 running"
    assert shown[2].split() == [
        "0",
        "held",
        "seed",
        "0",
        "running",
        job,
        sweep.node(job),
        "0",
        "of",
        "1",
    ]
    sweep.pass_on()
    own = find(folder, lambda _: None)
    until(lambda: not own.engine.live(own.plan), "all jobs have ended")
    assert "held" in (folder / "report.html").read_text()
    shown = CliRunner().invoke(main, ["status", str(folder)]).output.splitlines()
    assert " ended " in shown[2]
    assert shown[2].endswith("1 of 1")


def test_a_job_prepares_before_the_others_begin(
    disturbed: Make, truth: dict[str, Any], shared_folder: Path
) -> None:
    """`prepare: job` with an empty cache: a first job fills it, and the others begin when it has
    ended well.
    """
    cache = shared_folder / "cache"
    sweep = disturbed(prepare="job", env={"HPML_BENCH_CACHE": str(cache)})
    assert not cache.exists()
    assert (
        len(sweep.open().submit(again=True)) == 1
    )  # the job may begin, and fill the cache, at once
    assert sweep.complete()
    assert cache.exists()
    first, second = read_jobs(sweep.folder)
    assert (first.unit, first.how, second.unit, second.how) == (-1, "done", 0, "done")
    assert first.ended <= second.began
    assert sweep.content() == {run: truth[run] for run in sweep.content()}
    assert len(sweep.content()) == 2
