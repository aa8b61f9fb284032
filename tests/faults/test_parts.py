"""The parts that stand behind the promises, each by itself."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from hpml_bench.errors import UserError
from hpml_bench.launch import outcome, watchdog
from hpml_bench.launch.limits import Limits
from hpml_bench.records.files import RECORD, SET_ASIDE
from hpml_bench.records.folder import RunFolder, locked
from hpml_bench.records.run import RunError
from hpml_bench.system import failures, heartbeat, oom, processes, tempdir
from hpml_bench.system.signals import SIGNALS, Stop, stoppable


@pytest.mark.parametrize("number", SIGNALS)
def test_a_request_to_end_is_an_interruption_where_it_arrives(number: signal.Signals) -> None:
    """Outside a run; afterwards the handlers are those from before."""
    before = [signal.getsignal(each) for each in SIGNALS]
    with pytest.raises(KeyboardInterrupt), stoppable() as stop:
        os.kill(os.getpid(), number)
    assert stop.asked
    assert [signal.getsignal(each) for each in SIGNALS] == before


def test_a_run_sees_the_request_in_its_own_time() -> None:
    """Within a run nothing is raised: the books are kept first."""
    with stoppable() as stop, stop.deferred():
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.asked


def test_one_request_is_known_everywhere() -> None:
    """A sweep and the runs in it share it; the next sweep starts afresh."""
    with stoppable() as outer:
        with stoppable() as inner:
            assert inner is outer
        assert signal.getsignal(signal.SIGTERM) == outer.handle
    with stoppable() as later:
        assert later is not outer


def test_other_threads_leave_signals_alone() -> None:
    """Only the main thread may set handlers; elsewhere a sweep runs without."""
    found: list[Stop] = []
    before = signal.getsignal(signal.SIGINT)

    def sweep() -> None:
        with stoppable() as stop:
            found.append(stop)

    thread = threading.Thread(target=sweep)
    thread.start()
    thread.join()
    assert len(found) == 1
    assert signal.getsignal(signal.SIGINT) == before


def test_only_what_nobody_holds_is_abandoned(tmp_path: Path) -> None:
    """Temporary folders of living processes stay, those of dead ones go, and so does nobody else's."""
    for name in ("living", "dead"):
        (tmp_path / f"{tempdir.PREFIX}{name}").mkdir()
        (tmp_path / f"{tempdir.PREFIX}{name}/file").write_text("")
    (tmp_path / "of-others").mkdir()
    holder = os.open(tmp_path / f"{tempdir.PREFIX}living", os.O_RDONLY)
    fcntl.flock(holder, fcntl.LOCK_EX)
    tempdir._remove_abandoned(tmp_path)
    os.close(holder)
    assert {path.name for path in tmp_path.iterdir()} == {f"{tempdir.PREFIX}living", "of-others"}


@pytest.fixture
def heart(tmp_path: Path) -> Iterator[Path]:
    """A folder into which this process beats as rank 3."""
    heartbeat.begin(tmp_path, 3)
    yield tmp_path
    assert heartbeat._Heart.file is not None
    os.close(heartbeat._Heart.file)
    heartbeat._Heart.file = None


def test_a_heartbeat_says_where(heart: Path) -> None:
    """The last one counts, whole, also when it is shorter than the one before; its number rises."""
    heartbeat.beat("a very long place indeed " * 20)
    (before,) = heartbeat.read(heart)
    heartbeat.beat("step 2")
    (beat,) = heartbeat.read(heart)
    assert (beat.rank, beat.pid, beat.where) == (3, os.getpid(), "step 2")
    assert beat.count == before.count + 1
    (heart / "heartbeat-rank4").write_text("torn\t")
    assert heartbeat.read(heart) == (beat,)
    heartbeat.remove(heart)
    assert heartbeat.read(heart) == ()


