"""Folders: what can't be written or locked stops quickstart where quickstart needs it."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import tempfile
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path

import pytest

from hpml_bench.doctor import folders
from hpml_bench.doctor.check import Check, Found, look
from hpml_bench.system import cache as system_cache
from hpml_bench.system import gpus

Usage = namedtuple("Usage", "total used free")


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


def only(check: Callable[[], Found]) -> Check:
    """Return the line of a check."""
    (line,) = look((check,))
    return line


@pytest.mark.parametrize("check", [folders.results_folder, folders.temporary_folder, folders.cache])
def test_a_folder_that_can_be_written_to(check: Callable[[], Found], tmp_path: Path, temporary: Path) -> None:
    """It may be missing; nothing is left behind, and no folder made."""
    line = only(check)
    assert (line.state, line.advice) == ("ok", "")
    assert str(tmp_path) in line.finding or str(temporary) in line.finding
    assert "free" in line.finding
    assert [*tmp_path.iterdir(), *temporary.iterdir()] == []


@pytest.mark.parametrize(
    ("check", "name", "state", "words"),
    [
        (folders.results_folder, "reports", "fail", "--out"),
        (folders.cache, "cache", "fail", "HPML_BENCH_CACHE"),
        (folders.datasets_cache, "datasets", "warn", "HF_DATASETS_CACHE"),
    ],
)
def test_a_folder_that_cannot_be_written_to(
    check: Callable[[], Found], name: str, state: str, words: str, tmp_path: Path
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

    monkeypatch.setattr(folders.tempfile, "TemporaryFile", refuse)
    line = only(folders.cache)
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
    line = only(folders.cache)
    assert line.state == "fail"
    assert "HPML_BENCH_CACHE" in line.advice
    line = only(folders.datasets_cache)
    assert (line.state, line.finding) == ("warn", "~/.cache/huggingface/datasets: this user has no home folder")


def test_the_hubs_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the hub's library puts it, with the size of its files, each counted once."""
    constants = pytest.importorskip("huggingface_hub").constants
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    (tmp_path / "hub" / "blobs").mkdir(parents=True)
    (tmp_path / "hub" / "blobs" / "a").write_bytes(b"0" * 3_000_000)
    (tmp_path / "hub" / "link").symlink_to("blobs/a")
    line = only(folders.hub_cache)
    assert line.state == "ok"
    assert line.finding.endswith("free, 3 MB in it")


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without room for a run quickstart can't run; with room for it, but not for most models, it is said."""
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10e9, 9.99e9, 10e6))
    assert only(folders.results_folder).state == "fail"
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10e9, 9.5e9, 500e6))
    line = only(folders.results_folder)
    assert line.state == "warn"
    assert "500 MB free" in line.finding


def test_a_file_system_without_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs lock their folders: it stops them."""

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    line = only(folders.results_folder)
    assert line.state == "fail"
    assert "can't lock files" in line.finding


def test_a_folder_for_temporary_files_that_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python takes another one, which is said."""
    monkeypatch.setenv("TMPDIR", str(tmp_path / "none"))
    line = only(folders.temporary_folder)
    assert line.state == "warn"
    assert str(tmp_path / "none") in line.finding


def test_a_folder_for_temporary_files_with_a_long_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sockets can't be made in it: it stops quickstart."""
    long = tmp_path / ("n" * 90)
    long.mkdir()
    monkeypatch.setenv("TMPDIR", str(long))
    line = only(folders.temporary_folder)
    assert line.state == "fail"
    assert "too long" in line.finding


def test_no_folder_for_temporary_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python finds none at all."""

    def none() -> str:
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr(tempfile, "gettempdir", none)
    assert only(folders.temporary_folder).state == "fail"


@pytest.mark.parametrize(("cards", "free", "state"), [(0, 64e6, "ok"), (2, 64e6, "warn"), (2, 8e9, "ok")])
def test_shared_memory(cards: int, free: float, state: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Docker's 64 MB are too few for several GPUs, and enough without."""
    monkeypatch.setattr(gpus, "visible_gpus", lambda: ({"name": "GPU"},) * cards)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(free, 0, free))
    line = only(folders.shared_memory)
    assert line.state == state
    assert ("--shm-size" in line.advice) == (state == "warn")
