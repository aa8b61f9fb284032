"""Runs over both nodes of a real Slurm: a rank on the second is killed or stopped; one cause, and the rest is done."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from disturbed import Disturbed
from two_nodes import TwoNodes

from hpml_bench.records.run import RunRecord

pytestmark = pytest.mark.cluster_slow
Make = Callable[..., Disturbed]
ORDER = ("held", "lora")


@pytest.fixture
def over_nodes(disturbed: Make) -> Disturbed:
    """A sweep of one job whose runs have a rank on each node; the first run stays at its gate."""
    return disturbed(nodes=2, cpus_per_node=1, parallel=1)


def mended(sweep: Disturbed, truth: dict[str, Any]) -> RunRecord:
    """Check that the unit's other run was done; give the same command again, and return the record of before it."""
    assert sweep.complete()
    before = sweep.record()
    assert sweep.record("lora").status == "ok"
    assert [how for _, how in sweep.starts()] == ["done"]
    assert len(sweep.open(methods=ORDER).submit(again=True)) == 1
    assert sweep.complete()
    assert sweep.content() == {run: truth[run] for run in sweep.content()}
    hardware = sweep.record().environment["hardware"]
    assert (hardware["nodes"], hardware["ranks_per_node"]) == (2, [1, 1])
    assert not sweep.left()
    return before


def test_a_killed_rank_on_the_second_node_is_the_cause(
    over_nodes: Disturbed, truth: dict[str, Any], slurm_cluster: TwoNodes
) -> None:
    """SIGKILL: the run is killed, by that rank on that node, though rank 0 saw only a lost connection.

    Protection: a signal outranks what peers say of it (launch.nodes.merged).
    """
    job = over_nodes.begin(methods=ORDER)
    host, pid = over_nodes.rank(job, 1)
    assert host != over_nodes.rank(job, 0)[0]
    slurm_cluster.do("in", host, "kill", "-KILL", pid)
    over_nodes.pass_on()
    record = mended(over_nodes, truth)
    assert record.status == "killed"
    assert record.error is not None
    assert f"(on node 1, {host})" in record.error.message


def test_a_stopped_rank_on_the_second_node_is_a_stall(
    over_nodes: Disturbed, truth: dict[str, Any], slurm_cluster: TwoNodes
) -> None:
    """SIGSTOP: nothing moves, and no node sees an error; the run is a timeout that names the rank, and both nodes end.

    Protection: each node's watchdog reads the heartbeats of its own ranks (launch.watchdog).
    """
    job = over_nodes.begin(methods=ORDER, stall=20)
    host, pid = over_nodes.rank(job, 1)
    slurm_cluster.do("in", host, "kill", "-STOP", pid)
    over_nodes.pass_on()
    record = mended(over_nodes, truth)
    assert record.status == "timeout"
    assert record.error is not None
    assert f"node 1 ({host})" in record.error.message