def test_a_process_at_work_beats_and_one_that_waits_does_not(heart: Path) -> None:
    """In a call that beats nowhere, which computes for a while and then hangs; the place stays."""

    def beats() -> int:
        (beat,) = heartbeat.read(heart)
        assert beat.where == "building"
        return beat.count

    heartbeat.beat("building")
    first = beats()
    with heartbeat.busy(every=0.1):
        deadline = time.monotonic() + 10
        while beats() == first and time.monotonic() < deadline:
            sum(range(1000))
        assert beats() > first
        time.sleep(1)
        at_rest = beats()
        time.sleep(0.5)
        assert beats() == at_rest
    ended = beats()
    sum(range(10_000_000))
    assert beats() == ended


def test_without_a_watch_nothing_beats(tmp_path: Path) -> None:
    """As under torchrun: no file is written."""
    heartbeat.beat("step 1")
    assert list(tmp_path.iterdir()) == []


def test_a_number_taken_over_by_another_process_is_not_ended() -> None:
    """A process is its number and its birth; a stopped one is ended as well."""
    child = subprocess.Popen(["sleep", "60"])
    found = processes.identify(child.pid)
    assert found is not None
    other = psutil.Process(child.pid)
    other._ident = (child.pid, 0.0)  # as of one that had the number before
    processes.kill([other])
    assert child.poll() is None
    os.kill(child.pid, signal.SIGSTOP)
    os.waitid(os.P_PID, child.pid, os.WSTOPPED | os.WNOWAIT)
    assert processes.stopped(child.pid)
    processes.terminate([found])
    assert processes.identify(child.pid) is None
    assert not Path(f"/proc/{child.pid}").exists(), "it is collected, and no zombie"
    child.returncode = -signal.SIGKILL


