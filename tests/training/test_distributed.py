"""Process groups, GPUs and nodes: turns of ranks, who may connect, whether torch can compute,
what a record says.
"""

import _thread
import hashlib
import json
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import psutil
import pytest
import torch

from helpers import tiny
from helpers.probe_run import make_run
from hpml_bench.builtin.probes import communication
from hpml_bench.launch import preparation
from hpml_bench.plugins.group import Group
from hpml_bench.suite.suite import load_suite
from hpml_bench.sweep.local import run_as_rank
from hpml_bench.sweep.request import SweepRequest
from hpml_bench.system import environment, gpus, network
from hpml_bench.system.errors import UserError
from hpml_bench.system.gpus import visible_gpus
from hpml_bench.training import distributed, worker
from hpml_bench.training.distributed import over_nodes

CPU, CARD = torch.device("cpu"), torch.zeros(8, 8)
REFUSES = RuntimeError(
    "CUDA driver error: operation not supported"
)  # expandable segments, as virtual GPUs do


def sentence(ranks: int = 1, own: int | None = None) -> str:
    with pytest.raises(UserError) as caught:
        distributed.check_gpus(ranks, own)
    return str(caught.value)


NO_KERNEL = "CUDA error: no kernel image is available for execution on the device\nCompile with ..."


