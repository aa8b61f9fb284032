"""Disks that are full, read-only or bounded: told before a run where that can be foreseen, and
nothing is torn.
"""

import errno
import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from faulty_runs import endless

from helpers import skips, tiny
from hpml_bench.data.prepared import Prepared
from hpml_bench.records.files import KEPT, PREDICTIONS
from hpml_bench.records.load import read_record
from hpml_bench.system import cache, disk, processes
from hpml_bench.system.errors import UserError

Told = Callable[..., list[dict[str, Any]]]
UNSHARE = ["unshare", "--user", "--map-root-user", "--mount"]


@pytest.fixture(scope="module")
def unshared(tmp_path_factory: pytest.TempPathFactory) -> Told:
    """Return a function that runs `small_disk.py` where it may mount, and returns what that
    tells.
    """
    probe = [*UNSHARE, "mount", "-t", "tmpfs", "none", str(tmp_path_factory.mktemp("probe"))]
    if (
        not shutil.which("unshare")
        or subprocess.run(probe, capture_output=True, check=False).returncode
    ):
        skips.only_as_root("this user may not mount")

    def run(*arguments: Path, **variables: str) -> list[dict[str, Any]]:
        script = Path(__file__).with_name("small_disk.py")
        command = [*UNSHARE, sys.executable, *map(str, (script, *arguments))]
        paths = os.pathsep.join(path for path in sys.path if path)
        environment = {**os.environ, "PYTHONPATH": paths, **variables}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    return run