def test_the_peak_is_read_on_each_poll(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rank that grows after it was first seen has its peak known two polls later, however rare other looks are."""
    monkeypatch.setattr(watchdog, "LOOKS", 10**6)
    program = "input(); kept = b'x' * 200_000_000; print(flush=True); input()"
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", program], stdin=pipe, stdout=pipe, text=True) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        (tmp_path / "heartbeat-rank0").write_text(f"{child.pid}\t1\tstep 1\n")
        with watchdog.Watchdog(tmp_path, Limits(), Stop()) as watching:
            deadline = time.monotonic() + 30
            while 0 not in watching.peak_mb and time.monotonic() < deadline:
                time.sleep(0.01)
            before = watching.peak_mb[0]
            child.stdin.write("\n")
            child.stdin.flush()
            child.stdout.readline()
            while watching.peak_mb[0] <= before + 150 and time.monotonic() < deadline:
                time.sleep(0.01)
            child.kill()
    assert watching.peak_mb[0] > before + 150


def test_time_in_which_nobody_looked_is_no_hang(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the clock is 1,000 s further at the next look, the machine slept; 30 s without progress have not gone by."""
    clock, slept = time.monotonic, [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock() + slept[0])
    with watchdog.Watchdog(tmp_path, Limits(stall=30, run_timeout=60), Stop()) as watching:
        time.sleep(3 * watchdog.POLL_SECONDS)
        slept[0] = 1000.0
        time.sleep(3 * watchdog.POLL_SECONDS)
    assert watching.verdict is None


VERSION_1 = (
    "30 23 0:28 {root} {mount} rw - cgroup cgroup rw,memory\n31 23 0:29 / /elsewhere rw - cgroup cgroup rw,cpu\n"
)
VERSION_2 = "30 23 0:28 {root} {mount} rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
EVENTS = "low 0\nhigh 0\nmax 9\noom 4\noom_kill 3\noom_group_kill 0\n"
CONTROL = "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"


@pytest.mark.parametrize(
    ("mounts", "groups", "root", "counters", "count"),
    [
        (VERSION_2, "0::/mine", "/", {"mine/memory.events": EVENTS, "memory.events": EVENTS.replace("3", "9")}, 3),
        (VERSION_2, "0::/", "/", {"memory.events": EVENTS}, 3),
        (VERSION_1, "4:cpu,memory:/mine\n0::/", "/", {"memory.oom_control": CONTROL, "mine/memory.oom_control": ""}, 7),
        (VERSION_1, "4:memory:/mine\n3:cpu:/", "/", {"mine/memory.oom_control": CONTROL}, 2),
        (VERSION_1, "4:memory:/mine", "/", {f"mine{sub}/memory.oom_control": CONTROL for sub in ("", "/a", "/b")}, 6),
        (VERSION_1, "4:memory:/box/mine", "/box", {"mine/memory.oom_control": CONTROL}, 2),
        (VERSION_1, "4:memory:/mine", "/box", {"mine/memory.oom_control": CONTROL}, 7),
        (VERSION_1 + VERSION_2, "4:memory:/mine\n0::/mine", "/", {"mine/memory.oom_control": CONTROL}, 2),
        ("", "", "", {}, 7),
    ],
    ids=["2", "2, alone", "1, without a count", "1", "1, below", "1, boxed", "1, outside", "both", "none"],
)
def test_the_kernels_counters_are_read(
    mounts: str,
    groups: str,
    root: str,
    counters: dict[str, str],
    count: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of the process's own control group of version 2 or 1, wherever it is mounted; else of the machine."""
    for name, text in counters.items():
        (tmp_path / "mount" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "mount" / name).write_text(text)
    places = {"MOUNTS": mounts.format(root=root, mount=tmp_path / "mount"), "GROUPS": groups, "MACHINE": "oom_kill 7\n"}
    for name, text in places.items():
        (tmp_path / name).write_text(text)
        monkeypatch.setattr(oom, name, tmp_path / name)
    assert oom.oom_kills() == count


def test_where_nothing_counts_nothing_was_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine that has none of the files, and one whose counters say nothing, the count is 0."""
    for name in ("MOUNTS", "GROUPS", "MACHINE"):
        monkeypatch.setattr(oom, name, tmp_path / name)
    assert oom.oom_kills() == 0
    (tmp_path / "MACHINE").write_text("pgfault 4\n")
    assert oom.oom_kills() == 0


@pytest.mark.parametrize(
    ("kind", "message", "status"),
    [
        ("OutOfMemoryError", "CUDA out of memory. Tried to allocate 2.00 GiB", "oom_cuda"),
        ("AcceleratorError", "CUDA error: out of memory\nSearch for `cudaErrorMemoryAllocation'", "oom_cuda"),
        ("RuntimeError", "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", "oom_cuda"),
        ("RuntimeError", "cuDNN error: CUDNN_STATUS_ALLOC_FAILED", "oom_cuda"),
        ("RuntimeError", "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`", "oom_cuda"),
        ("DistBackendError", "unhandled cuda error\nLast error:\nFailed to CUDA calloc async 24 bytes", "oom_cuda"),
        ("DistBackendError", "unhandled cuda error\nLast error:\nFailed to CUDA calloc 10485760 bytes", "oom_cuda"),
        (
            "DistBackendError",
            "NCCL error in: ProcessGroupNCCL.cpp:94, unhandled cuda error\nLast error:\nCuda failure 2 'out of memory'",
            "oom_cuda",
        ),
        ("RuntimeError", "CUDA error: an illegal memory access was encountered", "failed"),
        ("MemoryError", "", "oom_host"),
        ("ArrowMemoryError", "malloc of size 1099511627776 failed", "oom_host"),
        ("ArrowMemoryError", "realloc of size 1099511627776 failed", "oom_host"),
        ("DatasetGenerationError", "malloc of size 1099511627776 failed", "oom_host"),
        ("_ArrayMemoryError", "Unable to allocate 1.00 TiB for an array with shape (1099511627776,)", "oom_host"),
        ("RuntimeError", "[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory", "oom_host"),
        ("OSError", "[Errno 12] Cannot allocate memory", "oom_host"),
        ("RuntimeError", "shapes can't be multiplied", "failed"),
    ],
)
def test_errors_for_want_of_memory_are_told_apart(kind: str, message: str, status: str) -> None:
    """By the exception's class, or by what torch and the system say."""
    assert failures.status_of(kind, message) == status


@pytest.mark.parametrize("first", [0, 1, 2])
@pytest.mark.parametrize("oldest", [0, 1, 2])
def test_a_lost_peer_is_not_the_cause(first: int, oldest: int, tmp_path: Path) -> None:
    """Whichever rank the launcher saw end first, and whichever wrote first: the error of a rank's own is the cause."""
    lost = "[gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:1234"
    for rank, message in enumerate((lost, "division by zero", lost)):
        path = tmp_path / f"error-rank{rank}.json"
        path.write_text(RunError(kind="Error", message=message, rank=rank).model_dump_json())
        os.utime(path, (1_000_000 + (rank - oldest) % 3,) * 2)
    failure: Any = SimpleNamespace(get_first_failure=lambda: (first, SimpleNamespace(exitcode=1)))
    ended = outcome.outcome(tmp_path, outcome.ExitEvidence(failure))
    assert ended.error is not None
    assert (ended.status, ended.error.rank, ended.error.message) == ("failed", 1, "division by zero")


def test_an_ignored_signal_stays_ignored() -> None:
    """Under nohup a closed terminal ends nothing: SIGHUP is ignored before a sweep, and during it."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stoppable() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            assert not stop.asked
    finally:
        signal.signal(signal.SIGHUP, before)


def test_set_aside_takes_the_first_free_number(tmp_path: Path) -> None:
    """With `run.1` gone and `run.2` there, the next damaged run is `run.1`, and the one after it `run.3`."""
    (tmp_path / SET_ASIDE / "run.2").mkdir(parents=True)
    names = []
    for _ in range(2):
        (tmp_path / "run").mkdir()
        names.append(RunFolder(tmp_path / "run").set_aside().name)
    assert names == ["run.1", "run.3"]


def test_a_link_is_set_aside_and_not_followed(tmp_path: Path) -> None:
    """Of a run's folder that is a link only the link is moved; what it leads to stays as it was."""
    elsewhere, folder = tmp_path / "elsewhere", tmp_path / "results"
    elsewhere.mkdir()
    folder.mkdir()
    (elsewhere / RECORD).write_text("mine")
    (folder / "run").symlink_to(elsewhere)
    RunFolder(folder / "run").set_aside()
    assert (elsewhere / RECORD).read_text() == "mine"


def test_the_lock_follows_no_link(tmp_path: Path) -> None:
    """A results folder whose lock or holder's file is a link to a file of the user's leaves that file alone."""
    mine = tmp_path / "mine"
    mine.write_text("mine")
    (tmp_path / ".lock-holder.json").symlink_to(mine)
    with locked(tmp_path):
        assert not (tmp_path / ".lock-holder.json").is_symlink()
    (tmp_path / ".lock").unlink(missing_ok=True)
    (tmp_path / ".lock").symlink_to(mine)
    with pytest.raises(UserError, match="a link"), locked(tmp_path):
        pass
    assert mine.read_text() == "mine"


def test_a_closed_pipe_does_not_end_a_sweep() -> None:
    """As under `| head`: what is said is lost, what comes after it (runs, report) is done."""
    program = "import sys; from hpml_bench.launch.progress import SweepProgress\n"
    program += "from hpml_bench.report.terminal import terminal\n"
    program += "sys.stdin.read()\nwith SweepProgress(terminal(), 1) as progress: progress.say('lost')\n"
    program += "print('went on', file=sys.stderr)"
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", program], stdin=pipe, stdout=pipe, stderr=pipe, text=True) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stderr is not None
        child.stdout.close()
        child.stdin.close()
        assert child.stderr.read() == "went on\n"
