"""Sweeps on a real Slurm of two nodes that take minutes: real time limits, a partition, the quickstart itself."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import soak
from disturbed import PROFILE, Disturbed
from two_nodes import TwoNodes, until

pytestmark = pytest.mark.cluster_slow
Make = Callable[..., Disturbed]


def test_a_partition_that_heals_leaves_one_run(disturbed: Make, truth: dict[str, Any], slurm_cluster: TwoNodes) -> None:
    """A node's link is down until its job is requeued, then up again, while both starts of the job finish the run.

    Exactly one is committed, the other set aside; the first start is told that it was begun anew, or is killed as the
    node is back. Protection: the commit's rename, and the claim (SharedResults.publish, Claim.held).
    """
    sweep = disturbed()
    job = sweep.begin(methods=("held", "lora"))
    lost = sweep.node(job)
    slurm_cluster.do("link", lost, "down")
    assert sweep.arrived(restart=1) == job
    assert sweep.node(job) != lost
    sweep.pass_on()
    until(lambda: len(list(sweep.folder.glob("held-*/run.json"))) == 1 and sweep.aside(), "one counts, one is aside")
    slurm_cluster.do("link", lost, "up")
    assert sweep.complete()
    assert sweep.content() == {run: truth[run] for run in sweep.content()}
    assert len(sweep.content()) == 2
    assert len(sweep.aside()) == 1
    until(lambda: not slurm_cluster.unwell(), "the node is back")
    assert not sweep.left()


def test_a_partition_that_heals_before_the_run_is_done(
    disturbed: Make, truth: dict[str, Any], slurm_cluster: TwoNodes
) -> None:
    """The link is up again while both starts of the job are in the run: Slurm ends the first, or both finish it.

    Protection: as above.
    """
    sweep = disturbed()
    job = sweep.begin()
    lost = sweep.node(job)
    slurm_cluster.do("link", lost, "down")
    assert sweep.arrived(restart=1) == job
    slurm_cluster.do("link", lost, "up")
    until(lambda: not slurm_cluster.unwell() - {sweep.node(job)}, "the node is back")
    sweep.pass_on()
    assert sweep.complete()
    assert sweep.content() == {run: truth[run] for run in sweep.content()}
    assert len(sweep.content()) == 2
    assert len(sweep.aside()) + len(sweep.attempts()) == 1


def test_a_job_that_meets_its_time_limit_is_submitted_again(disturbed: Make, truth: dict[str, Any]) -> None:
    """A limit of two minutes, of Slurm's own: TERM comes before it, the run is interrupted, and a new job does it.

    Protection: sbatch's --signal, and SLURM_JOB_END_TIME, which tells a limit from a preemption.
    """
    sweep = disturbed(time="0:02:00")
    job = sweep.begin()
    until(lambda: [how for _, how in sweep.starts()] == ["time"], "the job was asked to end")
    sweep.pass_on()
    assert sweep.complete()
    assert sweep.content() == {run: truth[run] for run in sweep.content()}
    assert sweep.record("lora").environment["where"]["job"] == job
    assert [how for _, how in sweep.starts()] == ["time", "done"]


def test_a_limit_shorter_than_a_run_is_named_and_not_tried_for_ever(disturbed: Make) -> None:
    """A run that takes longer than two minutes, in jobs of two minutes: a timeout after two of them.

    Protection: attempts that a limit ended are counted (job.TRIES).
    """
    sweep = disturbed(time="0:02:00")
    sweep.begin(methods=("held",))
    until(lambda: not sweep.sweep.engine.live(sweep.sweep.plan), "the job has ended")
    assert len(sweep.sweep.submit(again=False)) == 1
    until(lambda: not sweep.sweep.engine.live(sweep.sweep.plan), "the second job has ended")
    assert sweep.complete()
    assert [how for _, how in sweep.starts()] == ["time", "time"]
    record = sweep.record()
    assert record.status == "timeout"
    assert record.error is not None
    assert "time limit of 0:02:00, 2 times" in record.error.message


def test_the_quickstart_on_slurm_is_the_local_one(slurm_cluster: TwoNodes, shared_folder: Path) -> None:
    """`run-all quickstart --on tests/slurm/slurm.yaml`: the accuracies of the local run bit for bit, and a report.

    Protection: ranks, threads and precision are resolved once, and nothing of them depends on who starts the job.
    """
    shared = [sys.executable, "-m", "hpml_bench", "run-all", "quickstart", "--wandb", "off"]
    for name, options in (("local", []), ("slurm", ["--on", str(PROFILE)])):
        done = subprocess.run(
            [*shared, "--out", str(shared_folder / name), *options],
            capture_output=True,
            text=True,
            timeout=1800,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
    found, expected = (soak.content(shared_folder / name / "quickstart") for name in ("slurm", "local"))
    assert found == expected
    assert len(found) == 25
    page = (shared_folder / "slurm" / "quickstart" / "report.html").read_text()
    assert re.search(r"\blora\b", page)