@pytest.mark.parametrize(
    ("init", "second", "words"),
    [
        (
            AssertionError("Torch not compiled with CUDA enabled"),
            None,
            "Torch not compiled with CUDA enabled; install",
        ),
        (
            RuntimeError("The NVIDIA driver on your system is too old (found version 11040)."),
            None,
            "too old",
        ),
        (
            None,
            RuntimeError(NO_KERNEL),
            "no kernel image is available for execution on the device; install",
        ),
        (
            None,
            REFUSES,
            "not supported; set PYTORCH_CUDA_ALLOC_CONF=expandable_segments:False, or use",
        ),
        (None, None, "torch sees 2 GPU(s), but there are 3 ranks"),
    ],
)
def test_a_torch_that_cannot_compute_is_told(
    init: Exception | None, second: Exception | None, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Built without CUDA, for another driver or other cards, or one that sees fewer: with what
    to do.
    """

    def fail(error: Exception | None, *_: Any, **__: Any) -> torch.Tensor:
        if error is not None:
            raise error
        return CARD

    monkeypatch.setattr(torch.cuda, "init", partial(fail, init))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(
        torch, "ones", lambda *_, device: fail(second if device == "cuda:1" else None)
    )
    told = sentence(3)
    assert words in told
    assert "use --" in told


def test_a_rank_of_torchrun_looks_at_its_own_gpu(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Before it fetches anything, and at no other card, on which it would take memory; not where
    it is on the CPU.
    """
    monkeypatch.setattr(torch.cuda, "init", lambda: None)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(
        torch, "ones", lambda *_, device: pytest.fail("computed") if device != "cuda:1" else CARD
    )
    distributed.check_gpus(2, own=1)
    assert "torch sees 2 GPU(s), but there are 3 ranks" in sentence(3, own=2)
    check = Mock(side_effect=UserError("torch can't compute"))
    monkeypatch.setattr("hpml_bench.training.distributed.check_gpus", check)
    monkeypatch.setattr("hpml_bench.data.prepare.prepare", Mock(side_effect=UserError("prepared")))
    gpu = {"name": "GPU", "memory_mb": 80_000, "capability": "9.0", "uuid": "GPU-a", "index": 0}
    monkeypatch.setattr(gpus, "visible_gpus", lambda: (gpu, gpu))
    for name, value in {
        "RANK": "3",
        "WORLD_SIZE": "4",
        "LOCAL_WORLD_SIZE": "2",
        "LOCAL_RANK": "1",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PYTORCH_CUDA_ALLOC_CONF", "")  # which is set, and so is put back
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "")
    for device, told in (("cuda", "torch can't compute"), ("cpu", "prepared")):
        suite = load_suite(str(tiny.local_suite(tmp_path, device=device, world_size=4)))
        with pytest.raises(UserError, match=told):
            run_as_rank(SweepRequest(suite, tmp_path / "out", ("head",), (0,)))
    check.assert_called_once_with(2, own=1)


def test_cuda_in_the_fork_server_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A library that initialises it at import would break every rank; a run on the CPU doesn't
    mind.
    """
    monkeypatch.setattr(torch.cuda, "_is_in_bad_fork", lambda: True)
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "true")  # which is set, and so is put back
    assert "a library has initialised CUDA when it was imported" in sentence()
    for device, expected in (("cuda", "initialised CUDA"), ("cpu", "holds no such model")):
        with pytest.raises(UserError, match=expected):
            worker.prepared(
                tiny.settings(device=device, backbone="embedded:missing").model_dump_json()
            )


def test_a_sweep_on_gpus_that_torch_cannot_use_ends_before_its_first_run() -> None:
    """The preparation tries torch, in a process of its own: one for CPUs, or without a driver;
    else the model.
    """
    # where bitsandbytes looked for a driver when it was imported, and found none, forked processes
    # can't look again
    usable = torch.version.cuda is not None and visible_gpus()
    unusable = r"can't compute on the GPU .*: (Torch not compiled with CUDA|.*NVIDIA driver)"
    unusable += "|a library has initialised CUDA" if torch.version.cuda else ""
    with pytest.raises(UserError, match="tiny" if usable else unusable):
        preparation.prepare(tiny.settings(device="cuda", world_size=1))


def test_on_gpus_nothing_but_gradients_goes_through_nccl(monkeypatch: pytest.MonkeyPatch) -> None:
    """The group has both backends; what is gathered, and the tensor of a barrier, are on the
    CPU.
    """
    on: list[str] = []
    for name, value in tiny.ALONE.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "set_device", lambda _: None)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda _: on.append("settled"))
    monkeypatch.setattr(torch.distributed, "init_process_group", lambda kind, **_: on.append(kind))
    monkeypatch.setattr(torch.distributed, "destroy_process_group", lambda: on.append("left"))
    monkeypatch.setattr(
        torch.distributed, "all_reduce", lambda tensor: on.append(tensor.device.type)
    )
    monkeypatch.setattr(
        torch.distributed, "all_gather", lambda _, tensor: on.append(tensor.device.type)
    )
    with distributed.process_group(tiny.settings(device="cuda", world_size=1)) as group:
        group.barrier()
        group.gather(torch.zeros(2))
    assert on == ["cpu:gloo,cuda:nccl", "settled", "cpu", "cpu", "left"]


def test_memory_of_a_gpu_is_given_back_and_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """By torch's own calls, which a run on a CPU doesn't make."""
    calls: list[Any] = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: calls.append("emptied"))
    monkeypatch.setattr(
        torch.cuda, "set_per_process_memory_fraction", lambda *told: calls.append(told)
    )
    for device in (CPU, torch.device("cuda", 1)):
        distributed.release(device)
        distributed.leave_free(0.05, device)
    assert calls == ["emptied", (0.95, torch.device("cuda", 1))]


def test_a_group_is_not_left_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """NCCL would wait for peers that wait for this rank."""
    events: list[str] = []
    monkeypatch.setattr(
        torch.distributed, "init_process_group", lambda kind, **_: events.append(kind)
    )
    monkeypatch.setattr(torch.distributed, "destroy_process_group", lambda: events.append("left"))
    with pytest.raises(ArithmeticError), tiny.alone():
        raise ArithmeticError
    assert events == ["gloo"]


@pytest.mark.parametrize("fails", [False, True])
def test_a_rank_goes_after_as_many_meetings_as_ranks_before_it(
    fails: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All ranks meet equally often, on each machine; one that raises lets the next go on."""
    meetings: list[str] = []
    monkeypatch.setattr(Group, "barrier", lambda _: meetings.append("meet"))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    for rank in range(6):
        meetings.clear()
        monkeypatch.setenv("LOCAL_RANK", str(rank % 3))
        try:
            with Group(rank, 6, CPU).in_turn():
                meetings.append("load")
                if fails:
                    raise ValueError
        except ValueError:
            assert fails
        assert meetings.index("load") == rank % 3
        assert meetings.count("meet") == 3


def listening() -> set[tuple[str, int]]:
    """Return the addresses and ports on which this process takes connections."""
    found = psutil.Process().net_connections("tcp")
    return {(one.laddr.ip, one.laddr.port) for one in found if one.status == psutil.CONN_LISTEN}


def test_a_group_of_one_rank_listens_on_the_loopback_at_most() -> None:
    """As `check` makes them, for ten minutes: whoever reaches a group's store can write to it."""
    before = listening()
    with tiny.alone() as group:
        assert group.gather(torch.ones(1)).tolist() == [[1.0]]
        assert {address for address, _ in listening() - before} <= {"127.0.0.1"}


def test_the_interpreters_lock_is_let_go_before_a_group_is_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Threads of gloo need it to drop their last work; who frees the group holds it, and would
    wait for ever.
    """
    ran: list[bool] = []
    seen: list[bool] = []
    destroy = torch.distributed.destroy_process_group
    monkeypatch.setattr(
        torch.distributed, "destroy_process_group", lambda: (seen.append(bool(ran)), destroy())
    )
    before = sys.getswitchinterval()
    sys.setswitchinterval(60)  # another thread runs only when this one lets it
    try:
        with tiny.alone():
            _thread.start_new_thread(ran.append, (True,))
    finally:
        sys.setswitchinterval(before)
    assert seen == [True]


# What a record says of the nodes of a run: one node as ever; several by number, ranks, interconnect
# and likeness


TWO = environment.NodeLayout(
    hosts=("n1", "n2"), ranks_per_node=(1, 1), interconnect="eth0 10000 Mb/s"
)


def test_the_fingerprint_is_of_hardware_and_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one node the SHA-256 of its parts as canonical JSON; other nodes, ranks, networks and
    kinds have others.
    """
    parts = {"cpu": "Z80", "architecture": "z80", "cores": 1, "memory_gb": 1, "gpus": []}
    monkeypatch.setattr(environment, "hardware", lambda: dict(parts))
    text = '{"architecture":"z80","cores":1,"cpu":"Z80","gpus":[],"memory_gb":1}'
    one = environment.describe()
    assert one["fingerprint"] == hashlib.sha256(text.encode()).hexdigest()[:12]
    assert list(one["hardware"]) == list(parts)
    assert "node_fingerprint" not in one
    kinds = [
        None,
        TWO,
        TWO._replace(ranks_per_node=(2, 2)),
        TWO._replace(interconnect="eth0 1000 Mb/s"),
        TWO._replace(unlike=("a", "b")),
        TWO._replace(unlike=("a", "c")),
    ]
    found = [environment.describe(kind) for kind in kinds]
    assert len({told["fingerprint"] for told in found}) == len(kinds)
    assert found[1]["node_fingerprint"] == found[0]["fingerprint"]
    assert "node_fingerprint" not in found[4]
    text = json.dumps(found[1]["hardware"], sort_keys=True, separators=(",", ":"))
    assert found[1]["fingerprint"] == hashlib.sha256(text.encode()).hexdigest()[:12]


@pytest.mark.parametrize("hardware", ["", "another"])
def test_nodes_are_found_through_the_group(hardware: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two ranks on this node and two on n2, whose hardware is like this one's or not."""
    monkeypatch.setenv("GROUP_RANK", "0")
    monkeypatch.setattr("socket.gethostname", lambda: "n1")
    monkeypatch.setattr(network, "interconnect", lambda hosts: f"to {hosts[-1]}")
    of_n2 = iter(["1\tn2", hardware])
    monkeypatch.setattr(
        distributed, "gathered", lambda _, own: [own, own, *[next(of_n2) or own] * 2]
    )
    found = over_nodes(Group(0, 4, CPU, 2))
    assert (found.hosts, found.ranks_per_node, found.interconnect) == (
        ("n1", "n2"),
        (2, 2),
        "to n2",
    )
    assert bool(found.unlike) == bool(hardware)
    assert over_nodes(Group(0, 2, CPU)) is None


def test_the_first_rank_of_each_node_measures_what_its_ranks_share() -> None:
    """Of four ranks over two nodes the first and the third; on one node the first."""
    assert [Group(rank, 4, CPU, 2).first_here for rank in range(4)] == [True, False, True, False]
    assert [Group(rank, 2, CPU).first_here for rank in range(2)] == [True, False]


def test_bytes_between_nodes_are_those_of_a_ring(tmp_path: Path) -> None:
    """Four ranks over two nodes: of four links, each with 2·3/4 of the gradients, two cross; one
    node has none.
    """
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
    """Ports that are up, with their rates; without any, the named interface, or the one that
    leads to the others.
    """
    for name in (
        "NCCL_SOCKET_IFNAME",
        "GLOO_SOCKET_IFNAME",
    ):  # a group in this process may have set it
        monkeypatch.delenv(name, raising=False)
    for device, state in (("mlx5_0", "4: ACTIVE"), ("mlx5_1", "1: DOWN")):
        port = tmp_path / device / "ports/1"
        port.mkdir(parents=True)
        (port / "state").write_text(f"{state}\n")
        (port / "rate").write_text("200 Gb/sec (4X HDR)\n")
    monkeypatch.setattr(network, "INFINIBAND", tmp_path)
    assert network.interconnect(["10.0.0.2"]) == "mlx5_0 200 Gb/sec (4X HDR)"
    monkeypatch.setattr(network, "INFINIBAND", tmp_path / "none")
    monkeypatch.setattr(
        network, "_addresses", lambda: {"lo": "127.0.0.1", "eth7": "10.0.0.1", "ib0": "10.1.0.1"}
    )
    monkeypatch.setattr(
        network, "_source", lambda host: "10.0.0.1" if host == "10.0.0.2" else "127.0.0.1"
    )
    speeds = {"eth7": SimpleNamespace(speed=10_000), "ib0": SimpleNamespace(speed=0)}
    monkeypatch.setattr("psutil.net_if_stats", lambda: speeds)
    assert network.interconnect(["127.0.0.1", "10.0.0.2"]) == "eth7 10000 Mb/s"
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "ib0")
    assert network.interconnect(["10.0.0.2"]) == "ib0"
