"""Control groups: their limits, by version, and those of the groups that they are in."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpml_bench.system import cgroups, environment

V2 = "30 23 0:28 / {mount} rw - cgroup2 cgroup2 rw\n"
V1 = "".join(
    f"{number} 23 0:28 / {{mount}}/{name} rw - cgroup cgroup rw,{name}\n"
    for number, name in enumerate(["memory", "pids", "cpu"])
)
V1_GROUPS = "5:memory:/a/b\n4:pids:/a/b\n3:cpu,cpuacct:/a/b\n"


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder in which control groups are mounted; `put` writes their files."""
    monkeypatch.setattr(cgroups, "GROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(cgroups, "MOUNTS", tmp_path / "mountinfo")
    return tmp_path


def put(kernel: Path, mounts: str, groups: str, files: dict[str, str]) -> None:
    (kernel / "mountinfo").write_text(mounts.format(mount=kernel / "mount"))
    (kernel / "cgroup").write_text(groups)
    for name, text in files.items():
        path = kernel / "mount" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_version_2(kernel: Path) -> None:
    """The smallest quota, and the budget with the least left, of a group and those that it is in; "max" is no limit."""
    put(kernel, V2, "0::/a/b\n", {
        "a/b/cpu.max": "max 100000\n", "a/cpu.max": "250000 100000\n",
        "a/b/memory.max": "3000\n", "a/b/memory.current": "2000\n", "a/b/memory.stat": "anon 5\ninactive_file 500\n",
        "a/memory.max": "1600\n", "a/memory.current": "1600\n", "a/memory.stat": "inactive_file 100\n",
        "a/b/pids.max": "max\n", "a/b/pids.current": "3\n", "a/pids.max": "9\n", "a/pids.current": "4\n",
    })  # fmt: skip
    assert cgroups.cpus() == 2.5
    assert cgroups.memory() == (1600, 1500)
    assert cgroups.processes() == (9, 4)
    assert cgroups.Budget(4, 9).free == 0


def test_version_1(kernel: Path) -> None:
    """The same from its files; a quota of -1 and a memory limit near 2 ** 63 are none."""
    whole = {"memory.limit_in_bytes": f"{2**63 - 4096}\n", "memory.usage_in_bytes": "9\n", "memory.stat": ""}
    put(kernel, V1, V1_GROUPS, {
        **{f"memory/a/b/{name}": text for name, text in whole.items()},
        "cpu/a/b/cpu.cfs_quota_us": "-1\n", "cpu/a/b/cpu.cfs_period_us": "100000\n",
    })  # fmt: skip
    assert (cgroups.cpus(), cgroups.memory(), cgroups.processes()) == (None, None, None)
    put(kernel, V1, V1_GROUPS, {
        "memory/a/memory.limit_in_bytes": "700\n", "memory/a/memory.usage_in_bytes": "600\n",
        "memory/a/memory.stat": "inactive_file 1\ntotal_inactive_file 200\n",
        "cpu/a/cpu.cfs_quota_us": "150000\n", "cpu/a/cpu.cfs_period_us": "100000\n",
        "pids/a/pids.max": "30\n", "pids/a/pids.current": "10\n",
    })  # fmt: skip
    assert cgroups.cpus() == 1.5
    assert cgroups.memory() == (700, 400)
    assert cgroups.processes() == (30, 10)


def test_without_control_groups_there_is_no_limit(kernel: Path) -> None:
    """Neither where the files are missing nor where they can't be understood."""
    assert (cgroups.cpus(), cgroups.memory(), cgroups.processes()) == (None, None, None)
    put(kernel, V2, "0::/\n", {"cpu.max": "lots\n", "memory.max": "", "pids.max": "max\n"})
    assert (cgroups.cpus(), cgroups.memory(), cgroups.processes()) == (None, None, None)


@pytest.mark.parametrize(("mounts", "groups", "file"), [
    (V2, "0::/slice/job\n", {"slice/cpu.max": "100000 100000\n"}),
    (V1, V1_GROUPS, {"cpu/a/b/cpu.cfs_quota_us": "120000\n", "cpu/a/b/cpu.cfs_period_us": "100000\n"}),
], ids=["2, of a group above", "1"])  # fmt: skip
def test_a_quota_wherever_it_is_makes_cores_fewer(
    mounts: str, groups: str, file: dict[str, str], kernel: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Threads are counted by it: of version 1 too, and of a group that isn't at the root of the mount."""
    monkeypatch.setattr(environment.os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.delenv("HPML_BENCH_CORES", raising=False)
    put(kernel, mounts, groups, file)
    assert environment.cores() == 1
    (kernel / "cgroup").unlink()
    assert environment.cores() == 8
