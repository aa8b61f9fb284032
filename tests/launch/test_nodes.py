"""One run over two nodes, here two agents on one machine: a local run's numbers, one cause of
its end, its store.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import psutil
import pytest
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from helpers import skips, tiny, warm
from helpers.waiting import until
from hpml_bench.data.prepared import Prepared
from hpml_bench.launch import agent
from hpml_bench.launch.agent import LOG, CausePriority, OverNodes, Report, merged, priority_of
from hpml_bench.launch.meeting import Meeting, store
from hpml_bench.records.plan import Limits
from hpml_bench.records.points import read_points
from hpml_bench.records.predictions import read_predictions
from hpml_bench.records.run import RunError, RunRecord, Status
from hpml_bench.system import heartbeat, network
from hpml_bench.system.errors import UserError

EACH = ["env", f"PYTHONPATH={os.pathsep.join(filter(None, sys.path))}"]
EACH += [sys.executable, str(Path(__file__).parent / "on_each_node.py"), "2"]
TWO = OverNodes(2, lambda command: [*EACH, *command])
ENDLESS = tiny.spec("head", steps=1_000_000, eval_every=1_000_000, log_every=5)


@pytest.fixture
def scratch(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The agents' folder for temporary files; at the end no process of theirs lives, and nothing
    lies in it.
    """
    folder = Path(tempfile.mkdtemp(prefix="nodes-"))  # short: a socket lies in it
    warm.address()
    monkeypatch.setenv("TMPDIR", str(folder))
    before = set(psutil.Process().children(recursive=True))
    yield folder
    until(lambda: not _left(folder, before))
    left = _left(folder, before)
    shutil.rmtree(folder)
    assert not left


def _left(folder: Path, before: set[psutil.Process]) -> list[object]:
    """Return what agents have left: processes of theirs, which have the folder in their
    environment.
    """
    own = os.fsencode(f"TMPDIR={folder}")
    found: list[object] = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if own in path.read_bytes() and int(path.parts[2]) not in {
                os.getpid(),
                *(p.pid for p in before),
            }:
                found.append(path.parts[2])
        except OSError:
            continue
    return found


def when_training(
    scratch: Path, action: Callable[[dict[int, psutil.Process]], None]
) -> threading.Thread:
    """Do `action` with the processes of both ranks once they take steps."""

    def stepping() -> list[heartbeat.Beat]:
        beats = [beat for folder in scratch.glob("hpmlt-*/*/") for beat in heartbeat.read(folder)]
        return beats if len(beats) == 2 and all("step" in beat.where for beat in beats) else []

    def wait() -> None:
        if beats := until(stepping, 300):
            time.sleep(0.3)
            action({beat.rank: psutil.Process(beat.pid) for beat in beats})

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


def ended(prepared: Prepared, folder: Path, limits: Limits) -> RunError:
    """Run over two nodes, and return the error of the record, with the status before its
    message.
    """
    record = tiny.run(ENDLESS, prepared, folder, limits, run_ranks=TWO)
    return record.error.model_copy(update={"message": f"{record.status}: {record.error.message}"})


def losses(folder: Path) -> list[tuple[object, ...]]:
    points = read_points(folder)
    return [(p.step, p.metric, p.value) for p in points if "loss" in p.metric or "norm" in p.metric]


def accuracy_and_loss(record: RunRecord) -> list[float | None]:
    assert record.status == "ok", record.error
    return [record.metrics[name] for name in ("test_accuracy", "test_loss")]


def test_two_nodes_compute_what_two_ranks_do(
    prepared: Prepared, scratch: Path, tmp_path: Path
) -> None:
    """Losses, predictions and accuracy are equal to the bit; the record says over which nodes it
    ran.
    """
    over = tiny.run(tiny.spec(), prepared, tmp_path / "over", run_ranks=TWO)
    here = tiny.run(tiny.spec(), prepared, tmp_path / "here")
    assert accuracy_and_loss(over) == accuracy_and_loss(here)
    assert losses(tmp_path / "over") == losses(tmp_path / "here") != []
    found, expected = read_predictions(tmp_path / "over"), read_predictions(tmp_path / "here")
    assert found.loss.tolist() == expected.loss.tolist()
    assert (tmp_path / "over/agents.log").read_text() == ""
    hardware = over.environment["hardware"]
    assert (hardware["nodes"], hardware["ranks_per_node"]) == (2, [1, 1])
    assert (
        over.environment["fingerprint"]
        != here.environment["fingerprint"]
        == over.environment["node_fingerprint"]
    )
    assert over.metrics["between_nodes_bytes_per_step"] == 2 * (
        over.metrics["allreduced_bytes_per_step"] or 0
    )
    assert "nodes" not in here.environment["hardware"]
    assert "between_nodes_bytes_per_step" not in here.metrics


