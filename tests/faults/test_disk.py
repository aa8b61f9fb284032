"""Disks that are full, read-only or bounded: told before a run where that can be foreseen, and nothing is torn."""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny
from conftest import endless

from hpml_bench import launch, store
from hpml_bench.errors import UserError
from hpml_bench.records import Prepared
from hpml_bench.supervision import reaper, storage

UNSHARE = ["unshare", "--user", "--map-root-user", "--mount"]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What `small_disk.py` tells, by the name of what it did."""
    probe = [*UNSHARE, "mount", "-t", "tmpfs", "none", str(tmp_path_factory.mktemp("probe"))]
    if not shutil.which("unshare") or subprocess.run(probe, capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount")
    folder = tmp_path_factory.mktemp("disk")
    suite = tiny.local_suite(tmp_path_factory.mktemp("suite"), steps=300, eval_every=300)
    script = [sys.executable, str(Path(__file__).with_name("small_disk.py")), str(suite), str(folder)]
    paths = os.pathsep.join(path for path in sys.path if path)
    done = subprocess.run(
        [*UNSHARE, *script], capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": paths}
    )
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    for entry in found:
        assert entry["exception"] is None, entry
        assert "Traceback" not in entry["said"], entry["said"]
        assert entry["problems"] == [], entry
        assert entry["temporary"] == [], entry
    return {entry["name"]: entry for entry in found}


def test_a_disk_too_small_is_foreseen(told: dict[str, dict[str, Any]]) -> None:
    """Status 2 and one sentence with how much is free and needed, before any run."""
    assert told["too small"]["status"] == 2
    assert "MB are free there, and a run needs 32" in told["too small"]["said"]
    assert told["too small"]["statuses"] == []


def test_a_disk_that_fills_up_costs_the_run_under_way(told: dict[str, dict[str, Any]]) -> None:
    """Status 2 and one sentence; the record made before is whole, and the run under way counts as not done."""
    entry = told["filled"]
    assert entry["status"] == 2, entry
    assert "No space left on device" in entry["said"] or "MB are free there" in entry["said"]
    assert entry["statuses"][:1] == ["ok"]
    assert entry["statuses"][1:] in ([], ["failed"])


def test_it_goes_on_when_there_is_space_again(told: dict[str, dict[str, Any]]) -> None:
    """While the disk is full nothing is lost; then the rest is done, and what was recorded isn't touched."""
    assert told["still full"]["status"] == 2
    assert told["still full"]["statuses"][:1] == ["ok"]
    assert told["freed"]["status"] == 0, told["freed"]
    assert told["freed"]["statuses"] == ["ok", "ok"]
    assert set(told["filled"]["stamps"]) & set(told["freed"]["stamps"])


def test_a_read_only_folder(told: dict[str, dict[str, Any]]) -> None:
    """Status 2 and one sentence; what is recorded stays readable."""
    assert told["read-only"]["status"] == 2
    assert "can't be written to" in told["read-only"]["said"] or "Read-only file system" in told["read-only"]["said"]
    assert told["read-only"]["statuses"] == ["ok", "ok"]


def test_a_file_size_limit(prepared: Prepared, tmp_path: Path) -> None:
    """A rank that may not write on fails with the reason in words; the next run is clean."""
    server = reaper.fork_server()
    assert server is not None
    before = resource.prlimit(server, resource.RLIMIT_FSIZE)
    resource.prlimit(server, resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        record = launch.run(endless(), prepared, tmp_path / "run")
    finally:
        resource.prlimit(server, resource.RLIMIT_FSIZE, before)
    assert record.status == "failed"
    assert record.error is not None
    assert "File too large" in record.error.message
    assert store.settled(tmp_path / "run") == record
    assert launch.run(tiny.spec("head"), prepared, tmp_path / "next").status == "ok"


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EFBIG, errno.EIO])
def test_errors_of_a_disk_are_one_sentence(code: int, tmp_path: Path) -> None:
    """With the file, the reason, and what becomes of the rest."""
    with pytest.raises(UserError, match=f"file.json: {os.strerror(code)}; .* goes on"), storage.told(tmp_path):
        raise OSError(code, os.strerror(code), "file.json")


def test_other_errors_are_not_taken_for_the_disks(tmp_path: Path) -> None:
    """A mistake of ours stays one."""
    with pytest.raises(FileNotFoundError), storage.told(tmp_path):
        (tmp_path / "nowhere/file").write_text("")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_an_atomic_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is as it was, and no temporary one lies beside it."""
    target = tmp_path / "run.json"
    target.write_text("old")
    opened = Path.open
    monkeypatch.setattr(
        Path, "open", lambda self, *a, **k: opened(Path("/dev/full") if self.suffix == ".tmp" else self, *a, **k)
    )
    with pytest.raises(OSError, match="No space left"):
        store.write_atomically(target, "new" * 10_000)
    monkeypatch.undo()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]
