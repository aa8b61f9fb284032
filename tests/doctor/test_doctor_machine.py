"""The machine: cores, memory, processes and clock; folders, of which some stop quickstart if
they can't be used.
"""

import errno
import fcntl
import os
import resource
import shutil
import tempfile
import time
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import psutil
import pytest
from huggingface_hub import constants

from hpml_bench.doctor import machine
from hpml_bench.doctor.checks import run_checks
from hpml_bench.doctor.machine import Result
from hpml_bench.system import cache as system_cache
from hpml_bench.system import cgroups, environment, gpus

GB, NONE = 1_000_000_000, resource.RLIM_INFINITY
Usage = namedtuple("Usage", "total used free")


def only(check: Callable[[], Result]) -> Result:
    (line,) = run_checks((check,))
    return line


class Here:
    """A machine of 8 cores and 16 GB, without limits, whose clock is set, and an empty folder
    with all caches.
    """

    def __init__(self, folder: Path, temporary: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder, self.patch, self.control_group = folder, patch, temporary / "group"
        self.control_group.mkdir()
        (temporary / "mountinfo").write_text(
            f"30 23 0:28 / {self.control_group} rw - cgroup2 cgroup2 rw\n"
        )
        (temporary / "cgroup").write_text("0::/\n")
        patch.setattr(cgroups, "GROUPS", temporary / "cgroup")
        patch.setattr(cgroups, "MOUNTS", temporary / "mountinfo")
        patch.setattr(os, "cpu_count", lambda: 8)
        patch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
        patch.setattr(environment, "processor", lambda: "Some CPU")
        patch.setattr(tempfile, "tempdir", None)
        patch.delenv("HPML_BENCH_CORES", raising=False)
        patch.chdir(folder)
        self.temporary = temporary / "t"
        self.temporary.mkdir()
        self.variables(
            TMPDIR=self.temporary,
            HPML_BENCH_CACHE=folder / "cache",
            HF_DATASETS_CACHE=folder / "datasets",
        )
        self.memory(16 * GB, 12 * GB)
        self.shell()

    def group(self, **files: object) -> None:
        """Write files of the control group of version 2, `cpu_max` as cpu.max."""
        for name, content in files.items():
            (self.control_group / name.replace("_", ".", 1)).write_text(f"{content}\n")

    def memory(self, total: int, free: int) -> None:
        self.patch.setattr(
            psutil, "virtual_memory", lambda: SimpleNamespace(total=total, available=free)
        )

    def shell(self, files: int = 4096, space: int = NONE) -> None:
        found = {resource.RLIMIT_NOFILE: files, resource.RLIMIT_AS: space}
        self.patch.setattr(resource, "getrlimit", lambda kind: (found[kind], found[kind]))

    def variables(self, **values: object) -> None:
        for name, value in values.items():
            if value is None:
                self.patch.delenv(name, raising=False)
            else:
                self.patch.setenv(name, str(value))

    def disk(self, free: float) -> None:
        self.patch.setattr(shutil, "disk_usage", lambda _: Usage(10e9, 10e9 - free, free))

    def cards(self, number: int) -> None:
        self.patch.setattr(gpus, "visible_gpus", lambda: ({"name": "GPU"},) * number)

    def clock(self, later: float) -> None:
        now = time.time
        self.patch.setattr(machine.time, "time", lambda: now() + later)

    def unwritable(self) -> None:
        self.patch.setattr(machine.tempfile, "TemporaryFile", fails(errno.EROFS))

    def read_only_home(self) -> None:
        self.variables(HPML_BENCH_CACHE=None, XDG_CACHE_HOME=None, HOME=self.folder / "home")
        self.unwritable()

    def homeless(self) -> None:
        """Be a user without a home, as a number without a name in a container."""
        self.variables(HPML_BENCH_CACHE=None, HF_DATASETS_CACHE=None)
        self.patch.setattr(
            system_cache.platformdirs, "user_cache_path", Mock(side_effect=RuntimeError("no home"))
        )
        self.patch.setattr(constants, "HF_HOME", "~/.cache/huggingface")
        self.patch.setattr(os.path, "expanduser", lambda path: path)

    def long_temporary(self) -> None:
        (self.folder / ("n" * 90)).mkdir()
        self.variables(TMPDIR=self.folder / ("n" * 90))


@pytest.fixture
def here(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Here:
    return Here(tmp_path, tmp_path_factory.mktemp("t"), monkeypatch)


def fails(number: int = 0) -> Mock:
    return Mock(side_effect=OSError(number, os.strerror(number)) if number else FileNotFoundError)


IN_GROUP = {"memory_max": 4 * GB, "memory_stat": f"inactive_file {GB}"}
HOME = "~/.cache/huggingface/datasets: this user has no home folder"
READ_ONLY = "/home/.cache/hpml-bench can't be written to (Read-only file system)"
CASES: list[tuple[Callable[[], Result], Callable[[Here], object], str, str, str]] = [
    (machine.processor, lambda _: 0, "ok", "Some CPU, 8 of 8 cores", ""),
    (
        machine.processor,
        lambda h: h.group(cpu_max="250000 100000"),
        "ok",
        "2 of 8 cores, by the container's quota",
        "",
    ),
    (
        machine.processor,
        lambda h: h.patch.setattr(os, "sched_getaffinity", lambda _: {3}),
        "ok",
        "1 of 8 cores, by affinity",
        "",
    ),
    (machine.memory, lambda _: 0, "ok", "12.0 GB free of 16.0 GB", ""),
    (
        machine.memory,
        lambda h: h.group(**IN_GROUP, memory_current=2 * GB),
        "ok",
        "3.0 GB free of the container's 4.0 GB (machine: 16.0 GB)",
        "",
    ),
    (
        machine.memory,
        lambda h: h.group(**IN_GROUP, memory_current=4 * GB),
        "fail",
        "1.0 GB free",
        "needs 1.2 GB",
    ),
    (machine.memory, lambda h: h.memory(GB, GB // 2), "fail", "500 MB free", ""),
    (
        machine.limits,
        lambda h: h.shell(files=NONE),
        "ok",
        "any number of open files, no limit on processes",
        "",
    ),
    (
        machine.limits,
        lambda h: h.group(pids_max=512, pids_current=12),
        "ok",
        "4,096 open files, 500 more processes of 512",
        "",
    ),
    (
        machine.limits,
        lambda h: h.group(pids_max=512, pids_current=500),
        "fail",
        "12 more",
        "--pids-limit",
    ),
    (machine.limits, lambda h: h.shell(files=256), "warn", "256 open files", "ulimit -n"),
    (machine.limits, lambda h: h.shell(space=8 * GB), "warn", "8.0 GB of addresses", "ulimit -v"),
    (machine.clock, lambda _: 0, "ok", "agrees with the file system's", ""),
    (machine.clock, lambda h: h.unwritable(), "ok", "not compared", ""),
    (machine.clock, lambda h: h.clock(60.0), "warn", "60.0 s ahead of", ""),
    (machine.clock, lambda h: h.clock(-60.0), "warn", "60.0 s behind", ""),
    (machine.results_folder, lambda h: (h.folder / "reports").touch(), "fail", "/reports", "--out"),
    (machine.results_folder, lambda h: h.disk(10e6), "fail", "", ""),
    (machine.results_folder, lambda h: h.disk(500e6), "warn", "500 MB free", ""),
    (
        machine.results_folder,
        lambda h: h.patch.setattr(fcntl, "flock", fails(errno.ENOLCK)),
        "fail",
        "can't lock",
        "",
    ),
    (machine.cache, lambda h: (h.folder / "cache").touch(), "fail", "/cache", "HPML_BENCH_CACHE"),
    (machine.cache, lambda h: h.read_only_home(), "fail", READ_ONLY, "set HPML_BENCH_CACHE"),
    (machine.cache, lambda h: h.homeless(), "fail", "", "HPML_BENCH_CACHE"),
    (
        machine.datasets_cache,
        lambda h: (h.folder / "datasets").touch(),
        "warn",
        "/datasets",
        "HF_DATASETS_CACHE",
    ),
    (machine.datasets_cache, lambda h: h.homeless(), "warn", HOME, ""),
    (
        machine.hub_cache,
        lambda h: h.patch.setattr(constants, "HF_HUB_CACHE", f"{h.folder}/hub"),
        "ok",
        "/hub: writable",
        "",
    ),
    (
        machine.temporary_folder,
        lambda h: h.variables(TMPDIR=h.folder / "none"),
        "warn",
        "/none",
        "",
    ),
    (machine.temporary_folder, lambda h: h.long_temporary(), "fail", "too long", ""),
    (
        machine.temporary_folder,
        lambda h: h.patch.setattr(tempfile, "gettempdir", fails()),
        "fail",
        "",
        "",
    ),
    (machine.shared_memory, lambda h: (h.cards(0), h.disk(64e6)), "ok", "64 MB free", ""),
    (
        machine.shared_memory,
        lambda h: (h.cards(2), h.disk(64e6)),
        "warn",
        "64 MB free",
        "--shm-size",
    ),  # Docker's own
    (machine.shared_memory, lambda h: (h.cards(2), h.disk(8e9)), "ok", "8.0 GB free", ""),
]
"""Checks, what makes a machine, and the line's state, a part of its finding, and of its advice."""


@pytest.mark.parametrize(("check", "make", "state", "finding", "advice"), CASES)
def test_the_line_of_a_check(
    check: Callable[[], Result],
    make: Callable[[Here], object],
    state: str,
    finding: str,
    advice: str,
    here: Here,
) -> None:
    """Its state, a part of what it found, and what to do about it where it isn't ok."""
    make(here)
    line = only(check)
    assert (line.state, finding in line.finding, advice in line.advice) == (state, True, True), line
    assert line.state != "ok" or not line.advice


@pytest.mark.parametrize("check", [machine.results_folder, machine.temporary_folder, machine.cache])
def test_a_folder_that_can_be_written_to(check: Callable[[], Result], here: Here) -> None:
    """It may be missing; nothing is left behind, and no folder made."""
    line = only(check)
    assert (line.state, "free" in line.finding) == ("ok", True)
    assert str(here.folder) in line.finding or str(here.temporary) in line.finding
    assert [*here.folder.iterdir(), *here.temporary.iterdir()] == []