@pytest.mark.parametrize(
    ("whom", "told"),
    [
        (lambda rank: rank, "killed: rank 1 was ended by SIGKILL"),
        (lambda rank: rank.parent().parent(), "killed: no report from node 1 ("),
    ],
    ids=["rank", "agent"],
)
def test_who_was_killed_is_named_with_its_node(
    whom: Callable[[psutil.Process], psutil.Process],
    told: str,
    prepared: Prepared,
    scratch: Path,
    tmp_path: Path,
) -> None:
    """Rank 0 loses its peer, which is no cause; the ranks of an agent end with it, and its
    report is missing.
    """
    killer = when_training(scratch, lambda ranks: whom(ranks[1]).kill())
    error = ended(prepared, tmp_path / "run", Limits(stall=60))
    killer.join()
    assert error.message.startswith(told), error
    assert ("on node 1" if error.rank == 1 else "its agent or the node was lost") in error.message
    assert error.rank == (1 if "SIGKILL" in told else None)


def test_a_stopped_rank_is_a_stall_with_stacks_of_all_nodes(
    prepared: Prepared, scratch: Path, tmp_path: Path
) -> None:
    """Each node's watchdog sees it, tells where its ranks are, and waits for the other's report."""
    when_training(scratch, lambda ranks: ranks[1].suspend())
    error = ended(prepared, tmp_path / "run", Limits(stall=4))
    assert error.message.startswith("timeout: node 0"), error
    assert "rank 0 at training step" in error.message
    assert "rank 1 at training step" in error.message
    assert "(stopped)" in error.message
    assert error.rank == 1
    assert "rank 0, training step" in error.traceback
    assert "rank 1, training step" in error.traceback


def test_a_run_over_two_nodes_goes_on(prepared: Prepared, scratch: Path, tmp_path: Path) -> None:
    """Asked to end, all ranks save at the end of the same window; then losses and scores are a
    whole run's.
    """
    spec, limits = tiny.spec(steps=200, dropout=0.1), Limits(stall=60, checkpoint_steps=1000)
    when_training(scratch, lambda _: os.kill(os.getpid(), signal.SIGTERM))
    saved = tiny.run(spec, prepared, tmp_path / "over", limits, run_ranks=TWO).saved
    record = tiny.run(spec, prepared, tmp_path / "over", limits, run_ranks=TWO)
    assert [(part.first, part.last) for part in record.segments] == [(1, saved), (saved + 1, 200)]
    assert all(len(part.hosts) == 2 for part in record.segments)
    here = tiny.run(spec, prepared, tmp_path / "here")
    assert accuracy_and_loss(record) == accuracy_and_loss(here)
    assert losses(tmp_path / "over") == losses(tmp_path / "here") != []


def test_agents_do_not_outlive_their_parent(
    prepared: Prepared, scratch: Path, tmp_path: Path
) -> None:
    """A SIGKILL of the parent closes its store: the agents end their ranks and themselves;
    `scratch` looks for them.
    """
    program = (
        "import sys, test_nodes as t; from pathlib import Path; from hpml_bench.data.prepared "
        "import Prepared\n"
    )
    program += (
        "t.tiny.run(t.ENDLESS, Prepared.model_validate_json(sys.argv[1]), Path(sys.argv[2]), "
        "run_ranks=t.TWO)"
    )
    places = os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])
    command = [sys.executable, "-c", program, prepared.model_dump_json(), str(tmp_path / "run")]
    parent = warm.WarmProcess(command, os.environ | {"PYTHONPATH": places})
    when_training(scratch, lambda _: parent.kill()).join()
    assert parent.wait(60) == -signal.SIGKILL


@pytest.mark.parametrize(
    ("command", "status", "words"),
    [
        (
            ["sh", "-c", "echo srun: error: no nodes; echo done; exit 1"],
            "killed",
            "srun: error: no nodes",
        ),
        (
            ["sh", "-c", "echo srun: error: exit 2; echo hpml-bench: TMPDIR is too long; exit 1"],
            "killed",
            "hpml-bench: TMPDIR is too long",
        ),
        (["no-such-srun"], "failed", "no-such-srun"),
    ],
)
def test_agents_that_cannot_begin_are_quoted(
    command: list[str], status: str, words: str, tmp_path: Path
) -> None:
    """An agent's own sentence stands in the record, else what its starter says; one that is
    missing is named.
    """
    record = tiny.run(
        tiny.spec(), tiny.NOTHING, tmp_path / "run", run_ranks=OverNodes(2, lambda _: command)
    )
    assert record.status == status
    assert words in record.error.message
    assert ("node 0, whose agent had not begun" in record.error.message) == (status == "killed")


def bad(node: int, status: Status, kind: str, message: str, rank: int | None = None) -> Report:
    return Report(
        node=node,
        host=f"n{node + 1}",
        end=(status, RunError(kind=kind, message=message, rank=rank)),
    )


