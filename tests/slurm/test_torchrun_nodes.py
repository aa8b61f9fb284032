"""`torchrun --nnodes 2` in two network namespaces joined by a veth pair, so that gloo can't hide on the loopback."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers import skips, tiny
from hpml_bench.records.load import load_record
from hpml_bench.records.points import read_points
from hpml_bench.records.predictions import read_predictions
from hpml_bench.records.run import RunRecord

pytestmark = pytest.mark.cluster
NAMES = (f"hpml-{os.getpid()}-0", f"hpml-{os.getpid()}-1")
NET, PORT = "10.75.0", 29511
LEFT_OUT = {"step_seconds"}
"""Series that time alone decides."""


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, timeout=20)


@pytest.fixture(scope="module")
def namespaces() -> Iterator[tuple[str, str]]:
    """Two network namespaces, each with its loopback and one end of a veth pair, `cable`."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        skips.only_as_root("ip of iproute2 is not installed")
    try:
        for name in NAMES:
            ip("netns", "add", name)
        ip("link", "add", "cable", "netns", NAMES[0], "type", "veth", "peer", "name", "cable", "netns", NAMES[1])
        for number, name in enumerate(NAMES):
            ip("-n", name, "link", "set", "lo", "up")
            ip("-n", name, "addr", "add", f"{NET}.{number + 1}/24", "dev", "cable")
            ip("-n", name, "link", "set", "cable", "up")
        yield NAMES
    except subprocess.CalledProcessError as error:
        skips.only_as_root(f"no network namespaces here: {error.stderr.decode().strip()}")
    finally:
        for name in NAMES:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True, timeout=20)


def torchrun(out: Path, suite: Path, *options: str, before: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    command = [*before, sys.executable, "-m", "torch.distributed.run", "--nproc-per-node"]
    return subprocess.Popen(
        [*command, *options, "-m", "hpml_bench", "run", "lora", str(suite), "--out", str(out)],
        text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def ended(processes: list[subprocess.Popen[str]], out: Path) -> tuple[RunRecord, Path]:
    for process in processes:
        said, _ = process.communicate(timeout=300)
        assert process.returncode == 0, said[-3000:]
    (path,) = out.glob("colours/*/run.json")
    return load_record(path), path.parent


def test_two_namespaces_compute_what_two_ranks_do(tmp_path: Path, namespaces: tuple[str, str]) -> None:
    """Losses, norms and predictions are equal to the bit; the record tells the nodes apart from ranks on one."""
    suite = tiny.local_suite(tmp_path)
    here, there = ended([torchrun(tmp_path / "here", suite, "2", "--standalone")], tmp_path / "here")
    options = ["1", "--nnodes", "2", "--master-addr", f"{NET}.1", "--master-port", str(PORT), "--node-rank"]
    nodes = [
        torchrun(tmp_path / "over", suite, *options, str(k), before=("ip", "netns", "exec", name))
        for k, name in enumerate(namespaces)
    ]
    over, folder = ended(nodes, tmp_path / "over")
    assert over.metrics["test_accuracy"] == here.metrics["test_accuracy"]
    losses = [
        [(p.metric, p.step, p.value) for p in read_points(f) if p.metric not in LEFT_OUT] for f in (folder, there)
    ]
    assert losses[0] == losses[1] != []
    predicted, expected = read_predictions(folder), read_predictions(there)
    assert predicted.loss.tolist() == expected.loss.tolist()
    hardware = over.environment["hardware"]
    assert (hardware["nodes"], hardware["ranks_per_node"]) == (2, [1, 1])
    assert hardware["interconnect"].startswith("cable")
    assert over.run_id == here.run_id
    assert over.environment["fingerprint"] != here.environment["fingerprint"] == over.environment["node_fingerprint"]
