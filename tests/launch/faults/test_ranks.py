"""Ranks that raise, are killed, hang or run out of memory: each told by its own status, and the
next run is clean.
"""

import gc
import html
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from faulty_runs import endless, faulty, send, when, when_training

from helpers import control_groups, plugin_packages, tiny
from hpml_bench.data.prepared import Prepared
from hpml_bench.page.render import write_report
from hpml_bench.records.files import OUTCOME
from hpml_bench.records.load import load_record
from hpml_bench.records.plan import Limits
from hpml_bench.records.run import RunRecord
from hpml_bench.suite.settings import MethodSpec, RunSpec
from hpml_bench.system import cgroups, processes, temporary

ENDED_AT_LAST = Limits(stall=120)
"""For runs that end otherwise; were they not ended, the test would fail after this."""
GROUP_BYTES = 60_000_000
GREEDY = '''
"""A method of the tests: trains the head; one rank takes more memory than its group has."""

import math
import os

from hpml_bench.suite.base import Frozen
from hpml_bench.builtin.methods.head import Head


class Greedy(Head):
    class Options(Frozen):
        group: str = ""

    def after_step(self, encoder, step):
        if step == 3 and os.environ["RANK"] == "1":
            with open(f"{self.options.group}/cgroup.procs", "w") as file:
                file.write(str(os.getpid()))
            b"x" * 500_000_000
'''
TOLERATED_MB = 4.0
"""By which the parent may have grown after three failures, since allocators keep some: less than
two MB a failure.
"""


class Stall(Limits):
    """Limits of a run whose stall limit is short only once a moment has come.

    A rank's start-up counts as stall, and a busy machine draws it out.
    """

    def __init__(self) -> None:
        super().__init__(stall=120.0)

    def begin(self, *_: object) -> None:
        """Let the run be ended after two seconds without progress."""
        object.__setattr__(self, "stall", 2.0)  # the watchdog reads it at each poll

    def after(self, action: Callable[[dict[int, int]], None]) -> Callable[[dict[int, int]], None]:
        """Return an action that does `action`, from which on the limit is short."""

        def both(pids: dict[int, int]) -> None:
            action(pids)
            self.begin()

        return both


def ended(
    status: str, spec: RunSpec, prepared: Prepared, tmp_path: Path, limits: Limits = ENDED_AT_LAST
) -> RunRecord:
    """Do a run, which must end with this status, and return its record."""
    record = tiny.run(spec, prepared, tmp_path / "run", limits)
    assert record.status == status, record.error
    return record


def told(record: RunRecord) -> str:
    return record.error.message


def the_next_is_ok(prepared: Prepared, tmp_path: Path) -> None:
    assert tiny.run(tiny.spec("head"), prepared, tmp_path / "next").status == "ok"


def test_a_rank_that_raises(prepared: Prepared, tmp_path: Path) -> None:
    """The run is `failed` with that rank's own traceback, though the other one loses its peer."""
    record = ended("failed", faulty("raise"), prepared, tmp_path)
    assert (record.error.kind, record.error.rank) == ("ArithmeticError", 1)
    raising = 'raise ArithmeticError("the fault that was asked for")'
    assert raising in (record.error.traceback or "")
    write_report(tmp_path)
    assert f"- {raising}" in (tmp_path / "report.md").read_text()
    assert html.escape(raising).replace("&quot;", "&#34;") in (tmp_path / "report.html").read_text()
    the_next_is_ok(prepared, tmp_path)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_is_killed(rank: int, prepared: Prepared, tmp_path: Path) -> None:
    """The run is `killed`, by that rank, and not by what the other says of the lost connection."""
    when_training(tmp_path / "run", send(signal.SIGKILL, rank))
    record = ended("killed", endless(), prepared, tmp_path)
    assert f"rank {rank} was ended by SIGKILL" in told(record)
    assert "memory had reached" in told(record)


def test_the_fork_server_is_killed(prepared: Prepared, tmp_path: Path) -> None:
    """Its ranks end with it, the run is `killed`, and the next one has a new server."""
    ranks: dict[int, int] = {}

    def kill(pids: dict[int, int]) -> None:
        ranks.update(pids)
        os.kill(processes.fork_server() or 0, signal.SIGKILL)

    when_training(tmp_path / "run", kill)
    record = ended("killed", endless(), prepared, tmp_path)
    assert "the fork server was ended" in told(record)
    assert len(ranks) == 2
    assert [pid for pid in ranks.values() if processes.identify(pid)] == []
    the_next_is_ok(prepared, tmp_path)


