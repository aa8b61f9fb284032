"""A sweep where the kernel lacks what only Linux has: prctl, the cores that a process may use, and /proc."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from helpers import tiny
from hpml_bench.suite import devices
from hpml_bench.system import gpus
from hpml_bench.system.errors import UserError

TAKEN_AWAY = """
import ctypes, os, pathlib, sys

print("taken away", file=sys.stderr)
for name in ("sched_getaffinity", "sched_setaffinity", "waitid"):
    delattr(os, name)
for call in ("read_text", "write_text", "stat"):
    def refused(path, *of, own=getattr(pathlib.Path, call), **how):
        if str(path).startswith("/proc/"):
            raise FileNotFoundError(str(path))
        return own(path, *of, **how)

    setattr(pathlib.Path, call, refused)
find = ctypes.CDLL.__getattr__

def without(library, name):
    if name in {"prctl", "adjtimex", "malloc_trim"}:
        raise AttributeError(name)
    return find(library, name)

ctypes.CDLL.__getattr__ = without
"""
"""Runs at the start of every process of the sweep."""


def test_a_sweep_needs_nothing_of_linux(tmp_path: Path) -> None:
    """A run of two ranks, by a job in its part of the machine, ends well."""
    (tmp_path / "sitecustomize.py").write_text(TAKEN_AWAY)
    suite = tiny.local_suite(tmp_path)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(Path(__file__).parents[2])])}
    words = ["run-all", str(suite), "--seeds", "1", "--methods", "head", "--parallel", "2"]
    command = [sys.executable, "-m", "hpml_bench", *words, "--out", str(tmp_path / "out")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert "taken away" in done.stderr
    assert done.returncode == 0, done.stdout + done.stderr
    assert {record.status for record in tiny.records(tmp_path / "out").values()} == {"ok"}


@pytest.mark.parametrize(
    ("build", "machine", "words"),
    [
        ("2.13.0+rocm7.0", ("linux", "x86_64"), "AMD GPUs (ROCm)"),
        ("2.13.0+xpu", ("linux", "x86_64"), "Intel GPUs (XPU)"),
        ("2.13.0", ("darwin", "arm64"), "Apple GPUs (MPS)"),
        ("2.13.0+cpu", ("linux", "x86_64"), ""),
        ("2.13.0+cu130", ("linux", "x86_64"), ""),
    ],
)
def test_other_gpus_are_told(
    build: str,
    machine: tuple[str, str],
    words: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By the installed torch: runs are on the CPU, as one sentence says, once; and where a GPU was asked for."""
    monkeypatch.setattr(gpus, "visible_gpus", lambda: ())
    monkeypatch.setattr(gpus, "version", lambda _: build)
    monkeypatch.setattr(gpus.sys, "platform", machine[0])
    monkeypatch.setattr(gpus.platform, "machine", lambda: machine[1])
    devices._tell_once.cache_clear()
    for _ in range(2):
        assert devices.resolve_devices(tiny.settings(device="auto", precision="fp32")).device == "cpu"
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == bool(words)
    assert all(words in line and "CPU" in line for line in told)
    with pytest.raises(UserError) as caught:
        devices.resolve_devices(tiny.settings(device="cuda", precision="fp32"))
    assert words in str(caught.value)
