"""The stores by which a run's processes meet: who can reach them, and what is believed of what stands in them."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import psutil
import pytest
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from helpers import skips, tiny
from hpml_bench.launch import agent
from hpml_bench.launch.agent import LOG, OverNodes
from hpml_bench.launch.meeting import KnownNodes, Meeting
from hpml_bench.system.errors import UserError

REQUEST = tiny.request(tiny.spec(), tiny.NOTHING, Path("/results/run")).model_dump_json()


def listening(port: int) -> set[str]:
    """Return the addresses on which this process listens with a port; another process may have its number elsewhere."""
    found = psutil.Process().net_connections("inet")
    return {one.laddr.ip for one in found if one.status == psutil.CONN_LISTEN and one.laddr.port == port}


def stranger(meeting: Meeting) -> TCPStore:
    return TCPStore(meeting.host, meeting.port, is_master=False, timeout=timedelta(seconds=10))


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.2"])
def test_a_store_is_on_the_address_that_it_is_told(address: str) -> None:
    """That of one machine's ranks, and that of nodes: nobody reaches it by another address of the machine."""
    store = KnownNodes(address, 0, 0, 1, "run", 30).next_rendezvous()
    store.store.set("a", "b")
    meeting = Meeting(address, "key")
    for port in (store.bootstrap_store_info.master_port, meeting.port):
        socket.create_connection((address, port), timeout=5).close()
        assert listening(port) == {address}


def test_what_others_write_is_not_believed() -> None:
    """A request with another folder, a report of a good end: neither by somebody's own signature nor by one copied."""
    parent = Meeting("127.0.0.1", "key")
    node, other = Meeting("127.0.0.1", "key", parent.port), Meeting("127.0.0.1", "another key", parent.port)
    theirs = stranger(parent)
    parent.give(REQUEST)
    node.arrive(0, "n1")
    node.report(0, "ended well")
    good = theirs.get("report/0")
    theirs.set("report/1", good.decode())
    theirs.set("host/1", "n9")
    theirs.set("report/0", "ended well")
    assert parent.reports(2) == []
    assert parent.hosts(2) == {0: "n1"}
    node.report(0, "ended well")
    assert parent.reports(2) == ["ended well"], "a node's own report still comes"
    request = theirs.get("request").decode()
    for text in (request.replace("/results/run", "/results/two"), REQUEST, "", "\u00e4"):
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


# From another machine, here a namespace with a network of its own


@pytest.fixture
def elsewhere() -> Iterator[tuple[str, list[str]]]:
    """This machine's address on a network with another one, and the words before a command that runs there."""
    address, link = f"10.79.{os.getpid() % 250}", f"hm{os.getpid()}"
    other = subprocess.Popen(["unshare", "--net", "sleep", "300"], stderr=subprocess.DEVNULL)
    inside = ["nsenter", f"--net=/proc/{other.pid}/ns/net"]
    lines = (
        ["ip", "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", str(other.pid)],
        ["ip", "addr", "add", f"{address}.1/24", "dev", link],
        ["ip", "link", "set", link, "up"],
        [*inside, "ip", "addr", "add", f"{address}.2/24", "dev", "eth0"],
        [*inside, "ip", "link", "set", "eth0", "up"],
    )
    try:
        if shutil.which("ip") is None:
            pytest.skip("there is no ip; install iproute2")
        deadline = time.monotonic() + 60
        own = Path("/proc/self/ns/net").readlink()
        while other.poll() is None and time.monotonic() < deadline:
            with suppress(OSError):  # it has ended meanwhile
                if Path(f"/proc/{other.pid}/ns/net").readlink() != own:
                    break
            time.sleep(0.02)
        for words in lines:
            done = subprocess.run(words, capture_output=True, text=True, check=False)
            if done.returncode:
                skips.only_as_root(f"a network with another namespace can't be made here: {done.stderr}")
        yield f"{address}.1", inside
    finally:
        subprocess.run(["ip", "link", "del", link], capture_output=True, check=False)
        other.kill()
        other.wait()


OVERWRITE = """
import sys
from datetime import timedelta
from torch.distributed import TCPStore
store = TCPStore(sys.argv[1], int(sys.argv[2]), is_master=False, timeout=timedelta(seconds=20))
task = store.get("request").decode()
store.set("request", task.replace("/results/run", "/somewhere/else"))
store.set("report/0", '{"node": 0, "host": "n9"}')
print(store.get("request").decode().count("/somewhere/else"))
"""
CONNECT = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=10)"


@pytest.mark.disks
def test_another_machine_can_steer_no_run(elsewhere: tuple[str, list[str]]) -> None:
    """A local run's store can't be reached; what somebody writes to that of a run over nodes isn't believed."""
    address, inside = elsewhere

    def there(program: str, port: int) -> subprocess.CompletedProcess[str]:
        words = [*inside, sys.executable, "-c", program, address, str(port)]
        return subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)

    alone = KnownNodes("127.0.0.1", 0, 0, 1, "run", 30).next_rendezvous()
    refused = there(CONNECT, alone.bootstrap_store_info.master_port)
    assert "ConnectionRefusedError" in refused.stderr
    meeting = Meeting(address, "key")
    meeting.give(REQUEST)
    assert meeting.request() == REQUEST
    written = there(OVERWRITE, meeting.port)
    assert written.stdout.strip() == "1", written.stderr
    assert meeting.reports(2) == []
    with pytest.raises(UserError, match="was not written by this run's job"):
        meeting.request()