def test_a_rank_that_is_stopped(prepared: Prepared, tmp_path: Path) -> None:
    """The stall limit ends the run: `timeout`, where each rank stood, and the stack of both."""
    limits = Stall()
    when_training(tmp_path / "run", limits.after(send(signal.SIGSTOP, 1)))
    record = ended("timeout", endless(), prepared, tmp_path, limits)
    assert "no progress for 2 s" in told(record)
    assert "(stopped)" in told(record).partition("rank 1 at training step")[2]
    stacks = (record.error.traceback or "").split("\n\nrank 1")
    assert len(stacks) == 2
    assert "trainer.py" in stacks[0], record.error.traceback
    # CPython's faulthandler itself may crash where a rank was stopped between two frames
    assert re.search(r"trainer\.py|Fatal Python error", stacks[1]), record.error.traceback


@pytest.mark.parametrize(
    ("number", "rank", "ranks"), [("SIGSTOP", 1, 2), ("SIGKILL", 1, 2), ("SIGKILL", 0, 1)]
)
def test_a_rank_that_breaks_as_it_exits(
    number: str, rank: int, ranks: int, prepared: Prepared, tmp_path: Path
) -> None:
    """The run was done. A stopped rank is ended some seconds after the limit; a killed one, also
    the only one, at once.

    Without a stall limit too, the run then ends.
    """
    limits = Stall() if number == "SIGSTOP" else Limits(stall=0)
    when((tmp_path / "run" / OUTCOME).exists, getattr(limits, "begin", lambda _: None))
    ended("ok", faulty(number, rank, world_size=ranks), prepared, tmp_path, limits)
    assert limits.stall == (2.0 if number == "SIGSTOP" else 0), "it was not the limit that ended it"
    assert processes.descendants() == set()
    the_next_is_ok(prepared, tmp_path)


def test_a_fork_server_that_is_stopped(prepared: Prepared, tmp_path: Path) -> None:
    """It can't say that its children ended: it is ended as well, and the next run has a new one."""
    limits = Stall()
    when_training(
        tmp_path / "run",
        limits.after(
            lambda pids: [
                os.kill(pid, signal.SIGSTOP) for pid in (processes.fork_server() or 0, pids[1])
            ]
        ),
    )
    ended("timeout", endless(), prepared, tmp_path, limits)
    the_next_is_ok(prepared, tmp_path)


def test_a_fork_server_that_is_stopped_as_its_ranks_end_by_themselves(
    prepared: Prepared, tmp_path: Path
) -> None:
    """The run was done. The server, which told nobody, is ended: the next run, and the command's
    exit, wait for it.
    """
    stopped: list[int] = []

    def stop(_: dict[int, int]) -> None:
        stopped.append(processes.fork_server() or 0)
        os.kill(stopped[0], signal.SIGSTOP)

    when_training(tmp_path / "run", stop)
    began = time.monotonic()
    ended("ok", tiny.spec("head", steps=200), prepared, tmp_path, Limits(stall=0))
    assert time.monotonic() - began < 60
    assert len(stopped) == 1
    assert processes.identify(stopped[0]) is None
    assert multiprocessing.active_children() == []
    the_next_is_ok(prepared, tmp_path)


@pytest.mark.parametrize("who", ["python", "torch"])
def test_no_memory_on_the_host(who: str, prepared: Prepared, tmp_path: Path) -> None:
    """An allocation over the cap is `oom_host`, with the peak that was reached."""
    record = ended("oom_host", faulty(f"memory of {who}"), prepared, tmp_path)
    assert record.error.rank == 1
    assert float(told(record).removeprefix("peak of ").partition(" MB")[0].replace(",", "")) > 50


