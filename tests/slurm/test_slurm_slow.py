"""Sweeps on a real Slurm of two nodes that take minutes: real time limits, a partition, the quickstart itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from disturbed import Disturbed
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
