"""What a record says of the nodes of a run: one node as ever; several by number, ranks, interconnect and likeness."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from helpers.probe_run import make_run
from hpml_bench.builtin.probes import communication
from hpml_bench.plugins.group import Group
from hpml_bench.system import environment, network
from hpml_bench.training.distributed import LENGTH, over_nodes

TWO = environment.NodeLayout(hosts=("n1", "n2"), ranks_per_node=(1, 1), interconnect="eth0 10000 Mb/s")


@pytest.fixture(autouse=True)
def known_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = {"cpu": "Z80", "architecture": "z80", "cores": 1, "memory_gb": 1, "gpus": []}
    monkeypatch.setattr(environment, "hardware", lambda: dict(parts))


def test_the_fingerprint_of_one_node_is_of_its_hardware_alone() -> None:
    """The SHA-256 of the canonical JSON of the five parts, computed by hand: recorded runs keep theirs."""
    text = '{"architecture":"z80","cores":1,"cpu":"Z80","gpus":[],"memory_gb":1}'
    found = environment.describe()
    assert found["fingerprint"] == hashlib.sha256(text.encode()).hexdigest()[:12]
    assert list(found["hardware"]) == ["cpu", "architecture", "cores", "memory_gb", "gpus"]
    assert "node_fingerprint" not in found


def test_two_ranks_on_one_node_are_not_one_on_each_of_two() -> None:
    """Their costs are not ranked together; neither are 2 + 2 ranks, another network, or nodes that are not alike."""
    kinds = [
        None, TWO, TWO._replace(ranks_per_node=(2, 2)), TWO._replace(interconnect="eth0 1000 Mb/s"),
        TWO._replace(unlike=("a", "b")), TWO._replace(unlike=("a", "c")),
    ]  # fmt: skip
    found = [environment.describe(kind) for kind in kinds]
    assert len({told["fingerprint"] for told in found}) == len(kinds)
    assert found[1]["node_fingerprint"] == found[0]["fingerprint"]
    assert "node_fingerprint" not in found[4]
    text = json.dumps(found[1]["hardware"], sort_keys=True, separators=(",", ":"))
    assert found[1]["fingerprint"] == hashlib.sha256(text.encode()).hexdigest()[:12]


def row(text: str) -> torch.Tensor:
    return torch.tensor([*text.encode(), *bytes(LENGTH - len(text))], dtype=torch.uint8)


def ranks(tell: Callable[[int, str], list[str]]) -> Any:
    """Return a group of rank 0 whose ranks tell what `tell` makes of the number of the question and rank 0's answer."""
    asked: list[None] = []

    def gather(own: torch.Tensor) -> torch.Tensor:
        asked.append(None)
        return torch.stack([row(text) for text in tell(len(asked), bytes(own.tolist()).rstrip(b"\0").decode())])

    return SimpleNamespace(nodes=2, gather=gather)


@pytest.mark.parametrize("alike", [True, False])
def test_nodes_are_found_through_the_group(alike: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two ranks on this node and two on n2, whose hardware is like this one's or not."""
    monkeypatch.setenv("GROUP_RANK", "0")
    monkeypatch.setattr("socket.gethostname", lambda: "n1")
    monkeypatch.setattr(network, "interconnect", lambda hosts: f"to {hosts[-1]}")

    def tell(number: int, own: str) -> list[str]:
        if number == 1:
            return [own, own, "1\tn2", "1\tn2"]
        return [own, own, *[own if alike else "another"] * 2]

    found = over_nodes(ranks(tell))
    assert (found.hosts, found.ranks_per_node, found.interconnect) == (("n1", "n2"), (2, 2), "to n2")
    assert bool(found.unlike) != alike
    assert over_nodes(Group(0, 2, torch.device("cpu"))) is None


def test_the_first_rank_of_each_node_measures_what_its_ranks_share() -> None:
    """Of four ranks over two nodes the first and the third; on one node the first."""
    cpu = torch.device("cpu")
    assert [Group(rank, 4, cpu, 2).first_here for rank in range(4)] == [True, False, True, False]
    assert [Group(rank, 2, cpu).first_here for rank in range(2)] == [True, False]


def test_bytes_between_nodes_are_those_of_a_ring(tmp_path: Path) -> None:
    """Four ranks over two nodes: of four links, each with 2·3/4 of the gradients, two cross; one node has none."""
    run = make_run(tmp_path)
    alone = communication.CommunicationProbe()
    alone.start(run)
    names = {metric.name for metric in communication.OVER_NODES}
    assert names & ({metric.name for metric in alone.definitions()} | set(alone.stop())) == set()
    run.group.__dict__.update(nodes=2, world=4)
    probe = communication.CommunicationProbe()
    probe.start(replace(run))
    found = probe.stop()
    assert found["between_nodes_bytes_per_step"] == 2 * 1.5 * found["allreduced_bytes_per_step"]
    assert found["within_nodes_bytes_per_step"] == 2 * 1.5 * found["allreduced_bytes_per_step"]
    assert names <= {metric.name for metric in probe.definitions()}


def test_infiniband_comes_before_sockets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ports that are up, with their rates; without any, the named interface, or the one that leads to the others."""
    for name in ("NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME"):  # a group in this process may have set it
        monkeypatch.delenv(name, raising=False)
    for device, state in (("mlx5_0", "4: ACTIVE"), ("mlx5_1", "1: DOWN")):
        port = tmp_path / device / "ports/1"
        port.mkdir(parents=True)
        (port / "state").write_text(f"{state}\n")
        (port / "rate").write_text("200 Gb/sec (4X HDR)\n")
    monkeypatch.setattr(network, "INFINIBAND", tmp_path)
    assert network.interconnect(["10.0.0.2"]) == "mlx5_0 200 Gb/sec (4X HDR)"
    monkeypatch.setattr(network, "INFINIBAND", tmp_path / "none")
    monkeypatch.setattr(network, "_addresses", lambda: {"lo": "127.0.0.1", "eth7": "10.0.0.1", "ib0": "10.1.0.1"})
    monkeypatch.setattr(network, "_source", lambda host: "10.0.0.1" if host == "10.0.0.2" else "127.0.0.1")
    speeds = {"eth7": SimpleNamespace(speed=10_000), "ib0": SimpleNamespace(speed=0)}
    monkeypatch.setattr("psutil.net_if_stats", lambda: speeds)
    assert network.interconnect(["127.0.0.1", "10.0.0.2"]) == "eth7 10000 Mb/s"
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "ib0")
    assert network.interconnect(["10.0.0.2"]) == "ib0"