def test_the_kernels_kill_for_memory(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A SIGKILL while the control group's count of such kills rises is `oom_host`, with the peak
    seen.
    """
    events = tmp_path / "memory.events"
    events.write_text("low 0\noom 3\noom_kill 3\n")
    monkeypatch.setattr(cgroups, "_counters", lambda: iter((events,)))

    def kill(pids: dict[int, int]) -> None:
        time.sleep(0.3)
        os.kill(pids[1], signal.SIGKILL)
        events.write_text("low 0\noom 4\noom_kill 4\n")

    when_training(tmp_path / "run", kill)
    record = ended("oom_host", endless(), prepared, tmp_path)
    assert "rank 1" in told(record)
    assert "memory had reached" in told(record)


@pytest.mark.disks
@pytest.mark.serial
def test_a_real_kill_for_memory(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rank that outgrows its control group, below the parent's, is ended by the kernel, and
    `oom_host`.
    """
    monkeypatch.syspath_prepend(plugin_packages.write(tmp_path, "methods", greedy=GREEDY))
    with control_groups.limited(GROUP_BYTES) as group:
        method = MethodSpec(name="greedy", method="greedy", options={"group": str(group)}, lr=1e-3)
        record = ended(
            "oom_host", endless().model_copy(update={"method": method}), prepared, tmp_path
        )
    assert "rank 1 was ended by the kernel" in told(record)
    assert "memory had reached" in told(record)


@pytest.mark.parametrize(("value", "rank"), [("nan", 0), ("inf", 1)])
def test_a_loss_that_is_no_number_on_one_rank(
    value: str, rank: int, prepared: Prepared, tmp_path: Path
) -> None:
    """The other's loss and all gradients are finite, and yet both ranks stop at that step."""
    record = ended("diverged", faulty(value, rank), prepared, tmp_path)
    assert re.fullmatch(
        rf"the loss is {value} and the gradient norm [\d.]+ at step 3", told(record)
    )
    assert list((tmp_path / "run").glob("error-rank*")) == []


@pytest.mark.serial
def test_failures_cost_the_parent_nothing(prepared: Prepared, tmp_path: Path) -> None:
    """Run after run that fails, it holds no more memory, descriptors, threads, children and
    temporary files.
    """

    def held() -> tuple[float, int, int, int, int]:
        process = psutil.Process()
        inside = sum(1 for _ in temporary.folder().rglob("*"))
        counts = (
            process.num_fds(),
            process.num_threads(),
            len(process.children(recursive=True)),
            inside,
        )
        return process.memory_info().rss / 1e6, *counts

    def fail(number: int) -> tuple[float, int, int, int, int]:
        folder = tmp_path / str(number)
        when_training(folder, send(signal.SIGKILL)).join(0)
        tiny.run(endless(), prepared, folder)
        gc.collect()
        return held()

    fail(0)  # what is imported and kept once is no loss
    first, *_, last = [fail(number) for number in range(1, 5)]
    assert last[0] <= first[0] + TOLERATED_MB, (first, last)
    assert all(now <= before for before, now in zip(first[1:], last[1:], strict=True)), (
        first,
        last,
    )


def test_a_rank_that_fails_does_not_leave_its_group(prepared: Prepared, tmp_path: Path) -> None:
    """Its error is written at once, where leaving would wait for peers that wait for it, as it
    does in NCCL.
    """
    began = time.monotonic()
    record = ended("oom_cuda", faulty("memory, and peers wait"), prepared, tmp_path)
    assert time.monotonic() - began < 60
    assert record.error.rank == 1


@pytest.mark.parametrize(
    ("rank", "ranks"),
    [pytest.param(1, 2, marks=pytest.mark.multigpu), pytest.param(0, 1, marks=pytest.mark.gpu)],
)
def test_no_memory_on_the_gpu(rank: int, ranks: int, prepared: Prepared, tmp_path: Path) -> None:
    """A tensor larger than it is `oom_cuda` by that rank, with its peak, and no stall, though
    another waits in NCCL.
    """
    spec = faulty("memory of the GPU", rank=rank, device="cuda", world_size=ranks)
    record = ended("oom_cuda", spec, prepared, tmp_path, Limits(stall=60))
    assert record.error.rank == rank
    assert "allocated on the GPU" in told(record)
    the_next_is_ok(prepared, tmp_path)


def run_by_torchrun(folder: Path, plug_in: Path, fault: str, rank: int) -> RunRecord:
    methods = {"faulty": {"lr": 1e-3, "options": {"fault": fault, "rank": rank}}}
    path = tiny.local_suite(folder, more={"methods": methods})
    places = os.pathsep.join([str(plug_in), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
    ]
    done = subprocess.run(
        [*command, "-m", "hpml_bench", "run", "faulty", str(path), "--out", str(folder / "out")],
        env=os.environ | {"PYTHONPATH": places},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode != 0
    (found,) = (folder / "out").rglob("run.json")
    assert (found.parents[1] / "suite.json").exists()
    return load_record(found)


@pytest.mark.suites
@pytest.mark.parametrize(
    ("fault", "rank", "status", "kind"),
    [
        ("memory, and peers wait", 1, "oom_cuda", "OutOfMemoryError"),
        ("raise", 0, "failed", "ArithmeticError"),
    ],
)
def test_torchrun_leaves_a_record(
    fault: str, rank: int, status: str, kind: str, plug_in: Path, tmp_path: Path
) -> None:
    """As under our launcher: with that rank's own status and traceback, and not what the other
    says of a lost peer.
    """
    record = run_by_torchrun(tmp_path, plug_in, fault, rank)
    assert record.status == status, record.error
    assert (record.error.kind, record.error.rank) == (kind, rank)
    assert "after_step" in (record.error.traceback or "")