KILLED = bad(1, "killed", "SIGKILL", "rank 1 was ended by SIGKILL", 1)
MEMORY = bad(1, "oom_host", "SIGKILL", "rank 1 was ended by the kernel for lack of memory", 1)
OWN = bad(1, "failed", "ValueError", "the reason", 1)
STALL = bad(1, "timeout", "Stall", "no progress", 1)
PEER = bad(0, "failed", "RuntimeError", "Connection reset by peer", 0)
STORE = bad(0, "failed", "DistNetworkError", "the store can't be reached")
ASKED = bad(0, "interrupted", "Interrupted", "ended on request")
WELL = Report(node=0, host="n1")


@pytest.mark.parametrize("symptom", [PEER, ASKED, STORE, WELL])
@pytest.mark.parametrize("cause", [KILLED, MEMORY, OWN, STALL])
def test_a_symptom_elsewhere_is_not_the_cause(symptom: Report, cause: Report) -> None:
    """A lost peer, a request to end and a node that ended well never hide what happened on the
    other node.
    """
    found = merged([symptom, cause], {0: "n1", 1: "n2"}, 2)
    status, error = cause.end
    assert found[0] == status
    assert error.message in found[1].message
    assert "node 1" in found[1].message


@pytest.mark.parametrize("report", [PEER, ASKED, WELL])
def test_a_missing_report_is_a_cause_where_nothing_better_is_known(report: Report) -> None:
    """It outranks what follows from a lost node, and nothing else."""
    found = merged([report], {0: "n1", 1: "n2"}, 2, "srun: error: n2: task 1: Killed")
    lost = (
        "no report from node 1 (n2): its agent or the node was lost (srun: error: n2: task 1: "
        "Killed)"
    )
    assert found[1].message == lost
    assert report.end is None or priority_of(report.end) > CausePriority.LOST
    own = merged([OWN.model_copy(update={"node": 0})], {0: "n1"}, 2)
    assert "the reason" in own[1].message


def test_reports_that_agree() -> None:
    """Two stalls are one; nodes that ended well have no cause; where all were asked to end by
    others, that is said.
    """
    first = bad(0, "timeout", "Stall", "no progress for 5 s (--stall): rank 0 at training step 3")
    found = merged([STALL, first], {}, 2)
    assert found[1].message.startswith("node 1 (n2): no progress; node 0 (n1): no progress for 5 s")
    assert found[1].rank == 1
    assert merged([WELL, WELL.model_copy(update={"node": 1})], {}, 2) is None
    assert (
        "not by this job" in merged([ASKED, ASKED.model_copy(update={"node": 1})], {}, 2)[1].message
    )


def test_a_name_that_stands_for_the_loopback_is_no_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """Debian writes a host's own name as 127.0.1.1; other nodes would look for the store on
    themselves.

    Interfaces are found by address: the loopback leads to this machine; to nowhere leads nothing.
    """
    assert network.interface_to("127.0.0.1") == "lo"
    assert network.interface_to("no such host.invalid") is None
    for name in (
        "NCCL_SOCKET_IFNAME",
        "GLOO_SOCKET_IFNAME",
    ):  # a group in this process may have set it
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("socket.gethostbyname", lambda _: "127.0.1.1")
    monkeypatch.setattr(network, "_source", lambda _: None)
    monkeypatch.setattr(
        network, "_addresses", lambda: {"lo": "127.0.0.1", "eth7": "10.1.2.3", "ib0": "10.9.9.9"}
    )
    assert network.own_address() == "10.1.2.3"
    monkeypatch.setenv("NCCL_SOCKET_IFNAME", "ib")
    assert network.own_address() == "10.9.9.9"


