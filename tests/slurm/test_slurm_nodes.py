"""One run over both nodes of a real Slurm, by its engine or by torchrun: over their network, one
cause of an end.
"""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faults
import pytest
from disturbed import Disturbed
from two_nodes import NODES, SCRIPT, TwoNodes, slurm, until

from hpml_bench.records.load import load_records

pytestmark = pytest.mark.cluster
Make = Callable[..., Disturbed]
ORDER = ("held", "lora")


@pytest.fixture
def over(disturbed: Make, shared_folder: Path) -> Disturbed:
    return disturbed(nodes=2, cpus_per_node=1, scratch=str(shared_folder / "s/$SLURMD_NODENAME"))


def test_a_sweep_over_both_nodes_is_the_local_one(over: Disturbed, truth: dict[str, Any]) -> None:
    """All that is computed, to the bit; records and page tell the nodes apart from two ranks on
    one.
    """
    over.open().submit(again=True)
    assert over.complete()
    assert over.content() == {run: truth[run] for run in over.content()}
    assert len(over.content()) == 2
    environment = over.record("lora").environment
    assert environment["where"]["hosts"] == ["n1", "n2"]
    assert environment["hardware"]["ranks_per_node"] == [1, 1]
    assert environment["hardware"]["interconnect"].startswith("eth0")


def test_torchrun_over_both_nodes_computes_the_same(
    held_suite: Path,
    local: Path,
    truth: dict[str, Any],
    shared_folder: Path,
    slurm_cluster: TwoNodes,
) -> None:
    """`torchrun --nnodes 2`, whose nodes share no loopback; the record tells them apart from
    ranks on one.
    """
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        "1",
        "--nnodes",
        "2",
    ]
    run = ["-m", "hpml_bench", "run", "lora", str(held_suite), "--out", str(shared_folder)]
    processes = [
        subprocess.Popen(
            [
                SCRIPT,
                "in",
                node,
                *command,
                "--master-addr",
                NODES[0],
                "--node-rank",
                str(number),
                *run,
            ],
            text=True,
            env=os.environ | slurm_cluster._variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for number, node in enumerate(NODES)
    ]
    for process in processes:
        said, _ = process.communicate(timeout=300)
        assert process.returncode == 0, said[-3000:]
    (over,) = load_records(shared_folder / "colours").records
    assert faults.content(shared_folder / "colours") == {over.run_id: truth[over.run_id]}
    hardware = over.environment["hardware"]
    assert (hardware["nodes"], hardware["ranks_per_node"]) == (2, [1, 1])
    assert hardware["interconnect"].startswith("eth0")
    (one,) = [
        record.environment for record in load_records(local).records if record.run_id == over.run_id
    ]
    assert (
        over.environment["fingerprint"]
        != one["fingerprint"]
        == over.environment["node_fingerprint"]
    )


@pytest.mark.cluster_slow
def test_a_requeue_of_a_run_over_both_nodes(over: Disturbed, truth: dict[str, Any]) -> None:
    """The attempt is interrupted, no agent is left, and the job's next start does the run."""
    job = over.begin(methods=("held",))
    slurm("scontrol", "requeue", job)
    assert over.arrived(restart=1) == job
    over.pass_on()
    assert over.complete()
    assert over.content() == {run: truth[run] for run in over.content()}
    assert [how for _, how in over.starts()] == ["interrupted", "done"]


@pytest.mark.cluster_slow
def test_a_killed_agent_on_the_second_node(over: Disturbed, slurm_cluster: TwoNodes) -> None:
    """Its rank ends with it, Slurm ends the step, and the record says from which node there is
    no report.
    """
    host, pid = over.rank(over.begin(methods=("held",)), 1)
    assert host == "n2"
    slurm_cluster.do("in", "n2", "pkill", "-9", "-f", "hpml_bench.launch.agent")
    assert over.complete()
    record = over.record()
    assert record.status == "killed"
    assert "no report from node 1 (n2): its agent or the node was lost" in str(record.error)
    with pytest.raises(RuntimeError):
        slurm_cluster.do("in", "n2", "kill", "-0", pid)


@pytest.mark.cluster_slow
def test_no_agent_is_left_when_the_job_is_cancelled(
    over: Disturbed, slurm_cluster: TwoNodes
) -> None:
    """`hpml-bench stop` ends the job, and the agents and ranks on both nodes with it."""
    over.begin(methods=("held",))
    assert over.sweep.stop() == 1
    for node in ("n1", "n2"):
        until(lambda node=node: not _there(slurm_cluster, node), f"no agent is left on {node}")


def _there(cluster: TwoNodes, node: str) -> bool:
    try:
        return bool(cluster.do("in", node, "pgrep", "-f", "hpml_bench.launch.agent"))
    except RuntimeError:
        return False


@pytest.mark.cluster_slow
@pytest.mark.parametrize(
    ("signal", "status", "named"),
    [
        ("KILL", "killed", "(on node 1, {host})"),  # though rank 0 saw only a lost connection
        ("STOP", "timeout", "node 1 ({host})"),  # nothing moves, and no node sees an error
    ],
)
def test_a_rank_that_breaks_on_the_second_node_is_the_cause(
    signal: str,
    status: str,
    named: str,
    disturbed: Make,
    truth: dict[str, Any],
    slurm_cluster: TwoNodes,
) -> None:
    """The run is killed, or a timeout, by that rank on that node; the other run is done, and both
    nodes end.

    The same command then does the run.
    """
    sweep = disturbed(nodes=2, cpus_per_node=1, parallel=1)
    job = sweep.begin(methods=ORDER, stall=20 if signal == "STOP" else 300)
    host, pid = sweep.rank(job, 1)
    assert host != sweep.rank(job, 0)[0]
    slurm_cluster.do("in", host, "kill", f"-{signal}", pid)
    sweep.pass_on()
    assert sweep.complete()
    record = sweep.record()
    assert record.status == status
    assert named.format(host=host) in record.error.message
    assert sweep.record("lora").status == "ok"
    assert [how for _, how in sweep.starts()] == ["done"]
    assert len(sweep.open(methods=ORDER).submit(again=True)) == 1
    assert sweep.complete()
    assert sweep.content() == {run: truth[run] for run in sweep.content()}
    hardware = sweep.record().environment["hardware"]
    assert (hardware["nodes"], hardware["ranks_per_node"]) == (2, [1, 1])
    assert not sweep.left()
