"""Sweeps on a real Slurm of two nodes, disturbed: each completes, and equals an undisturbed local
one to the bit.

What is disturbed has come to a known place, the gate of its second run; no test waits for a time.
"""

from collections.abc import Callable
from typing import Any

import pytest
from disturbed import Disturbed
from two_nodes import TwoNodes, slurm, until

from hpml_bench.records.jobs import read_jobs

pytestmark = pytest.mark.cluster
Make = Callable[..., Disturbed]


def equal(sweep: Disturbed, truth: dict[str, Any]) -> None:
    """Complete a sweep; it must be what the local one is, and no claim may be left."""
    assert sweep.complete()
    found = sweep.content()
    assert found == {run: truth[run] for run in found}
    assert len(found) == sum(len(unit.tasks) for unit in sweep.sweep.plan.units)
    until(lambda: not sweep.left(), "no claim is left")


def first_run_was_kept(sweep: Disturbed, job: str) -> None:
    where = sweep.record("lora").environment["where"]
    assert (where["job"], where["restart"]) == (job, 0)


def test_a_requeued_job_goes_on(
    disturbed: Make, truth: dict[str, Any], slurm_cluster: TwoNodes
) -> None:
    """`scontrol requeue`: the run under way is interrupted, the same job begins anew, and what
    was done is kept.
    """
    sweep = disturbed()
    job = sweep.begin()
    slurm("scontrol", "requeue", job)
    assert sweep.arrived(restart=1) == job
    sweep.pass_on()
    equal(sweep, truth)
    first_run_was_kept(sweep, job)
    assert sweep.starts() == [(f"{job}.0", "interrupted"), (f"{job}.1", "done")]
    assert sweep.record().environment["where"]["restart"] == 1
    assert len(sweep.attempts()) == 1


@pytest.mark.cluster_slow
def test_a_preempted_job_goes_on(
    disturbed: Make, truth: dict[str, Any], slurm_cluster: TwoNodes
) -> None:
    """A job of a partition of higher priority takes the node, and the preempted one is done
    after it.
    """
    sweep = disturbed()
    job = sweep.begin()
    high = ("--partition=high", f"--nodelist={sweep.node(job)}", "--exclusive")
    slurm("sbatch", *high, "--output=/dev/null", "--wrap=true")
    until(lambda: slurm_cluster.jobs()[job][0] != "RUNNING", "the job is preempted")
    sweep.pass_on()
    equal(sweep, truth)
    first_run_was_kept(sweep, job)
    assert sweep.record().environment["where"]["restart"] == 1
    (first, *later) = [how for _, how in sweep.starts()]
    assert first == "interrupted"
    assert set(later) == {
        "done"
    }  # Slurm 24.11 begins it once more after it has ended well: there is nothing to do


@pytest.mark.cluster_slow
def test_of_a_job_and_its_zombie_one_counts(
    disturbed: Make, truth: dict[str, Any], slurm_cluster: TwoNodes
) -> None:
    """A killed slurmd, and its node is down for the controller: the job goes on there, and
    elsewhere once more.
    """
    # Both finish the first run: an attempt is committed by a rename onto a name that must be free
    # (SharedResults.publish), and the later one is set aside; a job whose claim is another's begins
    # no run (Claim.held).
    sweep = disturbed()
    job = sweep.begin(methods=("held", "lora"))
    lost = sweep.node(job)
    slurm_cluster.do("kill", lost)
    slurm_cluster.mark_down(lost)
    assert sweep.arrived(restart=1) == job
    assert sweep.node(job) != lost
    sweep.pass_on()
    equal(sweep, truth)
    until(lambda: all(how for _, how in sweep.starts()), "the zombie has ended")
    assert len(sweep.aside()) == 1
    assert not sweep.attempts()
    starts = dict(sweep.starts())
    assert starts.pop(f"{job}.0") == "left"
    last = max(int(name.rpartition(".")[2]) for name in starts)
    assert starts[f"{job}.{last}"] == "done"
    assert sweep.record("lora").environment["where"]["restart"] == last


def test_a_lost_node_is_made_good(
    disturbed: Make, truth: dict[str, Any], slurm_cluster: TwoNodes
) -> None:
    """A node is gone at once; its job is done on the other, which has no command of Slurm's; the
    node comes back.
    """
    sweep = disturbed(setup=["export PATH=/nowhere"])
    job = sweep.begin()
    lost = sweep.node(job)
    slurm_cluster.do("lose", lost)
    slurm_cluster.mark_down(lost)
    assert sweep.arrived(restart=1) == job
    assert sweep.node(job) != lost
    slurm_cluster.do("back", lost)
    sweep.pass_on()
    equal(sweep, truth)
    first_run_was_kept(sweep, job)
    first, *_, last = sweep.starts()  # Slurm may begin it once more, for its own look at the node
    assert first == (f"{job}.0", None)
    assert last[0] > f"{job}.0"
    assert last[1] == "done"
    assert len(sweep.attempts()) == len(sweep.starts()) - 1


@pytest.mark.parametrize("how", ["cancelled", "killed"])
def test_an_ended_job_comes_again(
    how: str, disturbed: Make, truth: dict[str, Any], slurm_cluster: TwoNodes
) -> None:
    """`scancel` and the same command, or SIGKILL, as for want of memory, while one waits: what
    was done is kept.
    """
    sweep = disturbed(**({"setup": ["export PATH=/nowhere"]} if how == "killed" else {}))
    job = sweep.begin()
    (own,) = read_jobs(sweep.folder)
    if how == "cancelled":
        slurm("scancel", job)
    else:
        slurm_cluster.do("in", sweep.node(job), "kill", "-9", str(own.pid))
    until(lambda: not sweep.sweep.engine.live(sweep.sweep.plan), "the job has ended")
    sweep.pass_on()
    if how == "cancelled":
        assert len(sweep.open().submit(again=True)) == 1
    else:
        assert [claim.job for claim in sweep.left()] == [job]
    equal(sweep, truth)
    first_run_was_kept(sweep, job)
    assert [how for _, how in sweep.starts()] == [
        "interrupted" if how == "cancelled" else None,
        "done",
    ]
