"""The stores by which a run's processes meet: who can reach them, and what is believed of what stands in them."""

from __future__ import annotations

import os
import re
import socket
from datetime import timedelta
from pathlib import Path

import psutil
import pytest
from torch.distributed import TCPStore

from helpers import tiny
from hpml_bench.launch import agent
from hpml_bench.launch.agent import OverNodes
from hpml_bench.launch.meeting import KnownNodes, Meeting, NodeRequest
from hpml_bench.launch.nodes import LOG, Report
from hpml_bench.system.errors import UserError

REQUEST = NodeRequest(run=tiny.request(tiny.spec(), tiny.NOTHING, Path("/results/run")), nodes=2)


def listening(port: int) -> set[str]:
    """Return the addresses on which this process listens with a port; another process may have its number elsewhere."""
    found = psutil.Process().net_connections("inet")
    return {one.laddr.ip for one in found if one.status == psutil.CONN_LISTEN and one.laddr.port == port}


def stranger(meeting: Meeting) -> TCPStore:
    return TCPStore(meeting.host, meeting.port, is_master=False, timeout=timedelta(seconds=10))


def test_the_store_of_a_run_on_one_machine_is_on_the_loopback_alone() -> None:
    """No other address of the machine leads to it, so that nobody on its network does."""
    found = KnownNodes("127.0.0.1", 0, 0, 1, "run", 30).next_rendezvous()
    found.store.set("a", "b")
    port = found.bootstrap_store_info.master_port
    assert listening(port) == {"127.0.0.1"}


def test_the_store_of_nodes_is_on_the_address_that_they_are_told() -> None:
    """And on no other one of the machine, such as that of a network which leads elsewhere."""
    meeting = Meeting("127.0.0.2", "key")
    socket.create_connection(("127.0.0.2", meeting.port), timeout=5).close()
    assert listening(meeting.port) == {"127.0.0.2"}


def test_what_nodes_say_is_believed_with_the_key() -> None:
    """Task, hosts and reports of those who share it, to the letter."""
    parent = Meeting("127.0.0.1", "key")
    node = Meeting("127.0.0.1", "key", parent.port)
    assert parent.hosts(2) == {}
    parent.give(REQUEST)
    assert node.request() == REQUEST
    node.arrive(1, "n2 ä")
    node.report(Report(node=1, host="n2 ä"))
    assert parent.hosts(2) == {1: "n2 ä"}
    assert parent.reports(2) == [Report(node=1, host="n2 ä")]


def test_what_others_write_is_not_believed() -> None:
    """A request with another folder, a report of a good end: neither by somebody's own signature nor by one copied."""
    parent = Meeting("127.0.0.1", "key")
    node, other = Meeting("127.0.0.1", "key", parent.port), Meeting("127.0.0.1", "another key", parent.port)
    theirs = stranger(parent)
    parent.give(REQUEST)
    node.arrive(0, "n1")
    node.report(Report(node=0, host="n1"))
    good = theirs.get("report/0")
    theirs.set("report/1", good.decode())
    theirs.set("host/1", "n9")
    theirs.set("report/0", Report(node=0, host="n9").model_dump_json())
    assert parent.reports(2) == []
    assert parent.hosts(2) == {0: "n1"}
    node.report(Report(node=0, host="n1"))
    assert [report.host for report in parent.reports(2)] == ["n1"], "a node's own report still comes"
    request = theirs.get("request").decode()
    for text in (request.replace("/results/run", "/results/two"), REQUEST.model_dump_json(), "", "\u00e4"):
        theirs.set("request", text)
        with pytest.raises(UserError, match="was not written by this run's job"):
            node.request()
    other.give(REQUEST)
    with pytest.raises(UserError, match="was not written by this run's job"):
        node.request()


def test_the_key_is_in_the_agents_environment_alone(tmp_path: Path) -> None:
    """Arguments can be read by every user of a node; each run has a key of its own."""
    commands: list[list[str]] = []

    def starter(command: list[str]) -> list[str]:
        commands.append(command)
        return ["sh", "-c", 'echo "hpml-bench: $HPML_BENCH_MEETING_KEY"; exit 1']

    keys = set()
    for _ in range(2):
        record = tiny.run(tiny.spec(), tiny.NOTHING, tmp_path / "run", run_ranks=OverNodes(2, starter))
        (key,) = re.findall(r"hpml-bench: ([0-9a-f]{64})\b", record.error.message)
        assert not any(key in word for word in commands[-1])
        keys.add(key)
    assert len(keys) == 2
    assert "HPML_BENCH_MEETING_KEY" not in os.environ


def test_an_agent_refuses_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that its node doesn't share with the others, or that no run was begun in."""
    monkeypatch.setattr(agent, "FOLDER_SECONDS", 0.1)
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(UserError, match=r"this is not the folder of the run; give an --out that all nodes share"):
            agent.check_folder(folder)
    (tmp_path / LOG).touch()
    agent.check_folder(tmp_path)
