"""One run over both nodes of a real Slurm: gloo over their network, an agent on each, one cause when one breaks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from disturbed import Disturbed
from two_nodes import TwoNodes, slurm, until

from hpml_bench.records.run import RunRecord
from hpml_bench.system import heartbeat

pytestmark = pytest.mark.cluster
Make = Callable[..., Disturbed]
ORDER = ("held", "lora")


@pytest.fixture
def over(disturbed: Make, shared_folder: Path) -> Disturbed:
    return disturbed(nodes=2, cpus_per_node=1, scratch=str(shared_folder / "s/$SLURMD_NODENAME"))


def rank(room: Path, node: int) -> int:
    """Return the process number of a node's rank, as the node counts them."""
    folders = (room / f"s/n{node + 1}").glob("hpmlt-*/*/")
    (beat,) = [beat for folder in folders for beat in heartbeat.read(folder)]
    assert beat.rank == node
    return beat.pid


def test_a_sweep_over_both_nodes_is_the_local_one(over: Disturbed, truth: dict[str, Any]) -> None:
    """All that is computed, to the bit; records and page tell the nodes apart from two ranks on one."""
    # Protection: devices and threads by node, ranks in the order of nodes, the interface to the other node.
    over.open().submit(again=True)
    assert over.complete()
    assert over.content() == {run: truth[run] for run in over.content()}
    assert len(over.content()) == 2
    environment = over.record("lora").environment
    assert environment["where"]["hosts"] == ["n1", "n2"]
    assert environment["hardware"]["ranks_per_node"] == [1, 1]
    assert environment["hardware"]["interconnect"].startswith("eth0")


@pytest.mark.cluster_slow
def test_a_requeue_of_a_run_over_both_nodes(over: Disturbed, truth: dict[str, Any]) -> None:
    """The attempt is interrupted, no agent is left, and the job's next start does the run."""
    # Protection: the parent's request to the agents (Meeting.end), and the claim that the same job takes back.
    job = over.begin(methods=("held",))
    slurm("scontrol", "requeue", job)
    assert over.arrived(restart=1) == job
    over.pass_on()
    assert over.complete()
    assert over.content() == {run: truth[run] for run in over.content()}
    assert [how for _, how in over.starts()] == ["interrupted", "done"]


@pytest.mark.cluster_slow
def test_a_killed_agent_on_the_second_node(over: Disturbed, shared_folder: Path, slurm_cluster: TwoNodes) -> None:
    """Its rank ends with it, Slurm ends the step, and the record says from which node there is no report."""
    # Protection: the agent's fork server is started first, and dies with it.
    over.begin(methods=("held",))
    number = rank(shared_folder, 1)
    slurm_cluster.do("in", "n2", "pkill", "-9", "-f", "hpml_bench.launch.agent")
    assert over.complete()
    record = over.record()
    assert record.status == "killed"
    assert "no report from node 1 (n2): its agent or the node was lost" in str(record.error)
    with pytest.raises(RuntimeError):
        slurm_cluster.do("in", "n2", "kill", "-0", str(number))


@pytest.mark.cluster_slow
def test_no_agent_is_left_when_the_job_is_cancelled(over: Disturbed, slurm_cluster: TwoNodes) -> None:
    """`hpml-bench stop` ends the job, and the agents and ranks on both nodes with it."""
    # Protection: the step is Slurm's, and the agents end with the parent's store.
    over.begin(methods=("held",))
    assert over.sweep.stop() == 1
    for node in ("n1", "n2"):
        until(lambda node=node: not _there(slurm_cluster, node), f"no agent is left on {node}")


def _there(cluster: TwoNodes, node: str) -> bool:
    try:
        return bool(cluster.do("in", node, "pgrep", "-f", "hpml_bench.launch.agent"))
    except RuntimeError:
        return False


# Runs of which a rank on the second node is killed or stopped


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


@pytest.mark.cluster_slow
def test_a_killed_rank_on_the_second_node_is_the_cause(
    over_nodes: Disturbed, truth: dict[str, Any], slurm_cluster: TwoNodes
) -> None:
    """SIGKILL: the run is killed, by that rank on that node, though rank 0 saw only a lost connection."""
    # Protection: a signal outranks what peers say of it (launch.agent.merged).
    job = over_nodes.begin(methods=ORDER)
    host, pid = over_nodes.rank(job, 1)
    assert host != over_nodes.rank(job, 0)[0]
    slurm_cluster.do("in", host, "kill", "-KILL", pid)
    over_nodes.pass_on()
    record = mended(over_nodes, truth)
    assert record.status == "killed"
    assert f"(on node 1, {host})" in record.error.message


@pytest.mark.cluster_slow
def test_a_stopped_rank_on_the_second_node_is_a_stall(
    over_nodes: Disturbed, truth: dict[str, Any], slurm_cluster: TwoNodes
) -> None:
    """SIGSTOP: nothing moves, and no node sees an error; a timeout that names the rank, and both nodes end."""
    # Protection: each node's watchdog reads the heartbeats of its own ranks (launch.watchdog).
    job = over_nodes.begin(methods=ORDER, stall=20)
    host, pid = over_nodes.rank(job, 1)
    slurm_cluster.do("in", host, "kill", "-STOP", pid)
    over_nodes.pass_on()
    record = mended(over_nodes, truth)
    assert record.status == "timeout"
    assert f"node 1 ({host})" in record.error.message
