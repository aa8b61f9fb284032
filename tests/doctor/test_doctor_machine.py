"""The machine: cores, memory and processes of the container, the clock."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from hpml_bench.doctor import machine
from hpml_bench.doctor.check import Check, Found, look
from hpml_bench.system import cgroups, environment

GB = 1_000_000_000


@pytest.fixture(autouse=True)
def group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a control group of version 2, without limits, on a machine of 8 cores and 16 GB."""
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


def only(check: Callable[[], Found]) -> Check:
    """Return the line of a check."""
    (line,) = look((check,))
    return line


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
    assert only(machine.memory) == Check("memory", "ok", "12.0 GB free of 16.0 GB")
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