@pytest.fixture(scope="module")
def told(unshared: Told, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What is told of disks of results, by the name of what was done."""
    suite = tiny.local_suite(tmp_path_factory.mktemp("suite"), steps=300, eval_every=300)
    found = unshared(suite, tmp_path_factory.mktemp("disk"))
    for entry in found:
        assert entry["exception"] is None, entry
        assert "Traceback" not in entry["said"], entry["said"]
        assert entry["problems"] == [], entry
        assert entry["temporary"] == [], entry
    return {entry["name"]: entry for entry in found}


@pytest.mark.disks
def test_a_disk_costs_at_most_the_run_under_way(told: dict[str, dict[str, Any]]) -> None:
    """Too small: foreseen. Filled: one sentence. Then the rest is done, and what was recorded
    isn't touched.
    """
    for name, status, words, statuses in (
        ("too small", 2, ("MB are free there, and a run needs 32",), [[]]),
        ("filled", 2, ("No space left on device", "MB are free there"), [["ok"], ["ok", "failed"]]),
        ("still full", 2, ("",), [["ok"], ["ok", "failed"]]),
        ("freed", 0, ("",), [["ok", "ok"]]),
        ("read-only", 2, ("can't be written to", "Read-only file system"), [["ok", "ok"]]),
    ):
        entry = told[name]
        assert (entry["status"], entry["statuses"] in statuses) == (status, True), entry
        assert any(part in entry["said"] for part in words), entry
    assert set(told["filled"]["stamps"]) & set(told["freed"]["stamps"])


@pytest.fixture(scope="module")
def cache_told(
    unshared: Told, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[int, str]]:
    """Status and words of sweeps with disks of a cache, by name; the cache is called CACHE in
    the words.
    """
    suite, cache = (
        tiny.local_suite(tmp_path_factory.mktemp("suite")),
        tmp_path_factory.mktemp("cache"),
    )
    rows = suite.with_name("rows.csv")
    rows.write_text(
        rows.read_text() + "".join(f"red,w{row % 100}{' w9' * 15}\n" for row in range(20_000))
    )
    found = unshared(suite, HPML_BENCH_CACHE=str(cache))
    told = {
        entry["name"]: (entry["status"], entry["error"].replace(str(cache), "CACHE"))
        for entry in found
    }
    assert told["enough"][0] == 0, told["enough"]
    return told


FULL = (
    "the cache CACHE: No space left on device; free some space there if it is full, or set "
    "HPML_BENCH_CACHE to a "
)
FULL += "folder on another disk"


@pytest.mark.disks
@pytest.mark.parametrize(
    ("what", "told"),
    [
        (
            "too small",
            "CACHE: 8 MB are free there, and the preparation of model and data needs 32; free some "
            "space, or set HPML_BENCH_CACHE to a folder on another disk",
        ),
        (
            "read-only",
            "the cache CACHE can't be written to; set HPML_BENCH_CACHE to another folder",
        ),
        ("reading the rows", FULL),
        ("labelling the rows", FULL),
        ("tokenising the rows", FULL),
        ("fetching a wheel", FULL),
    ],
)
def test_a_cache_that_cannot_be_filled(
    what: str, told: str, cache_told: dict[str, tuple[int, str]]
) -> None:
    """Status 2 and one sentence that names the cache and how to move it; nothing else is blamed,
    no traceback.
    """
    assert cache_told[what] == (2, f"hpml-bench: {told}\n")


def test_only_the_caches_disk_is_the_caches() -> None:
    """An error of the disk is told of where it is, also of one in a chain or in the words of a
    library in Rust.
    """
    full = OSError(errno.ENOSPC, "full", str(cache.cache_folder() / "file"))
    wrapped = RuntimeError("wrapped")
    wrapped.__cause__ = full
    assert "the cache" in str(cache.disk_error(wrapped))
    assert "the cache" in str(
        cache.disk_error(ValueError("I/O error: No space left on device (os error 28)"))
    )
    assert str(cache.disk_error(OSError(errno.ENOSPC, "full", "/else/file"))).startswith(
        "/else/file: No space"
    )
    assert cache.disk_error(PermissionError(errno.EACCES, "no", "/else/rows.csv")) is None
    assert "the cache" in str(
        cache.disk_error(PermissionError(errno.EACCES, "no", str(cache.cache_folder() / "x")))
    )
    assert cache.disk_error(ValueError("28")) is None


@contextmanager
def files_at_most(size: int) -> Iterator[None]:
    """Limit the size of files that ranks may write, in bytes."""
    server = processes.fork_server()
    before = resource.prlimit(server, resource.RLIMIT_FSIZE)
    resource.prlimit(server, resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.prlimit(server, resource.RLIMIT_FSIZE, before)


def test_a_file_size_limit(prepared: Prepared, tmp_path: Path) -> None:
    """A rank that may not write on fails with the reason in words; the next run is clean."""
    with files_at_most(20_000):
        record = tiny.run(endless(), prepared, tmp_path / "run")
    assert record.status == "failed"
    assert "File too large" in record.error.message
    assert read_record(tmp_path / "run") == record
    assert tiny.run(tiny.spec("head"), prepared, tmp_path / "next").status == "ok"


def test_trained_parts_that_cant_be_written(prepared: Prepared, tmp_path: Path) -> None:
    """The run has failed like any other, and half of them is not kept."""
    folder = tmp_path / "run"
    with files_at_most(60_000):
        record = tiny.run(tiny.spec("full"), prepared, folder, save_to=folder / KEPT)
    assert (record.status, record.kept) == ("failed", {})
    assert "File too large" in record.error.message
    assert (folder / PREDICTIONS).exists()
    assert not (folder / KEPT).exists()


@pytest.mark.parametrize(
    "code", [errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ENOENT]
)
def test_errors_of_a_disk_are_one_sentence(code: int, tmp_path: Path) -> None:
    """With the file, the reason, and what becomes of the rest; another error, a mistake of ours,
    stays one.
    """
    error = OSError(code, os.strerror(code), "file.json")
    kind, told = (UserError, "; .* goes on") if code != errno.ENOENT else (FileNotFoundError, "")
    with (
        pytest.raises(kind, match=os.strerror(code) + told) as caught,
        disk.errors_as_user_errors(tmp_path),
    ):
        raise error
    assert "file.json" in str(caught.value)
