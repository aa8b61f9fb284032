"""One run over both nodes of a real Slurm: gloo over their network, an agent on each, one cause when one breaks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from disturbed import Disturbed
from two_nodes import TwoNodes, slurm, until

pytestmark = pytest.mark.cluster
Make = Callable[..., Disturbed]


@pytest.fixture
def over(disturbed: Make, shared_folder: Path) -> Disturbed:
    return disturbed(nodes=2, cpus_per_node=1, scratch=str(shared_folder / "s/$SLURMD_NODENAME"))


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