def test_a_host_without_ipv4_is_reached_by_ipv6(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Not by Docker's bridge, nor by an address that is valid on one link alone; the store
    listens there.
    """
    for name in ("NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME"):
        monkeypatch.delenv(name, raising=False)
    addresses = {
        "lo": ("127.0.0.1", "::1"),
        "docker0": ("172.17.0.1",),
        "eth0": ("fe80::1%eth0", "fd00::2"),
    }
    found = {
        name: [
            SimpleNamespace(family=socket.AF_INET6 if ":" in own else socket.AF_INET, address=own)
            for own in of
        ]
        for name, of in addresses.items()
    }
    (tmp_path / "docker0" / "bridge").mkdir(parents=True)
    monkeypatch.setattr(network, "INTERFACES", tmp_path)
    monkeypatch.setattr("socket.gethostbyname", Mock(side_effect=OSError))
    monkeypatch.setattr(network, "_source", lambda host: "fd00::2" if ":" in host else None)
    monkeypatch.setattr("psutil.net_if_addrs", lambda: found)
    assert network.own_address() == "fd00::2"
    assert network.interface_to("fd00::9") == "eth0"
    meeting = Meeting("::1", "key")
    assert Meeting("::1", "key", meeting.port).texts("host", 1) == {}


# The stores by which a run's processes meet: who can reach them, and what is believed of what
# stands in them


REQUEST = tiny.request(tiny.spec(), tiny.NOTHING, Path("/results/run")).model_dump_json()


def listening(port: int) -> set[str]:
    """Return the addresses on which this process listens with a port; another process may have
    its number elsewhere.
    """
    found = psutil.Process().net_connections("inet")
    return {
        one.laddr.ip for one in found if one.status == psutil.CONN_LISTEN and one.laddr.port == port
    }


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.2"])
def test_a_store_is_on_the_address_that_it_is_told(address: str) -> None:
    """That of one machine's ranks, and that of nodes: nobody reaches it by another address of
    the machine.
    """
    alone, meeting = store(address), Meeting(address, "key")
    for port in (alone.port, meeting.port):
        socket.create_connection((address, port), timeout=5).close()
        assert listening(port) == {address}


def test_what_others_write_is_not_believed() -> None:
    """A request with another folder, a report of a good end: neither by somebody's own signature
    nor by one copied.
    """
    parent = Meeting("127.0.0.1", "key")
    node, other = (
        Meeting("127.0.0.1", "key", parent.port),
        Meeting("127.0.0.1", "another key", parent.port),
    )
    theirs = TCPStore(parent.host, parent.port, is_master=False, timeout=timedelta(seconds=10))
    parent.give(REQUEST)
    node.put("host", 0, "n1")
    node.put("report", 0, "ended well")
    good = theirs.get("report/0")
    theirs.set("report/1", good.decode())
    theirs.set("host/1", "n9")
    theirs.set("report/0", "ended well")
    assert parent.texts("report", 2) == {}
    assert parent.texts("host", 2) == {0: "n1"}
    node.put("report", 0, "ended well")
    assert parent.texts("report", 2) == {0: "ended well"}, "a node's own report still comes"
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
    starter = Mock(return_value=["sh", "-c", 'echo "hpml-bench: $HPML_BENCH_MEETING_KEY"; exit 1'])
    keys = set()
    for _ in range(2):
        record = tiny.run(
            tiny.spec(), tiny.NOTHING, tmp_path / "run", run_ranks=OverNodes(2, starter)
        )
        (key,) = re.findall(r"hpml-bench: ([0-9a-f]{64})\b", record.error.message)
        assert not any(key in word for word in starter.call_args.args[0])
        keys.add(key)
    assert len(keys) == 2
    assert "HPML_BENCH_MEETING_KEY" not in os.environ


def test_an_agent_refuses_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that its node doesn't share with the others, or that no run was begun in."""
    monkeypatch.setattr(agent, "FOLDER_SECONDS", 0.1)
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(
            UserError,
            match=r"this is not the folder of the run; give an --out that all nodes share",
        ):
            agent.check_folder(folder)
    (tmp_path / LOG).touch()
    agent.check_folder(tmp_path)


# From another machine, here a namespace with a network of its own


@pytest.fixture
def elsewhere() -> Iterator[tuple[str, list[str]]]:
    """This machine's address on a network with another one, and the words before a command that
    runs there.
    """
    address, link = f"10.79.{os.getpid() % 250}", f"hm{os.getpid()}"
    other = subprocess.Popen(["unshare", "--net", "sleep", "300"], stderr=subprocess.DEVNULL)
    inside = ["nsenter", f"--net=/proc/{other.pid}/ns/net"]
    lines = (
        [
            "ip",
            "link",
            "add",
            link,
            "type",
            "veth",
            "peer",
            "name",
            "eth0",
            "netns",
            str(other.pid),
        ],
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
                skips.only_as_root(
                    f"a network with another namespace can't be made here: {done.stderr}"
                )
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
CONNECT = (
    "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=10)"
)


@pytest.mark.disks
def test_another_machine_can_steer_no_run(elsewhere: tuple[str, list[str]]) -> None:
    """A local run's store can't be reached; what somebody writes to that of a run over nodes
    isn't believed.
    """
    address, inside = elsewhere

    def there(program: str, port: int) -> subprocess.CompletedProcess[str]:
        words = [*inside, sys.executable, "-c", program, address, str(port)]
        return subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)

    alone = store("127.0.0.1")
    refused = there(CONNECT, alone.port)
    assert "ConnectionRefusedError" in refused.stderr
    meeting = Meeting(address, "key")
    meeting.give(REQUEST)
    assert meeting.request() == REQUEST
    written = there(OVERWRITE, meeting.port)
    assert written.stdout.strip() == "1", written.stderr
    assert meeting.texts("report", 2) == {}
    with pytest.raises(UserError, match="was not written by this run's job"):
        meeting.request()
