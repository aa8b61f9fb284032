"""The machine: cores, memory, processes and clock; folders, of which some stop quickstart if they can't be used."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import shutil
import tempfile
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from hpml_bench.doctor import machine
from hpml_bench.doctor.checks import run_checks
from hpml_bench.doctor.machine import Result
from hpml_bench.system import cache as system_cache
from hpml_bench.system import cgroups, environment, gpus

GB = 1_000_000_000


Usage = namedtuple("Usage", "total used free")


def only(check: Callable[[], Result]) -> Result:
    """Return the line of a check."""
    (line,) = run_checks((check,))
    return line


@pytest.fixture(autouse=True)
def group(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a control group of version 2, without limits, on a machine of 8 cores and 16 GB."""
    tmp_path = tmp_path_factory.mktemp("groups")
    folder = tmp_path / "group"
    folder.mkdir()
    (tmp_path / "mountinfo").write_text(f"30 23 0:28 / {folder} rw - cgroup2 cgroup2 rw\n")
    (tmp_path / "cgroup").write_text("0::/\n")
    monkeypatch.setattr(cgroups, "GROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(cgroups, "MOUNTS", tmp_path / "mountinfo")
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=16 * GB, available=12 * GB))
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setattr(environment, "processor", lambda: "Some CPU")
    monkeypatch.delenv("HPML_BENCH_CORES", raising=False)
    limits(monkeypatch)
    return folder


def limits(monkeypatch: pytest.MonkeyPatch, files: int = 4096, space: int = resource.RLIM_INFINITY) -> None:
    """Set the shell's limits, as they are read."""
    found = {resource.RLIMIT_NOFILE: files, resource.RLIMIT_AS: space}
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (found[kind], found[kind]))


def test_the_cores_that_a_run_may_use(group: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them; fewer by the container's quota, or by affinity."""
    assert only(machine.processor).finding == "Some CPU, 8 of 8 cores"
    (group / "cpu.max").write_text("250000 100000\n")
    assert only(machine.processor).finding == "Some CPU, 2 of 8 cores, by the container's quota of 2.5"
    (group / "cpu.max").unlink()
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3})
    assert only(machine.processor).finding == "Some CPU, 1 of 8 cores, by affinity or the job's share"


def test_memory_of_the_machine_and_of_the_container(group: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is left of the smaller one counts; with less than quickstart needs it can't run."""
    assert only(machine.memory) == Result("ok", "12.0 GB free of 16.0 GB", name="memory")
    (group / "memory.max").write_text(f"{4 * GB}\n")
    (group / "memory.current").write_text(f"{2 * GB}\n")
    (group / "memory.stat").write_text(f"inactive_file {GB}\n")
    line = only(machine.memory)
    assert (line.state, line.finding) == ("ok", "3.0 GB free of the container's 4.0 GB (machine: 16.0 GB)")
    (group / "memory.current").write_text(f"{4 * GB}\n")
    line = only(machine.memory)
    assert line.state == "fail"
    assert "1.0 GB free" in line.finding
    assert "quickstart needs 1.2 GB" in line.advice
    (group / "memory.max").write_text("max\n")
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=GB, available=GB // 2))
    assert only(machine.memory).state == "fail"


def test_processes_of_the_container(group: Path) -> None:
    """With too few left, quickstart can't start its own."""
    assert "no limit on processes" in only(machine.limits).finding
    (group / "pids.max").write_text("512\n")
    (group / "pids.current").write_text("12\n")
    line = only(machine.limits)
    assert (line.state, line.finding) == ("ok", "4,096 open files, 500 more processes of 512")
    (group / "pids.current").write_text("500\n")
    line = only(machine.limits)
    assert line.state == "fail"
    assert "--pids-limit" in line.advice


def test_limits_of_the_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few open files, or few addresses, stop larger work alone."""
    limits(monkeypatch, files=256)
    assert (only(machine.limits).state, "ulimit -n" in only(machine.limits).advice) == ("warn", True)
    limits(monkeypatch, space=8 * GB)
    assert (only(machine.limits).state, "ulimit -v" in only(machine.limits).advice) == ("warn", True)
    limits(monkeypatch, files=resource.RLIM_INFINITY)
    assert only(machine.limits).finding == "any number of open files, no limit on processes"


@pytest.mark.parametrize(
    ("kernel", "state", "words"),
    [
        ((True, 0.012), "ok", "set by a time server, at most 0.012 s off"),
        ((False, 16.0), "warn", "no time server"),
        ((None, 0.0), "ok", "not known"),
    ],
)
def test_the_kernels_word_on_the_clock(
    kernel: tuple[bool | None, float], state: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Synchronised or not, or not known in a container that hides it; also where the folder can't be written to."""
    monkeypatch.setattr(machine, "_kernel_clock", lambda: kernel)
    line = only(machine.clock)
    assert line.state == state
    assert words in line.finding
    monkeypatch.setattr(machine.tempfile, "TemporaryFile", unwritable)
    assert only(machine.clock) == line


def unwritable(**_: object) -> None:
    """Refuse, as in a folder that is read-only."""
    raise OSError(30, "Read-only file system")


@pytest.mark.parametrize(("later", "words"), [(60.0, "60.0 s ahead of"), (-60.0, "60.0 s behind")])
def test_a_clock_unlike_the_file_systems(later: float, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a network drive whose server has another time."""
    now = machine.time.time
    monkeypatch.setattr(machine.time, "time", lambda: now() + later)
    line = only(machine.clock)
    assert line.state == "warn"
    assert words in line.finding


def test_the_kernel_is_asked() -> None:
    """The answer is a state and an error in seconds, or that it is not known."""
    synchronised, error = machine._kernel_clock()
    assert synchronised in {True, False, None}
    assert 0 <= error < 1000


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in an empty folder, with all caches in it; return that of temporary files, whose path is short."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", None)
    folder = tmp_path_factory.mktemp("t")
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setenv("HPML_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "datasets"))
    return folder


@pytest.mark.parametrize("check", [machine.results_folder, machine.temporary_folder, machine.cache])
def test_a_folder_that_can_be_written_to(check: Callable[[], Result], tmp_path: Path, temporary: Path) -> None:
    """It may be missing; nothing is left behind, and no folder made."""
    line = only(check)
    assert (line.state, line.advice) == ("ok", "")
    assert str(tmp_path) in line.finding or str(temporary) in line.finding
    assert "free" in line.finding
    assert [*tmp_path.iterdir(), *temporary.iterdir()] == []


@pytest.mark.parametrize(
    ("check", "name", "state", "words"),
    [
        (machine.results_folder, "reports", "fail", "--out"),
        (machine.cache, "cache", "fail", "HPML_BENCH_CACHE"),
        (machine.datasets_cache, "datasets", "warn", "HF_DATASETS_CACHE"),
    ],
)
def test_a_folder_that_cannot_be_written_to(
    check: Callable[[], Result], name: str, state: str, words: str, tmp_path: Path
) -> None:
    """Here a file stands in its place, which root can't write into either; the advice names what to set."""
    (tmp_path / name).touch()
    line = only(check)
    assert line.state == state
    assert f"{tmp_path / name}" in line.finding
    assert words in line.advice


def test_a_home_that_is_read_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache in it can't be made, without which nothing can be prepared; HPML_BENCH_CACHE helps."""
    monkeypatch.delenv("HPML_BENCH_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))

    def refuse(**_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(machine.tempfile, "TemporaryFile", refuse)
    line = only(machine.cache)
    assert line.state == "fail"
    assert line.finding == f"{tmp_path}/home/.cache/hpml-bench can't be written to (Read-only file system)"
    assert line.advice == "set HPML_BENCH_CACHE to another folder"


def test_a_user_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a number without a name in a container: where the cache would be isn't known, and run-all says so too."""

    def unknown(_: str) -> None:
        raise RuntimeError("could not determine the home directory")

    for name in ("HPML_BENCH_CACHE", "HF_DATASETS_CACHE"):
        monkeypatch.delenv(name)
    monkeypatch.setattr(system_cache.platformdirs, "user_cache_path", unknown)
    constants = pytest.importorskip("huggingface_hub").constants
    monkeypatch.setattr(constants, "HF_HOME", "~/.cache/huggingface")
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    line = only(machine.cache)
    assert line.state == "fail"
    assert "HPML_BENCH_CACHE" in line.advice
    line = only(machine.datasets_cache)
    assert (line.state, line.finding) == ("warn", "~/.cache/huggingface/datasets: this user has no home folder")


def test_the_hubs_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the hub's library puts it, with the size of its files, each counted once."""
    constants = pytest.importorskip("huggingface_hub").constants
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    (tmp_path / "hub" / "blobs").mkdir(parents=True)
    (tmp_path / "hub" / "blobs" / "a").write_bytes(b"0" * 3_000_000)
    (tmp_path / "hub" / "link").symlink_to("blobs/a")
    line = only(machine.hub_cache)
    assert line.state == "ok"
    assert line.finding.endswith("free, 3 MB in it")


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without room for a run quickstart can't run; with room for it, but not for most models, it is said."""
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10e9, 9.99e9, 10e6))
    assert only(machine.results_folder).state == "fail"
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10e9, 9.5e9, 500e6))
    line = only(machine.results_folder)
    assert line.state == "warn"
    assert "500 MB free" in line.finding


def test_a_file_system_without_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs lock their folders: it stops them."""

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    line = only(machine.results_folder)
    assert line.state == "fail"
    assert "can't lock files" in line.finding


def test_a_folder_for_temporary_files_that_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python takes another one, which is said."""
    monkeypatch.setenv("TMPDIR", str(tmp_path / "none"))
    line = only(machine.temporary_folder)
    assert line.state == "warn"
    assert str(tmp_path / "none") in line.finding


def test_a_folder_for_temporary_files_with_a_long_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sockets can't be made in it: it stops quickstart."""
    long = tmp_path / ("n" * 90)
    long.mkdir()
    monkeypatch.setenv("TMPDIR", str(long))
    line = only(machine.temporary_folder)
    assert line.state == "fail"
    assert "too long" in line.finding


def test_no_folder_for_temporary_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python finds none at all."""

    def none() -> str:
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr(tempfile, "gettempdir", none)
    assert only(machine.temporary_folder).state == "fail"


@pytest.mark.parametrize(("cards", "free", "state"), [(0, 64e6, "ok"), (2, 64e6, "warn"), (2, 8e9, "ok")])
def test_shared_memory(cards: int, free: float, state: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Docker's 64 MB are too few for several GPUs, and enough without."""
    monkeypatch.setattr(gpus, "visible_gpus", lambda: ({"name": "GPU"},) * cards)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(free, 0, free))
    line = only(machine.shared_memory)
    assert line.state == state
    assert ("--shm-size" in line.advice) == (state == "warn")
